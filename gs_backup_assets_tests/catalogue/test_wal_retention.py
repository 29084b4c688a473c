"""The plan for the write-ahead log: what can be recovered before it can be recovered after it, and the rest goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.wal_inventory import WalObject, wal_objects
from gs_backup_assets.catalogue.wal_retention import KeptBase, WalDecision, plan_wal, without_locked
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.vault.store import Listed
from gs_backup_assets_tests.catalogue.wal import SEGMENT_BYTES, SYSTEM, segment

START = datetime(2026, 11, 1, tzinfo=timezone.utc)
OTHER = "7300000000000000009"


def moment(number: int) -> datetime:
    """When the segment with a number was written: one each hour."""
    return START + timedelta(hours=number)


def name_of(number: int, timeline: int = 1) -> str:
    return segment(number, timeline).name


def stored(path: str, number: int, *, system: str = SYSTEM) -> WalObject:
    listed = Listed(f"shop/wal/{system}/{path}", 10, moment(number + 1), "local", "t")
    (found,) = wal_objects([listed], "shop")
    return found


def whole(numbers: Iterable[int], timeline: int = 1, *, system: str = SYSTEM) -> list[WalObject]:
    return [stored(f"{timeline:08X}/{name_of(n, timeline)}.zst", n, system=system) for n in numbers]


def part(number: int, timeline: int = 1, written: int = 8192) -> WalObject:
    return stored(f"{timeline:08X}/partial/{name_of(number, timeline)}.{written:08X}.zst", number)


def beside(timeline: int, *, system: str = SYSTEM) -> list[WalObject]:
    """A key, a history and a position."""
    names = (f"{timeline:08X}/keys/a.enc", f"{timeline:08X}/{timeline:08X}.history", "positions/20261124T0Z.json")
    return [stored(name, 0, system=system) for name in names]


def base(number: int, timeline: int = 1, *, segments: int = 1, proven: bool = True, **more: object) -> KeptBase:
    """A base backup that was begun in the middle of a segment, and ended so many segments later."""
    begin = segment(number, timeline).start.value + 40
    fields: dict[str, object] = {
        "id": f"base {number} on {timeline}",
        "system_identifier": SYSTEM,
        "timeline": timeline,
        "start": Lsn(begin),
        "stop": Lsn(begin + (segments - 1) * SEGMENT_BYTES + 80),
        "segment_bytes": SEGMENT_BYTES,
        "taken_at": moment(number) + timedelta(minutes=30),
        "proven": proven,
    }
    return KeptBase(**{**fields, **more})  # type: ignore[arg-type]


def going(decisions: Sequence[WalDecision]) -> set[str]:
    """Names of the objects that go, without their folders."""
    return {found.key.rpartition("/")[2] for d in decisions if not d.keep for found in d.objects}


def files(numbers: Iterable[int], timeline: int = 1) -> set[str]:
    return {f"{name_of(number, timeline)}.zst" for number in numbers}


# What recovery reaches, written down as PostgreSQL does it ----------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Timelines with the parent of each and the segment in which it branched off, log, and base backups."""

    parents: dict[int, tuple[int, int]]
    log: tuple[WalObject, ...]
    bases: tuple[KeptBase, ...]


def reachable(start: KeptBase, log: Iterable[WalObject], parents: dict[int, tuple[int, int]]) -> set[tuple[int, int]]:
    """Every (timeline, position) up to which recovery from a base backup can go, whatever its target timeline."""
    there = {(f.timeline, f.segment): f for f in log if f.written is None and f.segment}
    parts: dict[tuple[int | None, str | None], int] = {}
    for found in log:
        if found.written is not None:
            place = found.timeline, found.segment
            parts[place] = max(parts.get(place, 0), found.written)
    ends: set[tuple[int, int]] = set()
    waiting = [(start.timeline, start.first.number)]
    while waiting:
        timeline, number = waiting.pop()
        while True:
            # A timeline that branched off in this segment has the segment under its own name.
            waiting += [
                (child, number) for child, (parent, at) in parents.items() if (parent, at) == (timeline, number)
            ]
            inside = timeline == start.timeline and number <= start.last.number
            if not inside and (timeline, name_of(number, timeline)) not in there:
                written = parts.get((timeline, name_of(number, timeline)))
                if written is not None:
                    ends.add((timeline, number * SEGMENT_BYTES + written))
                break
            number += 1
            ends.add((timeline, number * SEGMENT_BYTES))
    return ends


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to three timelines, with gaps, parts of segments, and base backups anywhere."""
    count = draw(st.integers(1, 3))
    parents: dict[int, tuple[int, int]] = {}
    spans = {1: (0, draw(st.integers(3, 14)))}
    for timeline in range(2, count + 1):
        parent = draw(st.integers(1, timeline - 1))
        first, last = spans[parent]
        at = draw(st.integers(first, last))
        parents[timeline] = (parent, at)
        spans[timeline] = (at, at + draw(st.integers(0, 12)))
    log: list[WalObject] = []
    for timeline, (first, last) in spans.items():
        missing = draw(st.sets(st.integers(first, last), max_size=3))
        log += whole((n for n in range(first, last + 1) if n not in missing), timeline)
        log += [
            part(n, timeline, pages * 8192)
            for n in draw(st.sets(st.integers(first, last + 1), max_size=3))
            for pages in draw(st.sets(st.integers(1, 5), min_size=1, max_size=2))
        ]
        log += beside(timeline)[:2]
    bases = []
    for number in range(draw(st.integers(0, 4))):
        timeline = draw(st.integers(1, count))
        first, last = spans[timeline]
        begin = draw(st.integers(first + (timeline > 1), last + 1))
        pinned, proven = draw(st.sampled_from([False, False, True])), draw(st.booleans())
        more = {"id": f"b{number}", "segments": draw(st.integers(1, 3)), "pinned": pinned, "proven": proven}
        bases.append(base(begin, timeline, **more))  # type: ignore[arg-type]
    return World(parents, tuple(log), tuple(bases))


@given(worlds())
def test_what_could_be_recovered_still_can_be(world: World) -> None:
    decisions = plan_wal(world.log, world.bases)
    gone = {found.key for decision in decisions if not decision.keep for found in decision.objects}
    left = [found for found in world.log if found.key not in gone]
    for one in world.bases:
        assert reachable(one, left, world.parents) == reachable(one, world.log, world.parents), one


@given(worlds(), st.randoms())
def test_the_plan_is_the_same_whatever_the_order_of_what_it_is_given(world: World, random: object) -> None:
    log, bases = list(world.log), list(world.bases)
    random.shuffle(log)  # type: ignore[attr-defined]
    random.shuffle(bases)  # type: ignore[attr-defined]
    assert plan_wal(log, bases) == plan_wal(world.log, world.bases)


@given(worlds())
def test_every_object_of_the_log_is_decided_at_most_once_and_explained(world: World) -> None:
    decisions = plan_wal(world.log, world.bases)
    keys = [found.key for decision in decisions for found in decision.objects]
    assert len(keys) == len(set(keys)) and all(decision.reason for decision in decisions)
    segments = {found.key for found in world.log if found.segment}
    assert segments <= set(keys)


@given(worlds())
def test_nothing_goes_without_a_proven_base_backup(world: World) -> None:
    if not any(one.proven for one in world.bases):
        assert going(plan_wal(world.log, world.bases)) == set()
    assert going(plan_wal(world.log, world.bases, ["20261101T000000Z"])) == set(), "its need is not known"


@given(worlds())
def test_histories_and_keys_of_a_cluster_with_base_backups_stay(world: World) -> None:
    if world.bases:
        assert not {name for name in going(plan_wal(world.log, world.bases)) if not name[:24].isalnum()}


# Usual ones -----------------------------------------------------------------------------------------------------------


def test_what_lies_before_the_oldest_base_backup_goes() -> None:
    decisions = plan_wal([*whole(range(20)), *beside(1)], [base(8), base(15)])
    assert going(decisions) == files(range(8))
    first, second = decisions
    assert (first.first, first.last, first.segments, first.stored_bytes) == (name_of(0), name_of(7), 8, 80)
    assert "before base 8 on 1" in first.reason and "needed from base 8 on 1 on" in second.reason


def test_a_base_backup_that_is_not_proven_protects_its_log_and_lets_nothing_go() -> None:
    assert going(plan_wal(whole(range(20)), [base(8, proven=False), base(15)])) == files(range(8))
    assert going(plan_wal(whole(range(20)), [base(8, proven=False)])) == set()


def test_what_an_older_timeline_has_before_it_goes_as_well() -> None:
    log = [*whole(range(10)), *whole(range(9, 20), timeline=2), *beside(2)]
    assert going(plan_wal(log, [base(12, timeline=2)])) == files(range(10)) | files(range(9, 12), 2)
    assert going(plan_wal(log, [base(5), base(12, timeline=2)])) == files(range(5))


def test_log_behind_a_gap_goes_when_a_proven_base_backup_begins_after_it() -> None:
    log = [*whole(range(5, 10)), *whole(range(12, 20))]
    assert going(plan_wal(log, [base(5), base(16)])) == files(range(12, 16))
    assert going(plan_wal(log, [base(5), base(16, proven=False)])) == set()
    assert going(plan_wal(log, [base(5, pinned=True), base(16)])) == set(), "what is held keeps all that came after it"
    assert going(plan_wal(log, [base(5)])) == set(), "the gap may still be filled"


def test_a_base_backup_has_the_log_between_its_start_and_its_stop_in_itself() -> None:
    log = [*whole(range(5, 7)), *whole(range(8, 20))]
    assert going(plan_wal(log, [base(5, segments=3), base(16)])) == set()


def test_parts_that_more_has_replaced_go() -> None:
    log = [*whole(range(5, 8)), part(7), part(8, written=8192), part(8, written=16384)]
    assert going(plan_wal(log, [base(5)])) == {f"{name_of(7)}.00002000.zst", f"{name_of(8)}.00002000.zst"}


def test_the_log_of_a_cluster_without_base_backups_goes_when_a_newer_one_of_another_is_proven() -> None:
    log = [*whole(range(3), system=OTHER), *beside(1, system=OTHER), *whole(range(3, 20))]
    assert going(plan_wal(log, [base(2, proven=False)])) == set()
    assert going(plan_wal(log, [base(1)])) == set(), "it is older than the end of the other cluster's log"
    gone = plan_wal(log, [base(8)])
    assert going(gone) == files(range(8)) | {"a.enc", "00000001.history", "20261124T0Z.json"}
    assert [found.kind.value for found in gone[0].objects][-2:] == ["timeline history", "wrapped key"]


def test_base_backups_with_segments_of_two_sizes_let_nothing_go() -> None:
    assert going(plan_wal(whole(range(20)), [base(8), base(12, segment_bytes=16 << 20)])) == set()


def test_what_is_locked_stays_with_what_it_is_read_with() -> None:
    log = [*whole(range(3), system=OTHER), *beside(1, system=OTHER)]
    (decision,) = plan_wal(log, [base(8)])
    locked = [found.key for found in log[2:3]]
    stays, goes = without_locked(decision, locked, "object lock")
    assert {found.key for found in stays.objects} == {found.key for found in log[2:]} and stays.keep
    assert {found.key for found in goes.objects} == {found.key for found in log[:2]} and not goes.keep
    assert without_locked(decision, [], "object lock") == (decision,)
    assert [d.keep for d in without_locked(decision, [found.key for found in log], "object lock")] == [True]
