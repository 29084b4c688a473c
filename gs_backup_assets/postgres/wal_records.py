"""Walks the records of a segment, and finds the end of what is really written in an unfinished one. Pure.

The layout is that of PostgreSQL's `access/xlogrecord.h` and `access/xlog_internal.h`: records begin at multiples of
eight, go on over page headers, and carry a CRC-32C.
"""

from __future__ import annotations

import struct
from functools import cache

from gs_backup_assets.postgres.wal import (
    PAGE_BYTES,
    SHORT_HEADER_BYTES,
    Lsn,
    Segment,
    aligned,
    header_bytes,
    written_bytes,
)

RECORD_HEADER_BYTES = 24
CRC_AT = 20
_REMAINING_AT = 16  # xlp_rem_len: what of a record goes on in this page
_INFORMATION_AT = 16  # xl_info, and xl_rmid behind it
_SWITCH = 0x40  # XLOG_SWITCH, of resource manager 0
_POLYNOMIAL = 0x82F63B78


def written_end(data: bytes, segment: Segment) -> Lsn:
    """Up to where a segment's bytes are there for sure: never more than what was written, which is in order.

    Two bounds, and the greater holds. The last byte that is not zero was written, and all before it. The last record
    whose sum is right was written to its end, be it zeros.
    """
    pages = written_bytes(data, segment)
    if pages == 0:
        return segment.start
    by_bytes = aligned(len(data[:pages].rstrip(b"\0")))
    return Lsn(segment.start.value + max(by_bytes, _end_of_records(data, pages)))


def is_finished(data: bytes, segment: Segment) -> bool:
    """Whether nothing more will be written to a segment; True as well where the last page does not show it.

    Its last record reaches its end, or switches to the next one. `data` is as long as a segment.
    """
    pages = written_bytes(data, segment)
    if pages == 0:
        return True
    page = pages - PAGE_BYTES
    (remaining,) = struct.unpack_from("<I", data, page + _REMAINING_AT)
    at, last = first_record(data, page, segment.size), None
    while at < pages:
        (length,) = struct.unpack_from("<I", data, at)
        if length == 0:
            break
        if length < RECORD_HEADER_BYTES:  # damage is told by others
            return True
        at, last = walk(at, aligned(length)), at
    if pages == len(data) and at >= pages:
        return True
    if at > pages:  # the rest of the last record is not there
        return False
    if last is None:  # a switch may have begun in the page before
        return bool(0 < remaining < RECORD_HEADER_BYTES)
    return data[last + _INFORMATION_AT] & 0xF0 == _SWITCH and data[last + _INFORMATION_AT + 1] == 0


def _end_of_records(data: bytes, pages: int) -> int:
    """Where the last complete record ends that begins in the segment; 0 when there is none."""
    # What goes on from the segment before has its sum there: it is skipped, and proves nothing by itself.
    at = first_record(data, 0, segment_bytes=len(data))
    last: tuple[int, int] | None = None
    while (start := past_header(at)) < pages:
        (length,) = struct.unpack_from("<I", data, start)
        end = walk(start, aligned(length))
        if length < RECORD_HEADER_BYTES or end > pages:
            break
        last, at = (start, length), end
    if last is None:
        return 0
    # Those before it are whole, as it begins behind them; it may be half written itself.
    record = gather(data, *last)
    return at if crc_of(record) == struct.unpack_from("<I", record, CRC_AT)[0] else last[0]


def first_record(data: bytes, page: int, segment_bytes: int) -> int:
    """The offset behind what goes on in a page from before: there the first record begins that begins in it."""
    (remaining,) = struct.unpack_from("<I", data, page + _REMAINING_AT)
    return walk(page + header_bytes(page, segment_bytes), aligned(remaining))


def past_header(at: int) -> int:
    """A record never begins in a page header."""
    return at + SHORT_HEADER_BYTES if at % PAGE_BYTES == 0 else at


def walk(at: int, length: int) -> int:
    """The offset after so many bytes of records from `at`, page headers left out."""
    while True:
        room = PAGE_BYTES - at % PAGE_BYTES
        if length <= room:
            return at + length
        length -= room
        at += room + SHORT_HEADER_BYTES


def gather(data: bytes, at: int, length: int) -> bytes:
    """So many bytes of a record from `at`, page headers left out."""
    pieces = []
    while length > 0:
        room = min(PAGE_BYTES - at % PAGE_BYTES, length)
        pieces.append(data[at : at + room])
        length -= room
        at += room + SHORT_HEADER_BYTES
    return b"".join(pieces)


def crc_of(record: bytes | bytearray) -> int:
    """A record's sum: over its data first, then over its header up to the sum."""
    return _crc32c(bytes(record[RECORD_HEADER_BYTES:] + record[:CRC_AT]))


@cache
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _crc32c(data: bytes) -> int:
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF
