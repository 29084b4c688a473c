"""Brings what is whole in the spool to the archive, several files at a time, and goes on trying."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.wal import Segment
from gs_backup_assets.recovery.wal.spool import Spool
from gs_backup_assets.system.threads import Threads

AT_A_TIME = 4
# What trying again does not cure: two servers archive as one, or the stream is not this cluster's.
FATAL = frozenset({"WAL_CONFLICT", "WAL_FOREIGN", "WAL_MISPLACED"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_DAMAGED = "WAL_DAMAGED"


@dataclass
class Counts:
    """What was brought so far: files, and the bytes of segments before they were compressed."""

    segments: int = 0
    histories: int = 0
    bytes: int = 0


class Shipper:
    """The way from the spool to the archive. `step` is called often, from one thread.

    `archived` are the whole segments that the archive has, as far as is known. A file that was refused is tried again
    behind all that were not, the one refused longest ago first: what is wrong with it alone keeps nothing else here.
    """

    def __init__(self, spool: Spool, archive: WalArchive, archived: set[Segment], begun: set[Segment]) -> None:
        self._spool, self._archive = spool, archive
        self._pool = Threads(AT_A_TIME, "wal-ship")
        self._jobs: dict[Path, tuple[Segment | None, Future[bool]]] = {}
        self._again, self._pause = 0.0, _FIRST_PAUSE
        self._begun = begun
        self.archived = archived
        self.counts = Counts()
        self._refused: dict[Path, BackupError] = {}
        self.receive_again = False

    def step(self, now: float) -> None:
        """Collect what is done, begin what is there. `now` is a monotonic clock's, in seconds.

        Raises StoreError: those of FATAL, at once. A file that is damaged here is removed, and `receive_again` set:
        the server still has it.
        """
        for path, (segment, job) in list(self._jobs.items()):
            if job.done():
                del self._jobs[path]
                self._collect(path, segment, job, now)
        if now < self._again:
            return
        files: list[tuple[Path, Segment | None, Callable[[], bool]]] = [
            (path, None, self._history(timeline, path)) for timeline, path in self._spool.histories().items()
        ]
        files += [(path, segment, self._segment(segment, path)) for segment, path in self._spool.whole().items()]
        there = {path for path, _, _ in files}
        self._refused = {path: error for path, error in self._refused.items() if path in there}
        turns = {path: turn for turn, path in enumerate(self._refused)}
        most = AT_A_TIME if self._pause == _FIRST_PAUSE else 1
        for path, segment, job_of in sorted(files, key=lambda file: turns.get(file[0], -1)):
            if len(self._jobs) >= most:
                return
            if path not in self._jobs:
                self._jobs[path] = segment, self._pool.submit(job_of)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be brought."""
        return not self._jobs and not self._spool.whole() and not self._spool.histories()

    @property
    def failure(self) -> BackupError | None:
        """The newest refusal of a file that still waits."""
        return next(reversed(self._refused.values()), None)

    def begun(self, segment: Segment) -> None:
        """Parts of this segment are about to be in the archive: they go when the whole one is there."""
        self._begun.add(segment)

    def _collect(self, path: Path, segment: Segment | None, job: Future[bool], now: float) -> None:
        try:
            if not job.result():
                return
            self._spool.remove(path)
        except BackupError as error:
            if error.code in FATAL:
                raise
            if error.code == _DAMAGED:
                self._spool.remove(path)
                self.receive_again = True
            self._refused.pop(path, None)
            self._refused[path] = error
            self._again = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return
        self._refused.pop(path, None)
        self._pause, self._again = _FIRST_PAUSE, 0.0
        if segment is None:
            self.counts.histories += 1
        else:
            self.archived.add(segment)
            self.counts.segments += 1
            self.counts.bytes += segment.size

    def _segment(self, segment: Segment, path: Path) -> Callable[[], bool]:
        def ship() -> bool:
            data = self._spool.read(path)
            if not data:  # somebody removed it
                return False
            self._archive.put(segment, data)
            if segment in self._begun:
                self._archive.drop_partials(segment)
                self._begun.discard(segment)
            return True

        return ship

    def _history(self, timeline: int, path: Path) -> Callable[[], bool]:
        def ship() -> bool:
            data = self._spool.read(path)
            if not data:
                return False
            self._archive.put_history(timeline, data)
            return True

        return ship
