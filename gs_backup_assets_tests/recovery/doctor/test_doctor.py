"""Tests of the doctor on real servers: each thing that a backup needs, taken away and given back."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent

import pytest

from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import Target, connect, query, target_from_environment
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.postgres.toolchain import ENVIRONMENT_VARIABLE, discover
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.doctor.doctor import Diagnosis, examine
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.system.account import server_account
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.conftest import fresh_database, toolchain_of
from gs_backup_assets_tests.postgres.pgbouncer import free_port, pgbouncer

_VARIABLE = "TEST_DOCTOR_URL"
_ORDER = [
    *("address", "login", "tls", "version", "pooler", "rights", "row_security", "roles", "omissions"),
    *("data_classes", "snapshot", "lock", "programs", "throwaway", "spool", "reports", "store", "encryption_key"),
]
_SCHEMA = 'Bürö "x'
_CONTENTS = f"""
CREATE SCHEMA {quote(_SCHEMA)};
CREATE TABLE public.lesson (id integer PRIMARY KEY, note text);
CREATE TABLE {quote(_SCHEMA)}."Kunde" (id serial PRIMARY KEY);
CREATE TABLE public.parted (day date) PARTITION BY RANGE (day);
CREATE TABLE public.part PARTITION OF public.parted DEFAULT;
CREATE SEQUENCE public.number;
CREATE UNLOGGED TABLE public.cache (id integer);
CREATE MATERIALIZED VIEW public.never AS SELECT 1 AS one WITH NO DATA;
SELECT lo_from_bytea(0, 'terms');
"""


def url_of(target: Target, *, user: str | None = None, password: str = "", extra: str = "") -> str:
    parameters = target.parameters
    who = (user or parameters["user"]) + (f":{percent(password)}" if password else "")
    place = percent(parameters["host"], safe="")
    return f"postgresql://{who}@/{parameters['dbname']}?host={place}&port={parameters['port']}{extra}"


def settings_of(folder: Path, **changes: Any) -> DatabaseSettings:
    values = {"name": "shop", "url_env": _VARIABLE, "timezone": "UTC", "folder": folder, **changes}
    return DatabaseSettings.model_validate(values)


def examined(
    monkeypatch: pytest.MonkeyPatch, url: str, folder: Path, *, thorough: bool = False, **changes: Any
) -> dict[str, Diagnosis]:
    monkeypatch.setenv(_VARIABLE, url)
    diagnoses = examine(settings_of(folder, **changes), thorough=thorough)
    assert [diagnosis.name for diagnosis in diagnoses] == _ORDER
    return {diagnosis.name: diagnosis for diagnosis in diagnoses}


def unhealthy(diagnoses: dict[str, Diagnosis]) -> set[str]:
    return {name for name, diagnosis in diagnoses.items() if diagnosis.status is not Status.PASSED}


def execute(target: Target, *statements: str) -> None:
    with connect(target, settings={"search_path": "public"}) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def role_on(target: Target) -> Iterator[str]:
    """A role that may do nothing but connect."""
    name = 'Backup "Rôle"'
    execute(target, f"CREATE ROLE {quote(name)} LOGIN")
    try:
        yield percent(name)
    finally:
        execute(target, f"DROP OWNED BY {quote(name)}", f"DROP ROLE {quote(name)}")


# A server of every major ---------------------------------------------------------------------------------------------


def test_a_superuser_on_any_server_has_everything(
    any_server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database(any_server) as target:
        execute(target, _CONTENTS)
        found = examined(monkeypatch, url_of(target), tmp_path, thorough=True)
    assert unhealthy(found) == set()
    assert str(any_server.toolchain.release) in found["version"].summary
    told = " ".join(found["omissions"].details)
    assert "unlogged_table" in told and "unpopulated_materialized_view" in told
    assert list(tmp_path.iterdir()) == [], "the doctor leaves nothing behind"


def test_the_grants_that_the_doctor_names_are_enough(
    any_server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database(any_server) as target, role_on(target) as role:
        execute(target, _CONTENTS, "ALTER TABLE public.lesson ENABLE ROW LEVEL SECURITY")
        url = url_of(target, user=role)
        found = examined(monkeypatch, url, tmp_path)
        assert unhealthy(found) == {"rights", "row_security"}
        rights = found["rights"]
        assert rights.status is Status.FAILED
        for name in ('"public"."lesson"', '"public"."number"', f'{quote(_SCHEMA)}."Kunde"', "large objects"):
            assert any(detail.startswith(name) for detail in rights.details)
        assert rights.sql[0].startswith("GRANT pg_read_all_data TO")
        assert found["row_security"].details == ('"public"."lesson"',)
        execute(target, *rights.sql, *found["row_security"].sql)
        found = examined(monkeypatch, url, tmp_path)
        assert unhealthy(found) == set()
        assert "without their passwords" in found["roles"].summary
        monkeypatch.setenv(_VARIABLE, url)
        settings = settings_of(tmp_path)
        today = DAY.of(datetime.now(timezone.utc), settings.zone)
        source = target_from_environment(_VARIABLE)
        manifest = take_backup(settings, source, open_store(settings), today, Progress())
        assert not any(omission.loses_data for omission in manifest.omissions)
        assert not manifest.dump.role_passwords


def test_the_grants_schema_by_schema_are_enough_as_well(
    any_server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way for PostgreSQL 13, which has no pg_read_all_data; tables that the owner makes later are covered."""
    with fresh_database(any_server) as target, role_on(target) as role:
        execute(target, _CONTENTS)
        found = examined(monkeypatch, url_of(target, user=role), tmp_path)
        by_schema = found["rights"].narrower_sql
        assert any("ALTER DEFAULT PRIVILEGES" in statement for statement in by_schema)
        assert not any("pg_read_all_data" in statement for statement in by_schema)
        named = ('"public".', f"{quote(_SCHEMA)}.", "large objects")
        assert all(detail.startswith(named) for detail in found["rights"].details), "names, and nothing between them"
        execute(target, *by_schema)
        execute(target, "CREATE TABLE public.later (id serial)")
        assert unhealthy(examined(monkeypatch, url_of(target, user=role), tmp_path)) == set()


# What can be in the way ----------------------------------------------------------------------------------------------


def test_a_stopped_server_leaves_the_rest_unverified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster(toolchain_of(17), purpose="stopped") as cluster:
        url = url_of(cluster.target())
    found = examined(monkeypatch, url, tmp_path)
    assert found["address"].status is Status.FAILED
    assert "No server at the socket" in found["address"].summary
    assert {name for name, d in found.items() if d.status is Status.PASSED} == {"encryption_key", "reports"}
    assert {name for name, d in found.items() if d.status is Status.FAILED} == {"address"}
    assert "address" in found["login"].summary
    assert "no session" in found["rights"].summary


@pytest.mark.parametrize("place", ["127.0.0.1:1", "no-such-host.invalid:5432"])
def test_an_address_that_leads_nowhere_is_explained(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(monkeypatch, f"postgresql://user:hunter2@{place}/shop", tmp_path)
    assert found["address"].status is Status.FAILED
    assert "does not resolve" in found["address"].summary or "Nothing answers" in found["address"].summary
    assert "hunter2" not in str(found)


def test_a_running_backup_is_no_fault_but_no_pass_either(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exported_snapshot(empty_database):
        found = examined(monkeypatch, url_of(empty_database), tmp_path)
    assert unhealthy(found) == {"snapshot", "lock"}
    assert found["lock"].status is Status.NOT_VERIFIED
    assert unhealthy(examined(monkeypatch, url_of(empty_database), tmp_path)) == set()


def test_tables_of_data_classes_that_do_not_exist_are_named(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(empty_database, 'CREATE TABLE public."User" (id integer)')
    classes = {"critical": {"rpo": "15m", "rto": "1h", "tables": [["users", "User"], "payments"]}}
    found = examined(monkeypatch, url_of(empty_database), tmp_path, data_classes=classes)
    assert unhealthy(found) == {"data_classes"}
    assert found["data_classes"].details == ("payments",)


def test_a_store_and_a_reports_folder_that_cannot_be_written_are_found(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    in_the_way = {"stores": {"primary": {"path": "file/backups"}}, "reports": "file/reports"}
    found = examined(monkeypatch, url_of(empty_database), tmp_path, **in_the_way)
    assert unhealthy(found) == {"store", "reports"}
    assert "STORE_UNAVAILABLE" in found["store"].summary
    assert found["reports"].status is Status.FAILED and "REPORT_NOT_KEPT" in found["reports"].summary
    assert str(tmp_path / "file" / "reports") in found["reports"].summary


def test_programs_that_the_environment_names_in_vain_are_told(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    discover.cache_clear()
    found = examined(monkeypatch, url_of(empty_database), tmp_path)
    discover.cache_clear()
    assert any(str(tmp_path) in detail for detail in found["programs"].details)


def test_an_extension_that_the_throwaway_server_lacks_is_found(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An extension without files: as if the server had it and this machine's programs did not.
    execute(
        empty_database,
        "SET allow_system_table_mods = on",
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)"
        " SELECT 99999, 'nobody_has_this', 10, oid, false, '1.0' FROM pg_namespace WHERE nspname = 'public'",
    )
    for thorough in (False, True):
        found = examined(monkeypatch, url_of(empty_database), tmp_path, thorough=thorough)
        assert unhealthy(found) == {"throwaway"}
        assert found["throwaway"].details == ("extension nobody_has_this",)
        assert "server_url_env" in found["throwaway"].hint
    monkeypatch.setenv("TEST_VERIFICATION", url_of(empty_database))
    verification = {"server_url_env": "TEST_VERIFICATION"}
    assert unhealthy(examined(monkeypatch, url_of(empty_database), tmp_path, verification=verification)) == set()


def test_the_staging_server_and_the_secret_of_the_masking_are_looked_at(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_VARIABLE, "postgresql://nobody@127.0.0.1:1/shop")
    masking = {"tables": {"lesson": {"note": "null"}}, "key_env": "TEST_MASKING_KEY"}
    settings = settings_of(tmp_path, staging={"url_env": "TEST_STAGING_URL"}, anonymise=masking)

    def looked_at() -> list[Diagnosis]:
        return [d for d in examine(settings) if d.name in {"staging", "masking_key"}]

    for variable in ("TEST_STAGING_URL", "TEST_MASKING_KEY"):
        monkeypatch.delenv(variable, raising=False)
    server, key = looked_at()
    assert server.status is Status.FAILED and "URL_MISSING" in server.summary
    assert key.status is Status.FAILED and "MASKING_KEY_MISSING" in key.summary
    with role_on(empty_database) as role:
        monkeypatch.setenv("TEST_STAGING_URL", url_of(empty_database, user=role))
        monkeypatch.setenv("TEST_MASKING_KEY", "too short")
        server, key = looked_at()
        assert server.status is Status.FAILED and "may not make databases" in server.summary
        assert "MASKING_KEY_SHORT" in key.summary and "too short" not in str(key)
        execute(empty_database, server.hint.partition(": ")[2])
        monkeypatch.setenv("TEST_MASKING_KEY", "long enough, and random")
        assert [d.status for d in looked_at()] == [Status.PASSED, Status.PASSED]


def test_a_missing_address_is_an_error_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_VARIABLE, raising=False)
    with pytest.raises(ConfigError) as caught:
        examine(settings_of(tmp_path))
    assert caught.value.code == "URL_MISSING"


# Over a network ------------------------------------------------------------------------------------------------------


def own_address() -> str:
    """An address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def network_server() -> Iterator[tuple[Cluster, Path]]:
    """A server over TCP with TLS and passwords, and the file of its certificate."""
    account = server_account()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        subprocess.run([*argv, "-keyout", folder / "key", "-out", folder / "crt"], check=True, capture_output=True)
        (folder / "hba").write_text("local all all trust\nhost all all all scram-sha-256\n")
        for path in folder.iterdir():
            os.chown(path, account.uid, account.gid)
            path.chmod(0o600 if path.name == "key" else 0o644)
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(folder / "crt"),
            "ssl_key_file": str(folder / "key"),
            "hba_file": str(folder / "hba"),
            "listen_addresses": "*",
        }
        with running_cluster(toolchain_of(17), purpose="tls", settings=settings, port=free_port()) as cluster:
            execute(cluster.target(), "CREATE ROLE app LOGIN SUPERUSER PASSWORD 's3cret/+'", "CREATE DATABASE shop")
            yield cluster, folder / "crt"


def over_network(server: tuple[Cluster, Path], host: str, options: str, *, password: str = "s3cret/+") -> str:
    return f"postgresql://app:{percent(password, safe='')}@{host}:{server[0].port}/shop?{options}"


def test_encryption_is_seen_and_explained(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(monkeypatch, over_network(network_server, "localhost", "sslmode=require"), tmp_path)
    assert unhealthy(found) == set()
    assert "TLSv1" in found["tls"].summary and "sslmode=require does not check" in found["tls"].details[0]
    full = f"sslmode=verify-full&sslrootcert={network_server[1]}"
    found = examined(monkeypatch, over_network(network_server, "localhost", full), tmp_path)
    assert unhealthy(found) == set()
    assert found["tls"].details == ()


def test_a_certificate_that_does_not_hold_is_a_matter_of_tls(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = over_network(network_server, "127.0.0.1", f"sslmode=verify-full&sslrootcert={network_server[1]}")
    found = examined(monkeypatch, url, tmp_path)
    assert found["address"].status is Status.PASSED
    assert found["tls"].status is Status.FAILED and "127.0.0.1" in found["tls"].summary
    assert found["login"].status is Status.NOT_VERIFIED


def test_an_open_session_over_a_network_fails_unless_it_is_asked_for(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = examined(monkeypatch, over_network(network_server, "127.0.0.1", "sslmode=disable"), tmp_path)
    assert "stays on this machine" in here["tls"].summary
    address = own_address()
    asked = examined(monkeypatch, over_network(network_server, address, "sslmode=disable"), tmp_path)
    assert unhealthy(asked) == set()
    assert "password" in asked["tls"].details[0]
    execute(network_server[0].target(), "ALTER SYSTEM SET ssl = off", "SELECT pg_reload_conf()")
    try:
        found: dict[str, Diagnosis] = {}
        for _ in range(50):  # the reload takes a moment
            found = examined(monkeypatch, over_network(network_server, address, ""), tmp_path)
            if "encrypted (" not in found["tls"].summary:
                break
        assert unhealthy(found) == {"tls"}
        assert found["tls"].status is Status.FAILED
    finally:
        execute(network_server[0].target(), "ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()")


def test_a_wrong_password_is_told_without_the_password(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = over_network(network_server, "127.0.0.1", "", password="hunter2")
    found = examined(monkeypatch, url, tmp_path)
    assert found["address"].status is Status.PASSED
    assert found["login"].status is Status.FAILED
    assert "password authentication failed" in found["login"].summary
    assert "percent-encoded" in found["login"].hint
    assert found["rights"].status is Status.NOT_VERIFIED
    assert "hunter2" not in str(found)


def test_a_database_that_is_not_there_is_told(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = over_network(network_server, "127.0.0.1", "").replace("/shop?", "/Shop?")
    found = examined(monkeypatch, url, tmp_path)
    assert found["login"].status is Status.FAILED and "case" in found["login"].hint


# Poolers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["", "?pgbouncer=true"])
def test_a_transaction_pooler_is_found_out(
    server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameter: str
) -> None:
    with pgbouncer(server17, "transaction") as port:
        found = examined(monkeypatch, f"postgresql://app@127.0.0.1:{port}/postgres{parameter}", tmp_path)
    assert unhealthy(found) == {"pooler", "snapshot", "lock"}
    assert found["pooler"].status is Status.FAILED and "DIRECT_URL" in found["pooler"].hint
    with connect(server17.target()) as connection:
        held = query(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert held == [(0,)], "no lock is left behind in a pooled process"


def test_a_pooler_that_keeps_sessions_does_no_harm(
    server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer(server17, "session") as port:
        found = examined(monkeypatch, f"postgresql://app@127.0.0.1:{port}/postgres", tmp_path)
    assert unhealthy(found) == set()
    assert "proxy" in found["pooler"].summary


def test_a_direct_address_that_claims_a_pooler_is_seen_through(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(monkeypatch, url_of(empty_database, extra="&pgbouncer=true"), tmp_path)
    assert found["pooler"].status is Status.PASSED
    assert found["pooler"].details == ("the URL says pgbouncer=true",)
