"""`gs-backup run`: the daily job as one Dagster run, with progress and a verdict."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, TerminalListener, emit, finish
from gs_backup_assets.errors import BackupError, ExitStatus

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from rich.console import Console

    from gs_backup_assets.catalogue.catalogue import Entry
    from gs_backup_assets.config import BackupConfig, DatabaseSettings

# The terminal shows stages; the run's page in the UI has the log.
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
    """What a daily run came to: the backup and its proof, or the error that ended it."""

    def __init__(
        self, settings: DatabaseSettings, entry: Entry | None, error: BackupError | None, seconds: float
    ) -> None:
        self.settings = settings
        self.entry = entry
        self.error = error
        self.seconds = seconds

    @property
    def status(self) -> ExitStatus:
        """The proof's exit status; the error's where the run ended without a proof."""
        if self.entry is not None and self.entry.proof is not None:
            return self.entry.proof.exit_status
        return self.error.exit_status if self.error else ExitStatus.PROGRAM

    @property
    def report(self) -> Path | None:
        """Where the report for people is; None without a proof."""
        if self.entry is None or self.entry.proof is None:
            return None
        return self.settings.reports_path / self.settings.name / self.entry.partition / "report.html"

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
        from gs_backup_assets.cli.listing import show_entry

        if self.entry is not None:
            show_entry(console, self.entry)
        if self.report is not None:
            console.print(f"\nReport: {self.report}")
        elif self.error is not None:
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
    error = _execute(config, settings, day)
    newest = Catalogue(open_store(settings), settings.name).latest(day)
    ours = newest is not None and newest.taken_at >= now.replace(microsecond=0)
    return Outcome(settings, newest if ours else None, error, time.monotonic() - started)


def _execute(config: BackupConfig, settings: DatabaseSettings, day: str) -> BackupError | None:
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
    if result.success:
        return None
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
