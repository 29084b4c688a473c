"""What the throwaway server lacks: not verified with a reason, or proved on the server that the configuration names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.manifest import NAME, encode
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import NotVerifiable
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.toolchain import Toolchain, reachable
from gs_backup_assets.recovery.dumps.servers import throwaway_server, verification_server, what_lacks
from gs_backup_assets.system.account import server_account
from gs_backup_assets_tests.chain import Chain, chain_in, codes, execute, failures
from gs_backup_assets_tests.conftest import toolchain_of

_VARIABLE = "TEST_VERIFICATION_URL"
_CONTROL = "comment = 'tunings'\ndefault_version = '1.0'\nrelocatable = false\nschema = tunings\n"
_SCRIPT = """
CREATE TABLE tuning (name text PRIMARY KEY, notes text, standard boolean NOT NULL DEFAULT false);
INSERT INTO tuning VALUES ('standard', 'EADGBE', true);
CREATE TABLE cache (id integer);
CREATE SEQUENCE counter;
SELECT pg_extension_config_dump('tuning', 'WHERE NOT tuning.standard');
SELECT pg_extension_config_dump('counter', '');
"""
_SQL = (
    "CREATE EXTENSION guitar_tunings",
    "INSERT INTO tunings.tuning VALUES ('drop d', 'DADGBE')",
    "INSERT INTO tunings.cache VALUES (1)",  # not configuration: the extension's own, which a dump leaves out
    "SELECT nextval('tunings.counter')",
    "CREATE TABLE song (id integer PRIMARY KEY, tuning text REFERENCES tunings.tuning)",
    "INSERT INTO song VALUES (1, 'drop d'), (2, 'standard')",
    "CREATE ROLE verification_owner",
    "ALTER TABLE song OWNER TO verification_owner",
    "GRANT SELECT ON song TO verification_owner",
    "CREATE POLICY everyone ON song USING (true)",
    "SELECT lo_from_bytea(7, 'tab')",
    "ALTER LARGE OBJECT 7 OWNER TO verification_owner",
)


@pytest.fixture(scope="module")
def with_extension() -> Iterator[Toolchain]:
    """The programs of PostgreSQL 17 once more, with an extension that the ones on this machine do not have."""
    original = reachable(toolchain_of(17), server_account())
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        install = Path(folder) / "install"

        def link(source: str, destination: str) -> None:
            try:
                os.link(source, destination)
            except OSError:
                shutil.copy2(source, destination)

        shutil.copytree(original.bin.parent, install, symlinks=True, copy_function=link)
        toolchain = Toolchain(install / "bin", original.release, "copy")
        extensions = toolchain.share / "extension"
        assert extensions.is_relative_to(install)
        (extensions / "guitar_tunings.control").write_text(_CONTROL)
        (extensions / "guitar_tunings--1.0.sql").write_text(_SCRIPT)
        yield toolchain


@pytest.fixture(scope="module")
def taken(with_extension: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A backup of a database that needs the extension; its server is gone."""
    chain = chain_in(tmp_path_factory.mktemp("store"), verification={"server_url_env": _VARIABLE})
    with running_cluster(with_extension, purpose="source", superuser="somebody") as source:
        execute(source.target(), "CREATE DATABASE songs")
        execute(source.target("songs"), *_SQL)
        manifest = chain.take(source.target("songs"))
    rows = {table.name: table.rows for table in manifest.fingerprint.tables}
    assert rows == {"song": 2, "tuning": 1}
    assert [s.name for s in manifest.fingerprint.sequences] == ["counter"]
    return chain


@pytest.fixture(scope="module")
def verification(with_extension: Toolchain) -> Iterator[Cluster]:
    """A server that has the extension, and other things to lose."""
    with running_cluster(with_extension, purpose="verify", superuser="verifier") as cluster:
        execute(cluster.target(), "CREATE ROLE bystander", "CREATE DATABASE precious")
        yield cluster


def _url(target: Target) -> str:
    return " ".join(f"{key}='{value}'" for key, value in target.parameters.items())


def _holds(cluster: Cluster) -> list[list[tuple[object, ...]]]:
    with connect(cluster.target()) as connection:
        return [
            query(connection, f"SELECT {name} FROM {table} ORDER BY 1")
            for name, table in (("datname", "pg_database"), ("rolname", "pg_roles"), ("spcname", "pg_tablespace"))
        ]


def test_without_a_server_that_has_it_nothing_is_claimed(taken: Chain) -> None:
    alone = Chain(taken.settings.model_copy(update={"verification": type(taken.settings.verification)()}), taken.store)
    record = alone.prove()
    assert record.verdict is Verdict.NOT_VERIFIED
    clean = record.check("restore_clean")
    assert (clean.status, codes(clean)) == (Status.NOT_VERIFIED, {"EXTENSION_MISSING"})
    assert "guitar_tunings" in clean.findings[0].message
    assert "verification.server_url_env" in clean.findings[0].hint
    assert record.check("stored_bytes_match").status is Status.PASSED
    assert record.server is None


def test_the_named_server_proves_it_and_keeps_nothing(
    taken: Chain, verification: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_VARIABLE, _url(verification.target()))
    before = _holds(verification)
    record = taken.prove()
    assert record.verdict is Verdict.PROVEN, failures(record)
    assert record.server is not None
    assert "verification server" in record.server
    assert "not compared" in record.check("schema_equal").summary
    assert _holds(verification) == before


def test_a_failed_restore_leaves_nothing_there_either(
    taken: Chain, verification: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A damaged file whose damage the manifest does not know: the restore itself must fail, and be cleaned up."""
    monkeypatch.setenv(_VARIABLE, _url(verification.target()))
    shutil.copytree(taken.store.root, tmp_path / "backups")
    chain = chain_in(tmp_path, verification={"server_url_env": _VARIABLE})
    _forge(chain, {"dump": {"compression": "zstd:1"}})
    folder = chain.store.root / chain.entry.folder
    (folder / "dump" / "toc.dat").write_bytes(b"PGDMP")
    before = _holds(verification)
    assert chain.prove().verdict is Verdict.FAILED
    assert _holds(verification) == before


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (None, "URL_MISSING"),
        ("host=/nonexistent user=x dbname=postgres", "SERVER_UNREACHABLE"),
        ("mysql://x", "URL_INVALID"),
    ],
)
def test_a_named_server_that_cannot_be_used(
    taken: Chain, monkeypatch: pytest.MonkeyPatch, url: str | None, code: str
) -> None:
    if url is None:
        monkeypatch.delenv(_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(_VARIABLE, url)
    record = taken.prove()
    assert record.verdict is Verdict.NOT_VERIFIED
    assert codes(record.check("restore_clean")) == {code}


def test_a_role_that_may_not_create_databases_is_told_so(taken: Chain, verification: Cluster) -> None:
    execute(verification.target(), "CREATE ROLE humble LOGIN")
    try:
        target = Target({**verification.target().parameters, "user": "humble"})
        server = verification_server(verification.toolchain, target)
        lacking = what_lacks(server, taken.entry.require_manifest())
    finally:
        execute(verification.target(), "DROP ROLE humble")
    assert isinstance(lacking, NotVerifiable)
    assert lacking.code == "PERMISSION_DENIED"


def test_an_older_server_cannot_verify(taken: Chain, verification: Cluster) -> None:
    manifest = taken.entry.require_manifest()
    newer = manifest.model_copy(update={"server": manifest.server.model_copy(update={"release": "99.1"})})
    lacking = what_lacks(verification_server(verification.toolchain, verification.target()), newer)
    assert isinstance(lacking, NotVerifiable)
    assert lacking.code == "SERVER_TOO_OLD"


def _forge(chain: Chain, changes: dict[str, dict[str, object]]) -> None:
    """Write the manifest again as if the source had been another."""
    manifest = chain.entry.require_manifest()
    updated = manifest.model_copy(
        update={name: getattr(manifest, name).model_copy(update=fields) for name, fields in changes.items()}
    )
    path = chain.store.root / manifest.folder / NAME
    path.unlink()
    chain.store.put_bytes(encode(updated), f"{manifest.folder}/{NAME}")


@pytest.mark.parametrize(
    "locale",
    [
        {"collate": "xx_XX.utf8", "ctype": "xx_XX.utf8"},
        {"provider": "i", "locale": "de-DE"},  # the wheel's programs are built without ICU
        {"provider": "b", "locale": "no such"},
    ],
)
def test_a_locale_that_the_server_lacks(empty_database: Target, tmp_path: Path, locale: dict[str, object]) -> None:
    chain = chain_in(tmp_path)
    chain.take(empty_database)
    _forge(chain, {"source": locale})
    record = chain.prove()
    assert record.verdict is Verdict.NOT_VERIFIED
    clean = record.check("restore_clean")
    assert (clean.status, codes(clean)) == (Status.NOT_VERIFIED, {"COLLATION_MISSING"}), failures(record)
    assert "verification.server_url_env" in clean.findings[0].hint


def test_icu_where_it_is_to_be_had(tmp_path: Path) -> None:
    """Debian's programs have ICU: database, columns and an index of a German phone book."""
    with running_cluster(toolchain_of(15), purpose="icu") as cluster:
        execute(
            cluster.target(),
            "CREATE DATABASE german TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C.UTF-8'",
        )
        target = cluster.target("german")
        execute(
            target,
            "CREATE COLLATION phone (provider = icu, locale = 'de-u-co-phonebk')",
            "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            "CREATE TABLE names (n text COLLATE phone, m text COLLATE any_case UNIQUE)",
            "INSERT INTO names VALUES ('Göbel', 'A'), ('Goethe', 'b')",
            "CREATE INDEX ON names (n)",
        )
        manifest, record = chain_in(tmp_path).take_and_prove(target)
    assert (manifest.source.provider, manifest.source.locale) == ("i", "de-DE")
    assert record.verdict is Verdict.PROVEN, failures(record)


def test_an_object_whose_collation_is_missing_is_left_open(tmp_path: Path) -> None:
    """A dump from programs with ICU, restored by programs without: what cannot be made there is not lost."""
    chain = chain_in(tmp_path)
    with running_cluster(toolchain_of(15), purpose="icu") as cluster:
        execute(
            cluster.target(),
            "CREATE COLLATION phone (provider = icu, locale = 'de-u-co-phonebk')",
            "CREATE TABLE names (n text COLLATE phone)",
            "CREATE TABLE others (n text)",
        )
        chain.take(cluster.target())
    with throwaway_server(toolchain_of(17), "gs_backup_superuser") as server:
        record = chain.prove(server)
    assert record.verdict is Verdict.NOT_VERIFIED, failures(record)
    assert record.check("restore_clean").status is Status.NOT_VERIFIED
    for name in ("rows_equal", "contents_equal"):
        assert codes(record.check(name)) == {"TABLE_MISSING"}
