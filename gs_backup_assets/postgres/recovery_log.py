"""Reads what a recovering server says on standard error: how far it is, where it stopped, and why it gave up.

Messages are those of xlogrecovery.c and xlog.c (PostgreSQL 14: xlog.c) in the C locale.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone

from gs_backup_assets.errors import BackupError, ProgramError, ProofFailed
from gs_backup_assets.postgres.wal import Lsn

_REDO_STARTS = re.compile(r"LOG:\s+redo starts at ([0-9A-F]+/[0-9A-F]+)")
_REDO_DONE = re.compile(r"LOG:\s+redo done at ([0-9A-F]+/[0-9A-F]+)")
_STOPPED = re.compile(r"LOG:\s+(recovery stopping .*)")
_STOPPED_AT_TIME = re.compile(r"stopping (?:before|after) (?:commit|abort) of (?:prepared )?transaction \d+, time (.+)")
_STOPPED_AT_LSN = re.compile(r'stopping (?:before|after) WAL location \(LSN\) "([0-9A-F]+/[0-9A-F]+)"')
_STOPPED_AT_POINT = re.compile(r'stopping at restore point "(.*)", time ')
_LAST_COMPLETED = re.compile(r"LOG:\s+last completed transaction was at log time (.+)")
_READY = re.compile(r"LOG:\s+database system is ready to accept connections")
_GAVE_UP = re.compile(r"(FATAL|PANIC):\s+(.*)")
_ANOTHER = "`gs-backup coverage` shows what can be recovered to; the other store (--from) may have it."
# The log goes on without a gap then, and no look at the archive shows it.
_MINIMAL = (
    "Production was run with wal_level = minimal: no base backup from before leads beyond that, whatever `coverage`"
    " shows. Take a base backup now; recover to a point before it, or from a base backup behind it."
)
# What the server says when it gives up -> code, and whether the backups are to blame.
_REASONS = (
    (r"No space left on device", "NO_SPACE", False),
    (r"recovery ended before configured recovery target was reached", "TARGET_NOT_REACHED", True),
    (r"requested recovery stop point is before consistent recovery point", "TARGET_NOT_REACHED", True),
    (r"WAL ends before", "WAL_GAP", True),
    (r"is not a child of this server's history|recovery target timeline \d+ does not exist", "TIMELINE_UNKNOWN", True),
    (r"could not locate (a valid|required) checkpoint record|invalid checkpoint|incorrect checksum in control file",
     "BASE_BACKUP_DAMAGED", True),
    (r"WAL was generated with \"?wal_level", "WAL_LEVEL_MINIMAL", True),
)  # fmt: skip


@dataclass
class RecoveryLog:
    """What was said so far. Give it every line, from any thread. Moments are those of `time.monotonic`, in seconds."""

    redo_started: float | None = None
    redo_ended: float | None = None
    ready: float | None = None
    redo_done: Lsn | None = None
    stopped: str | None = None
    last_completed: datetime | None = None
    gave_up: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        """Take note of one line."""
        if len(self.lines) < 200 or "restored log file" not in line:
            self.lines.append(line)
        now = time.monotonic()
        if _REDO_STARTS.search(line):
            self.redo_started = now
        elif match := _REDO_DONE.search(line):
            self.redo_ended, self.redo_done = now, Lsn.parse(match[1])
        elif match := _STOPPED.search(line):
            self.stopped = match[1]
        elif match := _LAST_COMPLETED.search(line):
            self.last_completed = _moment(match[1])
        elif match := _GAVE_UP.search(line):
            self.gave_up.append(match[2])
        elif _READY.search(line):
            self.ready = now

    @property
    def stopped_at(self) -> datetime | None:
        """The time of the commit before which it stopped, where that is why it stopped."""
        match = _STOPPED_AT_TIME.search(self.stopped or "")
        return None if match is None else _moment(match[1])

    @property
    def stopped_at_lsn(self) -> Lsn | None:
        """The position at which it stopped, where it was told a position."""
        match = _STOPPED_AT_LSN.search(self.stopped or "")
        return None if match is None else Lsn.parse(match[1])

    @property
    def stopped_at_point(self) -> str | None:
        """The restore point at which it stopped, where it was told one."""
        match = _STOPPED_AT_POINT.search(self.stopped or "")
        return None if match is None else match[1]

    def why_it_ended(self) -> BackupError:
        """The error of a server that ended before it was ready."""
        every = "\n".join(self.lines[-50:])
        words = " | ".join(self.gave_up[-3:] or self.lines[-4:]) or "no output"
        for pattern, code, of_the_backups in _REASONS:
            if re.search(pattern, every):
                message = f"The server gave recovery up: {words}."
                if of_the_backups:
                    return ProofFailed(code, message, _MINIMAL if code == "WAL_LEVEL_MINIMAL" else _ANOTHER)
                return ProgramError(code, message, "Free space there, or recover into a folder on another disk.")
        return ProgramError(
            "RECOVERY_FAILED", f"The server gave recovery up: {words}.", "Look at its words; try another base backup."
        )


def _moment(text: str) -> datetime:
    """`2026-11-24 18:00:00.123456+00`, as the server writes times in UTC."""
    text = re.sub(r"([+-]\d\d)$", r"\1:00", text.strip().removesuffix("."))
    text = re.sub(r"\.(\d+)", lambda match: "." + match[1].ljust(6, "0"), text)
    return datetime.fromisoformat(text).astimezone(timezone.utc)
