"""Which write-ahead log stays and which goes: a pure plan over a listing and the base backups that stay.

Recovery only goes forward: from a base backup nothing is ever read that lies before its `start_lsn`, on whatever
timeline. So all log before the oldest base backup that stays can go, and the plan needs no key to read histories with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeGuard

from gs_backup_assets.catalogue.wal_inventory import WalKind, WalObject
from gs_backup_assets.postgres.wal import Lsn, Segment

# The order in which a whole cluster's log is deleted: what the rest is read with goes last.
_LAST = (
    *(WalKind.SEGMENT, WalKind.PARTIAL, WalKind.POSITION),
    *(WalKind.POINT, WalKind.HISTORY, WalKind.KEY),
)
_LOG = (WalKind.SEGMENT, WalKind.PARTIAL)


@dataclass(frozen=True)
class KeptBase:
    """A base backup that stays. It has the log between `start` and `stop` in itself. `pinned`: held or locked."""

    id: str
    system_identifier: str
    timeline: int
    start: Lsn
    stop: Lsn
    segment_bytes: int
    taken_at: datetime
    proven: bool
    pinned: bool = False

    @property
    def first(self) -> Segment:
        """The segment that recovery from it begins in."""
        return Segment.at(self.start, self.timeline, self.segment_bytes)

    @property
    def last(self) -> Segment:
        """The segment that the backup itself ends in."""
        return Segment.at(Lsn(max(self.start.value, self.stop.value - 1)), self.timeline, self.segment_bytes)


@dataclass(frozen=True)
class WalDecision:
    """Whether some objects of one cluster stay, in the order in which they would be deleted, and why.

    Segments of a decision are of one `timeline` and follow each other; without a timeline it is all of a cluster.
    """

    system_identifier: str
    timeline: int | None
    objects: tuple[WalObject, ...]
    keep: bool
    reason: str

    @property
    def segments(self) -> int:
        return sum(found.kind is WalKind.SEGMENT for found in self.objects)

    @property
    def stored_bytes(self) -> int:
        return sum(found.listed.size for found in self.objects)

    @property
    def first(self) -> str:
        """The name of the first segment; empty where there is none."""
        return min((found.segment for found in self.objects if found.segment), default="")

    @property
    def last(self) -> str:
        return max((found.segment for found in self.objects if found.segment), default="")


def plan_wal(
    objects: Iterable[WalObject], bases: Iterable[KeptBase], unreadable: Sequence[str] = ()
) -> tuple[WalDecision, ...]:
    """Decide about every object. The same objects and backups give the same plan.

    `bases` are the base backups that stay, `unreadable` the ids of those whose need is not known. Nothing goes without
    a proven base backup of the same cluster. The log of a cluster of which no base backup stays goes when a proven one
    of another is newer than all of it. Behind a gap log goes that only base backups before the gap would use, when a
    proven one begins after it.
    """
    clusters: dict[str, list[WalObject]] = defaultdict(list)
    for found in sorted(objects, key=lambda found: found.key):
        clusters[found.system_identifier].append(found)
    kept = sorted(bases, key=lambda base: (base.start, base.id))
    return tuple(
        decision for system, log in sorted(clusters.items()) for decision in _cluster(system, log, kept, unreadable)
    )


def without_locked(decision: WalDecision, locked: Iterable[str], words: str) -> tuple[WalDecision, ...]:
    """A decision to delete, but for the objects with these keys; what is needed to read them stays as well."""
    keys = set(locked)
    if not keys:
        return (decision,)
    stays = [found for found in decision.objects if found.key in keys or found.kind not in _LOG]
    names = {found.key for found in stays}
    goes = tuple(found for found in decision.objects if found.key not in names)
    kept = replace(decision, objects=tuple(stays), keep=True, reason=words)
    return (kept, replace(decision, objects=goes)) if goes else (kept,)


def _cluster(
    system: str, log: Sequence[WalObject], kept: Sequence[KeptBase], unreadable: Sequence[str]
) -> Iterator[WalDecision]:
    bases = [base for base in kept if base.system_identifier == system]
    reason = _all_stays(bases, kept, unreadable)
    if reason is not None:
        yield WalDecision(system, None, _in_order(log), True, reason)
    elif not bases:
        newest = max((base for base in kept if base.proven), key=lambda base: (base.taken_at, base.id))
        if max(found.listed.modified for found in log) < newest.taken_at:
            words = f"no base backup of this cluster stays; {newest.id} (proven) of another one is newer"
            yield WalDecision(system, None, _in_order(log), False, words)
        else:
            words = "no base backup of this cluster stays, and no proven one of another is newer"
            yield WalDecision(system, None, _in_order(log), True, words)
    else:
        yield from _needed(system, log, bases)


def _all_stays(bases: Sequence[KeptBase], kept: Sequence[KeptBase], unreadable: Sequence[str]) -> str | None:
    """Why nothing of a cluster may go, whatever it is."""
    if unreadable:
        return f"what {', '.join(unreadable)} needs cannot be read"
    if not any(base.proven for base in kept):
        return "there is no proven base backup"
    if bases and not any(base.proven for base in bases):
        return "no base backup of this cluster is proven"
    if len({base.segment_bytes for base in bases}) > 1:
        return "its base backups have segments of different sizes"
    return None


def _needed(system: str, log: Sequence[WalObject], bases: Sequence[KeptBase]) -> Iterator[WalDecision]:
    """The log of a cluster that has base backups. Histories, keys, restore points and positions are few and stay."""
    oldest = bases[0]
    timelines: dict[int, list[WalObject]] = defaultdict(list)
    for found in log:
        if found.kind in _LOG and found.timeline is not None:
            timelines[found.timeline].append(found)
    for timeline, some in sorted(timelines.items()):
        floor = oldest.first.on(timeline).name
        ordered = sorted(some, key=lambda one: one.order)
        longest = {one.segment: one.key for one in ordered}
        behind = _behind_gaps(timeline, ordered, bases)
        reasons: list[tuple[bool, str]] = []
        for one in ordered:
            name = one.segment or ""
            if name < floor:
                reasons.append((False, f"before {oldest.id}, the oldest base backup that stays"))
            elif one.kind is WalKind.PARTIAL and longest[one.segment] != one.key:
                reasons.append((False, "replaced by the whole segment, or by more of it"))
            elif name in behind:
                reasons.append((False, f"behind a gap, and before {behind[name]} (proven)"))
            else:
                reasons.append((True, f"needed from {oldest.id} on"))
        yield from _runs(system, timeline, ordered, reasons)


def _behind_gaps(timeline: int, log: Sequence[WalObject], bases: Sequence[KeptBase]) -> dict[str, str]:
    """Segments that no base backup reaches, and the proven one of their timeline that begins after each of them."""
    size = bases[0].segment_bytes
    numbers = {one.segment: Segment.parse(one.segment, size).number for one in log if _parses(one.segment, size)}
    present = {numbers[one.segment] for one in log if one.kind is WalKind.SEGMENT and one.segment in numbers}
    own = [base for base in bases if base.timeline == timeline]
    if any(base.pinned for base in bases) or not present or not own:
        return {}
    # From an older timeline recovery may come in with the first segment, or part of one, that there is.
    lowest = min(numbers.values())
    entries = [(lowest, lowest)] if any(base.timeline < timeline for base in bases) else []
    reached: set[int] = set()
    for first, last in [*entries, *((base.first.number, base.last.number) for base in own)]:
        number = first
        while number <= last or (number in present and number not in reached):
            reached.add(number)
            number += 1
    behind: dict[str, str] = {}
    for one in log:
        number = numbers.get(one.segment or "", -1)
        # Where a run ends, recovery goes on to the end of the part that comes next.
        if number < 0 or number in reached or (one.kind is WalKind.PARTIAL and number - 1 in reached):
            continue
        after = [b for b in own if b.proven and b.first.number > number and b.taken_at > one.listed.modified]
        if after and one.segment is not None:
            behind[one.segment] = after[0].id
    return behind


def _parses(name: str | None, size: int) -> TypeGuard[str]:
    try:
        Segment.parse(name or "", size)
    except ValueError:
        return False
    return True


def _runs(
    system: str, timeline: int, ordered: Sequence[WalObject], reasons: Sequence[tuple[bool, str]]
) -> Iterator[WalDecision]:
    """Objects that follow each other and share their fate make one decision."""
    start = 0
    for number in range(1, len(ordered) + 1):
        if number == len(ordered) or reasons[number] != reasons[start]:
            yield WalDecision(system, timeline, tuple(ordered[start:number]), *reasons[start])
            start = number


def _in_order(log: Iterable[WalObject]) -> tuple[WalObject, ...]:
    return tuple(sorted(log, key=lambda found: (_LAST.index(found.kind), found.key)))
