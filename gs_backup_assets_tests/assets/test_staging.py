"""The monthly restore test in Dagster: partitions, checks, schedule, and a message of success to a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.alerts.staging import staging_message, told
from gs_backup_assets.catalogue.periods import MONTH
from gs_backup_assets.catalogue.staging_tests import read_staging_tests
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.schedules import plan_run
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import ALERTS_VARIABLE, Project
from gs_backup_assets_tests.chain import chain_in
from gs_backup_assets_tests.recovery.staging.staging_site import URL_VARIABLE, Application, Site, application

CHECKS = {
    "staging_stopped", "staging_restored", "staging_started", "staging_healthy", "rto_met", "message_accepted",
}  # fmt: skip


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as made:
        yield made


@pytest.fixture
def site(
    project: Project, server17: Cluster, app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    project.configure(
        staging=f'{{url_env: {URL_VARIABLE}, health: [{{url: "{app.url}", expect: go, deadline: 2s}}]}}',
        timezone="UTC",
    )
    made = Site(server17, f"stage_{project.source.database}", tmp_path, chain_in(tmp_path), app)
    made.reset()
    monkeypatch.setenv(URL_VARIABLE, made.url)
    yield made
    made.drop()


def run(project: Project, instance: dg.DagsterInstance, partition: str | None = None) -> dg.ExecuteInProcessResult:
    job = project.definitions().resolve_job_def("studio_monthly_restore_test")
    month = partition or MONTH.of(datetime.now(timezone.utc), project.settings.zone)
    return job.execute_in_process(partition_key=month, instance=instance, raise_on_error=False)


def test_the_month_is_tested_and_people_are_told(
    project: Project, site: Site, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not run(project, instance).success, "there is no proven backup"
    assert project.run(instance).success
    with Receiver() as heard:
        monkeypatch.setenv(ALERTS_VARIABLE, heard.url())
        result = run(project, instance)
        assert result.success
        evaluations = {e.check_name: e for e in result.get_asset_check_evaluations()}
        assert evaluations.keys() == CHECKS and all(e.passed for e in evaluations.values())
        assert not site.is_old
        (record,) = read_staging_tests(open_store(project.settings), "studio", newest=5)
        assert "succeeded" in heard.titles[-1] and heard.received[-1]["type"] == "success"
        assert record.backup_id in heard.received[-1]["message"]
        site.reset()
        site.app.status = 503
        result = run(project, instance)
        assert not result.success and site.is_old
        failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
        assert failed == {"staging_healthy", "rto_met"}
        assert "FAILED" in heard.titles[-1] and "put back" in str(heard.received[-1])
        assert heard.received[-1]["type"] == "failure" and record.backup_id in heard.received[-1]["message"]
    monkeypatch.delenv(ALERTS_VARIABLE)
    assert told(project.settings, staging_message(record)).status.value == "not_verified"
    monkeypatch.setenv(ALERTS_VARIABLE, "json://127.0.0.1:9")
    assert told(project.settings, staging_message(record), lambda _seconds: None).status.value == "failed"


def test_another_month_is_refused(project: Project, site: Site, instance: dg.DagsterInstance) -> None:
    result = run(project, instance, "2026-01-01")
    assert not result.success and site.is_old


def test_a_tick_of_another_month_is_skipped(project: Project, site: Site) -> None:
    scheduled = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
    late = plan_run(project.settings, MONTH, scheduled, datetime(2026, 12, 2, tzinfo=timezone.utc), kind="staging")
    assert isinstance(late, dg.SkipReason)
    planned = plan_run(
        project.settings, MONTH, scheduled, datetime(2026, 11, 1, 4, 1, tzinfo=timezone.utc), kind="staging"
    )
    assert isinstance(planned, dg.RunRequest) and planned.partition_key == "2026-11-01"
    schedule = project.definitions().resolve_schedule_def("studio_monthly_restore_test_schedule")
    assert schedule.cron_schedule == "0 4 * * 0#1"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_without_staging_there_is_no_test(project: Project) -> None:
    names = {key.path[-1] for key in project.definitions().resolve_asset_graph().get_all_asset_keys()}
    assert "monthly_restore_test" not in names
