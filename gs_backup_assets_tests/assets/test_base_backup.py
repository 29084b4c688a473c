"""The base backup in Dagster: asset, checks, job and schedules, and the same as a verb."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.config import BackupConfig, DatabaseSettings, load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.schedules import plan_run
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.assets.test_daily_job import evaluations, failure_text, key
from gs_backup_assets_tests.cli.test_main import call
from gs_backup_assets_tests.production import Production, production

JOB = "studio_base_backup"
CONFIG = """
databases: {studio: {url_env: TEST_PRODUCTION_URL}}
timezone: America/Chicago
stores: {offsite: {kind: local, path: elsewhere}}
physical: {chain_length: 3}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Production]:
    with production(17, settings={"summarize_wal": "on"}) as made:
        made.bench("-i", "-s", "1", "-q")
        yield made


@pytest.fixture
def folder(tmp_path: Path, server: Production, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEST_PRODUCTION_URL", server.url)
    (tmp_path / "backup.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def configured(folder: Path) -> BackupConfig:
    return load_config(folder / "backup.yaml")


def settings_of(folder: Path) -> DatabaseSettings:
    return configured(folder).database()


def run(
    folder: Path, instance: dg.DagsterInstance, *, full: bool, week: str | None = None
) -> dg.ExecuteInProcessResult:
    job = build_definitions(configured(folder), retry=None).resolve_job_def(JOB)
    week = week or WEEK.of(datetime.now(timezone.utc), settings_of(folder).zone)
    config = {"ops": {"studio__base_backup": {"config": {"full": full}}}}
    return job.execute_in_process(partition_key=week, instance=instance, raise_on_error=False, run_config=config)


def test_full_and_incremental(folder: Path, instance: dg.DagsterInstance) -> None:
    for full in (True, False):
        result = run(folder, instance, full=full)
        assert result.success, failure_text(result)
        found = evaluations(result)
        assert {"base_backup.stored_bytes_match", "base_backup.offsite_matches"} <= set(found)
        assert all(evaluation.passed for evaluation in found.values())
        (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == key("base_backup")]
        metadata = {name: value.value for name, value in event.materialization.metadata.items()}
        assert metadata["chain_length"] == (1 if full else 2)
        for name in ("stored_bytes", "copied_bytes", "wal_bytes", "compression_ratio", "base_backup_seconds"):
            assert metadata[name] > 0, name  # type: ignore[operator]
    settings = settings_of(folder)
    newest, oldest = PhysicalCatalogue(open_store(settings), "studio").entries()
    assert newest.require_manifest().base == oldest.id
    copies = PhysicalCatalogue(open_store(settings, "offsite"), "studio").entries()
    assert [copy.id for copy in copies] == [newest.id, oldest.id]
    events = [record for record in AuditLog(open_store(settings), "studio").records() if record.event == "backup"]
    assert [(e.ids["backup"], e.ids["kind"], e.result) for e in events] == [
        (oldest.id, "physical", "stored"),
        (newest.id, "physical", "stored"),
    ]


def test_another_week_is_refused(folder: Path, instance: dg.DagsterInstance) -> None:
    result = run(folder, instance, full=True, week="2026-01-04")
    assert not result.success and "PARTITION_NOT_THIS_WEEK" in failure_text(result)
    assert PhysicalCatalogue(open_store(settings_of(folder)), "studio").entries() == []


def test_what_cannot_be_taken_is_on_record(
    folder: Path, instance: dg.DagsterInstance, server: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.sql("CREATE ROLE nobody_special LOGIN")
    monkeypatch.setenv("TEST_PRODUCTION_URL", server.url.replace("studio_owner", "nobody_special"))
    result = run(folder, instance, full=True)
    assert not result.success and "REPLICATION_RIGHT_MISSING" in failure_text(result)
    # The primary store has nothing of the database: it may as well be a disk that is not mounted.
    (record,) = AuditLog(open_store(settings_of(folder), "offsite"), "studio").records()
    assert (record.event, record.result, record.ids["kind"]) == ("backup", "REPLICATION_RIGHT_MISSING", "physical")


def test_the_graph(folder: Path) -> None:
    graph = build_definitions(configured(folder)).resolve_asset_graph()
    node = graph.get(key("base_backup"))
    weeks = node.partitions_def
    assert isinstance(weeks, dg.WeeklyPartitionsDefinition) and weeks.timezone == "America/Chicago"
    now = datetime.now(timezone.utc)
    assert weeks.get_last_partition_key() == WEEK.of(now, settings_of(folder).zone), "keys as the backups have them"
    assert weeks.get_first_partition_key() == "2025-12-28", "the week of the first day"
    for check in graph.asset_check_keys:
        if check.asset_key == node.key:
            assert graph.get(check).partitions_def == weeks
    assert node.parent_keys == {key("source_database")}
    assert node.description and "fail" in node.description and node.owners and node.kinds
    (folder / "backup.yaml").write_text("databases: {studio: {url_env: X}}\n", encoding="utf-8")
    assert not build_definitions(configured(folder)).resolve_asset_graph().has(key("base_backup"))


def test_the_schedules(folder: Path) -> None:
    repository = build_definitions(configured(folder)).get_repository_def()
    schedules = {s.name: s for s in repository.schedule_defs}
    full, incremental = (schedules[f"studio_{kind}_base_backup_schedule"] for kind in ("full", "incremental"))
    assert (full.cron_schedule, incremental.cron_schedule) == ("0 1 * * 0", "0 1 * * 1-6")
    for schedule, wanted in ((full, True), (incremental, False)):
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        now = datetime.now(timezone.utc)
        with (
            dg.instance_for_test() as instance,
            dg.build_schedule_context(instance, scheduled_execution_time=now, repository_def=repository) as context,
        ):
            (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert request.partition_key == WEEK.of(now, settings_of(folder).zone)
        assert request.run_config == {"ops": {"studio__base_backup": {"config": {"full": wanted}}}}
    never = CONFIG.replace("{chain_length: 3}", "{incremental: never}")
    (folder / "backup.yaml").write_text(never, encoding="utf-8")
    names = {s.name for s in build_definitions(configured(folder)).get_repository_def().schedule_defs}
    assert "studio_incremental_base_backup_schedule" not in names and full.name in names


@pytest.mark.parametrize(
    ("scheduled", "now", "expected"),
    [
        ("2026-11-22T07:00", "2026-11-22T07:01", "2026-11-22"),  # Sunday 01:00 in Chicago
        ("2026-11-28T07:00", "2026-11-28T07:01", "2026-11-22"),
        ("2026-11-22T07:00", "2026-11-29T05:59", "2026-11-22"),  # still Saturday there
        ("2026-11-22T07:00", "2026-11-29T06:00", None),  # caught up in the next week
    ],
)
def test_a_tick_asks_for_its_own_week(folder: Path, scheduled: str, now: str, expected: str | None) -> None:
    tick, moment = (datetime.fromisoformat(text).replace(tzinfo=timezone.utc) for text in (scheduled, now))
    planned = plan_run(settings_of(folder), WEEK, tick, moment, kind="base-backup")
    if expected is None:
        assert isinstance(planned, dg.SkipReason) and "PARTITION_NOT_THIS_WEEK" in str(planned.skip_message)
    else:
        assert isinstance(planned, dg.RunRequest) and planned.partition_key == expected


def test_the_verb(folder: Path) -> None:
    first = call("base-backup", "--json", cwd=folder)
    assert first.returncode == 0, first.stderr
    full = json.loads(first.stdout)
    assert (full["base"], full["chain_length"]) == (None, 1)
    assert {check["name"]: check["status"] for check in full["checks"]} == {
        "stored_bytes_match": "passed",
        "offsite_matches": "passed",
    }
    assert "base backup" in first.stderr and "checksum" in first.stderr, "stages are told"
    second = call("base-backup", cwd=folder)
    assert second.returncode == 0 and f"adds to {full['id']}" in second.stdout, second.stderr
    third = call("base-backup", "--full", "--json", cwd=folder)
    assert third.returncode == 0 and json.loads(third.stdout)["base"] is None
    missing = call("base-backup", "--json", cwd=folder, TEST_PRODUCTION_URL="postgresql://x@127.0.0.1:1/x")
    assert missing.returncode == 4 and json.loads(missing.stdout)["error"]["code"] == "SERVER_UNREACHABLE"
