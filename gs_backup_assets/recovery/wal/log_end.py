"""Reads the archived log: the first and the last commit, the end of the last record, and restore points by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.postgres.waldump import Commit, ReadWal, RestorePoint, read_restore_points, read_wal
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.system.workspace import workspace

# What says that a segment in this store is not what was archived, or is gone; a store that is away says something else.
DAMAGE = (
    "COMPRESSED_DAMAGED",
    "ENVELOPE_DAMAGED",
    "ENVELOPE_MISPLACED",
    "OBJECT_MISSING",
    "WAL_DAMAGED",
    "WAL_FOREIGN",
    "WAL_MISPLACED",
)
_FIRST_BLOCK, _LARGEST_BLOCK = 2, 32  # segments read at a time: most logs have a commit in the last one
_READERS = 4


@dataclass(frozen=True)
class LogEnd:
    """What a run of segments comes to at its end.

    `segments` are the sound ones, `end` the position after the last whole record in them. `last` is the last commit,
    None where there is none, and `latest_at` the latest time of those near it: clocks are not always in step with the
    log. `damage` says why segments behind were left out.
    """

    segments: tuple[Archived, ...]
    end: Lsn
    last: Commit | None
    latest_at: datetime | None
    damage: StoreError | None = None


class _Damaged(Exception):
    """A segment cannot be used; those before it may be."""

    def __init__(self, index: int, error: StoreError) -> None:
        super().__init__(index)
        self.index = index
        self.error = error


class LogReader:
    """Reads segments of one archive with pg_waldump, in a private folder of its own."""

    def __init__(self, archive: WalArchive, toolchain: Toolchain) -> None:
        self.archive = archive
        self.toolchain = toolchain

    def end_of(self, segments: Sequence[Archived], end: Lsn) -> LogEnd:
        """Look for the last commit from the end backwards. `end` is the first byte behind that is not on the way.

        A damaged segment ends the log before it. Raises what `WalArchive.read` and pg_waldump do for other reasons.
        """
        damage: StoreError | None = None
        while segments:
            try:
                last, latest_at, stop = self._last_commit(segments, end)
            except _Damaged as found:
                damage = damage or found.error
                segments = segments[: found.index]
                end = segments[-1].end if segments else end
            else:
                return LogEnd(tuple(segments), stop, last, latest_at, damage)
        return LogEnd((), end, None, None, damage)

    def first_commit(self, segments: Sequence[Archived], begin: Lsn, end: Lsn) -> Commit | None:
        """The first commit from a position on; None when there is none before `end`. Damage raises StoreError.

        Reads no more than it takes to find one. `end` is the first byte behind that is not on the way.
        """
        for lo, hi in _blocks(segments, _FIRST_BLOCK):
            try:
                commits = self._read(segments, lo, hi, end).commits
            except _Damaged as damaged:
                raise damaged.error from damaged
            found = next((commit for commit in commits if commit.lsn >= begin), None)
            if found is not None:
                return found
        return None

    def has_record_from(self, segments: Sequence[Archived], position: Lsn, end: Lsn) -> bool:
        """Whether a record begins at a position or behind it: only there a server that looks for it can stop."""
        needed = [archived for archived in segments if archived.end > position]
        if len({archived.segment.timeline for archived in needed}) != 1 or len(needed) > _FIRST_BLOCK:
            return bool(needed)
        with workspace("wal-end") as folder:
            self._fetch(needed, 0, folder)
            argv: list[str | Path] = [self.toolchain.program("pg_waldump"), "-p", folder, "-s", str(position)]
            argv += ["-e", str(end), "-n", "1", needed[0].segment.name, needed[-1].segment.name]
            return "lsn: " in run(argv, capture_stdout=True, timeout=60).stdout

    def restore_points(self, segments: Sequence[Archived], end: Lsn, name: str) -> tuple[RestorePoint, ...]:
        """The restore points of a name in segments, in the log's order. Reads all of them; damage raises StoreError."""
        found: dict[Lsn, RestorePoint] = {}
        for lo, hi in _blocks(segments):
            block = segments[lo:hi]
            with workspace("wal-end") as folder:
                try:
                    self._fetch(block, lo, folder)
                except _Damaged as damaged:
                    raise damaged.error from damaged
                first, last = block[0].segment, block[-1].segment
                stop = end if hi == len(segments) and end < last.end else None
                for point in read_restore_points(self.toolchain, folder, first, last, end=stop):
                    if point.name == name:
                        found[point.lsn] = point
        return tuple(found[lsn] for lsn in sorted(found))

    def _last_commit(self, segments: Sequence[Archived], end: Lsn) -> tuple[Commit | None, datetime | None, Lsn]:
        stop: Lsn | None = None
        hi, size = len(segments), _FIRST_BLOCK
        while hi > 0:
            lo = _same_timeline(segments, max(0, hi - size), hi)
            read = self._read(segments, lo, hi, end)
            if stop is None and (lo == 0 or read.end > segments[lo].segment.start):
                stop = read.end  # else one record fills the whole block: the last whole one lies before it
            if read.commits:
                return read.commits[-1], max(commit.at for commit in read.commits), stop or read.end
            # One segment more than is new: a commit's record may begin in one and end in the next.
            hi = lo + 1 if lo > 0 and hi - lo > 1 and segments[lo - 1].segment.next == segments[lo].segment else lo
            size = min(size * 2, _LARGEST_BLOCK)
        assert stop is not None
        return None, None, stop

    def _read(self, segments: Sequence[Archived], lo: int, hi: int, end: Lsn) -> ReadWal:
        block = segments[lo:hi]
        with workspace("wal-end") as folder:
            self._fetch(block, lo, folder)
            first, last = block[0].segment, block[-1].segment
            stop = end if hi == len(segments) and end < last.end else None
            try:
                return read_wal(self.toolchain, folder, first, last, end=stop)
            except StoreError as error:
                if error.code not in DAMAGE:
                    raise
                raise _Damaged(hi - 1, error) from error

    def _fetch(self, block: Sequence[Archived], offset: int, folder: Path) -> None:
        def bring(index: int) -> None:
            try:
                data = self.archive.read(block[index])
            except StoreError as error:
                if error.code not in DAMAGE:
                    raise
                raise _Damaged(offset + index, error) from error
            (folder / block[index].segment.name).write_bytes(data)

        with Threads(_READERS, "wal") as pool:
            list(pool.map(bring, range(len(block))))


def _blocks(segments: Sequence[Archived], size: int = _LARGEST_BLOCK) -> Iterator[tuple[int, int]]:
    """Stretches of one timeline each, and not too long; each begins with the last segment of the one before.

    The first one has `size` segments at most, those after it twice as many as the one before.
    """
    lo = 0
    while lo < len(segments):
        hi = lo + 1
        while hi < len(segments) and hi - lo < size and segments[hi].segment == segments[hi - 1].segment.next:
            hi += 1
        yield lo, hi
        more = hi < len(segments) and segments[hi].segment == segments[hi - 1].segment.next
        lo = hi - 1 if more else hi
        size = min(size * 2, _LARGEST_BLOCK)


def _same_timeline(segments: Sequence[Archived], lo: int, hi: int) -> int:
    """The first of `segments[lo:hi]` from which on all are of the last one's timeline."""
    while segments[lo].segment.timeline != segments[hi - 1].segment.timeline:
        lo += 1
    return lo
