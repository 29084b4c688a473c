"""The sensors with real instances and a real HTTP receiver: told once, told on recovery, retried if refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest

from gs_backup_assets.alerts.notify import NotAccepted
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.schedules import job_names
from gs_backup_assets.sensors import build_staleness_sensor
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import ALERTS_VARIABLE, Project


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Receiver() as started:
        monkeypatch.setenv(ALERTS_VARIABLE, started.url())
        yield started


class Ticker:
    """Ticks one sensor again and again with its own cursor, as the daemon does."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self.sensor = sensor
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        """One tick; the cursor moves only when the tick succeeds. Returns the reason that the tick shows."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
            self.cursor = data.cursor
            return data.skip_message or ""


def sensor(project: Project, name: str) -> dg.SensorDefinition:
    return project.definitions().get_repository_def().get_sensor_def(name)


def test_never_backed_up_is_stale_and_told_once(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    ticker = Ticker(sensor(project, "stale_backups"), instance)
    ticker.tick()
    assert len(receiver.received) == 1
    assert "no backup" in json.dumps(receiver.received[0])
    ticker.tick()
    assert len(receiver.received) == 1, "the same news twice"


def test_a_stale_backup_is_told_then_its_recovery(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    assert project.run(instance).success
    now = datetime.now(timezone.utc)
    clock = [now]
    ticker = Ticker(build_staleness_sensor([project.settings], clock=lambda: clock[0]), instance)
    assert "nothing is wrong" in ticker.tick() and receiver.received == []
    clock[0] = now + timedelta(hours=26)
    ticker.tick()
    assert len(receiver.received) == 1 and "older than 1 d 1 h" in json.dumps(receiver.received[0])
    clock[0] = now + timedelta(hours=1)  # what a new backup would bring about: the newest is fresh again
    ticker.tick()
    assert len(receiver.received) == 2 and "ecovered" in receiver.titles[1]
    ticker.tick()
    assert len(receiver.received) == 2


def test_a_backup_without_a_proof_is_a_stale_proof(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    project.configure(logical="{fingerprint: counts}")  # taken, but it can never be PROVEN
    project.run(instance)
    entry = Catalogue(project.catalogue.store, "studio").latest()
    assert entry is not None
    Ticker(sensor(project, "stale_backups"), instance).tick()
    text = json.dumps(receiver.received)
    assert "no proven backup" in text and "no backup" not in text.replace("no proven backup", "")


def test_a_refused_message_is_sent_again(project: Project, instance: dg.DagsterInstance, receiver: Receiver) -> None:
    ticker = Ticker(sensor(project, "stale_backups"), instance)
    receiver.behaviour = "refuse"
    with pytest.raises(Exception) as raised:
        ticker.tick()
    assert isinstance(raised.value, NotAccepted) or isinstance(raised.value.__cause__, NotAccepted)
    assert ticker.cursor is None and receiver.received == []
    receiver.behaviour = "accept"
    ticker.tick()
    assert len(receiver.received) == 1


def test_without_a_receiver_the_tick_says_that_nobody_was_told(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALERTS_VARIABLE, raising=False)
    ticker = Ticker(sensor(project, "stale_backups"), instance)
    assert "NOBODY WAS TOLD" in ticker.tick()
    with Receiver() as late:
        monkeypatch.setenv(ALERTS_VARIABLE, late.url())
        ticker.tick()
        assert len(late.received) == 1, "what nobody heard is told when somebody listens"


def test_a_failed_data_rule_is_told_and_its_recovery_too(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gs_backup_assets.postgres.connection import connect
    from gs_backup_assets.sample.sabotage import plant

    monkeypatch.setenv("GS_BACKUP_UI_URL", "https://dagster.example.org/")
    project.configure(rules="guitar_strategies")
    ticker = Ticker(sensor(project, "failed_checks"), instance)
    ticker.tick()
    with connect(project.source) as connection:
        planted = plant(connection, "empty-email")
    assert project.run(instance).success
    ticker.tick()
    told = json.dumps(receiver.received)
    assert len(receiver.received) == 1 and planted.rule in told and "already broken in production" in told
    newest = project.catalogue.last_proven()
    assert newest is not None and f"Last proven backup: {newest.id}." in told and "Since " in told
    assert "https://dagster.example.org/assets/studio/integrity_report?view=checks" in told
    with connect(project.source) as connection, connection.cursor() as cursor:
        cursor.execute("""UPDATE public."User" SET email = id || '@example.org' WHERE email = ''""")
    assert project.run(instance).success
    ticker.tick()
    assert len(receiver.received) == 2 and "ecovered" in receiver.titles[1]


def test_many_failed_checks_are_one_message(project: Project, instance: dg.DagsterInstance, receiver: Receiver) -> None:
    ticker = Ticker(sensor(project, "failed_checks"), instance)
    assert "nothing is wrong" in ticker.tick()
    project.configure(logical="{fingerprint: 'off'}")
    assert not project.run(instance).success
    ticker.tick()
    told = json.dumps(receiver.received)
    assert len(receiver.received) == 1 and "rows_equal could not be verified" in told and "contents_equal" in told
    ticker.tick()
    assert len(receiver.received) == 1


def test_what_is_only_planned_and_what_belongs_to_an_older_day_hides_no_failure(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    project.configure(logical="{fingerprint: counts}")
    definitions = project.definitions()
    keys = definitions.resolve_assets_def(dg.AssetKey(["studio", "verified_restore"])).check_keys
    project.run(instance)
    instance.create_run_for_job(
        definitions.resolve_job_def("studio_daily_backup"), tags={"dagster/partition": project.today}
    )
    storage = instance.event_log_storage
    latest = storage.get_latest_asset_check_execution_by_key(list(keys))
    assert {record.status.value for record in latest.values()} == {"PLANNED"}
    ticker = Ticker(sensor(project, "failed_checks"), instance)
    ticker.tick()
    assert len(receiver.received) == 1 and "could not be verified" in json.dumps(receiver.received[0])
    evaluate(instance, keys, day_before(project, 1), passed=True)
    assert "nothing new" in ticker.tick() and len(receiver.received) == 1, "a backfill is no recovery of today's"


def test_the_failing_backfill_of_an_older_day_is_not_told_as_todays(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    keys = project.definitions().resolve_assets_def(dg.AssetKey(["studio", "verified_restore"])).check_keys
    ticker = Ticker(sensor(project, "failed_checks"), instance)
    evaluate(instance, keys, day_before(project, 40), passed=True)
    evaluate(instance, keys, day_before(project, 41), passed=False)
    assert "nothing is wrong" in ticker.tick() and receiver.received == [], "nor where nothing newer was run for weeks"
    evaluate(instance, keys, project.today, passed=False)
    ticker.tick()
    assert len(receiver.received) == 1
    evaluate(instance, keys, day_before(project, 2), passed=True)
    ticker.tick()
    assert len(receiver.received) == 1


def day_before(project: Project, days: int) -> str:
    return (date.fromisoformat(project.today) - timedelta(days=days)).isoformat()


def evaluate(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey], partition: str, *, passed: bool) -> None:
    """Have it on record that the checks were evaluated for a day, now."""
    for key in keys:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(key.asset_key, key.name, passed=passed, metadata={}, partition=partition)
        )


def test_failed_and_cancelled_runs_are_told_and_the_next_success(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = f"{{urls_env: {ALERTS_VARIABLE}, flap_window: 0s}}"
    project.configure(alerts=everything)
    ticker = Ticker(sensor(project, "failed_runs"), instance)
    ticker.tick()
    project.configure(logical="{fingerprint: counts}")
    assert not project.run(instance).success
    ticker.tick()
    assert len(receiver.received) == 1 and "studio_daily_backup failed" in receiver.titles[0]
    project.configure()
    assert project.run(instance).success
    ticker.tick()
    assert len(receiver.received) == 2 and "ecovered" in receiver.titles[1]

    job = project.definitions().resolve_job_def("studio_daily_backup")
    run = instance.create_run_for_job(job, tags={"dagster/partition": project.today})
    instance.report_run_canceling(run)
    instance.report_run_canceled(run)
    ticker.tick()
    assert len(receiver.received) == 3 and "was cancelled" in receiver.titles[2]


def test_a_copy_that_is_not_what_it_was_is_told_though_another_days_is_read_back_well(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    project.configure(
        stores="{primary: {path: ./backups}, offsite: {path: ./elsewhere}}",
        alerts=f"{{urls_env: {ALERTS_VARIABLE}, flap_window: 0s}}",
    )
    ticker = Ticker(sensor(project, "failed_runs"), instance)
    ticker.tick()
    job = project.definitions().resolve_job_def("studio_offsite_read_back")

    def read_back(day: str, *, sound: bool) -> None:
        run = instance.create_run_for_job(job, tags={"dagster/partition": day})
        event = dg.DagsterEventType.RUN_SUCCESS if sound else dg.DagsterEventType.RUN_FAILURE
        instance.report_dagster_event(dg.DagsterEvent(event.value, job.name), run_id=run.run_id)

    read_back("2026-11-03", sound=False)
    read_back("2026-11-10", sound=True)
    ticker.tick()
    assert receiver.titles == ["[critical] studio_offsite_read_back failed for 2026-11-03"]
    read_back("2026-11-03", sound=True)
    ticker.tick()
    assert receiver.titles[1:] == ["Recovered: studio_offsite_read_back failed for 2026-11-03"]


def test_a_damaged_cursor_is_told_and_does_not_silence(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    for name in ("stale_backups", "failed_checks"):
        ticker = Ticker(sensor(project, name), instance)
        ticker.cursor = "{not a cursor"
        ticker.tick()
        assert any("damaged" in title for title in receiver.titles), name
        receiver.received.clear()


def test_a_cursor_of_an_earlier_release_is_read(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """It knows of a problem whose check, or job, is no longer there: that is said once, and nothing was damaged."""
    told = (
        '{"first_seen":"2026-11-22T08:00:00Z","last_told":"2026-11-22T08:00:00Z","severity":"warning","title":"gone"}'
    )
    problem = '{"fingerprint":"check:a:b","title":"gone","body":"","hint":"","severity":"warning"}'
    for name, more in (("failed_checks", ""), ("failed_runs", ',"read_to":"2026-11-22T08:00:00Z"')):
        ticker = Ticker(sensor(project, name), instance)
        ticker.cursor = f'{{"open":{{}},"alerts":{{"version":1,"told":{{"check:a:b":{told}}}}}{more}}}'
        if name == "failed_runs":
            ticker.cursor = ticker.cursor.replace('"open":{}', f'"open":{{"check:a:b":{problem}}}')
        ticker.tick()
        assert ticker.tick() == "nothing is wrong"
    assert receiver.titles == ["1 problem no longer watched"] * 2


def test_the_sensors_know_every_check_and_every_job(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of everything that can be configured; what a sensor reports without a run is among the checks as well."""
    project.configure(
        stores="{primary: {path: ./backups}, offsite: {path: ./elsewhere}}",
        physical="{}",
        wal="{}",
        replicas="{standby: {url_env: STANDBY_URL}}",
        staging="{url_env: STAGING_URL}",
        disaster_recovery="{into: /nowhere/data}",
        retention="{}",
    )
    definitions = project.definitions()
    ours = set(job_names("studio"))
    jobs = {job.name for job in definitions.get_repository_def().get_all_jobs()}
    assert {name for name in jobs if not name.startswith("__ASSET_JOB")} == ours
    keys = definitions.resolve_asset_graph().asset_check_keys
    assets = {key.asset_key.path[-1] for key in keys}
    assert {
        "wal_archive",
        "replica_status",
        "pitr_drill",
        "offsite_copy",
        "monthly_restore_test",
        "objectives",
    } <= assets
    looked_at: list[dg.AssetCheckKey] = []
    storage = instance.event_log_storage
    original = storage.get_latest_asset_check_execution_by_key

    def listening(check_keys: list[dg.AssetCheckKey], **narrower: Any) -> object:
        looked_at.extend(check_keys)
        return original(check_keys, **narrower)

    monkeypatch.setattr(storage, "get_latest_asset_check_execution_by_key", listening)
    ticker = Ticker(definitions.get_repository_def().get_sensor_def("failed_checks"), instance)
    ticker.tick()
    assert set(looked_at) == set(keys)
