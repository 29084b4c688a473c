"""Tests of named restore points: their fingerprint is of exactly their position, or there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest

from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.restore_points import RestorePointRecord, point_names, read_point, require_name
from gs_backup_assets.errors import ConfigError, SourceError, StoreError
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.postgres.waldump import read_restore_points
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.point_in_time.recover_plan import plan_recovery
from gs_backup_assets.recovery.point_in_time.restore_points import create_restore_point
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.archived import Site, site


@pytest.fixture(params=[15, 17])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with site(request.param, tmp_path) as made:
        made.commit(1)
        yield made


@pytest.fixture
def place17(tmp_path: Path) -> Iterator[Site]:
    with site(17, tmp_path, server={"max_prepared_transactions": "5"}) as made:
        made.commit(1)
        yield made


def test_the_record_has_the_position_of_the_point_in_the_log(place: Site) -> None:
    made = create_restore_point(place.settings, place.server.target(), place.store, "v1.2_before-x", Progress())
    assert made == read_point(place.store, "studio", place.cluster, "v1.2_before-x")
    assert point_names(place.store, "studio", place.cluster) == ["v1.2_before-x"]
    assert made.source_database == "studio" and made.timeline == 1 and made.reason is None
    assert made.fingerprint is not None and made.fingerprint.rows == 1
    assert any(item.name == "lesson" for item in made.schema_objects)
    end = Lsn.parse(made.lsn)
    segment = Segment.at(Lsn(end.value - 1), 1)
    written = place.flushed()
    assert end <= written  # it is on disk already
    data = place.server.data / "pg_wal"
    points = read_restore_points(place.server.toolchain, data, segment, segment, end=min(written, segment.end))
    assert points[-1].name == made.name and points[-1].lsn < end
    with pytest.raises(ConfigError, match="POINT_EXISTS"):
        create_restore_point(place.settings, place.server.target(), place.store, "v1.2_before-x", Progress())


def test_of_several_points_of_one_name_the_recorded_one_is_the_target(place17: Site) -> None:
    place17.base_backup()
    place17.server.sql("SELECT pg_create_restore_point('twice')")
    place17.commit(2)
    target = place17.server.target()
    made = create_restore_point(place17.settings, target, place17.store, "twice", Progress(), fingerprint=False)
    place17.commit(3)
    place17.archive_all()
    plan = plan_recovery(place17.settings, place17.vault, RecoveryTarget(name="twice"), now=place17.now())
    assert plan.target == RecoveryTarget(lsn=Lsn.parse(made.lsn), inclusive=False) and not plan.to_the_end


def test_without_a_fingerprint_it_is_only_a_position(place17: Site) -> None:
    made = create_restore_point(
        place17.settings, place17.server.target(), place17.store, "quick", Progress(), fingerprint=False
    )
    assert made.fingerprint is None and made.reason == "it was not asked for" and made.schema_objects == ()


def test_a_transaction_that_is_about_to_commit_leaves_no_fingerprint(place17: Site) -> None:
    """One that works has its number: whether its commit is before the point cannot be known; one that waits is open."""
    target = place17.server.target()
    with connect(target, settings={"search_path": "public"}, autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO lesson (value) VALUES (5)")
        idle = create_restore_point(place17.settings, target, place17.store, "idle-writer", Progress(), tries=3)
        assert idle.fingerprint is not None and idle.fingerprint.rows == 1

        def work() -> None:
            with suppress(psycopg2.errors.QueryCanceled):
                cursor.execute("SELECT pg_sleep(600)")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            busy = create_restore_point(place17.settings, target, place17.store, "busy-writer", Progress(), tries=3)
        finally:
            other.cancel()
            thread.join(timeout=30)
    assert busy.fingerprint is None and "committed" in (busy.reason or "")
    assert busy == read_point(place17.store, "studio", place17.cluster, "busy-writer")


def test_under_load_a_fingerprint_is_exact_or_absent(place17: Site) -> None:
    """Whatever the load: what is recorded as the fingerprint is what the table held when the point was written."""
    place17.server.sql("CREATE TABLE beat (n bigserial PRIMARY KEY, lsn pg_lsn)")
    script = place17.server.folder / "beat.sql"
    script.write_text("INSERT INTO beat (lsn) VALUES (pg_current_wal_insert_lsn());\n\\sleep 20 ms\n", encoding="utf-8")
    script.chmod(0o644)
    target = place17.server.target()
    made: list[RestorePointRecord] = []
    with place17.server.load(120, "-c", "1", "-f", str(script)):
        # How often a commit comes between is up to the machine: go on until there is something to compare.
        while len(made) < 4 or (len(made) < 20 and all(record.fingerprint is None for record in made)):
            made.append(create_restore_point(place17.settings, target, place17.store, f"p{len(made)}", Progress()))
    exact = [record for record in made if record.fingerprint is not None]
    assert exact
    for record in exact:
        assert record.fingerprint is not None
        (beat,) = [table for table in record.fingerprint.tables if table.name == "beat"]
        # A row knows a position before its own commit: no row of a later commit can have one before the point's last.
        ((below,),) = place17.server.sql(f"SELECT count(*) FROM beat WHERE lsn < '{record.lsn}'")
        assert isinstance(below, int) and 0 <= below - beat.rows <= 1


@pytest.mark.parametrize(
    "name", ["", "latest", "2026-11-24T18:00:00Z", "2026-11-24", "a b", "../x", "a/b", "-x", "x" * 64, "16/B374D848"]
)
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="POINT_NAME_INVALID"):
        require_name(name)


def test_a_good_name_is_a_target_of_a_recovery() -> None:
    require_name("before-42_fix.1")
    assert RecoveryTarget.parse("before-42_fix.1").name == "before-42_fix.1"


def test_a_role_without_the_right_is_told_what_it_needs(place17: Site) -> None:
    place17.server.sql("CREATE ROLE app LOGIN")
    target = place17.server.target()
    app = replace(target, parameters={**target.parameters, "user": "app"})
    with pytest.raises(SourceError) as error:
        create_restore_point(place17.settings, app, place17.store, "x", Progress())
    assert error.value.code == "POINT_REFUSED" and "GRANT EXECUTE" in error.value.hint
    for grant in (
        "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO app",
        "GRANT pg_read_all_data, pg_monitor TO app",
    ):
        place17.server.sql(grant)
    made = create_restore_point(place17.settings, app, place17.store, "x", Progress())
    assert made.fingerprint is not None


def test_a_standby_makes_no_point(place17: Site) -> None:
    with place17.server.standby() as standby, pytest.raises(SourceError, match="POINT_REFUSED"):
        create_restore_point(place17.settings, standby.target(), place17.store, "x", Progress())


def test_a_damaged_record_is_told(place17: Site) -> None:
    create_restore_point(place17.settings, place17.server.target(), place17.store, "x", Progress(), fingerprint=False)
    store = place17.store
    assert isinstance(store, LocalStore)
    (path,) = store.root.glob("studio/wal/*/points/x.json")
    path.write_bytes(path.read_bytes().replace(b'"timeline": 1', b'"timeline": 2'))
    with pytest.raises(StoreError, match="POINT_DAMAGED"):
        read_point(store, "studio", place17.cluster, "x")
    assert read_point(store, "studio", place17.cluster, "y") is None


def test_the_verb_says_what_it_made(place17: Site, tmp_path: Path) -> None:
    environment = {**os.environ, "GS_BACKUP_TEST_URL": place17.server.url}
    argv = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()", "restore-point", "release-7"]
    argv += ["--config", str(tmp_path / "backup.yaml"), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["name"] == "release-7" and document["fingerprint"] is True and document["rows"] == 1
    again = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 2 and json.loads(again.stdout)["error"]["code"] == "POINT_EXISTS"
