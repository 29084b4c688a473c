"""The job of the disaster recovery: nothing starts it by itself, it wants to be confirmed, and it does it all."""

from __future__ import annotations

import dagster as dg
import pytest

from gs_backup_assets.config import load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.words import disaster_job_name
from gs_backup_assets_tests.recovery.disaster.disaster_site import Disaster, disaster

TEN = [(number,) for number in range(1, 11)]


def launch(lost: Disaster, instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    definitions = build_definitions(load_config(lost.folder / "backup.yaml"), retry=None)
    job = definitions.resolve_job_def(disaster_job_name("shop"))
    ops = {"ops": {"shop_recover_from_disaster": {"config": config}}}
    return job.execute_in_process(run_config=ops, instance=instance, raise_on_error=False)


def test_the_job_recovers_and_reports(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        assert not launch(lost, instance, confirm="studio", force=True).success  # that is not its name
        assert not launch(lost, instance, confirm="shop").success  # it is not lost
        assert not lost.into.exists()
        result = launch(lost, instance, confirm="shop", force=True)
        assert result.success
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN
        (handled,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
        metadata = handled.step_output_data.metadata
        assert metadata["status"].value == "passed" and metadata["store"].value == "primary"
        assert float(str(metadata["recovery_seconds"].value)) > 0
        assert "recover_seconds" in metadata and "start_seconds" in metadata


def test_no_schedule_starts_it() -> None:
    with disaster() as lost:
        definitions = build_definitions(load_config(lost.folder / "backup.yaml"))
        name = disaster_job_name("shop")
        assert definitions.resolve_job_def(name)
        assert not [one for one in definitions.schedules or [] if getattr(one, "job_name", "") == name]
