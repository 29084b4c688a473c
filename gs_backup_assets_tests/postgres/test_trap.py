"""The trap of November 2026, on a real server of 15.20 or later: older programs write dumps that servers refuse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres.cluster import Cluster, create_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.dump import Compression, dump_database
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.restore import Origin, RestoreError, restore_sections
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.postgres.toolchain import ENVIRONMENT_VARIABLE, Toolchain, choose, discover
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.postgres.debian import unpacked

_TRAP = Release(15, 20)
_SECTIONS = ("pre-data", "data", "post-data")
_TABLES = """
CREATE TABLE public.customer (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.payment (customer_id integer REFERENCES public.customer, cents integer NOT NULL);
INSERT INTO public.customer SELECT g, 'customer ' || g FROM generate_series(1, 1000) AS g;
INSERT INTO public.payment SELECT g, g * 100 FROM generate_series(1, 1000) AS g;
"""


@pytest.fixture(scope="session")
def own_programs() -> Toolchain:
    """PostgreSQL 15.20 or a later 15, out of Debian's packages."""
    home = unpacked(f"postgresql-{_TRAP}", ["postgresql-15", "postgresql-client-15"], at_least=_TRAP)
    place = home / "usr" / "lib" / "postgresql" / "15" / "bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT_VARIABLE, str(place))
        discover.cache_clear()
        (found,) = [toolchain for toolchain in discover() if toolchain.bin == place.resolve()]
    discover.cache_clear()
    return found


@pytest.fixture(scope="session")
def patched_server(own_programs: Toolchain) -> Iterator[Cluster]:
    """A server of that release with two tables that were made on it."""
    with running_cluster(own_programs, purpose="trap") as cluster:
        with connect(cluster.target()) as connection:
            create_database(connection, "shop")
        with connect(cluster.target("shop")) as connection, connection.cursor() as cursor:
            cursor.execute(_TABLES)
        yield cluster


def restored(cluster: Cluster, programs: Toolchain, spool: Path) -> tuple[RestoreError, ...]:
    """Dump `shop` with the programs and restore it into a cluster of the same programs: the errors."""
    source = cluster.target("shop")
    with exported_snapshot(source) as snapshot:
        finished = dump_database(
            programs,
            source.write_service_file(spool),
            spool / "dump",
            snapshot=snapshot.name,
            jobs=2,
            compression=Compression("gzip", 1),
        )
    assert finished.status == 0, "the trap: nothing is wrong with the dump by its own account"
    with running_cluster(programs, purpose="trapped") as target_cluster:
        target = target_cluster.target("shop")
        with connect(target_cluster.target()) as connection:
            create_database(connection, "shop")
        environment = target.write_service_file(spool)
        errors = restore_sections(programs, environment, spool / "dump", sections=_SECTIONS, jobs=2)
        if not errors:
            with connect(target) as connection:
                assert query(connection, "SELECT count(*), sum(cents) FROM public.payment") == [(1000, 50050000)]
        return errors


def test_the_server_stores_options_that_older_programs_do_not_know(patched_server: Cluster) -> None:
    with connect(patched_server.target("shop")) as connection:
        rows = query(
            connection,
            "SELECT attoptions::text FROM pg_attribute WHERE attrelid = 'public.customer'::regclass AND attnum > 0",
        )
    assert len(rows) == 2
    assert all(options is not None and "pg_attver=" in options for (options,) in rows)


def test_older_programs_are_refused_before_any_dump(patched_server: Cluster) -> None:
    release = patched_server.toolchain.release
    older = [toolchain for toolchain in discover() if not toolchain.release.fits_server(release)]
    assert Release(17, 10) in [toolchain.release for toolchain in older], "a newer major, and yet older"
    with pytest.raises(ProgramError) as caught:
        choose(release, older)
    assert caught.value.code == "PROGRAMS_OLDER_THAN_SERVER"
    assert str(release) in caught.value.message and "toolchain add 15" in caught.value.hint


def test_a_dump_by_older_programs_restores_no_table(patched_server: Cluster, tmp_path: Path) -> None:
    older = next(toolchain for toolchain in discover() if toolchain.release == Release(17, 10))
    errors = restored(patched_server, older, tmp_path)
    named = [error for error in errors if error.code == "PROGRAMS_OLDER_THAN_SERVER"]
    assert len(named) == 2, "one for each table"
    assert all(error.origin is Origin.BACKUP and "pg_attver" in error.message for error in named)


def test_its_own_programs_dump_and_restore_without_an_error(patched_server: Cluster, tmp_path: Path) -> None:
    errors = restored(patched_server, patched_server.toolchain, tmp_path)
    assert errors == ()


def test_a_backup_uses_the_programs_that_fit(
    patched_server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(patched_server.toolchain.bin))
    discover.cache_clear()
    try:
        settings = DatabaseSettings(name="shop", url_env="UNUSED", timezone="UTC", folder=tmp_path)
        today = DAY.of(datetime.now(timezone.utc), settings.zone)
        store = open_store(settings)
        manifest = take_backup(settings, patched_server.target("shop"), store, today, Progress())
    finally:
        discover.cache_clear()
    assert Release.parse(manifest.server.release) == patched_server.toolchain.release
    assert manifest.dump.release.fits_server(patched_server.toolchain.release)
    assert manifest.dump.compression == "gzip:1", "15's programs have no zstd"
