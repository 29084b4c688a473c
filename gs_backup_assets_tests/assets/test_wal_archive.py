"""Tests of the assets of the log and of drills: what the sensor reports, and what the jobs make, on a real instance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from gs_backup_assets.assets.drills import coverage_map
from gs_backup_assets.assets.wal import build_wal_sensor
from gs_backup_assets.catalogue.drills import read_drills
from gs_backup_assets.catalogue.periods import DAY, WEEK
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.recovery.wal.checks import CHECKS
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.schedules import plan_run
from gs_backup_assets_tests.archived import Site, site

KEY = dg.AssetKey(["studio", "wal_archive"])
DRILL = dg.AssetKey(["studio", "pitr_drill"])
RECOVERY = dg.AssetKey(["studio", "verified_recovery"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(17, tmp_path) as made:
        monkeypatch.setenv("GS_BACKUP_TEST_URL", made.server.url)
        made.commit(1)
        yield made


def _definitions(place: Site) -> dg.Definitions:
    return build_definitions(load_config(place.settings.folder / "backup.yaml"), retry=None)


def _tick(place: Site, instance: dg.DagsterInstance, cursor: str | None, now: datetime) -> Any:
    """One evaluation, its events reported as the daemon does it."""
    sensor = build_wal_sensor(place.settings, None, clock=lambda: now)
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"vault": VaultResource()}) as context:
        result = sensor(context)
    if isinstance(result, dg.SensorResult):
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
    return result


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey, name: str) -> dg.AssetCheckEvaluation:
    check = dg.AssetCheckKey(key, name)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation


def test_the_sensor_reports_what_is_archived_and_only_what_is_new(place: Site, instance: dg.DagsterInstance) -> None:
    now = place.now()
    day = DAY.of(now, place.settings.zone)
    first = _tick(place, instance, None, now)
    assert first.cursor and not _latest(instance, KEY, "rpo_met").passed
    assert _latest(instance, KEY, "rpo_met").metadata["status"].value == "not_verified"
    place.base_backup()
    place.switch()
    place.commit(2)
    place.heartbeat(place.now(), server=place.archive_all())
    second = _tick(place, instance, first.cursor, place.now())
    for name in ("wal_continuous", "wal_lag", "rpo_met"):
        evaluation = _latest(instance, KEY, name)
        assert evaluation.passed
    made = instance.get_latest_materialization_event(KEY)
    assert made is not None and made.asset_materialization is not None
    materialized = made.asset_materialization
    assert materialized.partition == day
    for name in ("archived_bytes", "archived_segments", "gap_segments", "lag_bytes", "recoverable_age_seconds"):
        assert isinstance(materialized.metadata[name].value, (int, float)), name
    assert isinstance(_latest(instance, KEY, "wal_lag").metadata["lag_seconds"].value, (int, float))
    same = _tick(place, instance, second.cursor, place.now())
    assert isinstance(same, dg.SkipReason)
    tomorrow = _tick(place, instance, second.cursor, place.now() + timedelta(days=1))
    assert tomorrow.cursor != second.cursor
    assert _latest(instance, KEY, "rpo_met").metadata["status"].value == "failed"
    assert _latest(instance, KEY, "rpo_met").severity is dg.AssetCheckSeverity.ERROR


def test_a_store_that_is_away_is_reported(place: Site, instance: dg.DagsterInstance) -> None:
    place.base_backup()
    place.archive_all()
    good = _tick(place, instance, None, place.now())
    store = place.settings.folder / "backups"
    store.rename(store.with_name("elsewhere"))
    store.write_text("no folder")
    _tick(place, instance, good.cursor, place.now())
    evaluation = _latest(instance, KEY, "wal_continuous")
    assert not evaluation.passed and evaluation.metadata["status"].value == "not_verified"


def test_a_store_whose_keys_are_not_there_is_reported(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    file = tmp_path / "backup.yaml"
    bucket = "{kind: s3, bucket: backups, access_key_env: GS_BACKUP_TEST_NO_KEY, secret_key_env: GS_BACKUP_TEST_NO_KEY}"
    file.write_text(
        f"databases: {{shop: {{url_env: X}}}}\nstores: {{primary: {bucket}}}\nwal: {{}}\n", encoding="utf-8"
    )
    sensor = build_wal_sensor(load_config(file).database(), None)
    with dg.build_sensor_context(instance=instance, resources={"vault": VaultResource()}) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    told = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert {event.check_name: event.metadata["status"].value for event in told} == dict.fromkeys(CHECKS, "not_verified")
    assert "CREDENTIALS_MISSING" in str(told[0].metadata["findings"].value)


def test_a_gap_starts_a_full_base_backup_once(place: Site, instance: dg.DagsterInstance) -> None:
    """The run that the sensor asks for closes the gap: then nothing is asked for any more."""
    base = place.base_backup()
    for number in range(3):
        place.commit(number)
        place.switch()
    place.heartbeat(place.now(), server=place.archive_all())
    definitions = _definitions(place)
    sensor = definitions.resolve_sensor_def("studio_wal_archive")

    def tick(cursor: str | None) -> dg.SensorResult:
        resources = {"vault": VaultResource()}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    sound = tick(None)
    assert not sound.run_requests
    whole = [found for found in place.archive.segments(1) if not found.partial]
    (place.settings.folder / "backups" / whole[-2].key).unlink()
    broken = tick(sound.cursor)
    (request,) = broken.run_requests or ()
    assert base.id in str(request.run_key)
    assert request.partition_key == WEEK.of(datetime.now(timezone.utc), place.settings.zone)
    again = tick(None)
    assert [r.run_key for r in again.run_requests or ()] == [request.run_key], "Dagster runs a key once"
    job = definitions.resolve_job_def("studio_base_backup")
    done = job.execute_in_process(
        partition_key=request.partition_key, instance=instance, run_config=request.run_config, raise_on_error=False
    )
    assert done.success
    place.heartbeat(place.now(), server=place.archive_all())
    assert not tick(broken.cursor).run_requests


def test_the_sensor_runs_by_default_and_asks_no_server(place: Site, instance: dg.DagsterInstance) -> None:
    definitions = _definitions(place)
    sensor = definitions.resolve_sensor_def("studio_wal_archive")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    place.base_backup()
    place.archive_all()
    now = place.now()
    place.server.stop()
    began = datetime.now(timezone.utc)
    assert isinstance(_tick(place, instance, None, now), dg.SensorResult)
    assert datetime.now(timezone.utc) - began < timedelta(seconds=30)
    place.server.start()


def test_it_can_be_looked_at_by_hand_for_today_only(place: Site, instance: dg.DagsterInstance) -> None:
    place.base_backup()
    place.commit(3)
    place.heartbeat(place.now(), server=place.archive_all())
    assets = [asset for asset in _definitions(place).assets or () if isinstance(asset, dg.AssetsDefinition)]
    (asset,) = [asset for asset in assets if asset.keys == {KEY}]
    resources = {"vault": VaultResource()}
    today = DAY.of(datetime.now(timezone.utc), place.settings.zone)
    done = dg.materialize([asset], partition_key=today, instance=instance, resources=resources)
    assert done.success and _latest(instance, KEY, "rpo_met").passed
    older = dg.materialize(
        [asset], partition_key="2026-11-01", instance=instance, resources=resources, raise_on_error=False
    )
    assert not older.success


def test_without_the_sections_there_are_no_assets(place: Site, tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text("{databases: {studio: {url_env: GS_BACKUP_TEST_URL}}, rules: none}")
    keys = _definitions(place).resolve_all_asset_keys()
    assert not {KEY, DRILL, RECOVERY} & set(keys)


def test_jobs_prove_the_base_backup_and_drill(place: Site, instance: dg.DagsterInstance) -> None:
    definitions = _definitions(place)
    week = WEEK.of(datetime.now(timezone.utc), place.settings.zone)
    job = definitions.resolve_job_def("studio_base_backup")
    done = job.execute_in_process(partition_key=week, instance=instance, raise_on_error=False)
    assert done.success
    assert _latest(instance, RECOVERY, "recovery_consistent").passed
    for number in range(3):
        place.commit(number)
        place.switch()
    place.heartbeat(place.now(), server=place.archive_all())
    job = definitions.resolve_job_def("studio_pitr_drill")
    done = job.execute_in_process(partition_key=week, instance=instance, raise_on_error=False)
    assert done.success
    for name in ("target_reached", "commits_before_present", "commits_after_absent", "page_checksums_valid", "rpo_met"):
        assert _latest(instance, DRILL, name).passed, name
    made = instance.get_latest_materialization_event(DRILL)
    assert made is not None and made.asset_materialization is not None
    metadata = made.asset_materialization.metadata
    assert isinstance(metadata["recovery_seconds"].value, float) and metadata["verdict"].value == "PROVEN"
    history = read_drills(place.store, "studio", newest=5)
    assert [record.verdict for record in history] == [Verdict.PROVEN]
    table = coverage_map(history)
    assert metadata["coverage"].value == table and history[0].target[:19] in table
    other = job.execute_in_process(partition_key="2026-11-01", instance=instance, raise_on_error=False)
    assert not other.success


def test_a_failed_drill_fails_its_run_and_says_why(place: Site, instance: dg.DagsterInstance) -> None:
    place.base_backup()
    place.commit(5)
    place.archive_all()
    (key,) = [o.key for o in place.store.objects("studio/physical") if "base.tar" in o.key]
    path = place.settings.folder / "backups" / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    week = WEEK.of(datetime.now(timezone.utc), place.settings.zone)
    job = _definitions(place).resolve_job_def("studio_pitr_drill")
    done = job.execute_in_process(partition_key=week, instance=instance, raise_on_error=False)
    assert not done.success and instance.get_latest_materialization_event(DRILL) is None
    stored = _latest(instance, DRILL, "stored_bytes_match")
    assert not stored.passed and stored.severity is dg.AssetCheckSeverity.ERROR
    assert _latest(instance, DRILL, "amcheck_clean").metadata["status"].value == "not_verified"


def test_a_tick_of_another_week_is_skipped(place: Site) -> None:
    now = datetime(2026, 11, 24, 4, tzinfo=timezone.utc)
    assert isinstance(plan_run(place.settings, WEEK, now - timedelta(days=7), now, kind="drill"), dg.SkipReason)
    asked = plan_run(place.settings, WEEK, now, now, kind="drill")
    assert isinstance(asked, dg.RunRequest) and asked.partition_key == "2026-11-22"
