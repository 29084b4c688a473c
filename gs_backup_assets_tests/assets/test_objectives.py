"""The asset of the objectives: reported each day by the sensor without a run, and materialised by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.assets.common import StepLog
from gs_backup_assets.assets.objectives import build_objectives, build_objectives_sensor
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.sensors import build_staleness_sensor
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import ALERTS_VARIABLE
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import NOW, shelve

DAY = timedelta(days=1)
KEY = dg.AssetKey(["shop", "objectives"])


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "backups")


@pytest.fixture
def settings(store: LocalStore) -> DatabaseSettings:
    classes = {"critical": {"rpo": "15m", "rto": "1h"}, "important": {"rpo": "25h", "rto": "4h"}}
    return settings_in(store.root.parent, data_classes=classes, alerts={"urls_env": ALERTS_VARIABLE})


def tick(
    settings: DatabaseSettings, instance: dg.DagsterInstance, days: float = 0, cursor: str | None = None
) -> tuple[dict[str, object], bool | None, str | None]:
    """Metadata and check that one tick reports, and the cursor after it."""
    sensor = build_objectives_sensor([settings], clock=lambda: NOW + days * DAY)
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        result = sensor(context)
    if not isinstance(result, dg.SensorResult):
        return {}, None, cursor
    metadata: dict[str, object] = {}
    passed = None
    for event in result.asset_events:
        if isinstance(event, dg.AssetMaterialization):
            assert event.asset_key == KEY
            metadata = {name: value.value for name, value in event.metadata.items()}
        elif isinstance(event, dg.AssetCheckEvaluation):
            assert event.check_name == "objectives_met"
            passed = event.passed
    return metadata, passed, result.cursor


def test_a_point_each_day_also_when_the_backup_failed(
    settings: DatabaseSettings, store: LocalStore, instance: dg.DagsterInstance
) -> None:
    assert tick(settings, instance) == ({}, None, None), "without a proven backup there is nothing to report"
    shelve(store, 2.25)
    shelve(store, 1.21)
    first, passed, cursor = tick(settings, instance, -1.2)
    assert first["critical_rpo_target_seconds"] == 900 and first["important_rpo_met"] == 1 and passed is False
    assert tick(settings, instance, -1.2, cursor)[0] == {}, "the same twice"
    shelve(store, 0.2, Verdict.FAILED)
    second, passed, cursor = tick(settings, instance, -0.1, cursor)
    seconds = second["important_rpo_seconds"]
    assert isinstance(seconds, float) and seconds > 90000 and second["important_rpo_met"] == 0 and passed is False
    shelve(store, 0.06)
    assert tick(settings, instance, -0.1, cursor)[0] != {}, "a new proof is news of the same day"


def test_a_damaged_cursor_reports_again(
    settings: DatabaseSettings, store: LocalStore, instance: dg.DagsterInstance
) -> None:
    shelve(store, 0.01)
    assert tick(settings, instance, cursor="{no cursor")[0] != {}


def test_a_store_that_is_away_is_no_point(
    settings: DatabaseSettings, store: LocalStore, instance: dg.DagsterInstance
) -> None:
    store.root.write_text("not a folder", encoding="utf-8")
    assert tick(settings, instance)[0] == {}


def test_it_is_measured_when_it_is_materialised(
    settings: DatabaseSettings, store: LocalStore, instance: dg.DagsterInstance
) -> None:
    shelve(store, 0.01)
    asset = build_objectives(settings, StepLog)
    result = dg.materialize([asset], instance=instance, resources={"vault": VaultResource()})
    (evaluation,) = result.get_asset_check_evaluations()
    assert result.success and not evaluation.passed and evaluation.check_name == "objectives_met"
    (event,) = result.asset_materializations_for_node("shop__objectives")
    assert "nothing" not in str(event.metadata["objectives"].value) and "critical" in str(event.metadata["objectives"])


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Receiver() as started:
        monkeypatch.setenv(ALERTS_VARIABLE, started.url())
        yield started


def test_a_store_of_many_databases_that_is_away_is_one_message(
    tmp_path: Path, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    databases = [
        settings_in(tmp_path, alerts={"urls_env": ALERTS_VARIABLE}).model_copy(update={"name": f"db{number}"})
        for number in range(12)
    ]
    (tmp_path / "backups").write_text("not a folder", encoding="utf-8")
    with dg.build_sensor_context(instance=instance) as context:
        build_staleness_sensor(databases, clock=lambda: NOW)(context)
    assert receiver.titles == ["12 problems, 12 of them critical"]
