"""Drives pg_waldump: commits and restore points in plain WAL segments, and where their valid log ends."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import (
    LONG_HEADER_BYTES,
    PAGE_BYTES,
    PAGE_HEADER,
    Lsn,
    Segment,
    aligned,
    header_bytes,
)
from gs_backup_assets.system.programs import Finished, run

_SECONDS = 600.0
_LINE = (
    r"rmgr: {manager}\s+len \(rec/tot\):\s*\d+/\s*\d+, "
    r"tx:\s*(?P<xid>\d+), lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+), prev \S+ "
)
# COMMIT_PREPARED is written by a session without a transaction; the number of the one that it commits comes first.
_COMMIT = re.compile(
    _LINE.format(manager="Transaction")
    + r"desc: COMMIT(?:_PREPARED)? (?:(?P<prepared>\d+): )?(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC\b"
)
_POINT = re.compile(_LINE.format(manager="XLOG") + r"desc: RESTORE_POINT (?P<name>.*)")
# What pg_waldump says at the first record that it cannot read: it names the one before it, or where it searched.
_AFTER_RECORD = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+): (.*)")
_NO_RECORD = re.compile(r"could not find a valid record after ([0-9A-F]+/[0-9A-F]+)")
_RECORD = struct.Struct("=IIQBB2x4x")  # xl_tot_len, xl_xid, xl_prev, xl_info, xl_rmid, padding, xl_crc
_CONTINUES = 0x0001  # XLP_FIRST_IS_CONTRECORD
_SWITCH = 0x40  # XLOG_SWITCH, of resource manager 0


@dataclass(frozen=True)
class Commit:
    """A transaction's commit record: its number (32 bits), where the record begins, and the server's clock then."""

    xid: int
    lsn: Lsn
    at: datetime


@dataclass(frozen=True)
class RestorePoint:
    """A named restore point's record: its name, and where the record begins."""

    name: str
    lsn: Lsn


@dataclass(frozen=True)
class ReadWal:
    """The commits in a run of segments, in the log's order, and `end`: the position after the last whole record.

    A server that replays these segments comes exactly to there. What follows is the beginning of a record that goes on
    in a segment, or in a part of one, that is not there; or nothing. It is the first segment's start when no record
    that begins there is whole: then the log ends with a record from before.
    """

    commits: tuple[Commit, ...]
    end: Lsn


def read_wal(toolchain: Toolchain, folder: Path, first: Segment, last: Segment, *, end: Lsn | None = None) -> ReadWal:
    """Read segments of one timeline that lie, each under its name, in `folder`.

    `end` is up to where the last one was written when it is an unfinished one (as `Archived.end`); a last record that
    is not there to its end is normal then. `toolchain` must be of the cluster's own major. Raises StoreError
    (`WAL_DAMAGED`) when the log cannot be read up to there, ProgramError when pg_waldump does not work.
    """
    finished = _dump(toolchain, folder, first, last, end=end, manager="Transaction")
    stop = _before_header(_end_of(finished, folder, first, last, end=end), first.size)
    return ReadWal(tuple(_commits(finished.stdout)), stop)


def read_commits(
    toolchain: Toolchain, folder: Path, first: Segment, last: Segment, *, end: Lsn | None = None
) -> tuple[Commit, ...]:
    """The commits of `read_wal`, which raises the same."""
    return read_wal(toolchain, folder, first, last, end=end).commits


def read_restore_points(
    toolchain: Toolchain, folder: Path, first: Segment, last: Segment, *, end: Lsn | None = None
) -> tuple[RestorePoint, ...]:
    """The named restore points in segments, in the log's order. Arguments and errors are those of `read_wal`."""
    finished = _dump(toolchain, folder, first, last, end=end, manager="XLOG")
    _end_of(finished, folder, first, last, end=end)
    matches = filter(None, map(_POINT.match, finished.stdout.splitlines()))
    return tuple(RestorePoint(match["name"], Lsn.parse(match["lsn"])) for match in matches)


def _commits(text: str) -> Iterator[Commit]:
    for match in filter(None, map(_COMMIT.match, text.splitlines())):
        at = datetime.fromisoformat(f"{match['at']}+00:00")
        yield Commit(int(match["prepared"] or match["xid"]), Lsn.parse(match["lsn"]), at)


def _dump(
    toolchain: Toolchain, folder: Path, first: Segment, last: Segment, *, end: Lsn | None, manager: str
) -> Finished:
    argv: list[str | Path] = [toolchain.program("pg_waldump"), "-p", folder, "-r", manager]
    # Up to 14 a second --rmgr replaces the first: one resource manager at a time.
    argv += ["-e", str(last.end if end is None else end), first.name, last.name]
    return run(argv, environment={"TZ": "UTC"}, capture_stdout=True, timeout=_SECONDS)


def _end_of(finished: Finished, folder: Path, first: Segment, last: Segment, *, end: Lsn | None) -> Lsn:
    """Where the valid log ends; StoreError (`WAL_DAMAGED`) when that is before the end that is to be expected."""
    expected = last.end if end is None else end
    log = _Log(folder, first, expected)
    if finished.status == 0:  # also when the last record goes on behind the end
        return log.after_the_last_whole_record()
    words = "\n".join(finished.stderr)
    if match := _AFTER_RECORD.search(words):
        before = Lsn.parse(match[1])
        stop = log.after(before) if before >= first.start else log.first_record()
    elif match := _NO_RECORD.search(words):
        stop = log.first_record()
    else:
        finished.require_success("pg_waldump of the cluster's own major is needed, and whole segments.")
        raise AssertionError("a program that failed is no success")
    if stop < expected and end is not None and log.ends_at(stop):
        return stop
    if stop >= expected:
        return log.after_the_last_whole_record()
    reason = finished.stderr[-1].rpartition("error: ")[2].removeprefix("pg_waldump: fatal: ")
    raise StoreError(
        "WAL_DAMAGED",
        f"The log in {Segment.at(stop, first.timeline, first.size).name} cannot be read beyond {stop}: {reason}.",
        "Nothing after it can be recovered from this copy: compare it with the other store, and take a base backup.",
    )


class _Log:
    """The bytes of a run of segments in a folder, as one log up to `end`; records leave out the pages' headers."""

    def __init__(self, folder: Path, first: Segment, end: Lsn) -> None:
        self._folder = folder
        self._first = first
        self._end = end.value

    def after(self, record: Lsn) -> Lsn:
        """The position after a record, where the next one is to begin."""
        length, _, _, information, manager = _RECORD.unpack(self._head(record.value))
        if manager == 0 and information & 0xF0 == _SWITCH:
            return Segment.at(record, self._first.timeline, self._first.size).end
        return Lsn(self._skip(record.value, length))

    def after_the_last_whole_record(self) -> Lsn:
        """The position after the last record that is there to its end, in a log that is known to be sound.

        Every page says in its header how much of a record from before goes on in it: what follows is the beginning of
        a record. So nothing is walked through but the records of the last page in which one begins.
        """
        first_page = self._first.start.value
        for page in range((self._end - 1) // PAGE_BYTES * PAGE_BYTES, first_page - 1, -PAGE_BYTES):
            position = self._begins_in(page)
            if position is None:
                continue
            while (after := self._after_whole(position)) is not None:
                position = after
            return Lsn(position)
        return self._first.start

    def _begins_in(self, page: int) -> int | None:
        """Where the rest of an older record ends in a page; None when it goes on behind it, or nothing was written."""
        magic, information, _, address, rest = PAGE_HEADER.unpack(self._read(page, PAGE_HEADER.size))
        if magic == 0 or address != page:
            return None
        begin = page + header_bytes(page, self._first.size) + (aligned(rest) if information & _CONTINUES else 0)
        return begin if begin <= min(page + PAGE_BYTES, self._end) else None

    def _after_whole(self, position: int) -> int | None:
        """The position after the record that begins at a position; None when it is not there to its end."""
        start = position if position % PAGE_BYTES else position + header_bytes(position, self._first.size)
        if start + _RECORD.size > self._end:
            return None
        (length,) = struct.unpack("=I", self._read(start, 4))
        after = self.after(Lsn(start)).value
        return after if length >= _RECORD.size and after <= self._end else None

    def first_record(self) -> Lsn:
        """Where the first record begins that begins here: a segment may begin with the rest of an older one."""
        _, information, _, _, rest = PAGE_HEADER.unpack(self._read(self._first.start.value, PAGE_HEADER.size))
        begin = self._first.start.value + LONG_HEADER_BYTES
        return Lsn(self._skip(begin, rest) if information & _CONTINUES else begin)

    def ends_at(self, position: Lsn) -> bool:
        """Whether what begins there is the last thing in the log: nothing, or a record that was not written whole."""
        start = position.value
        (length,) = struct.unpack("=I", self._read(start, 4))
        next_page = start - start % PAGE_BYTES + PAGE_BYTES
        if length > next_page - start and next_page < self._end:
            _, information, _, _, rest = PAGE_HEADER.unpack(self._read(next_page, PAGE_HEADER.size))
            if not information & _CONTINUES or rest != length - (next_page - start):
                return False  # no such record was ever written
        # A record's head that is itself cut has any length; then nothing but zeros follows the head.
        stop = self._skip(start, max(length, _RECORD.size)) if length else start
        while stop < self._end:
            page_end = stop - stop % PAGE_BYTES + PAGE_BYTES
            begin = stop if stop % PAGE_BYTES else stop + header_bytes(stop, self._first.size)
            if any(self._read(begin, page_end - begin)):
                return False
            stop = page_end
        return True

    def _skip(self, position: int, length: int) -> int:
        """The aligned position after so many bytes of records; any position behind the end for one that is there."""
        while position <= self._end:
            if position % PAGE_BYTES == 0:
                position += header_bytes(position, self._first.size)
            room = PAGE_BYTES - position % PAGE_BYTES
            if length <= room:
                return aligned(position + length)
            length -= room
            position += room
        return position

    def _head(self, position: int) -> bytes:
        """The head of a record, which may go on behind a page's header; zeros behind the end."""
        room = min(_RECORD.size, PAGE_BYTES - position % PAGE_BYTES)
        head = self._read(position, room)
        if room < _RECORD.size and position + room < self._end:
            page = position + room
            head += self._read(page + header_bytes(page, self._first.size), _RECORD.size - room)
        return head.ljust(_RECORD.size, b"\0")

    def _read(self, position: int, count: int) -> bytes:
        """Bytes of the segment that holds the position, not beyond its end."""
        segment = Segment.at(Lsn(position), self._first.timeline, self._first.size)
        with open(self._folder / segment.name, "rb") as file:
            file.seek(position - segment.start.value)
            return file.read(count)


def _before_header(position: Lsn, segment_bytes: int) -> Lsn:
    """A record that fills its page ends there, for the server, and not behind the header of the next one."""
    within = position.value % PAGE_BYTES
    page = position.value - within
    return Lsn(page) if within == header_bytes(page, segment_bytes) else position
