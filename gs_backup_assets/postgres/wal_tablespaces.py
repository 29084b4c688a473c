"""Keeps a server that replays another one's log out of that one's tablespaces. Pure.

CREATE TABLESPACE is replayed with its path (tablespace.c, `tblspc_redo`): a tablespace that is younger than the base
backup is made where production has its own, and on production's machine the two write the same files. With an empty
path it is made inside of the data directory (`allow_in_place_tablespaces`; 14.5, 15 and newer, older ones give up).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres.wal import PAGE_BYTES, PAGE_HEADER, Segment, aligned, header_bytes
from gs_backup_assets.postgres.wal_records import (
    CRC_AT,
    RECORD_HEADER_BYTES,
    crc_of,
    first_record,
    gather,
    past_header,
    walk,
)

_INFORMATION_AT = 16  # xl_info: its upper half is 0 for a CREATE. The eight bytes from here are never parted
_MANAGER = b"\x05"  # xl_rmid of tablespaces, behind it; two bytes of padding follow
_SHORT, _LONG = 0xFF, 0xFE  # XLR_BLOCK_ID_DATA_SHORT and _LONG: one byte, or four, of length follow
_OID_BYTES = 4
_LENGTHS = range(RECORD_HEADER_BYTES + 2 + _OID_BYTES + 1, 2048)  # a path has fewer than MAXPGPATH bytes, 1024


def inside_of_the_data_directory(data: bytes, segment: Segment) -> bytes:
    """A segment in which every CREATE TABLESPACE makes it inside of the data directory; the same where there is none.

    Raises ProgramError (`TABLESPACE_RECORD_PARTED`) where such a record is not whole in the segment.
    """
    changed: bytearray | None = None
    for at in _candidates(data):
        begin = _begin(at, segment.size)
        if begin is None:
            if _is_rest_of_one(data, at):
                raise _parted(segment)
            continue
        (length,) = struct.unpack_from("=I", data, begin)
        if length not in _LENGTHS or not _begins_there(data, segment, begin):
            continue
        if walk(begin, length) > len(data):
            raise _parted(segment)
        record = bytearray(gather(data, begin, length))
        path = _path_at(record)
        if crc_of(record) != struct.unpack_from("=I", record, CRC_AT)[0] or not record[path]:
            continue  # the server does not replay a record with a wrong sum
        record[path] = 0
        changed = changed or bytearray(data)
        changed[past_header(walk(begin, path))] = 0
        struct.pack_into("=I", changed, at + CRC_AT - _INFORMATION_AT, crc_of(record))
    return data if changed is None else bytes(changed)


def _candidates(data: bytes) -> Iterator[int]:
    """Where the information of such a record may lie. Records begin at multiples of eight."""
    managers = data[1::8]  # a search through all bytes takes ten times as long
    found = managers.find(_MANAGER)
    while found >= 0:
        at = 8 * found
        if data[at] < 0x10 and data[at + 2 : at + 4] == b"\0\0":
            yield at
        found = managers.find(_MANAGER, found + 1)


def _begin(at: int, size: int) -> int | None:
    """Where the record begins whose information is at an offset; None when that is in the segment before."""
    page = at - at % PAGE_BYTES
    behind = at - page - header_bytes(page, size)
    if behind >= _INFORMATION_AT:
        return at - _INFORMATION_AT
    return page - (_INFORMATION_AT - behind) if page else None


def _begins_there(data: bytes, segment: Segment, begin: int) -> bool:
    """Whether a record begins there, and not just bytes that look like one: its page's records are walked through."""
    page = begin - begin % PAGE_BYTES
    _, _, _, address, _ = PAGE_HEADER.unpack_from(data, page)
    if address != segment.start.value + page:  # of an older segment
        return False
    at = first_record(data, page, segment.size)
    while at < begin:
        (length,) = struct.unpack_from("=I", data, at)
        if length < RECORD_HEADER_BYTES:
            return False
        at = walk(at, aligned(length))
    return at == begin


def _is_rest_of_one(data: bytes, at: int) -> bool:
    """Whether the rest of a record, with which a segment begins, is that of one: then its lengths agree."""
    _, _, _, _, rest = PAGE_HEADER.unpack_from(data, 0)
    behind = at - header_bytes(0, len(data))
    if behind not in (0, 8):
        return False
    kind, short = data[at + 8], data[at + 9]
    length = 26 + short if kind == _SHORT else 29 + struct.unpack_from("=I", data, at + 9)[0] if kind == _LONG else 0
    return bool(rest == length - _INFORMATION_AT + behind)


def _path_at(record: bytearray) -> int:
    """The offset of the path in the record: behind the length of its data and the tablespace's OID."""
    return RECORD_HEADER_BYTES + (2 if record[RECORD_HEADER_BYTES] == _SHORT else 5) + _OID_BYTES


def _parted(segment: Segment) -> ProgramError:
    return ProgramError(
        "TABLESPACE_RECORD_PARTED",
        f"The record of a CREATE TABLESPACE is partly in {segment.name} and partly in its neighbour: replayed, it makes"
        " the tablespace where production has it.",
        "Recover to a point before it, or by hand on a machine where production is not (docs/recover.md).",
    )
