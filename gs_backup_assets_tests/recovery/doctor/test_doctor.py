"""Tests of the doctor on real servers: each thing that a backup needs, taken away and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote as percent

import pytest

from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import Target, target_from_environment
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.postgres.toolchain import ENVIRONMENT_VARIABLE, discover
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.doctor.doctor import Diagnosis, examine
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.conftest import fresh_database, toolchain_of
from gs_backup_assets_tests.recovery.doctor.doctor_site import (
    VARIABLE,
    examined,
    execute,
    settings_of,
    unhealthy,
    url_of,
)

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
        monkeypatch.setenv(VARIABLE, url)
        settings = settings_of(tmp_path)
        today = DAY.of(datetime.now(timezone.utc), settings.zone)
        source = target_from_environment(VARIABLE)
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
    monkeypatch.setenv(VARIABLE, "postgresql://nobody@127.0.0.1:1/shop")
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
        server, key = looked_at()
        assert "STAGING_NOT_OWNED" in server.summary and key.status is Status.PASSED
        execute(empty_database, server.hint.partition(": ")[2])
        assert [d.status for d in looked_at()] == [Status.PASSED, Status.PASSED]
        execute(empty_database, f"ALTER DATABASE {empty_database.database} OWNER TO CURRENT_USER")


def test_a_missing_address_is_an_error_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError) as caught:
        examine(settings_of(tmp_path))
    assert caught.value.code == "URL_MISSING"
