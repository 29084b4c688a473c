"""Which points can be recovered to, from what the base backups and the archived log say of themselves. Pure.

A recovery begins at a base backup, which is consistent at its own end, and goes on as far as the log goes on without a
gap: on the base's timeline, and on those that branched off it (PostgreSQL manual, "Continuous Archiving", "Timelines").
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_archive import Archived
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import DEFAULT_SEGMENT_BYTES, Lsn, Segment, Switch


@dataclass(frozen=True)
class Base:
    """What coverage needs to know of a base backup.

    It has its own log from `start` to `stop`, and is consistent at `stop`, which the server reached at
    `consistent_at`. `unusable` says why it cannot be used: damaged, FAILED, or a link of its chain is not there.
    """

    id: str
    timeline: int
    start: Lsn
    stop: Lsn
    consistent_at: datetime
    verdict: Verdict = Verdict.NOT_VERIFIED
    unusable: str | None = None


@dataclass(frozen=True)
class TimelineLog:
    """What the archive has of one timeline: its ancestors, the oldest first, and its segments in order."""

    number: int
    ancestors: tuple[Switch, ...] = ()
    segments: tuple[Archived, ...] = ()


@dataclass(frozen=True)
class ClusterLog:
    """A cluster: its base backups and all that is archived of its log. Sizes in bytes."""

    system_identifier: str
    bases: tuple[Base, ...]
    timelines: tuple[TimelineLog, ...]
    segment_bytes: int = DEFAULT_SEGMENT_BYTES


@dataclass(frozen=True)
class Run:
    """Log without a gap on the way to one timeline; `end` is the first byte that is not there."""

    segments: tuple[Archived, ...]
    start: Lsn
    end: Lsn

    def holds(self, position: Lsn) -> bool:
        """Whether the log can go on here from a position."""
        return self.start <= position <= self.end


@dataclass(frozen=True)
class Gap:
    """Log that is not there, between two positions; `missing` is the first segment that is not there, or not whole."""

    timeline: int
    start: Lsn
    end: Lsn
    missing: str


@dataclass(frozen=True)
class Window:
    """Points on the way to a timeline that can be recovered to: every one from `start` to `end`.

    `bases` are those in it, the oldest first; it starts where the first one is consistent, at `starts_at`. `ends_at`
    is the time of the last commit in it, None where nobody has looked. `left_at` is where a newer timeline branched
    off, if the log goes on behind it: from there on it is an abandoned tail. `gap` is what ends the window while there
    is log behind it, `damage` why log behind it cannot be used; `partial` says that it ends in an unfinished
    segment, `at_switch` that it ends where the timeline branched off an older one: of its own log there is none.
    """

    system_identifier: str
    timeline: int
    bases: tuple[Base, ...]
    start: Lsn
    end: Lsn
    starts_at: datetime
    ends_at: datetime | None = None
    left_at: Lsn | None = None
    gap: Gap | None = None
    partial: bool = False
    at_switch: bool = False
    damage: StoreError | None = None


@dataclass(frozen=True)
class Reach:
    """How far recovery from one base gets on a path, and the archived segments that it needs for that.

    `beyond` is where the log begins again behind a gap, None when there is no more.
    """

    base: Base
    timeline: int
    end: Lsn
    segments: tuple[Archived, ...]
    beyond: Lsn | None = None


_END = Lsn((1 << 64) - 1)


def path_to(cluster: ClusterLog, timeline: int) -> tuple[Switch, ...]:
    """The timelines that lead to one, the oldest first, each with the position at which it is left.

    The last one is left nowhere: its position is the end of all.
    """
    return (*_log_of(cluster, timeline).ancestors, Switch(timeline, _END))


def runs(cluster: ClusterLog, timeline: int) -> list[Run]:
    """The archived log on the way to a timeline, without gaps, in order.

    Of a segment that several timelines have, the newest one's counts, as for the server (xlogrecovery.c,
    XLogFileReadAnyTLI): it begins with the older one's bytes.
    """
    found: list[Run] = []
    pieces: list[Archived] = []
    for archived in _pieces(cluster, path_to(cluster, timeline)):
        if pieces and pieces[-1].end != archived.segment.start:
            found.append(Run(tuple(pieces), pieces[0].segment.start, pieces[-1].end))
            pieces = []
        pieces.append(archived)
    if pieces:
        found.append(Run(tuple(pieces), pieces[0].segment.start, pieces[-1].end))
    return found


def reaches(cluster: ClusterLog, timeline: int) -> list[Reach]:
    """For each base from which one gets on the way to a timeline, the oldest first, how far."""
    left = {switch.timeline: switch.at for switch in path_to(cluster, timeline)}
    there = runs(cluster, timeline)
    found = []
    for base in sorted(cluster.bases, key=lambda base: (base.stop, base.id)):
        if base.timeline not in left or base.stop > left[base.timeline]:
            continue
        run = next((run for run in there if run.holds(base.stop)), None)
        end = base.stop if run is None else run.end
        # They are in order: a hundred thousand of them are not looked through for every base.
        first = 0 if run is None else bisect_right(run.segments, base.stop, key=lambda archived: archived.end)
        segments = () if run is None else run.segments[first:]
        beyond = min((run.start for run in there if run.start > end), default=None)
        found.append(Reach(base, timeline, end, segments, beyond))
    return found


def windows(cluster: ClusterLog) -> tuple[Window, ...]:
    """Every window of a cluster, by timeline and position; what a newer timeline's window holds is not told again."""
    found = {log.number: _windows_to(cluster, log.number) for log in cluster.timelines}
    for timeline in {base.timeline for base in cluster.bases} - found.keys():
        found[timeline] = _windows_to(cluster, timeline)
    kept = []
    for timeline, own in sorted(found.items()):
        for window in own:
            left = [
                (switch.at, other)
                for other in found
                for switch in path_to(cluster, other)[:-1]
                if switch.timeline == timeline
            ]
            told = any(
                window.end <= at and any(_inside(window, longer) for longer in found[other]) for at, other in left
            )
            if not told:
                behind = [at for at, _ in left if at < window.end]
                kept.append(replace(window, left_at=max(behind, default=None)))
    return tuple(kept)


def gaps(cluster: ClusterLog) -> tuple[Gap, ...]:
    """Log that is missing between what is there, on the newest way to each position."""
    found = {gap for log in cluster.timelines for gap in _gaps_to(cluster, log.number)}
    return tuple(sorted(found, key=lambda gap: (gap.timeline, gap.start)))


def _windows_to(cluster: ClusterLog, timeline: int) -> list[Window]:
    found: list[Window] = []
    for reach in reaches(cluster, timeline):
        base = reach.base
        if base.unusable is not None:
            continue
        last = found[-1] if found else None
        if last is not None and base.stop <= last.end:
            found[-1] = replace(last, bases=(*last.bases, base), end=max(last.end, reach.end))
            continue
        gap = None if reach.beyond is None else _gap(cluster, timeline, reach.end, reach.beyond)
        partial = bool(reach.segments) and reach.segments[-1].unfinished
        found.append(
            Window(
                cluster.system_identifier,
                timeline,
                (base,),
                base.stop,
                reach.end,
                base.consistent_at,
                gap=gap,
                partial=partial,
                at_switch=any(switch.at == reach.end for switch in path_to(cluster, timeline)[:-1]),
            )
        )
    return found


def _inside(window: Window, longer: Window) -> bool:
    return longer.start <= window.start and window.end <= longer.end


def _gaps_to(cluster: ClusterLog, timeline: int) -> Iterator[Gap]:
    for before, after in pairwise(runs(cluster, timeline)):
        yield _gap(cluster, timeline, before.end, after.start)


def _gap(cluster: ClusterLog, timeline: int, start: Lsn, end: Lsn) -> Gap:
    """The timeline of a gap is the one that the missing log was written on."""
    writer = next(switch.timeline for switch in path_to(cluster, timeline) if start < switch.at)
    missing = Segment.at(start, writer, cluster.segment_bytes)
    return Gap(writer, start, end, missing.name)


def _pieces(cluster: ClusterLog, path: tuple[Switch, ...]) -> Iterator[Archived]:
    """Each segment on a path, in order, with no more of it than the path's own log.

    A server that finds an older timeline's segment and not the newer one's goes on in it behind the switch.
    """
    chosen: dict[int, Archived] = {}
    begins = Lsn(0)
    for switch in path:
        first = begins.value // cluster.segment_bytes
        for archived in _log_of(cluster, switch.timeline).segments:
            if archived.segment.number >= first and archived.segment.start < min(archived.end, switch.at):
                chosen[archived.segment.number] = archived.up_to(switch.at)
        begins = switch.at
    return (chosen[number] for number in sorted(chosen))


def _log_of(cluster: ClusterLog, timeline: int) -> TimelineLog:
    return next((log for log in cluster.timelines if log.number == timeline), TimelineLog(timeline))
