"""The cost report in Dagster: this month's partition only, numbers for plots, and a budget that does not block."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.catalogue.periods import MONTH
from gs_backup_assets.config import BackupConfig, load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.schedules import plan_run
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.assets.test_daily_job import evaluations, failure_text
from gs_backup_assets_tests.recovery.test_costing import bytes_below, put_backup
from gs_backup_assets_tests.s3_server import S3Server

KEY = dg.AssetKey(["shop", "cost_report"])
DEAR = "costs: {prices: {local: 1000}, budget: {local: 1, STANDARD: 25}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a few backups of the last days."""
    configure(tmp_path)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    for back in range(3):
        put_backup(LocalStore(tmp_path / "backups"), now - timedelta(hours=1, days=back), 1_000_000)
    return tmp_path


def configure(folder: Path, more: str = "") -> None:
    text = f"databases: {{shop: {{url_env: NOT_SET}}}}\ntimezone: America/Chicago\n{more}"
    (folder / "backup.yaml").write_text(text, encoding="utf-8")


def config_of(folder: Path) -> BackupConfig:
    return load_config(folder / "backup.yaml")


def run(folder: Path, instance: dg.DagsterInstance, month: str | None = None) -> dg.ExecuteInProcessResult:
    """The monthly job in this process, as the schedule's run would do it."""
    config = config_of(folder)
    month = month or MONTH.of(datetime.now(timezone.utc), config.database().zone)
    job = build_definitions(config, retry=None).resolve_job_def("shop_cost_report")
    return job.execute_in_process(partition_key=month, instance=instance, raise_on_error=False)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == KEY
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_this_month_is_reported_in_numbers(folder: Path, instance: dg.DagsterInstance) -> None:
    result = run(folder, instance)
    assert result.success, failure_text(result)
    metadata = metadata_of(result)
    resting = bytes_below(folder / "backups" / "shop")
    assert metadata["stored_bytes"] == metadata["primary_stored_bytes"] == resting
    assert metadata["objects"] == 12 and "offsite_stored_bytes" not in metadata
    assert metadata["monthly_cost"] == pytest.approx(resting / 1e9 * 0.02)
    assert metadata["monthly_budget"] == 40.0 and metadata["currency"] == "USD"
    assert metadata["stored_bytes_in_12_months"] > 330 * 1_000_000  # type: ignore[operator]
    assert metadata["monthly_cost_in_12_months"] == pytest.approx(
        metadata["stored_bytes_in_12_months"] / 1e9 * 0.02  # type: ignore[operator]
    )
    # Three days are too few to know the growth, and no rule is configured: no number, and not a zero.
    assert not {"growth_bytes_per_day", "retention_saves_monthly", "transitions_saves_monthly"} & metadata.keys()
    assert "| primary | local | 12 |" in str(metadata["costs"]) and "Not in these figures" in str(metadata["costs"])
    (check,) = evaluations(result).values()
    assert check.check_name == "within_budget" and check.passed
    assert check.partition == result.dagster_run.tags["dagster/partition"]


def test_what_retention_saves_is_a_number(folder: Path, instance: dg.DagsterInstance) -> None:
    configure(folder, "retention: {daily: 7, weekly: 0, monthly: 0}\n")
    metadata = metadata_of(run(folder, instance))
    assert metadata["retention_saves_monthly"] > 0  # type: ignore[operator]
    assert metadata["stored_bytes_in_12_months"] < 8 * 1_010_000  # type: ignore[operator]


def test_another_month_is_refused(folder: Path, instance: dg.DagsterInstance) -> None:
    zone = config_of(folder).database().zone
    first = datetime.fromisoformat(MONTH.of(datetime.now(timezone.utc), zone)).replace(tzinfo=zone)
    before = MONTH.of(first - timedelta(days=1), zone)
    result = run(folder, instance, before)
    assert not result.success and "PARTITION_NOT_THIS_MONTH" in failure_text(result)
    assert instance.get_materialized_partitions(KEY) == set()


def test_over_the_budget_is_told_and_stops_nothing(folder: Path, instance: dg.DagsterInstance) -> None:
    configure(folder, DEAR)
    result = run(folder, instance)
    assert result.success and len(instance.get_materialized_partitions(KEY)) == 1
    (check,) = evaluations(result).values()
    assert not check.passed and check.severity is dg.AssetCheckSeverity.WARN and not check.blocking
    assert check.metadata["monthly_cost"].value == pytest.approx(bytes_below(folder / "backups" / "shop") / 1e6)
    assert check.metadata["monthly_budget"].value == 26.0
    assert "OVER_BUDGET" in str(check.metadata["findings"].value)
    assert metadata_of(result)["monthly_cost"] == check.metadata["monthly_cost"].value


def test_an_unknown_price_is_no_number_and_no_pass(folder: Path, instance: dg.DagsterInstance) -> None:
    configure(folder, "costs: {prices: {STANDARD: 0.023}}\n")
    result = run(folder, instance)
    assert result.success and "monthly_cost" not in metadata_of(result)
    (check,) = evaluations(result).values()
    assert not check.passed and check.metadata["status"].value == "not_verified"


def test_an_empty_store_gives_zeros(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    configure(tmp_path)
    metadata = metadata_of(run(tmp_path, instance))
    assert metadata["stored_bytes"] == metadata["objects"] == metadata["monthly_cost"] == 0
    assert "stored_bytes_in_12_months" not in metadata


def test_a_store_that_cannot_be_read_fails_the_run(
    folder: Path, instance: dg.DagsterInstance, s3_server: S3Server
) -> None:
    configure(folder, f"stores: {{offsite: {{kind: s3, bucket: not-made, endpoint: '{s3_server.endpoint}'}}}}\n")
    result = run(folder, instance)
    assert not result.success and "BUCKET_MISSING" in failure_text(result)
    assert instance.get_materialized_partitions(KEY) == set()


def test_a_report_can_be_asked_for_by_itself(folder: Path, instance: dg.DagsterInstance) -> None:
    """As the button in the UI does it, for the partition that Dagster itself counts as the newest."""
    definitions = build_definitions(config_of(folder), retry=None)
    asset = definitions.resolve_assets_def(KEY)
    assert asset.partitions_def is not None
    newest = asset.partitions_def.get_last_partition_key()
    assert newest is not None
    assert dg.materialize([asset], partition_key=newest, instance=instance).success


def test_the_report_stands_in_the_graph_with_months_of_its_own(folder: Path) -> None:
    configure(folder, "first_partition: '2026-03-17'\n")
    graph = build_definitions(config_of(folder)).resolve_asset_graph()
    node = graph.get(KEY)
    assert node.parent_keys == {dg.AssetKey(["shop", "logical_backup"])}
    months = node.partitions_def
    assert isinstance(months, dg.MonthlyPartitionsDefinition) and months.timezone == "America/Chicago"
    assert months.get_first_partition_key() == "2026-03-01"
    assert {key.name for key in node.check_keys} == {"within_budget"}
    assert all(graph.get(key).partitions_def == months for key in node.check_keys)


def test_without_a_budget_there_is_no_check(folder: Path, instance: dg.DagsterInstance) -> None:
    configure(folder, "costs: {budget: {}}\n")
    result = run(folder, instance)
    assert result.success and evaluations(result) == {}
    assert "monthly_budget" not in metadata_of(result)


@pytest.mark.parametrize(
    ("scheduled", "now", "month"),
    [
        ("2026-12-01T12:00:00", "2026-12-01T12:00:05", "2026-12-01"),
        # 06:00 of the first of the month in Chicago; the daemon was down until the last hour of the month.
        ("2026-12-01T12:00:00", "2027-01-01T05:59:59", "2026-12-01"),
        ("2026-12-01T12:00:00", "2027-01-01T06:00:00", None),
    ],
)
def test_a_tick_asks_for_the_month_in_which_it_runs(folder: Path, scheduled: str, now: str, month: str | None) -> None:
    moments = [datetime.fromisoformat(text).replace(tzinfo=timezone.utc) for text in (scheduled, now)]
    planned = plan_run(config_of(folder).database(), MONTH, *moments, kind="costs")
    if month is None:
        assert isinstance(planned, dg.SkipReason) and "PARTITION_NOT_THIS_MONTH" in str(planned.skip_message)
    else:
        assert isinstance(planned, dg.RunRequest) and planned.partition_key == month


def test_the_schedule_runs_on_the_first_of_the_month(folder: Path, instance: dg.DagsterInstance) -> None:
    repository = build_definitions(config_of(folder)).get_repository_def()
    schedule = repository.get_schedule_def("shop_cost_report_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 1 * *", "America/Chicago")
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime.now(timezone.utc),
        repository_def=repository,
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert request.partition_key == MONTH.of(datetime.now(timezone.utc), config_of(folder).database().zone)
