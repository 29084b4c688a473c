"""Recovers from the complete loss of a database, step by step, and goes on where it broke off."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, ProofFailed, StoreError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.disaster.choice import choose, require_source_gone
from gs_backup_assets.recovery.disaster.report import DisasterReport, make_report, write_report
from gs_backup_assets.recovery.disaster.state import DisasterState, LogLine, StateFile, StepRecord
from gs_backup_assets.recovery.disaster.steps import (
    RECOVER,
    RESTORE,
    Work,
    do_step,
    require_place,
    step_names,
    target_folder,
)
from gs_backup_assets.system.reports import ReportNotKept
from gs_backup_assets.vault.opening import Vault, Which

# What says that this way back is no good; another one may be.
_NO_WAY = (StoreError, ProofFailed, NotVerifiable)


@dataclass(frozen=True)
class Request:
    """What was asked for. `alarm` is when the loss was told, the start where that is not known.

    `restart` forgets a recovery that was begun; `force` goes on though the source answers; `which` allows one store.
    """

    restart: bool = False
    force: bool = False
    which: Which | None = None
    alarm: datetime | None = None


@dataclass(frozen=True)
class Recovered:
    """A recovery that is through: its report, where that lies as a page and as JSON, or why it could not be written,
    and why the audit log has no record, if it has none."""

    report: DisasterReport
    html: Path | None
    json: Path | None
    not_reported: ReportNotKept | None
    not_logged: StoreError | None


def now_utc() -> datetime:
    """The aware time now."""
    return datetime.now(timezone.utc)


def recover_from_disaster(
    settings: DatabaseSettings,
    vault: Vault,
    request: Request,
    progress: Progress,
    *,
    by: Author,
    tell: Callable[[str], None] = lambda _words: None,
    clock: Callable[[], datetime] = now_utc,
) -> Recovered:
    """Bring the database back, and tell what was lost and how long it took.

    Every step is on record before the next one begins: whatever ends this process, the next call goes on with the step
    that was not done. Where a way back turns out to be no good, the next best one is gone. The source is only asked
    whether it is really gone. Raises ConfigError: `NO_DISASTER_RECOVERY`, `DISASTER_RECOVERY_RUNNING`,
    `ALREADY_RECOVERED`, `INTO_NOT_EMPTY`; ProofFailed: `SOURCE_ALIVE`, `NOTHING_TO_RECOVER`, `HEALTH_NOT_REACHED`; what
    the steps raise.
    """
    ids = {"into": target_folder(settings).name}
    with failure_noted(vault.primary, settings.name, by, "disaster_recovery", ids=ids, otherwise=vault.offsite):
        run = _Run(settings, vault, progress, tell=tell, clock=clock)
        with run.file.locked():
            report = run.through(request)
    written = write_report(settings, report)
    html, json = (None, None) if isinstance(written, ReportNotKept) else written
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "disaster_recovery",
        ids={**ids, "backup": report.backup},
        result="recovered",
        details={
            "method": report.method,
            "store": report.store,
            "seconds": round(report.recovery_seconds, 3),
            **({} if report.lost_seconds is None else {"lost_seconds": round(report.lost_seconds, 3)}),
        },
        otherwise=vault.offsite,
    )
    return Recovered(
        report,
        html=html,
        json=json,
        not_reported=written if isinstance(written, ReportNotKept) else None,
        not_logged=not_logged,
    )


class _Run:
    """One call: reads what was done before, does the rest."""

    def __init__(
        self,
        settings: DatabaseSettings,
        vault: Vault,
        progress: Progress,
        *,
        tell: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self.settings = settings
        self.file = StateFile(target_folder(settings))
        self._vault = vault
        self._tell_people = tell
        self._clock = clock
        self._work = Work(settings, vault, progress, self._tell, clock)
        self._step = "begin"
        self._state: DisasterState

    def through(self, request: Request) -> DisasterReport:
        """All steps that are not done yet, and the report."""
        self._begin(request)
        while True:
            names = step_names(self.settings, self._state.chosen)
            name = next((name for name in names if self._state.done(name) is None), None)
            if name is None:
                break
            self._do(name)
        if self._state.finished_at is None:
            self._step = "report"
            self._update(finished_at=self._clock())
        return make_report(self.settings, self._state)

    def _begin(self, request: Request) -> None:
        found = None if request.restart else self.file.read()
        if found is not None and found.finished_at is not None:
            raise ConfigError(
                "ALREADY_RECOVERED",
                f"{self.settings.name} was recovered here: it was through at {found.finished_at:%Y-%m-%d %H:%M} UTC.",
                "If it was lost again, move what is in disaster_recovery.into away, and begin anew with --restart.",
            )
        if found is not None:
            self._state = found
            self._tell(f"goes on after {', '.join(step.name for step in found.steps) or 'nothing that was done'}")
            return
        started = self._clock()
        gone = "nobody asked whether the database is really gone (--force)"
        if not request.force:
            gone = require_source_gone(self.settings)
        choice = choose(self.settings, self._vault, started, which=request.which)
        if request.restart:
            self._put_aside(started)
        self._state = DisasterState(
            database=self.settings.name,
            alarm=request.alarm or started,
            started_at=started,
            candidates=choice.candidates,
        )
        self._tell(gone)
        for words in choice.unusable:
            self._tell(f"no way back: {words}")
        best = choice.candidates[0]
        self._tell(f"the way back: {best.method} {best.backup} from the {best.store} store ({best.detail})")
        self._write()

    def _put_aside(self, now: datetime) -> None:
        """Forget an earlier recovery. What it made stays: nobody knows whether somebody works with it."""
        into = target_folder(self.settings)
        if into.exists() and any(into.iterdir()):
            raise ConfigError(
                "INTO_NOT_EMPTY",
                f"{into} holds what an earlier recovery made.",
                "Stop its server, if one runs, and move the folder away; then begin anew with --restart.",
            )
        if self.file.path.exists():
            self.file.set_aside(f"{now:%Y%m%dT%H%M%SZ}")

    def _do(self, name: str) -> None:
        self._step = name
        again = self._state.begun == name
        if not again:
            require_place(name, self._work)
        self._tell("goes on" if again else "begins")
        self._update(begun=name)
        started = time.monotonic()
        try:
            outcome = do_step(name, self._work, self._state, again=again)
        except ConfigError:
            if not again:
                self._update(begun=None)  # nothing was begun
            raise
        except BackupError as error:
            self._tell(f"failed after {time.monotonic() - started:.1f} s: {error.code}: {error.message}")
            self._write()
            if name in (RECOVER, RESTORE) and isinstance(error, _NO_WAY) and self._another_way(error):
                return
            raise
        seconds = time.monotonic() - started
        record = StepRecord(
            name=name,
            ended_at=self._clock(),
            seconds=round(seconds, 3),
            facts=outcome.facts,
            checks=outcome.checks,
        )
        self._tell(f"done after {seconds:.1f} s")
        self._update(begun=None, steps=(*self._state.steps, record))

    def _another_way(self, error: BackupError) -> bool:
        """Give this way back up, if there is another one."""
        state, chosen = self._state, self._state.chosen
        if len(state.refused) + 1 == len(state.candidates):
            return False
        reason = f"{chosen.method} {chosen.backup} from the {chosen.store} store: {error.code}: {error.message}"
        self._update(refused=(*state.refused, reason), begun=None)
        other = self._state.chosen
        self._tell(f"another way back: {other.method} {other.backup} from the {other.store} store ({other.detail})")
        self._write()
        return True

    def _tell(self, words: str) -> None:
        """Into the log, which is written with the next change, and to people at once."""
        line = LogLine(at=self._clock(), step=self._step, words=words)
        self._state = self._state.model_copy(update={"log": (*self._state.log, line)})
        self._tell_people(f"{line.at:%H:%M:%S} {line.step}: {words}")

    def _update(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)
        self._write()

    def _write(self) -> None:
        self.file.write(self._state)
