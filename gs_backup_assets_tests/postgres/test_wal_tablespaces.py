"""Tests of CREATE TABLESPACE in a log that is replayed elsewhere, at every place that its record may have in a segment.

That a server makes of it what is wanted is shown in `recovery/point_in_time`.
"""

from __future__ import annotations

import struct

import pytest

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres.wal import LONG_HEADER_BYTES, PAGE_BYTES, Segment, aligned, header_bytes
from gs_backup_assets.postgres.wal_records import crc_of
from gs_backup_assets.postgres.wal_tablespaces import inside_of_the_data_directory

SIZE = 1 << 20
FIRST, SECOND = Segment(1, 7, SIZE), Segment(1, 8, SIZE)
PATH = b"/srv/fast"
LONGEST = b"/" + 1000 * b"x"


def record(manager: int, body: bytes, information: int = 0) -> bytes:
    """A record with its sum, aligned."""
    head = (bytes([0xFF, len(body)]) if len(body) < 256 else b"\xfe" + struct.pack("=I", len(body))) + body
    found = bytearray(struct.pack("=IIQBBHI", 24 + len(head), 0, 0, information, manager, 0, 0) + head)
    struct.pack_into("=I", found, 20, crc_of(found))
    return bytes(found).ljust(aligned(len(found)), b"\0")


def tablespace(path: bytes) -> bytes:
    return record(5, struct.pack("=I", 16391) + path + b"\0")


def segments(stream: bytes) -> tuple[bytes, bytes]:
    """Two segments that follow each other with these records, which begin with the first one's first page."""
    pages, ends, at = [], [0], 0
    while ends[-1] < len(stream):
        ends.append(ends[-1] + aligned(struct.unpack_from("=I", stream, ends[-1])[0]))
    for page in range(FIRST.start.value, SECOND.end.value, PAGE_BYTES):
        length = header_bytes(page, SIZE)
        begins = next((end for end in ends if end >= at), at)
        head = struct.pack("=HHIQI", 0xD116, (length > 24) * 2 + (begins > at), 1, page, begins - at)
        room = PAGE_BYTES - length
        pages.append(head.ljust(length, b"\0") + stream[at : at + room].ljust(room, b"\0"))
        at += room
    whole = b"".join(pages)
    return whole[:SIZE], whole[SIZE:]


def filled(length: int, behind: bytes) -> bytes:
    """Records that take up so many bytes, then others."""
    sizes = [1024] * (length // 1024 - 1)
    sizes.append(length - sum(sizes))
    other = b"".join(struct.pack("=IIQBB", size, 0, 0, 0, 10).ljust(size, b"\0") for size in sizes)
    return other + behind + record(10, b"afterwards")


ROOM = PAGE_BYTES - LONG_HEADER_BYTES  # of the first page


@pytest.mark.parametrize("path", [PATH, LONGEST])
@pytest.mark.parametrize("before", range(ROOM - 64, ROOM + 8, 8))
def test_the_path_is_emptied_wherever_the_record_lies(path: bytes, before: int) -> None:
    old, new = tablespace(path), bytearray(tablespace(path))
    path_at = new.index(b"/")
    new[path_at] = 0
    struct.pack_into("=I", new, 20, crc_of(new[: struct.unpack_from("=I", new)[0]]))
    data, _ = segments(filled(before, old))
    wanted, _ = segments(filled(before, bytes(new)))
    assert data != wanted
    assert inside_of_the_data_directory(data, FIRST) == wanted
    assert inside_of_the_data_directory(wanted, FIRST) is wanted


def test_two_in_a_segment_and_what_only_looks_like_one() -> None:
    one = tablespace(PATH)
    drop, within = record(5, struct.pack("=I", 16391), information=0x10), record(10, bytes(6) + one)
    damaged = bytearray(one)
    damaged[26] ^= 1
    data, _ = segments(filled(2048, drop + within + bytes(damaged) + one + one))
    changed = inside_of_the_data_directory(data, FIRST)
    assert [data.count(PATH), changed.count(PATH)] == [4, 2]
    assert within in changed and bytes(damaged) in changed


@pytest.mark.parametrize("split", range(8, len(tablespace(PATH)), 8))
def test_one_that_goes_on_in_the_next_segment_is_refused_before_it_can_be_replayed(split: int) -> None:
    """Its head is in the first segment, but for the first 16 bytes, which do not say what it is."""
    room = SIZE // PAGE_BYTES * (PAGE_BYTES - 24) - 16
    first, second = segments(filled(room - split, tablespace(PATH)))
    data, segment = (first, FIRST) if split > 16 else (second, SECOND)
    with pytest.raises(ProgramError) as caught:
        inside_of_the_data_directory(data, segment)
    assert caught.value.code == "TABLESPACE_RECORD_PARTED"
    other, neighbour = (second, SECOND) if split > 16 else (first, FIRST)
    assert inside_of_the_data_directory(other, neighbour) is other
