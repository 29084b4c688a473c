"""Secrets in settings: in nothing that may be read without the key, never told, and there again after a restore."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.manifest import SUMS, Manifest, StoredFile
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.cli.listing import entry_document, show_entry
from gs_backup_assets.integrity.report import render
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.settings import read_settings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.restore import RestoreOutcome, restore_backup
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.chain import Chain, chain_in, codes, execute, failures, finding_lines, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database

SECRETS = ("s3cret of the database", "s3cret of the role", "s3cret of the role in it")
OTHER = "s3cret that somebody put there"
PATHS = '"$user", "it\'s s3cret", public'
RAW = {"kind": "raw-aes-256", "key_env": "TEST_KEY"}
KEY = new_raw_key()
# One of the secrets, or a part of any: all of them begin like this.
MARK = b"s3cret"


@pytest.fixture(autouse=True)
def given_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture(scope="module")
def source(server17: Cluster) -> Iterator[Target]:
    """A database with a secret in each kind of setting; role and database go at the end."""
    admin = server17.target()
    with fresh_database(server17) as target:
        execute(target, "CREATE TABLE lesson (id int PRIMARY KEY)", "INSERT INTO lesson VALUES (1)")
        execute(
            admin,
            "CREATE ROLE settled",
            f"ALTER DATABASE {target.database} SET app.jwt_secret TO '{SECRETS[0]}'",
            f"ALTER DATABASE {target.database} SET search_path TO \"$user\", 'it''s s3cret', public",
            f"ALTER ROLE settled SET app.jwt_secret TO '{SECRETS[1]}'",
            f"ALTER ROLE settled IN DATABASE {target.database} SET app.jwt_secret TO '{SECRETS[2]}'",
        )
        yield target
    execute(admin, "DROP ROLE settled")


@pytest.fixture(scope="module")
def prover(server17: Cluster) -> Iterator[RestoreServer]:
    with throwaway_beside(server17) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_restored(prover: RestoreServer) -> Iterator[None]:
    yield
    with connect(prover.admin) as connection:
        names = [name for (name,) in query(connection, "SELECT datname FROM pg_database WHERE datname ~ '^wanted'")]
        for name in names:
            drop_database(connection, name)
        query(connection, "DROP ROLE IF EXISTS settled")


def backed_up(source: Target, folder: Path, *, encrypted: bool = False) -> Chain:
    chain = chain_in(folder, encryption=RAW if encrypted else None)
    chain.take(source)
    write_sums(chain.store, chain.entry)
    return chain


def restored(chain: Chain, prover: RestoreServer) -> tuple[RestoreOutcome, dict[tuple[str, str], str], str]:
    """Restore to another name; returns the database's settings and those of the role, as the server stores them."""
    outcome = restore_backup(chain.settings, chain.store, chain.entry, prover.admin.with_database("wanted"), Progress())
    with connect(prover.admin) as connection:
        found = {(s.role, s.name): s.value for s in read_settings(connection, outcome.database)}
        ((role,),) = query(connection, "SELECT array_to_string(rolconfig, '|') FROM pg_roles WHERE rolname = 'settled'")
    return outcome, found, role


def told(entry: Entry) -> str:
    """All that the command line says of a backup, and the report."""
    console = Console(record=True, width=300)
    show_entry(console, entry)
    assert entry.proof is not None
    report = render(entry.proof, entry.manifest).decode()
    return console.export_text() + json.dumps(entry_document(entry, detailed=True)) + report


def reseal(chain: Chain, manifest: Manifest) -> None:
    """Put another manifest in the place of the backup's, with the sums that are right for it."""
    folder = chain.store.root / manifest.folder
    data = manifests.encode(manifest)
    (folder / manifests.NAME).unlink()
    (folder / manifests.NAME).write_bytes(data)
    (folder / SUMS).write_bytes(manifests.sha256sums(manifest, data))


def rewrite(chain: Chain, name: str, old: str, new: str) -> None:
    """Change a file of a plain backup, with digests that are right for what it is then."""
    manifest = chain.entry.require_manifest()
    path = chain.store.root / manifest.folder / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    data = text.replace(old, new).encode()
    path.unlink()
    path.write_bytes(data)
    file = StoredFile(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    reseal(chain, manifest.model_copy(update={"files": tuple(file if f.path == name else f for f in manifest.files)}))


def files_with(store: LocalStore, mark: bytes) -> set[str]:
    found = (key for key in keys(store, "") if mark in (store.root / key).read_bytes())
    return {key.rpartition("Z/")[2] for key in found}


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_secrets_are_in_no_readable_file_and_come_back(
    source: Target, prover: RestoreServer, tmp_path: Path, encrypted: bool
) -> None:
    chain = backed_up(source, tmp_path, encrypted=encrypted)
    record = chain.prove(prover)
    assert record.verdict is Verdict.PROVEN, failures(record)
    with connect(prover.admin) as connection:
        query(connection, "DROP ROLE settled")
    Catalogue(chain.store, "shop").add_proof(record, render(record, chain.entry.manifest))
    # The archive's own table of contents has the commands for the database's own name.
    assert files_with(chain.store, MARK) == (set() if encrypted else {"globals.sql", "settings.sql", "dump/toc.dat"})
    assert "s3cret" not in told(chain.entry)
    names = {(s.role, s.name) for s in chain.entry.require_manifest().source.settings}
    assert names == {("", "app.jwt_secret"), ("", "search_path"), ("settled", "app.jwt_secret")}
    outcome, settings, role = restored(chain, prover)
    assert (outcome.verdict, outcome.database) == (Verdict.PROVEN, "wanted")
    assert settings == {
        ("", "app.jwt_secret"): SECRETS[0],
        ("", "search_path"): PATHS,
        ("settled", "app.jwt_secret"): SECRETS[2],
    }
    assert role == f"app.jwt_secret={SECRETS[1]}"
    assert "s3cret" not in outcome.model_dump_json()


def test_a_manifest_with_values_is_proved_applied_and_compared(
    source: Target, prover: RestoreServer, tmp_path: Path
) -> None:
    """As backups of the first version have it: no settings.sql, and `name=value` in the manifest."""
    chain = backed_up(source, tmp_path)
    manifest = chain.entry.require_manifest()
    with connect(source) as connection:
        values = read_settings(connection)
    (chain.store.root / manifest.folder / "settings.sql").unlink()
    contents = manifest.model_dump(mode="json")
    contents["schema_version"] = 1
    contents["files"] = [file for file in contents["files"] if file["path"] != "settings.sql"]
    contents["source"]["settings"] = [value.model_dump() for value in values]
    for role in contents["roles"]:
        role["settings"] = [f"app.jwt_secret={SECRETS[1]}"] if role["name"] == "settled" else []
    old = Manifest.model_validate(contents)
    reseal(chain, old)
    assert MARK in (chain.store.root / manifest.folder / "manifest.json").read_bytes()
    record = chain.prove(prover)
    assert record.verdict is Verdict.PROVEN, failures(record)
    with connect(prover.admin) as connection:
        query(connection, "DROP ROLE settled")
    Catalogue(chain.store, "shop").add_proof(record, render(record, chain.entry.manifest))
    assert "s3cret" not in told(chain.entry)
    outcome, settings, role = restored(chain, prover)
    assert outcome.verdict is Verdict.PROVEN
    assert settings == {(value.role, value.name): value.value for value in values}
    assert role == f"app.jwt_secret={SECRETS[1]}"
    rewrite(chain, "globals.sql", SECRETS[1], OTHER)
    with connect(prover.admin) as connection:
        drop_database(connection, "wanted")
        query(connection, "DROP ROLE settled")
    assert codes_of(chain, prover) == {"ROLE_DIFFERS"}


def codes_of(chain: Chain, prover: RestoreServer) -> set[str]:
    record = chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    assert "s3cret" not in record.model_dump_json() + render(record, chain.entry.manifest).decode()
    (check,) = (check for check in record.checks if check.name == "schema_equal")
    return codes(check)


@pytest.mark.parametrize(
    ("name", "old", "new", "finding"),
    [
        (
            "settings.sql",
            f"'{SECRETS[0]}'",
            f"'{OTHER}'",
            "SETTING_DIFFERS: The setting app.jwt_secret has another value than in the source.",
        ),
        (
            "settings.sql",
            f"'{SECRETS[2]}'",
            f"'{OTHER}'",
            "SETTING_DIFFERS: The setting app.jwt_secret (role settled) has another value than in the source.",
        ),
        (
            "settings.sql",
            f'ALTER DATABASE :"database" SET "app.jwt_secret" TO \'{SECRETS[0]}\';\n',
            "",
            "SETTING_DIFFERS: The setting app.jwt_secret was not restored.",
        ),
        (
            "settings.sql",
            f"'{SECRETS[0]}';\n",
            f"'{SECRETS[0]}';\nALTER DATABASE :\"database\" SET \"app.more\" TO '{OTHER}';\n",
            "SETTING_DIFFERS: The setting app.more was not in the source.",
        ),
        (
            "settings.sql",
            f"'{SECRETS[0]}';\n",
            f"'{SECRETS[0]}'; DROP TABLE lesson;\n",
            "SETTINGS_UNSAFE: settings.sql is not what a backup writes; no setting was taken from it.",
        ),
        (
            "globals.sql",
            f"'{SECRETS[1]}'",
            f"'{OTHER}'",
            "ROLE_DIFFERS: The role settled differs in settings (app.jwt_secret).",
        ),
    ],
    ids=["database", "role_in_database", "lost", "more", "unsafe", "role"],
)
def test_another_value_is_found_and_not_told(
    source: Target, prover: RestoreServer, tmp_path: Path, name: str, old: str, new: str, finding: str
) -> None:
    chain = backed_up(source, tmp_path)
    rewrite(chain, name, old, new)
    record = chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    (check,) = (check for check in record.checks if check.name == "schema_equal")
    assert finding in finding_lines(check)
    told_of_it = record.model_dump_json() + render(record, chain.entry.manifest).decode()
    assert "s3cret" not in told_of_it


@pytest.mark.parametrize(
    "line", ["ALTER ROLE settled SET work_mem TO 's3cret';", "ALTER ROLE settled SET x TO 's3cret"]
)
def test_globals_that_are_refused_do_not_tell_values(
    source: Target, prover: RestoreServer, tmp_path: Path, line: str
) -> None:
    chain = backed_up(source, tmp_path)
    rewrite(chain, "globals.sql", f"ALTER ROLE settled SET \"app.jwt_secret\" TO '{SECRETS[1]}';", line)
    record = chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    assert "s3cret" not in record.model_dump_json()


@pytest.mark.parametrize("arguments", [["show", "latest"], ["show", "latest", "--json"], ["list", "--json"]])
def test_the_verbs_do_not_tell_them(source: Target, tmp_path: Path, arguments: list[str]) -> None:
    chain = backed_up(source, tmp_path)
    program = Path(sys.executable).with_name("gs-backup")
    argv: list[str | Path] = [program, *arguments, "--store", str(chain.store.root)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3) and chain.entry.id in done.stdout, done.stderr
    assert "s3cret" not in done.stdout + done.stderr
