"""Coverage: what can be recovered to, against a model that walks the log byte range by byte range."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.coverage import Base, ClusterLog, TimelineLog, gaps, reaches, windows
from gs_backup_assets.catalogue.wal_archive import Archived
from gs_backup_assets.postgres.wal import Lsn, Segment, Switch

SIZE = 1 << 20
NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def whole(number: int, timeline: int = 1) -> Archived:
    segment = Segment(timeline, number, SIZE)
    return Archived(segment, segment.name)


def part(number: int, written: int, timeline: int = 1) -> Archived:
    segment = Segment(timeline, number, SIZE)
    return Archived(segment, f"{timeline}/partial/{segment.name}", written)


def at(segments: float) -> Lsn:
    """A position, counted in segments."""
    return Lsn(int(segments * SIZE))


def base(stop: float, timeline: int = 1, *, unusable: str | None = None) -> Base:
    moment = NOON + timedelta(minutes=stop)
    return Base(f"b{stop}t{timeline}", timeline, at(stop - 0.1), at(stop), moment, unusable=unusable)


def cluster(bases: list[Base], *logs: TimelineLog) -> ClusterLog:
    return ClusterLog("1", tuple(bases), logs, SIZE)


def log(number: int, *segments: Archived, ancestors: tuple[Switch, ...] = ()) -> TimelineLog:
    return TimelineLog(number, ancestors, tuple(segments))


def spans(one: ClusterLog) -> list[tuple[int, float, float]]:
    return [(w.timeline, w.start.value / SIZE, w.end.value / SIZE) for w in windows(one)]


def test_a_window_goes_from_the_end_of_the_base_to_the_end_of_the_log() -> None:
    one = cluster([base(3.5)], log(1, whole(2), whole(3), whole(4), part(5, SIZE // 4)))
    (window,) = windows(one)
    assert (window.start, window.end, window.starts_at) == (at(3.5), at(5.25), base(3.5).consistent_at)
    assert window.partial and window.gap is None and window.left_at is None


def test_years_of_log_and_bases_take_seconds() -> None:
    bases = [base(200 * day + 0.5) for day in range(100)]
    one = cluster(bases, log(1, *map(whole, range(20_000))))
    begun = time.process_time()
    assert spans(one) == [(1, 0.5, 20_000)]
    assert time.process_time() - begun < 10


def test_without_archived_log_only_the_end_of_the_base_can_be_reached() -> None:
    assert spans(cluster([base(3.5)])) == [(1, 3.5, 3.5)]
    later = cluster([base(3.5)], log(1, whole(5)))
    assert spans(later) == [(1, 3.5, 3.5)]
    (window,) = windows(later)
    assert window.gap is not None
    assert (window.gap.start, window.gap.end, window.gap.missing) == (at(3.5), at(5), Segment(1, 3, SIZE).name)


def test_a_base_that_ends_between_two_segments_needs_only_the_second() -> None:
    assert spans(cluster([base(4)], log(1, whole(4)))) == [(1, 4, 5)]
    assert spans(cluster([base(4)], log(1, whole(3)))) == [(1, 4, 4)]


def test_log_before_the_first_base_is_of_no_use() -> None:
    assert windows(cluster([], log(1, whole(1), whole(2)))) == ()


def test_a_gap_parts_two_windows_and_is_told() -> None:
    one = cluster([base(1.5), base(4.5), base(5.5)], log(1, whole(1), whole(2), whole(4), whole(5)))
    assert spans(one) == [(1, 1.5, 3), (1, 4.5, 6)]
    first, second = windows(one)
    assert [b.id for b in second.bases] == ["b4.5t1", "b5.5t1"]
    assert first.gap is not None and first.gap.missing == Segment(1, 3, SIZE).name
    assert [(gap.start, gap.end) for gap in gaps(one)] == [(at(3), at(4))]


def test_an_unfinished_segment_in_the_middle_is_a_gap() -> None:
    one = cluster([base(1.5)], log(1, whole(1), part(2, SIZE // 2), whole(3)))
    assert spans(one) == [(1, 1.5, 2.5)]
    (window,) = windows(one)
    assert window.gap is not None and window.gap.missing == Segment(1, 2, SIZE).name


def test_a_base_that_cannot_be_used_opens_no_window() -> None:
    one = cluster([base(1.5, unusable="FAILED"), base(2.5)], log(1, whole(1), whole(2)))
    assert spans(one) == [(1, 2.5, 3)]


def test_a_newer_timeline_goes_on_where_it_branched_off() -> None:
    branched = (Switch(1, at(3.5)),)
    one = cluster([base(1.5)], log(1, whole(1), whole(2), part(3, SIZE // 2)), log(2, whole(3, 2), ancestors=branched))
    assert spans(one) == [(2, 1.5, 4)]
    assert not windows(one)[0].at_switch


def test_without_its_log_a_newer_timeline_ends_at_the_switch() -> None:
    """A whole segment of which the rest is not read is not an unfinished one."""
    for last in (whole(3), part(3, SIZE - 8)):
        one = cluster([base(1.5)], log(1, whole(1), whole(2), last), log(2, ancestors=(Switch(1, at(3.5)),)))
        newest = windows(one)[-1]
        assert (newest.timeline, newest.end, newest.at_switch) == (2, at(3.5), True)
        assert newest.partial == (last.key != last.segment.name)


def test_the_abandoned_tail_of_the_old_timeline_is_a_window_of_its_own() -> None:
    branched = (Switch(1, at(2.5)),)
    one = cluster(
        [base(1.5)],
        log(1, whole(1), whole(2), whole(3)),
        log(2, whole(2, 2), whole(3, 2), whole(4, 2), ancestors=branched),
    )
    assert spans(one) == [(1, 1.5, 4), (2, 1.5, 5)]
    tail, newest = windows(one)
    assert (tail.left_at, newest.left_at) == (at(2.5), None)


def test_a_base_behind_the_switch_is_not_on_the_newer_timeline() -> None:
    branched = (Switch(1, at(2.5)),)
    one = cluster([base(3.5)], log(1, whole(3)), log(2, whole(2, 2), ancestors=branched))
    assert spans(one) == [(1, 3.5, 4)]


def test_log_of_the_old_timeline_behind_the_switch_is_no_log_of_the_new_one() -> None:
    branched = (Switch(1, at(2.5)),)
    one = cluster([base(1.5)], log(1, whole(1), whole(2), whole(3)), log(2, whole(3, 2), ancestors=branched))
    (reach,) = reaches(one, 2)
    assert (reach.end, reach.beyond) == (at(2.5), at(3))


def test_a_base_of_the_new_timeline_needs_nothing_of_the_old_one() -> None:
    branched = (Switch(1, at(2.5)),)
    one = cluster([base(3.5, 2)], log(2, whole(3, 2), whole(4, 2), ancestors=branched))
    assert spans(one) == [(2, 3.5, 5)]


def test_a_switch_at_the_end_of_a_segment() -> None:
    branched = (Switch(1, at(3)),)
    one = cluster([base(1.5)], log(1, whole(1), whole(2)), log(2, whole(3, 2), ancestors=branched))
    assert spans(one) == [(2, 1.5, 4)]


@st.composite
def clusters(draw: st.DrawFn) -> ClusterLog:
    """Up to three timelines in a row, each with any segments, some of them unfinished; any bases."""
    quarters = st.integers(4, 36)
    switches = sorted(draw(st.lists(quarters, max_size=2, unique=True)))
    logs = []
    for timeline in range(1, len(switches) + 2):
        ancestors = tuple(Switch(n + 1, at(place / 4)) for n, place in enumerate(switches[: timeline - 1]))
        numbers = sorted(draw(st.sets(st.integers(0, 10))))
        segments = [
            part(number, draw(st.integers(1, 3)) * SIZE // 4, timeline)
            if draw(st.booleans()) and draw(st.booleans())
            else whole(number, timeline)
            for number in numbers
        ]
        logs.append(log(timeline, *segments, ancestors=ancestors))
    places = draw(st.lists(st.tuples(quarters, st.integers(1, len(logs))), max_size=3, unique=True))
    return cluster([base(place / 4, timeline) for place, timeline in places], *logs)


def _walk(one: ClusterLog, start: Base, timeline: int) -> int | None:
    """How far one gets from a base, quarter of a segment by quarter; None when the base is not on the way."""
    way = [*next(found for found in one.timelines if found.number == timeline).ancestors, Switch(timeline, at(1000))]
    here = start.stop.value
    if not any(s.timeline == start.timeline and start.stop <= s.at for s in way):
        return None
    quarter = SIZE // 4
    while True:
        number = here // SIZE
        served = None
        # The newest timeline that has begun in this segment, or before it, and of which there is this segment.
        for place in range(len(way) - 1, -1, -1):
            begins = way[place - 1].at.value if place else 0
            own = next(found for found in one.timelines if found.number == way[place].timeline)
            there = [a for a in own.segments if a.segment.number == number]
            if begins // SIZE <= number and there and number * SIZE < min(there[0].end.value, way[place].at.value):
                served = min(there[0].end.value, way[place].at.value)
                break
        if served is None or here + quarter > served:
            return here
        here += quarter


@given(clusters())
def test_every_reach_is_what_a_walk_along_the_log_comes_to(one: ClusterLog) -> None:
    for found in one.timelines:
        reached = {reach.base.id: reach.end.value for reach in reaches(one, found.number)}
        walked = {start.id: _walk(one, start, found.number) for start in one.bases}
        assert reached == {name: end for name, end in walked.items() if end is not None}


@given(clusters())
def test_the_windows_hold_every_reach_and_nothing_else(one: ClusterLog) -> None:
    found = windows(one)
    for line in one.timelines:
        for reach in reaches(one, line.number):
            held = [w for w in found if w.start <= reach.base.stop and reach.end <= w.end and w.timeline >= line.number]
            assert held, reach
    for window in found:
        ends = [r.end for r in reaches(one, window.timeline) if window.start <= r.base.stop <= window.end]
        assert window.end == max(ends)
        assert window.start == window.bases[0].stop
