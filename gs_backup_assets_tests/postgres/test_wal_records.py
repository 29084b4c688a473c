"""Tests of where a segment's log ends, at the places where a page ends; on servers' log in `test_waldump.py`."""

from __future__ import annotations

import struct

import pytest

from gs_backup_assets.postgres.wal import LONG_HEADER_BYTES, PAGE_BYTES, Segment
from gs_backup_assets.postgres.wal_records import is_finished

SEGMENT = Segment(1, 7, 1 << 20)
ROOM = PAGE_BYTES - LONG_HEADER_BYTES  # of the first page
SWITCH = struct.pack("=IIQBB6x", 24, 0, 0, 0x40, 0)


def log(*lengths: int, then: bytes = b"") -> bytes:
    """The first page of a segment: records of some resource manager, then something; no other page was written."""
    page = struct.pack("=HHIQI", 0xD116, 2, 1, SEGMENT.start.value, 0).ljust(LONG_HEADER_BYTES, b"\0")
    page += b"".join(struct.pack("=IIQBB", length, 0, 0, 0, 10).ljust(length, b"\0") for length in lengths) + then
    return page[:PAGE_BYTES].ljust(SEGMENT.size, b"\0")


@pytest.mark.parametrize("before", [24, 4000, ROOM - 32, ROOM - 24])
def test_a_switch_finishes_a_segment_wherever_it_lies_and_nothing_else_does(before: int) -> None:
    assert is_finished(log(before, then=SWITCH), SEGMENT)
    assert not is_finished(log(before), SEGMENT)
    assert not is_finished(log(before, 24), SEGMENT)
    assert not is_finished(log(before, 8000), SEGMENT)
