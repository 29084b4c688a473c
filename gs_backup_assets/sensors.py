"""The sensors that tell people: stale backups and proofs, failed checks, failed and cancelled runs."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TypeVar

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from pydantic import BaseModel, ConfigDict

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.notify import Notifier
from gs_backup_assets.alerts.staleness import stale_problems
from gs_backup_assets.alerts.state import AlertState, decide, empty, memory_lost, parse_state
from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import BackupConfig, DatabaseSettings
from gs_backup_assets.schedules import JOB_NAMES

UI_URL_VARIABLE = "GS_BACKUP_UI_URL"
_RUNS_PER_TICK = 100
_INTERVAL_SECONDS = 60
_Cursor = TypeVar("_Cursor", bound=BaseModel)


def build_sensors(config: BackupConfig, check_keys: Sequence[dg.AssetCheckKey]) -> list[dg.SensorDefinition]:
    """One staleness sensor for each database, and one sensor each for checks and runs of the whole location."""
    stale = [build_staleness_sensor(config.database(name)) for name in config.names()]
    return [*stale, _checks_sensor(config, check_keys), _runs_sensor(config)]


def _sensor(name: str, description: str) -> Callable[[Callable[..., dg.SkipReason]], dg.SensorDefinition]:
    return dg.sensor(
        name=name,
        description=description,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def build_staleness_sensor(
    settings: DatabaseSettings, clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
) -> dg.SensorDefinition:
    """Tells when the newest backup or proven backup is too old, and when it is fresh again."""
    notifier = Notifier(settings.alerts.urls_env)

    @_sensor(
        f"{settings.name}_stale_backup",
        "Reads the store and tells when the newest backup, or the newest **proven** backup, is older than "
        f"{settings.alerts.stale_after}; a backup that was never taken counts as stale.",
    )
    def stale_backup(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        parsed = parse_state(context.cursor)
        now = clock()
        problems = stale_problems(settings, now, _link(f"/assets/{settings.name}/verified_restore"))
        if parsed.damaged:
            notifier.send(memory_lost())
        state, outcome = _tell(notifier, parsed.state, problems, now, settings.alerts.remind_after)
        if state is not None:
            context.update_cursor(state.to_cursor())
        return dg.SkipReason(outcome)

    return stale_backup


class OpenProblems(BaseModel):
    """A cursor: the problems that are open, and what people were told about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open: dict[str, Problem] = {}
    alerts: AlertState = empty()


def _checks_sensor(config: BackupConfig, check_keys: Sequence[dg.AssetCheckKey]) -> dg.SensorDefinition:
    alerts = config.alerts
    notifier = Notifier(alerts.urls_env)

    @_sensor(
        "failed_checks",
        "Tells when an asset check of a backup fails or could not be verified, data rules included, and when it passes"
        " again. A failed data rule leaves its run green: this is where it is told.",
    )
    def failed_checks(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        cursor = _parse(OpenProblems, context.cursor, notifier) or OpenProblems()
        # The newest evaluation of every check: unlike events after a cursor, this works with every kind of storage,
        # and nothing is missed while the daemon is down.
        latest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(check_keys)
        problems = {}
        for key, record in latest.items():
            fingerprint = f"check:{key.asset_key.to_user_string()}:{key.name}"
            evaluation = record.evaluation
            if isinstance(evaluation, dg.AssetCheckEvaluation):
                problem = _check_problem(fingerprint, evaluation)
            else:  # it is only planned: what was wrong is wrong until the check has passed
                problem = cursor.open.get(fingerprint)
            if problem is not None:
                problems[fingerprint] = problem
        now = datetime.now(timezone.utc)
        state, outcome = _tell(notifier, cursor.alerts, list(problems.values()), now, alerts.remind_after)
        if state is not None:
            context.update_cursor(OpenProblems(open=problems, alerts=state).model_dump_json())
        return dg.SkipReason(outcome)

    return failed_checks


def _check_problem(fingerprint: str, evaluation: dg.AssetCheckEvaluation) -> Problem | None:
    if evaluation.passed:
        return None
    asset = evaluation.asset_key.to_user_string()
    text = {name: str(value.value) for name, value in evaluation.metadata.items()}
    open_question = text.get(keys.STATUS) == Status.NOT_VERIFIED.value
    rows = f" {text[keys.UNEXPECTED_ROWS]} rows." if keys.UNEXPECTED_ROWS in text else ""
    blame = f" {text[keys.BLAME]}." if keys.BLAME in text else ""
    severe = evaluation.severity is dg.AssetCheckSeverity.ERROR
    return Problem(
        fingerprint=fingerprint,
        title=f"{asset}: {evaluation.check_name} {'could not be verified' if open_question else 'failed'}",
        body=f"{text.get(keys.SUMMARY, '')}.{rows}{blame}",
        hint="Open the asset's Checks tab, or the report, for findings and keys.",
        severity="critical" if severe else "warning",
        link=_link(f"/assets/{asset}?view=checks"),
    )


class ReadRuns(OpenProblems):
    """Cursor of the runs' sensor: also the time, in UTC, up to which ended runs were read."""

    read_to: datetime


def _runs_sensor(config: BackupConfig) -> dg.SensorDefinition:
    alerts = config.alerts
    notifier = Notifier(alerts.urls_env)
    ours = (job_name(name) for name in config.names() for job_name in JOB_NAMES)
    jobs = frozenset(ours) | {"__ASSET_JOB"}

    @_sensor(
        "failed_runs",
        "Tells when a run fails or is cancelled (Dagster does not count the latter as a failure), and when the same job"
        " succeeds again.",
    )
    def failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        cursor = _parse(ReadRuns, context.cursor, notifier)
        if cursor is None:  # what happened before the sensor was switched on is not told
            cursor = ReadRuns(read_to=datetime.now(timezone.utc))
        records = context.instance.get_run_records(
            RunsFilter(
                statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED, DagsterRunStatus.SUCCESS],
                updated_after=cursor.read_to,
            ),
            limit=_RUNS_PER_TICK,
            order_by="update_timestamp",
            ascending=True,
        )
        problems = dict(cursor.open)
        read_to = cursor.read_to
        for record in records:
            read_to = record.update_timestamp.replace(tzinfo=timezone.utc)
            if record.dagster_run.job_name in jobs:
                _update(problems, _run_problem(record), f"run:{record.dagster_run.job_name}")
        now = datetime.now(timezone.utc)
        state, outcome = _tell(notifier, cursor.alerts, list(problems.values()), now, alerts.remind_after)
        if state is not None:
            context.update_cursor(ReadRuns(read_to=read_to, open=problems, alerts=state).model_dump_json())
        return dg.SkipReason(outcome)

    return failed_runs


def _run_problem(record: dg.RunRecord) -> Problem | None:
    run = record.dagster_run
    if run.status is DagsterRunStatus.SUCCESS:
        return None
    word = "was cancelled" if run.status is DagsterRunStatus.CANCELED else "failed"
    partition = run.tags.get("dagster/partition")
    return Problem(
        fingerprint=f"run:{run.job_name}",
        title=f"{run.job_name} {word}",
        body=f"Run {run.run_id[:8]}{f' for {partition}' if partition else ''} {word}.",
        hint="Open the run: the failed step says what happened, with a code and what to do.",
        severity="critical",
        since=datetime.fromtimestamp(record.end_time, timezone.utc) if record.end_time else None,
        link=_link(f"/runs/{run.run_id}"),
    )


def _update(problems: dict[str, Problem], problem: Problem | None, fingerprint: str) -> None:
    if problem is None:
        problems.pop(fingerprint, None)
    else:
        problems[fingerprint] = problem


def _parse(kind: type[_Cursor], cursor: str | None, notifier: Notifier) -> _Cursor | None:
    """Read a cursor; None for a beginning, and for a damaged one, of which people are told."""
    if not cursor:
        return None
    try:
        return kind.model_validate_json(cursor)
    except ValueError:
        notifier.send(memory_lost())
        return None


def _tell(
    notifier: Notifier, state: AlertState, problems: Sequence[Problem], now: datetime, remind_after: timedelta
) -> tuple[AlertState | None, str]:
    """Deliver what is to be said. Returns the state to keep, or None where nobody is configured to be told.

    A message that is not accepted raises: the tick fails, the cursor stays, and the next tick tries again.
    """
    decision = decide(state, problems, now, remind_after)
    if decision.messages and not notifier.send_all(decision.messages):
        titles = "; ".join(message.title for message in decision.messages)
        return None, f"NOBODY WAS TOLD, no receiver is configured: {titles}"
    if decision.messages:
        return decision.state, f"told: {'; '.join(message.title for message in decision.messages)}"
    return decision.state, f"{len(problems)} problems, nothing new to tell" if problems else "nothing is wrong"


def _link(path: str) -> str:
    base = os.environ.get(UI_URL_VARIABLE, "").rstrip("/")
    return f"{base}{path}" if base else ""
