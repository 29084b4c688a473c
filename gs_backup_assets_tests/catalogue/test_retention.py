"""The plan of retention: what it never does, whatever the catalogue holds, and what it does with usual ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.retention import Candidate, Decision, deletion_order, plan, relied_on
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config_backups import Retention

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc)
DAY = timedelta(days=1)
PROVEN, FAILED, OPEN = Verdict.PROVEN, Verdict.FAILED, Verdict.NOT_VERIFIED


def candidate(age: float = 0, verdict: Verdict = PROVEN, **more: object) -> Candidate:
    """A backup that was taken `age` days before now."""
    taken = NOW - timedelta(days=age)
    fields: dict[str, object] = {"id": backup_id(taken), "partition": taken.date().isoformat(), "stored_bytes": 10}
    return Candidate(**{**fields, "verdict": verdict, **more})  # type: ignore[arg-type]


def kept(decisions: Sequence[Decision]) -> list[Candidate]:
    return [decision.candidate for decision in decisions if decision.keep]


def going(decisions: Sequence[Decision]) -> list[Candidate]:
    return [decision.candidate for decision in decisions if not decision.keep]


def reasons(decisions: Sequence[Decision], wanted: Candidate) -> tuple[str, ...]:
    return next(decision.reasons for decision in decisions if decision.candidate == wanted)


def restorable(candidate: Candidate, there: Sequence[Candidate]) -> bool:
    """Whether everything that it needs is there; a circle never ends and is no chain."""
    for _ in range(len(there)):
        if candidate.base is None:
            return True
        found = [one for one in there if one.id == candidate.base]
        if not found:
            return False
        candidate = found[0]
    return False


def sound(candidate: Candidate, there: Sequence[Candidate]) -> bool:
    """Whether it is one that others may go for."""
    return candidate.verdict is PROVEN and candidate.taken_at <= NOW and restorable(candidate, there)


policies = st.builds(
    Retention,
    daily=st.integers(0, 6),
    weekly=st.integers(0, 4),
    monthly=st.integers(0, 4),
    yearly=st.integers(0, 3),
    keep_proven=st.integers(1, 4),
)


@st.composite
def catalogues(draw: st.DrawFn) -> list[Candidate]:
    """Backups of three years, some days with several, some in the future, in chains and circles, held and locked."""
    when = st.one_of(st.integers(-48, 14 * 24), st.integers(-48, 3 * 365 * 24))
    hours = draw(st.lists(when, max_size=30, unique=True))
    ids = [backup_id(NOW - timedelta(hours=number)) for number in hours]
    bases = st.sampled_from([*ids, "20200101T000000Z"]) if ids else st.none()
    return [
        Candidate(
            id=name,
            partition=(NOW - timedelta(hours=number)).date().isoformat(),
            verdict=draw(st.sampled_from(Verdict)),
            held=draw(st.sampled_from([False, False, False, True])),
            locked_until=draw(
                st.sampled_from([None, None, NOW - DAY, NOW + DAY, datetime.max.replace(tzinfo=timezone.utc)])
            ),
            base=draw(st.one_of(st.none(), st.none(), bases)),
            stored_bytes=draw(st.integers(0, 9)),
        )
        for number, name in zip(hours, ids, strict=True)
    ]


@given(catalogues(), policies)
def test_every_backup_is_decided_once_and_explained(found: list[Candidate], policy: Retention) -> None:
    decisions = plan(found, policy, NOW)
    assert [d.candidate.id for d in decisions] == sorted((c.id for c in found), reverse=True)
    assert {d.candidate for d in decisions} == set(found)
    assert all(d.reasons and all(d.reasons) for d in decisions)


@given(catalogues(), policies)
def test_never_fewer_proven_ones_than_the_policy_wants(found: list[Candidate], policy: Retention) -> None:
    before = [c for c in found if sound(c, found)]
    stay = kept(plan(found, policy, NOW))
    after = [c for c in stay if sound(c, stay)]
    assert len(after) >= min(policy.keep_proven, len(before))
    newest = sorted(before, key=lambda c: c.id, reverse=True)[: policy.keep_proven]
    assert set(newest) <= set(after), "the newest of them, whatever their age"


@given(catalogues(), policies)
def test_a_backup_goes_only_for_a_newer_proven_one_that_stays(found: list[Candidate], policy: Retention) -> None:
    decisions = plan(found, policy, NOW)
    stay = kept(decisions)
    for decision in decisions:
        by = decision.replaced_by
        if decision.keep:
            assert by is None
        else:
            assert by is not None and by in stay and sound(by, stay) and by.id > decision.candidate.id
            assert decision.reasons == (f"replaced by {by.id} (proven)",)


@given(catalogues(), policies)
def test_without_a_proven_backup_nothing_goes(found: list[Candidate], policy: Retention) -> None:
    assert not going(plan([replace(c, verdict=OPEN if c.verdict is PROVEN else c.verdict) for c in found], policy, NOW))


@given(catalogues(), policies)
def test_holds_locks_and_the_future_are_absolute(found: list[Candidate], policy: Retention) -> None:
    for gone in going(plan(found, policy, NOW)):
        assert not gone.held
        assert gone.locked_until is None or gone.locked_until <= NOW
        assert gone.taken_at <= NOW


@given(catalogues(), policies)
def test_what_stays_can_still_be_restored(found: list[Candidate], policy: Retention) -> None:
    stay = kept(plan(found, policy, NOW))
    for one in stay:
        assert restorable(one, stay) == restorable(one, found)


@given(catalogues(), policies)
def test_deletion_may_break_off_anywhere(found: list[Candidate], policy: Retention) -> None:
    """After every single deletion, what is left lacks no base that it had."""
    decisions = plan(found, policy, NOW)
    order = deletion_order(decisions)
    assert sorted(order, key=lambda c: c.id) == sorted(going(decisions), key=lambda c: c.id)
    there = list(found)
    for gone in order:
        there.remove(gone)
        for one in there:
            # Of a circle any backup may go first: none of it could be restored before.
            assert restorable(one, there) == restorable(one, found)


@given(catalogues(), policies)
def test_among_independent_backups_the_oldest_goes_first(found: list[Candidate], policy: Retention) -> None:
    order = deletion_order(plan([replace(c, base=None) for c in found], policy, NOW))
    assert [c.id for c in order] == sorted(c.id for c in order)


@given(catalogues(), policies, st.randoms(use_true_random=False))
def test_the_same_catalogue_gives_the_same_plan(found: list[Candidate], policy: Retention, shuffle: object) -> None:
    first = plan(found, policy, NOW)
    other = list(found)
    shuffle.shuffle(other)  # type: ignore[attr-defined]
    assert plan(other, policy, NOW) == first
    assert deletion_order(plan(other, policy, NOW)) == deletion_order(first)


@given(catalogues(), policies)
def test_planning_again_over_what_stays_deletes_nothing_more(found: list[Candidate], policy: Retention) -> None:
    stay = kept(plan(found, policy, NOW))
    assert kept(plan(stay, policy, NOW)) == stay


@given(catalogues(), policies, st.integers(1, 30))
def test_after_a_deletion_that_broke_off_the_rest_goes(found: list[Candidate], policy: Retention, number: int) -> None:
    decisions = plan(found, policy, NOW)
    order = deletion_order(decisions)
    there = [c for c in found if c not in order[:number]]
    assert deletion_order(plan(there, policy, NOW)) == order[number:]


@given(catalogues(), policies)
def test_what_is_relied_on_is_what_others_go_for(found: list[Candidate], policy: Retention) -> None:
    decisions = plan(found, policy, NOW)
    relied = relied_on(decisions, policy, NOW)
    stay = kept(decisions)
    assert all(c in stay and sound(c, stay) for c in relied)
    if going(decisions):
        newest = [c for c in stay if sound(c, stay)][: policy.keep_proven]
        assert set(relied) == {d.replaced_by for d in decisions if d.replaced_by} | set(newest)
    else:
        assert relied == ()


@given(catalogues(), policies, st.integers(0, 40))
def test_days_without_success_delete_nothing_good(found: list[Candidate], policy: Retention, days: int) -> None:
    """Time alone changes nothing: neither days without a run nor days on which every backup fails."""
    found = [c for c in found if c.taken_at <= NOW and (c.locked_until is None or c.locked_until.year == 9999)]
    found = [c for c in found if c.base is None or c.base < c.id]  # what it needs was there before it
    good = {c for c in kept(plan(found, policy, NOW)) if c.verdict is PROVEN}
    later = [candidate(-number, FAILED) for number in range(1, days + 1)]
    decisions = plan([*found, *later], policy, NOW + (days + 1) * DAY)
    assert {c for c in kept(decisions) if c.verdict is PROVEN} == good
    assert set(later) <= set(kept(decisions)), "the failures stay too: nothing proven has replaced them"


def test_a_year_and_more_of_daily_backups() -> None:
    """400 good days: thirty days, eight weeks and twelve months, each with its newest."""
    found = [candidate(number) for number in range(400)]
    decisions = plan(found, Retention(daily=30, weekly=8, monthly=12), NOW)
    days = {(NOW - number * DAY).date() for number in range(30)}
    sunday = date(2026, 11, 22)
    weeks = {sunday - timedelta(weeks=number) for number in range(8)}
    ends = [date(2026, month, 1) - timedelta(days=1) for month in range(1, 12)]
    assert {c.day for c in kept(decisions)} == days | weeks | {date(2026, 11, 22), *ends}
    assert len(kept(decisions)) == 30 + 3 + 10  # three Sundays and ten ends of months lie further back than 30 days
    newest, oldest = decisions[0], found[-1]
    assert newest.reasons == (
        "newest proven of 2026-11-22",
        "newest proven of week 2026-W47",
        "newest proven of month 2026-11",
        "one of the 2 newest proven",
    )
    assert reasons(decisions, oldest) == ("replaced by 20251231T120000Z (proven)",)


def test_the_year_of_a_week_is_not_the_calendars() -> None:
    """2027-01-01 belongs to the last week of 2026."""
    now = datetime(2027, 1, 2, tzinfo=timezone.utc)
    found = [
        Candidate(f"{day:%Y%m%d}T080000Z", day.isoformat(), PROVEN) for day in (date(2026, 12, 28), date(2027, 1, 1))
    ]
    decisions = plan(found, Retention(daily=0, weekly=5, monthly=0, keep_proven=1), now)
    assert [c.day for c in kept(decisions)] == [date(2027, 1, 1)]
    assert decisions[0].reasons == ("newest proven of week 2026-W53", "the newest proven")


def test_of_a_day_the_newest_proven_one_stays() -> None:
    morning, noon, evening = candidate(1.3), candidate(1.0), candidate(0.9, FAILED)
    today = [candidate(0), candidate(0.1)]
    policy = Retention(daily=5, weekly=0, monthly=0, keep_proven=1)
    decisions = plan([morning, noon, evening, *today], policy, NOW)
    assert kept(decisions) == [today[0], noon]
    assert reasons(decisions, morning) == (f"replaced by {noon.id} (proven)",)
    assert reasons(decisions, evening) == (f"replaced by {today[0].id} (proven)",)


def test_only_periods_with_a_proven_backup_count() -> None:
    """After a month of failures the thirty days before it are still there."""
    failed = [candidate(number, FAILED) for number in range(30)]
    good = [candidate(number) for number in range(30, 70)]
    decisions = plan([*failed, *good], Retention(daily=30, weekly=0, monthly=0), NOW)
    assert [c for c in kept(decisions) if c.verdict is PROVEN] == good[:30]
    assert [c for c in kept(decisions) if c.verdict is FAILED] == failed
    assert reasons(decisions, failed[7]) == ("nothing proven has replaced it",)


def test_what_could_not_be_verified_stays_as_the_only_one_of_its_day() -> None:
    policy = Retention(daily=3, weekly=0, monthly=0, keep_proven=1)
    good = [candidate(0), candidate(3), candidate(6), candidate(9)]
    only, earlier, beside, beyond = candidate(2, OPEN), candidate(2.2, OPEN), candidate(3.2, OPEN), candidate(7, OPEN)
    failed = candidate(1, FAILED)
    decisions = plan([*good, only, earlier, beside, beyond, failed], policy, NOW)
    assert kept(decisions) == [good[0], only, good[1], good[2]]
    assert reasons(decisions, only) == (f"newest of {only.partition}, which has no proven one",)
    # Fewer days than the policy wants have a proven backup: its range has no beginning yet.
    assert beyond in kept(plan([good[0], beyond], policy, NOW))
    assert beyond not in kept(plan([good[0], beyond], Retention(daily=0, keep_proven=1), NOW))
    assert beyond not in kept(plan([good[0], beyond], Retention(daily=1, keep_proven=1), NOW))


def test_the_newest_proven_ones_stay_whatever_their_age() -> None:
    old = [candidate(number) for number in (900, 901, 902)]
    policy = Retention(daily=0, weekly=0, monthly=0, keep_proven=2)
    decisions = plan(old, policy, NOW)
    assert kept(decisions) == old[:2]
    assert decisions[0].reasons == ("one of the 2 newest proven",)


def test_held_and_locked_ones_say_so() -> None:
    held, locked, legal = candidate(50, held=True), candidate(51), candidate(52, FAILED)
    locked = replace(locked, locked_until=datetime(2026, 12, 1, 8, 30, tzinfo=timezone.utc))
    legal = replace(legal, locked_until=datetime.max.replace(tzinfo=timezone.utc))
    past = replace(candidate(53), locked_until=NOW)
    decisions = plan(
        [candidate(0), candidate(1), held, locked, legal, past], Retention(daily=2, monthly=0, weekly=0), NOW
    )
    assert reasons(decisions, held) == ("held",)
    assert reasons(decisions, locked) == ("object lock until 2026-12-01 08:30 UTC",)
    assert reasons(decisions, legal) == ("object lock without end",)
    assert going(decisions) == [past]


def test_a_chain_stays_together_and_goes_from_its_end() -> None:
    policy = Retention(daily=1, weekly=0, monthly=0, keep_proven=1)
    base = candidate(9)
    middle = candidate(8, base=base.id)
    end = candidate(7, base=middle.id)
    decisions = plan([base, middle, end], policy, NOW)
    assert going(decisions) == []
    assert reasons(decisions, middle) == (f"base of {end.id}",)
    assert reasons(decisions, base) == (f"base of {middle.id}",)
    decisions = plan([candidate(0), base, middle, end], policy, NOW)
    assert deletion_order(decisions) == (end, middle, base)
    decisions = plan([candidate(0), base, replace(middle, held=True), end], policy, NOW)
    assert going(decisions) == [end]


def test_a_backup_whose_base_is_missing_replaces_nothing() -> None:
    """It was proven once; without its base it is bytes."""
    broken = candidate(1, base="20200101T000000Z")
    policy = Retention(daily=1, weekly=0, monthly=0, keep_proven=1)
    decisions = plan([broken, candidate(2), candidate(3)], policy, NOW)
    assert kept(decisions) == [broken, candidate(2)]
    assert reasons(decisions, broken) == ("its base 20200101T000000Z is missing here",)
    circle = [candidate(1, base=candidate(2).id), candidate(2, base=candidate(1).id)]
    assert kept(plan([*circle, candidate(3)], policy, NOW)) == [*circle, candidate(3)]


def test_a_backup_from_the_future_replaces_nothing() -> None:
    future = candidate(-1)
    policy = Retention(daily=1, weekly=0, monthly=0, keep_proven=1)
    decisions = plan([future, candidate(1), candidate(2)], policy, NOW)
    assert kept(decisions) == [future, candidate(1)]
    assert reasons(decisions, future) == ("its time lies in the future: a clock is wrong",)
    assert going(plan([future, candidate(1, FAILED)], policy, NOW)) == []
    assert going(plan([candidate(0), candidate(1)], policy, NOW)) == [candidate(1)], "now is not the future"


@pytest.mark.parametrize("partition", ["lost+found", "20261120", "2026-W47-5", "2026-11-31", ""])
def test_what_lies_in_no_days_folder_is_left_alone(partition: str) -> None:
    stranger = candidate(3, partition=partition)
    decisions = plan([candidate(0), candidate(1), stranger], Retention(daily=1, weekly=0, monthly=0), NOW)
    assert reasons(decisions, stranger) == ("its folder is not named after a day",)


def test_one_that_must_stay_says_why_and_replaces_nothing() -> None:
    newer = candidate(1, OPEN, stays="a newer release wrote it")
    decisions = plan([candidate(0), newer, candidate(2, FAILED)], Retention(daily=1), NOW)
    assert reasons(decisions, newer) == ("a newer release wrote it",)
    assert going(decisions) == [candidate(2, FAILED)]


def test_a_backup_that_is_there_twice_is_two() -> None:
    """Somebody copied a folder to another day: its manifest is misplaced there, and fails."""
    copied = candidate(3, FAILED, partition="2026-11-01")
    decisions = plan([candidate(0), candidate(3), copied], Retention(daily=5), NOW)
    assert kept(decisions) == [candidate(0), candidate(3)]
    based = [candidate(0), candidate(1, base=copied.id), candidate(3), copied]
    assert going(plan(based, Retention(daily=5), NOW)) == [], "which of the two it needs is not known"


def test_an_empty_catalogue_has_an_empty_plan() -> None:
    assert plan([], Retention(), NOW) == ()
    assert deletion_order(()) == ()
    assert relied_on((), Retention(), NOW) == ()
