"""Where the stream goes on: the first segment that neither archive nor spool has. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.postgres.wal_sender import Line


@dataclass(frozen=True)
class Start:
    """Where to begin. `otherwise` is where to begin when the server no longer has that segment: the slot's place."""

    segment: Segment
    otherwise: Segment

    @property
    def lost(self) -> tuple[Segment, int]:
        """What would be missing if it has to be the latter: the first segment, and how many."""
        return self.segment, self.otherwise.number - self.segment.number


def where_to_begin(line: Line, have: Collection[Segment], slot: Lsn) -> Start:
    """The place to stream from, on the timelines that lead to the server's.

    `have` are the whole segments of archive and spool. Before the slot's place nothing is missing that could be had:
    the slot is moved only to what the archive has without a hole. Where the archive ends before it, the stream tries
    to go on there: nothing but the server's own removal can have made that gap.
    """
    anchor = slot.value // line.size
    numbers = {s.number for s in have if line.segment(s.number) == s}
    behind = max((number for number in numbers if number < anchor), default=None)
    # An archive that ends before the slot: go on where it ends. One that reaches it: from the slot, over what is there.
    begin = anchor if behind is None or behind == anchor - 1 else behind + 1
    if begin < anchor:
        return Start(line.segment(begin), line.segment(anchor))
    number = first_missing(numbers, anchor)
    return Start(line.segment(number), line.segment(number))


def first_missing(numbers: Collection[int], begin: int) -> int:
    """The first number from `begin` on that is not there."""
    while begin in numbers:
        begin += 1
    return begin
