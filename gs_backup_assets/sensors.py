"""The sensors that tell people: stale backups, proofs and tests, failed checks, failed and cancelled runs."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from datetime import datetime, timezone
from typing import TypeVar

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from pydantic import BaseModel, ConfigDict

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.staleness import fall_back
from gs_backup_assets.alerts.state import AlertState, empty
from gs_backup_assets.alerts.telling import Concern, Teller
from gs_backup_assets.alerts.watching import Memory, look
from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.check_history import Checks, newest_finished
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import BackupConfig, DatabaseSettings
from gs_backup_assets.schedules import READ_BACK, job_names
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.words import counted

UI_URL_VARIABLE = "GS_BACKUP_UI_URL"
_PARTITION = "dagster/partition"
_RUNS_PER_TICK = 100
_INTERVAL_SECONDS = 60
# With the time for the messages less than the minute that Dagster gives a sensor.
_PATIENCE_SECONDS = 20.0
_LAST_GOOD_SECONDS = 5.0
_READERS = 16
_Cursor = TypeVar("_Cursor", bound=BaseModel)


def build_sensors(
    config: BackupConfig, databases: Sequence[DatabaseSettings], checks: Checks
) -> list[dg.SensorDefinition]:
    """One sensor each for what is stale, for checks, and for runs, of all databases.

    One for each database would be hundreds of ticks a minute, and as many messages when a store is away.
    """
    return [
        build_staleness_sensor(databases),
        _checks_sensor(config, databases, checks),
        _runs_sensor(config, databases),
    ]


def _sensor(name: str, description: str) -> Callable[[Callable[..., dg.SkipReason]], dg.SensorDefinition]:
    return dg.sensor(
        name=name,
        description=description,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def build_staleness_sensor(
    databases: Sequence[DatabaseSettings], clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
) -> dg.SensorDefinition:
    """Tells when backups, proofs, copies, the log or tests are too old, and when they are fresh again."""
    teller = Teller([one.alerts for one in databases])
    alerts = {one.name: one.alerts for one in databases}

    @_sensor(
        "stale_backups",
        "Reads the stores of all databases and tells when the newest backup, proven backup, base backup, archived log, "
        "an off-site copy of them, recovery drill or restore test is too old. What was never done counts as stale.",
    )
    def stale_backups(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        cursor, damaged = _parse(Memory, context.cursor)
        links = {one.name: _link(f"/assets/{one.name}/verified_restore") for one in databases}
        now = clock()
        problems = look(databases, now, patience_seconds=_PATIENCE_SECONDS, links=links)
        concerns = [Concern(alerts[problem.fingerprint.partition(":")[0]], problem) for problem in problems]
        telling = teller.tell(
            cursor.told if cursor else {},
            concerns,
            now,
            watched=lambda fingerprint: fingerprint.partition(":")[0] in alerts,
            lost=damaged,
        )
        context.update_cursor(Memory(told=dict(telling.told)).model_dump_json())
        return dg.SkipReason(telling.words or _quiet(problems))

    return stale_backups


class OpenProblems(BaseModel):
    """A cursor: the problems that are open, and what people were told about them.

    `alerts` is what those were told whom the configuration names for all databases, `others` what the receivers of
    single databases were told, by variable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    open: dict[str, Problem] = {}
    alerts: AlertState = empty()
    others: dict[str, AlertState] = {}


class _Desk:
    """Whom to tell about checks and runs, and what to tell them of the backups."""

    def __init__(self, config: BackupConfig, databases: Sequence[DatabaseSettings]) -> None:
        self._databases = {one.name: one for one in databases}
        self._common = config.alerts
        self._teller = Teller([config.alerts, *(one.alerts for one in databases)])

    def last_good(self, names: Iterable[str]) -> dict[str, str]:
        """The backup to fall back on, in words, for each of the databases whose store answers in time."""
        asked = {name: self._databases[name] for name in names if name in self._databases}
        pool, now = Threads(_READERS, "last-good"), datetime.now(timezone.utc)
        futures = {pool.submit(fall_back, settings, now): name for name, settings in asked.items()}
        done = wait(futures, timeout=_LAST_GOOD_SECONDS).done
        return {futures[future]: future.result() for future in done}

    def with_last_good(
        self, problems: Mapping[str, Problem], known: Mapping[str, Problem], database: Mapping[str, str]
    ) -> dict[str, Problem]:
        """The problems by fingerprint, each with the backup to fall back on as it was when the problem began."""
        found = self.last_good({database[name] for name in problems if name not in known})
        return {
            name: problem.model_copy(
                update={"last_good": known[name].last_good if name in known else found.get(database[name], "")}
            )
            for name, problem in problems.items()
        }

    def tell(
        self,
        cursor: OpenProblems,
        problems: Iterable[tuple[str, Problem]],
        *,
        watched: Callable[[str], bool],
        lost: bool,
    ) -> tuple[dict[str, AlertState], str]:
        """Tell of problems, each with its database; the memory to keep for the cursor, and words for the tick.

        `watched` says of a fingerprint whether its check or job is still there.
        """
        concerns = [
            Concern(self._databases[name].alerts if name in self._databases else self._common, problem)
            for name, problem in problems
        ]
        told = {self._common.urls_env: cursor.alerts, **cursor.others}
        telling = self._teller.tell(told, concerns, datetime.now(timezone.utc), watched=watched, lost=lost)
        return dict(telling.told), telling.words or _quiet(concerns)

    def split(self, told: dict[str, AlertState]) -> tuple[AlertState, dict[str, AlertState]]:
        """The memory as a cursor has it: of the common receivers, and of the others who were told anything."""
        others = {name: state for name, state in told.items() if name != self._common.urls_env and state.told}
        return told[self._common.urls_env], others


def _checks_sensor(config: BackupConfig, databases: Sequence[DatabaseSettings], checks: Checks) -> dg.SensorDefinition:
    desk = _Desk(config, databases)
    watched = frozenset(_check_fingerprint(key) for key in checks)

    @_sensor(
        "failed_checks",
        "Tells when an asset check of a backup fails or could not be verified, data rules, lag and RPO included, and"
        " when it passes again. A failed data rule leaves its run green: this is where it is told.",
    )
    def failed_checks(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        parsed, damaged = _parse(OpenProblems, context.cursor)
        cursor = parsed or OpenProblems()
        now = datetime.now(timezone.utc)
        problems: dict[str, Problem] = {}
        database: dict[str, str] = {}
        # What every check came to last: unlike events after a cursor, this works with every kind of storage, and
        # nothing is missed while the daemon is down.
        for key, record in newest_finished(context.instance.event_log_storage, checks, now).items():
            fingerprint = _check_fingerprint(key)
            evaluation, known = record.evaluation, cursor.open.get(fingerprint)
            began = known.since if known else datetime.fromtimestamp(record.create_timestamp, timezone.utc)
            problem = None if evaluation is None else _check_problem(fingerprint, evaluation, began)
            if problem is not None:
                problems[fingerprint] = problem
                database[fingerprint] = key.asset_key.path[0]
        problems = desk.with_last_good(problems, cursor.open, database)
        concerns = [(database[fingerprint], problem) for fingerprint, problem in problems.items()]
        told, outcome = desk.tell(cursor, concerns, watched=watched.__contains__, lost=damaged)
        alerts, others = desk.split(told)
        context.update_cursor(OpenProblems(open=problems, alerts=alerts, others=others).model_dump_json())
        return dg.SkipReason(outcome)

    return failed_checks


def _check_fingerprint(key: dg.AssetCheckKey) -> str:
    return f"check:{key.asset_key.to_user_string()}:{key.name}"


def _check_problem(fingerprint: str, evaluation: dg.AssetCheckEvaluation, since: datetime | None) -> Problem | None:
    if evaluation.passed:
        return None
    asset = evaluation.asset_key.to_user_string()
    text = {name: str(value.value) for name, value in evaluation.metadata.items()}
    open_question = text.get(keys.STATUS) == Status.NOT_VERIFIED.value
    rows = f" {counted(int(text[keys.UNEXPECTED_ROWS]), 'row')}." if keys.UNEXPECTED_ROWS in text else ""
    blame = f" {text[keys.BLAME]}." if keys.BLAME in text else ""
    severe = evaluation.severity is dg.AssetCheckSeverity.ERROR
    return Problem(
        fingerprint=fingerprint,
        title=f"{asset}: {evaluation.check_name} {'could not be verified' if open_question else 'failed'}",
        body=f"{text.get(keys.SUMMARY, '')}.{rows}{blame}",
        hint="Open the asset's Checks tab, or the report, for findings and keys.",
        severity="critical" if severe else "warning",
        since=since,
        link=_link(f"/assets/{asset}?view=checks"),
    )


class ReadRuns(OpenProblems):
    """Cursor of the runs' sensor: also the time, in UTC, up to which ended runs were read."""

    read_to: datetime


def _runs_sensor(config: BackupConfig, databases: Sequence[DatabaseSettings]) -> dg.SensorDefinition:
    desk = _Desk(config, databases)
    jobs = {job: one.name for one in databases for job in job_names(one.name)} | {"__ASSET_JOB": ""}

    def watched(fingerprint: str) -> bool:
        return _job_of(fingerprint) in jobs

    @_sensor(
        "failed_runs",
        "Tells when a run fails or is cancelled (Dagster does not count the latter as a failure), and when the same job"
        " succeeds again.",
    )
    def failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        parsed, damaged = _parse(ReadRuns, context.cursor)
        # What happened before the sensor was switched on is not told.
        cursor = parsed or ReadRuns(read_to=datetime.now(timezone.utc))
        records = context.instance.get_run_records(
            RunsFilter(
                statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED, DagsterRunStatus.SUCCESS],
                updated_after=cursor.read_to,
            ),
            limit=_RUNS_PER_TICK,
            order_by="update_timestamp",
            ascending=True,
        )
        # Of a job that is no longer there no run will ever succeed.
        problems = {name: problem for name, problem in cursor.open.items() if watched(name)}
        read_to = cursor.read_to
        for record in records:
            read_to = record.update_timestamp.replace(tzinfo=timezone.utc)
            if record.dagster_run.job_name in jobs:
                fingerprint = _run_fingerprint(record.dagster_run)
                _update(problems, _run_problem(record, fingerprint), fingerprint)
        database = {name: jobs[_job_of(name)] for name in problems}
        problems = desk.with_last_good(problems, cursor.open, database)
        concerns = [(database[name], problem) for name, problem in problems.items()]
        told, outcome = desk.tell(cursor, concerns, watched=watched, lost=damaged)
        alerts, others = desk.split(told)
        context.update_cursor(ReadRuns(read_to=read_to, open=problems, alerts=alerts, others=others).model_dump_json())
        return dg.SkipReason(outcome)

    return failed_runs


def _run_fingerprint(run: dg.DagsterRun) -> str:
    """Whose success ends a failure: the next run of the job, but of what is read back a run of the same day.

    That another day's copy is sound says nothing of the one that is not.
    """
    day = run.tags.get(_PARTITION, "") if run.job_name.endswith(f"_{READ_BACK}") else ""
    return f"run:{run.job_name}:{day}" if day else f"run:{run.job_name}"


def _job_of(fingerprint: str) -> str:
    return fingerprint.removeprefix("run:").partition(":")[0]


def _run_problem(record: dg.RunRecord, fingerprint: str) -> Problem | None:
    run = record.dagster_run
    if run.status is DagsterRunStatus.SUCCESS:
        return None
    word = "was cancelled" if run.status is DagsterRunStatus.CANCELED else "failed"
    partition = run.tags.get(_PARTITION)
    return Problem(
        fingerprint=fingerprint,
        title=f"{run.job_name} {word}{f' for {partition}' if partition else ''}",
        body=f"Run {run.run_id[:8]} {word}.",
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


def _parse(kind: type[_Cursor], cursor: str | None) -> tuple[_Cursor | None, bool]:
    """Read a cursor: None for a beginning, and for a damaged one, of which people must be told: then True beside it."""
    if not cursor:
        return None, False
    try:
        return kind.model_validate_json(cursor), False
    except (ValueError, OverflowError):
        return None, True


def _quiet(problems: Sequence[object]) -> str:
    return f"{counted(len(problems), 'problem')}, nothing new to tell" if problems else "nothing is wrong"


def _link(path: str) -> str:
    base = os.environ.get(UI_URL_VARIABLE, "").rstrip("/")
    return f"{base}{path}" if base else ""
