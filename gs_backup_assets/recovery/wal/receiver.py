"""Runs pg_receivewal, and says what it died of."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from gs_backup_assets.errors import BackupError, ProgramError, SourceError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import ENVIRONMENT_VARIABLE, Toolchain, discover
from gs_backup_assets.recovery.wal.spool import Spool
from gs_backup_assets.system.programs import Program, group_alive
from gs_backup_assets.system.workspace import workspace

RECEIVER = "pg_receivewal"
_PATIENCE = 5.0


def receiver_for(server: Release, candidates: Iterable[Toolchain] | None = None) -> Toolchain:
    """Programs with a pg_receivewal for a server: those of its own major, else of the nearest newer one.

    Raises ProgramError (`PROGRAMS_OF_MAJOR_MISSING`).
    """
    every = discover() if candidates is None else candidates
    able = [t for t in every if t.release.major >= server.major and t.has(RECEIVER)]
    if not able:
        raise ProgramError(
            "PROGRAMS_OF_MAJOR_MISSING",
            f"No {RECEIVER} for a server of PostgreSQL {server} is here.",
            f"`gs-backup toolchain add {server.major}` fetches one; {ENVIRONMENT_VARIABLE} names a folder with one.",
        )
    return min(able, key=lambda t: (t.release.major, t.origin != "environment", -t.release.minor))


class Receiver:
    """One run of pg_receivewal, from what the spool says to begin with. Use as a context manager.

    It has no slot of its own (`-S`): it would report to the server what is on this machine's disk, and the server
    would remove what the archive does not have. And it does not connect again by itself: another cluster may answer.
    """

    def __init__(self, toolchain: Toolchain, target: Target, spool: Spool) -> None:
        self._toolchain, self._target, self._spool = toolchain, target, spool
        self._stack = ExitStack()

    def __enter__(self) -> Receiver:
        with ExitStack() as stack:
            folder = stack.enter_context(workspace("wal"))
            environment = {**self._target.write_service_file(folder), "PGAPPNAME": "gs_backup wal"}
            argv: list[str | Path] = [
                self._toolchain.program(RECEIVER),
                "-D",
                self._spool.receiving,
                "--no-loop",
                "--no-password",
            ]
            program = Program(argv, environment=environment, stop_signal=signal.SIGINT)
            self._program = stack.enter_context(program)
            self._spool.note_receiver(self._program.pid)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def running(self) -> bool:
        return self._program.running

    def stop(self) -> None:
        """End it; what it wrote stays."""
        self._program.stop(_PATIENCE)

    def failure(self) -> BackupError:
        """Why it ended by itself."""
        self._program.stop(_PATIENCE)
        words = " | ".join(line for line in self._program.last_lines[-3:] if line.strip()) or "(no output)"
        if "No space left" in words or "Disk quota" in words:
            return ProgramError(
                "SPOOL_FULL",
                f"No space is left in the spool {self._spool.folder}.",
                "The slot keeps the log at the server meanwhile; free space, and find why the store takes none.",
            )
        return SourceError(
            "WAL_RECEIVER_ENDED",
            f"{RECEIVER} ended: {words}",
            "It is started again by itself. If it does not stay, look at the server's log; docs/wal.md explains.",
        )


def end_left_receiver(spool: Spool) -> None:
    """End a pg_receivewal that a killed stream left behind: two of them would write the same files."""
    group = spool.receiver_left()
    if group is None:
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(group, number)
        deadline = time.monotonic() + _PATIENCE
        while group_alive(group) and time.monotonic() < deadline:
            time.sleep(0.02)
