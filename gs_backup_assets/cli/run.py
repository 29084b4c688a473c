"""`gs-backup run`: the daily job as one Dagster run, with progress and a verdict."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, TerminalListener, emit, finish
from gs_backup_assets.errors import BackupError, ExitStatus

if TYPE_CHECKING:
    from dagster import DagsterInstance, ExecuteInProcessResult
    from rich.console import Console

    from gs_backup_assets.catalogue.catalogue import Entry
    from gs_backup_assets.config import BackupConfig, DatabaseSettings

# The terminal shows stages and, at the end, warnings; the run's page in the UI has the log.
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
# What Dagster makes of Ctrl-C and SIGTERM inside a step.
_INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
PartitionOption = Annotated[str | None, typer.Option(help="The day: only today can be dumped.", show_default="today")]


def run(
    config: ConfigOption = None,
    database: DatabaseOption = None,
    partition: PartitionOption = None,
    json: JsonOption = False,
) -> None:
    """Take today's backup, check its stored bytes, restore them, and prove the result equal to the source.

    It is one Dagster run. With DAGSTER_HOME set it is recorded there and shows in the UI.
    """
    from gs_backup_assets.config import load_config

    loaded = load_config(config)
    outcome = run_daily_job(loaded, loaded.database(database), partition)
    emit(outcome.document(), json, outcome.show)
    finish(outcome.status)


class Outcome:
    """What a daily run came to: the backup and its proof, or the error that ended it.

    `report` is where the report for people is; None without a proof, and where it could not be written.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        entry: Entry | None,
        error: BackupError | None,
        *,
        report: Path | None,
        seconds: float,
    ) -> None:
        self.settings = settings
        self.entry = entry
        self.error = error
        self.report = report
        self.seconds = seconds

    @property
    def status(self) -> ExitStatus:
        """The proof's exit status; the error's where the run ended without a proof."""
        if self.entry is not None and self.entry.proof is not None:
            return self.entry.proof.exit_status
        return self.error.exit_status if self.error else ExitStatus.PROGRAM

    def document(self) -> dict[str, Any]:
        from gs_backup_assets.cli.listing import entry_document

        error = self.error
        return {
            "database": self.settings.name,
            "exit_status": int(self.status),
            "seconds": round(self.seconds, 3),
            "backup": entry_document(self.entry, detailed=True) if self.entry else None,
            "report": str(self.report) if self.report else None,
            "error": {"code": error.code, "message": error.message, "hint": error.hint} if error else None,
        }

    def show(self, console: Console) -> None:
        from gs_backup_assets.catalogue.verdict import Verdict
        from gs_backup_assets.cli.listing import show_entry

        proof = self.entry.proof if self.entry is not None else None
        if self.entry is not None:
            show_entry(console, self.entry)
        if self.report is not None:
            console.print(f"\nReport: {self.report}")
        # What a proof found is shown with it; what went wrong without one, or after a good one, is not.
        if self.error is not None and (proof is None or proof.verdict is Verdict.PROVEN):
            console.print(f"\n{self.error.code}: {self.error.message}\n{self.error.hint}")


def run_daily_job(config: BackupConfig, settings: DatabaseSettings, partition: str | None = None) -> Outcome:
    """Run the whole chain in this process, recorded in the Dagster instance of DAGSTER_HOME.

    Raises ConfigError (`PARTITION_NOT_TODAY`) before anything is started; what goes wrong later is in the outcome.
    """
    from gs_backup_assets.catalogue.catalogue import Catalogue
    from gs_backup_assets.catalogue.periods import DAY
    from gs_backup_assets.vault.opening import open_store

    now = datetime.now(timezone.utc)
    day = partition or DAY.of(now, settings.zone)
    DAY.require_current(day, now, settings.zone)
    started = time.monotonic()
    error, report = _execute(config, settings, day)
    newest = Catalogue(open_store(settings), settings.name).latest(day)
    ours = newest is not None and newest.taken_at >= now.replace(microsecond=0)
    entry = newest if ours else None
    return Outcome(settings, entry, error, report=report, seconds=time.monotonic() - started)


def _execute(config: BackupConfig, settings: DatabaseSettings, day: str) -> tuple[BackupError | None, Path | None]:
    """Run the job; returns the error that ended it, and where the report of its proof is. Warnings are told."""
    from gs_backup_assets.factory import build_definitions
    from gs_backup_assets.words import daily_job_name

    listener = TerminalListener()
    # One try: a person is watching, and decides.
    definitions = build_definitions(config, listener=lambda _context: listener, retry=None)
    job = definitions.resolve_job_def(daily_job_name(settings.name))
    with _instance() as instance:
        result = job.execute_in_process(
            partition_key=day, instance=instance, raise_on_error=False, run_config={"loggers": _QUIET}
        )
        _tell_warnings(instance, result.run_id)
    return None if result.success else _error_that_ended(result), _report_of(result)


def _tell_warnings(instance: DagsterInstance, run_id: str) -> None:
    """What the steps warned of, on standard error; Dagster's own events are not among it."""
    for entry in instance.all_logs(run_id):
        if not entry.is_dagster_event and int(entry.level) >= logging.WARNING:
            sys.stderr.write(f"{entry.user_message}\n")


def _report_of(result: ExecuteInProcessResult) -> Path | None:
    from gs_backup_assets.assets import metadata as keys

    made = [event.materialization.metadata for event in result.all_events if event.is_step_materialization]
    return next((Path(str(metadata[keys.REPORT].value)) for metadata in made if keys.REPORT in metadata), None)


def _error_that_ended(result: ExecuteInProcessResult) -> BackupError:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            if error is not None and error.cls_name in _INTERRUPTIONS:
                raise KeyboardInterrupt
            return _error_of(event.step_failure_data)
    return BackupError("RUN_FAILED", "The run failed before its first step.", "Its page in the Dagster UI has the log.")


def _instance() -> AbstractContextManager[DagsterInstance]:
    import dagster as dg

    return dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()


def _error_of(data: Any) -> BackupError:
    """The error that a failed step carries, with the exit status of its kind where the cause is one of ours."""
    from gs_backup_assets.assets import metadata as keys

    told = data.user_failure_data
    if told is not None and keys.CODE in told.metadata:
        code, hint = (str(told.metadata[key].value) for key in (keys.CODE, keys.HINT))
        message = str(told.description or "").removeprefix(f"{code}: ").removesuffix(hint).strip()
        error = BackupError(code, message, hint)
        error.exit_status = ExitStatus(told.metadata[keys.EXIT_STATUS].value)
        return error
    return BackupError("STEP_FAILED", str(data.error.message).strip(), "The run's page in the Dagster UI has the log.")
