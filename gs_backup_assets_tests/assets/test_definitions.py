"""The code location: light to load, complete, and the same partitions everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.config import load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.schedules import plan_run

HEAVY = ("great_expectations", "pandas", "boto3", "aws_encryption_sdk", "apprise", "dagster_aws", "sqlalchemy.dialects")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "backup.yaml"
    path.write_text(
        "databases:\n  one: {url_env: NOT_SET_ONE}\n  two: {url_env: NOT_SET_TWO, rules: none}\n"
        "timezone: America/Chicago\nrules: guitar_strategies\n",
        encoding="utf-8",
    )
    return path


def test_loading_is_light_and_reads_no_secret(config_file: Path) -> None:
    code = (
        "import sys, gs_backup_assets.definitions as d;"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules];"
        "assert not heavy, heavy;"
        "assert len(list(d.defs.resolve_all_job_defs())) >= 2"
    )
    environment = {**os.environ, "GS_BACKUP_CONFIG": str(config_file)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bad_configuration_is_told_when_the_location_loads(config_file: Path) -> None:
    config_file.write_text("databases: {one: {url_env: X}}\nretentoin: 3\n", encoding="utf-8")
    environment = {**os.environ, "GS_BACKUP_CONFIG": str(config_file)}
    code = "import gs_backup_assets.definitions"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "CONFIG_INVALID" in done.stderr and "retentoin" in done.stderr


def test_dagster_validates_the_project(config_file: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "GS_BACKUP_CONFIG": str(config_file)}
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [dagster, "definitions", "validate", "-w", root / "workspace.yaml"],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_database_has_its_own_graph(config_file: Path) -> None:
    definitions = build_definitions(load_config(config_file))
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    names = (
        "source_database",
        "logical_backup",
        "backup_checksum",
        "verified_restore",
        "integrity_report",
        "cost_report",
        "objectives",
    )
    assert keys == {f"{database}/{name}" for database in ("one", "two") for name in names}


def test_checks_and_assets_share_one_partitions_definition(config_file: Path) -> None:
    graph = build_definitions(load_config(config_file)).resolve_asset_graph()
    days = graph.get(dg.AssetKey(["one", "logical_backup"])).partitions_def
    assert isinstance(days, dg.DailyPartitionsDefinition) and days.timezone == "America/Chicago"
    assert len(graph.asset_check_keys) > 30
    for key in graph.asset_check_keys:
        assert graph.get(key).partitions_def == graph.get(key.asset_key).partitions_def, key
    for name in ("backup_checksum", "verified_restore", "integrity_report"):
        assert graph.get(dg.AssetKey(["one", name])).partitions_def == days


def test_the_restore_test_follows_the_proofs_of_all_days(config_file: Path) -> None:
    config_file.write_text(f"{config_file.read_text()}staging: {{url_env: NOT_SET_STAGING}}\n", encoding="utf-8")
    graph = build_definitions(load_config(config_file)).resolve_asset_graph()
    test = graph.get(dg.AssetKey(["one", "monthly_restore_test"]))
    assert test.parent_keys == {dg.AssetKey(["one", "verified_restore"])}
    mapping = graph.get_partition_mapping(test.key, dg.AssetKey(["one", "verified_restore"]))
    assert isinstance(mapping, dg.AllPartitionMapping)


def test_rules_of_the_file_are_checks_of_the_report(config_file: Path) -> None:
    graph = build_definitions(load_config(config_file)).resolve_asset_graph()
    report = dg.AssetKey(["one", "integrity_report"])
    names = {key.name for key in graph.asset_check_keys if key.asset_key == report}
    assert {"foreign_keys_hold", "user_email_missing", "invoice_total_negative", "lesson_orphaned_teacher"} <= names
    other = dg.AssetKey(["two", "integrity_report"])
    assert {key.name for key in graph.asset_check_keys if key.asset_key == other} == {"foreign_keys_hold"}


def test_schedules_and_sensors_run_by_default(config_file: Path) -> None:
    repository = build_definitions(load_config(config_file)).get_repository_def()
    schedules = {s.name: s for s in repository.schedule_defs}
    daily = {"one_daily_backup_schedule", "two_daily_backup_schedule"}
    assert set(schedules) == daily | {"one_cost_report_schedule", "two_cost_report_schedule"}
    for schedule in schedules.values():
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "America/Chicago"
    assert {schedules[name].cron_schedule for name in daily} == {"0 2 * * *"}
    sensors = {s.name: s for s in repository.sensor_defs}
    assert {"stale_backups", "failed_checks", "failed_runs"} <= set(sensors)
    assert all(sensor.default_status is dg.DefaultSensorStatus.RUNNING for sensor in sensors.values())


def test_assets_explain_themselves(config_file: Path) -> None:
    graph = build_definitions(load_config(config_file)).resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description and "fail" in node.description.lower(), key
        assert node.owners and node.kinds and node.group_name == key.path[0], key


@pytest.mark.parametrize(
    ("scheduled", "now", "expected"),
    [
        # 02:00 in Chicago is 08:00 UTC in winter; the run starts a minute later.
        ("2026-11-22T08:00:00", "2026-11-22T08:01:00", "2026-11-22"),
        # The day on which clocks go forward: 02:00 does not exist, Dagster ticks at 03:00 CDT.
        ("2026-03-08T08:00:00", "2026-03-08T08:00:30", "2026-03-08"),
        # Still the same local day, though the next one in UTC.
        ("2026-11-22T08:00:00", "2026-11-23T05:59:00", "2026-11-22"),
        # The daemon was down and catches up a day later: the past cannot be dumped.
        ("2026-11-22T08:00:00", "2026-11-23T08:00:00", None),
    ],
)
def test_a_tick_asks_for_the_day_on_which_it_runs(
    config_file: Path, scheduled: str, now: str, expected: str | None
) -> None:
    settings = load_config(config_file).database("one")
    moments = [datetime.fromisoformat(text).replace(tzinfo=timezone.utc) for text in (scheduled, now)]
    planned = plan_run(settings, DAY, *moments, kind="daily")
    if expected is None:
        assert isinstance(planned, dg.SkipReason) and "PARTITION_NOT_TODAY" in str(planned.skip_message)
    else:
        assert isinstance(planned, dg.RunRequest) and planned.partition_key == expected
