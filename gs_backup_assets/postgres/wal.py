"""Write-ahead log as PostgreSQL names and writes it: positions, segments, page headers, timelines. Pure.

Facts are from PostgreSQL's manual ("WAL Internals") and its headers `access/xlog_internal.h` and `access/timeline.c`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import total_ordering
from itertools import pairwise

from gs_backup_assets.errors import StoreError

PAGE_BYTES = 8192
DEFAULT_SEGMENT_BYTES = 16 << 20
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
SHORT_HEADER_BYTES = 24
LONG_HEADER_BYTES = 40
_LONG_HEADER = 0x0002  # XLP_LONG_HEADER
# Of every page, native byte order.
PAGE_HEADER = struct.Struct("=HHIQI")  # xlp_magic, xlp_info, xlp_tli, xlp_pageaddr, xlp_rem_len
# The same, and in a segment's first page, after 4 bytes of padding: xlp_sysid, xlp_seg_size, xlp_xlog_blcksz.
_HEADER = struct.Struct("=HHIQI4xQII")
# XLOG_PAGE_MAGIC of the majors: the only thing in a segment that tells which one wrote it.
MAGICS = {13: 0xD106, 14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}


@total_ordering
@dataclass(frozen=True)
class Lsn:
    """A position in the write-ahead log: a number of bytes, written as `16/B374D848`."""

    value: int

    @staticmethod
    def parse(text: str) -> Lsn:
        """Read `16/B374D848`; ValueError for anything else."""
        match = _LSN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no position in the write-ahead log, such as 16/B374D848")
        return Lsn(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.value >> 32:X}/{self.value & 0xFFFFFFFF:X}"

    def __lt__(self, other: Lsn) -> bool:
        return self.value < other.value


@dataclass(frozen=True, order=True)
class Segment:
    """A file of the write-ahead log: its timeline, its number on it, and how many bytes a segment has."""

    timeline: int
    number: int
    size: int = DEFAULT_SEGMENT_BYTES

    @staticmethod
    def parse(name: str, size: int = DEFAULT_SEGMENT_BYTES) -> Segment:
        """Read a file's name, such as `00000001000000000000002A`; ValueError for anything else."""
        if not is_segment(name):
            raise ValueError(f"{name!r} is not the name of a WAL segment")
        high, low = int(name[8:16], 16), int(name[16:], 16)
        per_high = (1 << 32) // size
        if low >= per_high:
            raise ValueError(f"{name!r} is not the name of a WAL segment of {size} bytes")
        return Segment(int(name[:8], 16), high * per_high + low, size)

    @staticmethod
    def at(lsn: Lsn, timeline: int, size: int = DEFAULT_SEGMENT_BYTES) -> Segment:
        """The segment that holds the byte at a position."""
        return Segment(timeline, lsn.value // size, size)

    @property
    def name(self) -> str:
        per_high = (1 << 32) // self.size
        return f"{self.timeline:08X}{self.number // per_high:08X}{self.number % per_high:08X}"

    @property
    def start(self) -> Lsn:
        """Its first byte."""
        return Lsn(self.number * self.size)

    @property
    def end(self) -> Lsn:
        """The byte after its last."""
        return Lsn((self.number + 1) * self.size)

    @property
    def next(self) -> Segment:
        """The one after it on the same timeline."""
        return Segment(self.timeline, self.number + 1, self.size)

    def on(self, timeline: int) -> Segment:
        """The one with the same bytes on another timeline."""
        return Segment(timeline, self.number, self.size)


def is_segment(name: str) -> bool:
    """Whether a file's name is that of a whole segment."""
    return _SEGMENT.fullmatch(name) is not None


def is_history(name: str) -> bool:
    """Whether a file's name is that of a timeline history, such as `00000002.history`."""
    return _HISTORY.fullmatch(name) is not None


def history_name(timeline: int) -> str:
    """The name of a timeline's history file. Timeline 1 has none."""
    return f"{timeline:08X}.history"


@dataclass(frozen=True)
class PageHeader:
    """What the first page of a segment says of it."""

    magic: int
    timeline: int
    address: Lsn
    system_identifier: str
    segment_bytes: int

    @property
    def major(self) -> int | None:
        """The major version that wrote it; None for one that is not known here."""
        return next((major for major, magic in MAGICS.items() if magic == self.magic), None)


def read_header(data: bytes) -> PageHeader | None:
    """The long header at the beginning of a segment; None where there is none."""
    if len(data) < _HEADER.size:
        return None
    magic, info, timeline, address, _, system, segment_bytes, page_bytes = _HEADER.unpack_from(data)
    if not info & _LONG_HEADER or page_bytes != PAGE_BYTES:
        return None
    if segment_bytes <= PAGE_BYTES or segment_bytes & (segment_bytes - 1):
        return None
    return PageHeader(magic, timeline, Lsn(address), str(system), segment_bytes)


def header_bytes(page: int, segment_bytes: int) -> int:
    """How long the header of the page at a position is: a segment's first page has a longer one."""
    return SHORT_HEADER_BYTES if page % segment_bytes else LONG_HEADER_BYTES


def aligned(position: int) -> int:
    """The position, or number of bytes, rounded up to where a record may begin."""
    return (position + 7) & ~7


def written_bytes(data: bytes | memoryview, segment: Segment) -> int:
    """How many bytes, in whole pages, of a segment were written: a page that is not yet written has another address.

    A recycled segment keeps the pages of an older one, and pg_receivewal's are filled with zeros.
    """
    pages = len(data) // PAGE_BYTES
    for page in range(pages):
        magic, _, _, address, _ = PAGE_HEADER.unpack_from(data, page * PAGE_BYTES)
        if magic == 0 or address != segment.start.value + page * PAGE_BYTES:
            return page * PAGE_BYTES
    return pages * PAGE_BYTES


def require_segment(data: bytes, segment: Segment, system_identifier: str, *, whole: bool = True) -> PageHeader:
    """Check that the bytes are those of a segment of a cluster; the header of its first page.

    Not `whole`: the end may not be written yet. Raises StoreError: `WAL_DAMAGED` (no WAL, cut, or not to its end),
    `WAL_FOREIGN` (of another cluster), `WAL_MISPLACED` (of another place or timeline).
    """
    header = read_header(data)
    if header is None or header.magic == 0:
        raise _bad("WAL_DAMAGED", segment, "it does not begin as a WAL segment does")
    if header.system_identifier != system_identifier:
        raise _bad(
            "WAL_FOREIGN", segment, f"it is of another cluster, with system identifier {header.system_identifier}"
        )
    # The page of a switch to a new timeline may still carry the old one's number, never a newer one's.
    if header.address != segment.start or header.timeline > segment.timeline:
        raise _bad("WAL_MISPLACED", segment, f"it is the one of timeline {header.timeline} at {header.address}")
    if header.segment_bytes != segment.size or len(data) != segment.size:
        raise _bad("WAL_DAMAGED", segment, f"it has {len(data)} bytes of {header.segment_bytes}")
    if whole and written_bytes(data, segment) == 0:
        raise _bad("WAL_DAMAGED", segment, "nothing was written to it")
    return header


def _bad(code: str, segment: Segment, words: str) -> StoreError:
    return StoreError(
        code,
        f"{segment.name} is not what its name says: {words}.",
        "It is not used. Look for it in the server's pg_wal or in the other store; `gs-backup coverage` shows the gap.",
    )


@dataclass(frozen=True)
class Switch:
    """A timeline's predecessor, and where the newer one branched off."""

    timeline: int
    at: Lsn


def parse_history(text: str) -> tuple[Switch, ...]:
    """The ancestors in a timeline history file, the oldest first; ValueError for what is none."""
    switches = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(None, 2)
        if not words:
            continue
        if len(words) < 2:
            raise ValueError(f"{line!r} is no line of a timeline history")
        switches.append(Switch(int(words[0]), Lsn.parse(words[1])))
    if any(a.timeline >= b.timeline or a.at > b.at for a, b in pairwise(switches)):
        raise ValueError("the timelines of a history must grow")
    return tuple(switches)


def segments_between(first: Segment, last: Segment) -> Iterator[Segment]:
    """All segments of one timeline from the first to the last, both included."""
    for number in range(first.number, last.number + 1):
        yield Segment(first.timeline, number, first.size)
