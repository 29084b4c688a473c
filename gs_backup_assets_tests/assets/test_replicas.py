"""replica_status in Dagster: reported by the sensor without a run, told when it fails, materialised by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.config import BackupConfig, load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.recovery.replicas.limits import CHECK
from gs_backup_assets_tests.production import Production, production

KEY = dg.AssetKey(["studio", "replica_status"])


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Production, Production]]:
    with production(17) as primary:
        primary.sql("SELECT pg_create_physical_replication_slot('spare', true)")
        with primary.standby(settings={"primary_slot_name": "spare"}) as standby:
            yield primary, standby


@pytest.fixture
def config(tmp_path: Path, pair: tuple[Production, Production], monkeypatch: pytest.MonkeyPatch) -> BackupConfig:
    monkeypatch.setenv("PRIMARY", pair[0].url)
    monkeypatch.setenv("SPARE", pair[1].url)
    text = "databases: {studio: {url_env: PRIMARY}}\nreplicas: {spare: {url_env: SPARE}}\n"
    (tmp_path / "backup.yaml").write_text(text, encoding="utf-8")
    return load_config(tmp_path / "backup.yaml")


def tick(config: BackupConfig, instance: dg.DagsterInstance) -> None:
    """One evaluation of the sensor, its events stored as the daemon stores them."""
    definitions = build_definitions(config)
    sensor = definitions.resolve_sensor_def("studio_replica_status")
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        data = sensor.evaluate_tick(context)
    assert not data.run_requests
    for event in data.asset_events:
        instance.report_runless_asset_event(event)


def evaluation(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(KEY, CHECK)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation


def test_the_sensor_reports_without_a_run(
    config: BackupConfig, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(config, instance)
    assert evaluation(instance).passed
    event = instance.get_latest_materialization_event(KEY)
    assert event is not None and event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["spare_lag_bytes"].value == 0 and "streaming" in str(metadata["replicas"].value)
    assert not instance.get_runs()
    monkeypatch.setenv("SPARE", "postgresql://nobody@127.0.0.1:1/nowhere")
    tick(config, instance)
    assert not evaluation(instance).passed
    assert evaluation(instance).metadata["status"].value == "not_verified"


def test_its_failure_is_told_by_the_sensor_of_checks(
    config: BackupConfig, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARE", "postgresql://nobody@127.0.0.1:1/nowhere")
    tick(config, instance)
    definitions = build_definitions(config)
    with dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def()) as context:
        outcome = definitions.resolve_sensor_def("failed_checks").evaluate_tick(context)
    assert "replica_status" in str(outcome.skip_message)


def test_it_can_be_materialised_by_hand(config: BackupConfig, instance: dg.DagsterInstance) -> None:
    definitions = build_definitions(config)
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[KEY]).success
    assert evaluation(instance).passed


def test_without_replicas_there_is_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text("databases: {studio: {url_env: PRIMARY}}\n", encoding="utf-8")
    definitions = build_definitions(load_config(tmp_path / "backup.yaml"))
    assert KEY not in definitions.resolve_asset_graph().get_all_asset_keys()
    assert not [sensor for sensor in definitions.sensors or [] if "replica" in sensor.name]
