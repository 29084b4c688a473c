"""The cost report: figures that were worked out by hand, and what holds whatever the stores hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gs_backup_assets.catalogue.cost_report import month_ends
from gs_backup_assets.catalogue.costs import Cost, CostReport, cost_of, judge_budget
from gs_backup_assets.catalogue.forecast import SMALLEST_MOVED_BYTES, Rules, coming_backups, holdings_of, simulate
from gs_backup_assets.catalogue.growth import Growth, backups_per_day, growth_of
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.usage import Age, Kind, age_of, take_inventory
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config_backups import Retention
from gs_backup_assets.config_watching import Costs
from gs_backup_assets_tests.catalogue.ledger import (
    DAY,
    GB,
    GLACIER,
    LOCAL,
    NEWEST,
    NOW,
    ONLY_DAYS,
    UTC,
    contents,
    daily,
    listed,
    report,
    stored,
)

# What is there


def test_objects_are_sorted_by_class_age_and_kind() -> None:
    folder = "logical/2026-12-01/20261201T020000Z"
    old = NOW - 400 * DAY
    found = take_inventory(
        [
            listed("audit-copy/00000/00000001.json", 30),
            listed("audit/00000/00000001.json", 40),
            listed(f"{folder}/SHA256SUMS", 5),
            listed(f"{folder}/dump/1.dat.zst.enc", 1000, storage_class="STANDARD"),
            listed(f"{folder}/globals.sql.enc", 100, storage_class="STANDARD"),
            listed(f"{folder}/hold.json", 1),
            listed(f"{folder}/keys/0123456789abcdef.enc", 7),
            listed(f"{folder}/manifest.json", 20),
            listed(f"{folder}/proofs/a.html", 300, NOW - 8 * DAY),
            listed(f"{folder}/proofs/a.json", 30, NOW - 8 * DAY),
            listed("logical/2026-12-01/20261201T030000Z/dump/1.dat", 9000),
            listed("logical/2025-10-27/20251027T020000Z/dump/1.dat", 50, old, "GLACIER"),
            listed("logical/2025-10-27/20251027T020000Z/manifest.json", 2, old, "STANDARD"),
            listed("notes.txt", 3, old),
        ],
        "shop",
        NOW,
        smallest_moved=SMALLEST_MOVED_BYTES,
    )
    assert [(g.storage_class, g.age.value, g.objects, g.stored_bytes) for g in found.by_age] == [
        ("GLACIER", "over 365 days", 1, 50),
        ("STANDARD", "0-7 days", 2, 1100),
        ("STANDARD", "over 365 days", 1, 2),
        ("local", "0-7 days", 7, 30 + 40 + 5 + 1 + 7 + 20 + 9000),
        ("local", "8-30 days", 2, 330),
        ("local", "over 365 days", 1, 3),
    ]
    assert {g.kind: (g.objects, g.stored_bytes) for g in found.by_kind} == {
        Kind.DUMP: (3, 1150),
        Kind.MANIFEST: (4, 28),
        Kind.PROOF: (2, 330),
        Kind.KEY: (1, 7),
        Kind.AUDIT: (2, 70),
        Kind.UNFINISHED: (1, 9000),
        Kind.OTHER: (1, 3),
    }
    assert sum(lot.stored_bytes for lot in found.lots) == sum(g.stored_bytes for g in found.by_age) - 9000


@pytest.mark.parametrize(
    ("days", "age"),
    [
        (-1, Age.WEEK),
        (0, Age.WEEK),
        (7.9, Age.WEEK),
        (8, Age.MONTH),
        (30.9, Age.MONTH),
        (31, Age.QUARTER),
        (90.9, Age.QUARTER),
        (91, Age.YEAR),
        (365.9, Age.YEAR),
        (366, Age.OLDER),
    ],
)
def test_ages_are_whole_days(days: float, age: Age) -> None:
    assert age_of(NOW - timedelta(days=days), NOW) is age


def test_the_cost_is_gigabytes_of_1000_times_the_price_of_the_class() -> None:
    cost = cost_of({"STANDARD": 2_500_000_000, "local": 0}, {"STANDARD": 0.023})
    assert cost.known == pytest.approx(0.0575) and cost.total == cost.known


def test_an_empty_store_has_zeros_and_no_growth_and_no_forecast() -> None:
    made = report(contents([]), contents([], name="offsite", rules=GLACIER), retention=ONLY_DAYS)
    assert [(s.backups, s.objects, s.stored_bytes, s.classes) for s in made.stores] == [(0, 0, 0, ())] * 2
    assert made.cost == Cost(known=0.0)
    assert (made.growth, made.backup_bytes, made.backups_per_day, made.forecast) == (None, None, None, ())
    assert [line.cost_now.known for line in made.budget] == [0.0] * 4
    assert judge_budget(made).status is Status.PASSED


# Growth


def test_growth_is_that_of_the_line_and_an_odd_backup_does_not_bend_it() -> None:
    points = [(NEWEST + DAY * day, 1000 + 10 * day) for day in range(20)]
    points[7] = (points[7][0], 90_000)
    points[19] = (points[19][0], 0)
    assert growth_of(points) == Growth(bytes_per_day=10.0, days=20, span_days=19.0)


def test_growth_goes_by_the_newest_backup_of_each_day() -> None:
    points = [(NEWEST + DAY * day, 1000 - 5 * day) for day in range(8)]
    earlier = [(taken - timedelta(hours=1), 10**9) for taken, _ in points]
    assert growth_of([*points, *earlier]) == Growth(bytes_per_day=-5.0, days=8, span_days=7.0)


@pytest.mark.parametrize(
    "days",
    [[], [0], [0, 2, 4, 7], [0, 1, 2, 3, 4, 5, 6], [0, 0.1, 0.2, 0.3, 8]],
    ids=["none", "one", "four days", "six days apart", "two days"],
)
def test_growth_is_unknown_and_not_zero_where_there_is_too_little(days: list[float]) -> None:
    assert growth_of([(NEWEST + timedelta(days=day), 5) for day in days]) is None


def test_equal_backups_grow_by_nothing() -> None:
    growth = report(contents(daily([GB] * 10))).growth
    assert growth is not None and growth.bytes_per_day == 0.0


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([], 1.0),
        ([24 * day for day in range(6)], 1.0),  # less than a week to be seen
        ([24 * day for day in range(40)], 1.0),
        ([12 * half for half in range(40)], 2.0),
        ([168 * week for week in range(10)], 0.143),
        ([24 * day for day in range(20, 40)], 1.0),  # none for three weeks: the schedule is still what it was
        ([24 * 29], 1.0),
    ],
)
def test_backups_a_day_are_those_of_the_last_month(hours: list[int], expected: float) -> None:
    assert backups_per_day([NOW - timedelta(hours=h) for h in hours], NOW) == expected


def test_a_growing_backup_is_carried_on() -> None:
    sizes = [GB + 10_000_000 * day for day in range(20)]
    made = report(contents(daily(sizes)), retention=ONLY_DAYS)
    assert made.growth is not None and made.growth.bytes_per_day == pytest.approx(10_000_000)
    assert made.backup_bytes == pytest.approx(sizes[-1] + 10_000_000 * 4 / 24)
    # The seven newest at the end of December are 24 to 30 days younger than the newest one now.
    assert made.forecast[0].stored_bytes == sum(sizes[-1] + 10_000_000 * day for day in range(24, 31))


# Prices and budget


def test_a_class_without_a_price_is_unknown_and_not_free() -> None:
    costs = Costs(prices={"STANDARD": 0.023}, budget={"STANDARD": 25.0, "GLACIER": 5.0})
    made = report(contents(daily([GB] * 10), rules=GLACIER), costs=costs, retention=ONLY_DAYS)
    assert made.cost.total == pytest.approx(0.23)  # nothing rests in GLACIER yet
    backups = daily([GB] * 40)
    cold = {one.id: "GLACIER" for one in backups[:10]}
    made = report(contents(backups, rules=GLACIER, classes=cold), costs=costs)
    assert made.cost.known == pytest.approx(30 * 0.023)
    assert made.cost.unpriced == ("GLACIER",) and made.cost.total is None
    usage = {one.storage_class: one for one in made.stores[0].classes}
    assert usage["GLACIER"].price is None and usage["GLACIER"].cost.total is None
    assert made.forecast[0].cost.unpriced == ("GLACIER",)
    assert made.savings[1].last_month is None and made.savings[1].all_months is None
    assert {line.name: line.within for line in made.budget} == {"STANDARD": True, "GLACIER": None, "total": None}
    judged = judge_budget(made)
    assert judged.status is Status.NOT_VERIFIED
    assert {finding.code for finding in judged.findings} == {"PRICE_MISSING"}


def test_the_default_budget_is_the_strategy_documents() -> None:
    assert Costs().budget == {"local": 10.0, "STANDARD": 25.0, "GLACIER": 5.0}
    made = report(contents(daily([GB] * 10)))
    assert [(line.name, line.budget) for line in made.budget] == [
        ("local", 10.0),
        ("STANDARD", 25.0),
        ("GLACIER", 5.0),
        ("total", 40.0),
    ]


def test_the_budget_is_judged_by_class_and_in_total_and_over_the_year() -> None:
    backups = daily([10 * GB] * 10)  # 100 GB: 2.00
    roomy = report(contents(backups), costs=Costs(budget={"local": 10.0}))
    assert [(line.name, line.within, line.over_from) for line in roomy.budget] == [
        ("local", True, "2027-01"),  # (10 + 30) * 0.20 = 8.00, (10 + 61) * 0.20 = 14.20
        ("total", True, "2027-01"),
    ]
    assert judge_budget(roomy).status is Status.PASSED and "2027-01" in judge_budget(roomy).summary
    tight = report(contents(backups), costs=Costs(budget={"local": 1.99, "STANDARD": 1.0}))
    assert [(line.name, line.within) for line in tight.budget] == [
        ("local", False),
        ("STANDARD", True),
        ("total", True),
    ]
    judged = judge_budget(tight)
    assert judged.status is Status.FAILED
    assert [(f.code, f.message) for f in judged.findings] == [("OVER_BUDGET", "local: 2.00 of 1.99 USD a month.")]
    assert judged.metrics == {"monthly_cost": pytest.approx(2.0), "monthly_budget": pytest.approx(2.99)}


def test_over_the_budget_already_whatever_the_unknown_part_costs() -> None:
    backups = daily([GB] * 10)
    cold = {one.id: "GLACIER" for one in backups[:5]}
    costs = Costs(prices={"STANDARD": 10.0}, budget={"STANDARD": 1.0})
    made = report(contents(backups, rules=GLACIER, classes=cold), costs=costs)
    assert made.total.within is False and judge_budget(made).status is Status.FAILED


def test_without_a_budget_nothing_is_judged() -> None:
    made = report(contents(daily([GB] * 10)), costs=Costs(budget={}))
    assert [(line.name, line.budget, line.within) for line in made.budget] == [
        ("local", None, None),
        ("total", None, None),
    ]


# What holds for all

TRIMMED = settings(max_examples=25, deadline=None)
policies = st.builds(
    Retention,
    daily=st.integers(0, 20),
    weekly=st.integers(0, 8),
    monthly=st.integers(0, 8),
    yearly=st.integers(0, 2),
    keep_proven=st.integers(1, 5),
)
sizes = st.lists(st.integers(0, 5 * GB), max_size=25)
rules = st.sampled_from(
    [LOCAL, GLACIER, Rules("STANDARD", 40 * DAY, {"STANDARD_IA": 30 * DAY, "DEEP_ARCHIVE": 100 * DAY})]
)


backups = sizes.flatmap(
    lambda found: st.lists(st.sampled_from(Verdict), min_size=len(found), max_size=len(found)).map(
        lambda verdicts: [replace(one, verdict=v) for one, v in zip(daily(found), verdicts, strict=True)]
    )
)


@TRIMMED
@given(backups, st.data(), rules, rules, st.none() | policies)
def test_nothing_is_negative_and_sums_are_those_of_their_parts(
    found: list[Summary], data: st.DataObject, first: Rules, second: Rules, policy: Retention | None
) -> None:
    copied = [one for one in found if data.draw(st.booleans())]
    other = [listed("notes.txt", 7), listed("logical/2026-12-01/20261201T030000Z/dump/1.dat", 9)]
    read = [contents(found, rules=first), contents(copied, name="offsite", rules=second, more=other)]
    made = report(*read, retention=policy)
    assert made.cost.known >= 0 and all(month.cost.known >= 0 for month in made.forecast)
    assert all(one.stored_bytes >= 0 for month in made.forecast for one in month.classes)
    for store, one in zip(made.stores, read, strict=True):
        total = sum(entry.size for entry in one.listing)
        assert store.stored_bytes == total and store.objects == len(one.listing)
        for groups in (store.classes, store.ages, store.kinds):
            assert sum(group.stored_bytes for group in groups) == total
            assert sum(group.objects for group in groups) == len(one.listing)
    for month in made.forecast:
        assert month.stored_bytes == sum(one.stored_bytes for one in month.classes)


@TRIMMED
@given(backups, rules, rules, st.none() | policies)
def test_costs_add_up_over_the_stores(
    found: list[Summary], first: Rules, second: Rules, policy: Retention | None
) -> None:
    primary, offsite = contents(found, rules=first), contents(found, name="offsite", rules=second)
    both = report(primary, offsite, retention=policy)
    apart = [report(store, retention=policy) for store in (primary, offsite)]
    assert both.cost.known == pytest.approx(sum(one.cost.known for one in apart))
    for number, month in enumerate(both.forecast):
        assert month.stored_bytes == sum(one.forecast[number].stored_bytes for one in apart)
        assert month.cost.known == pytest.approx(sum(one.forecast[number].cost.known for one in apart))


@TRIMMED
@given(backups, rules, policies, st.sampled_from(["daily", "weekly", "monthly", "yearly", "keep_proven"]))
def test_to_keep_more_never_takes_less(found: list[Summary], rule: Rules, policy: Retention, more: str) -> None:
    longer = policy.model_copy(update={more: getattr(policy, more) + 3})
    store = contents(found, rules=rule)
    kept, kept_longer, everything = (stored(report(store, retention=one)) for one in (policy, longer, None))
    for few, many, all_of_them in zip(kept, kept_longer, everything, strict=True):
        assert few <= many <= all_of_them


@TRIMMED
@given(st.integers(0, 10 * GB), st.integers(1, 30), st.integers(30, 60), rules)
def test_without_growth_and_with_steady_retention_the_forecast_is_flat(
    size: int, days: int, there: int, rule: Rules
) -> None:
    policy = Retention(daily=days, weekly=0, monthly=0, keep_proven=1)
    store = contents(daily([size] * there), rules=replace(rule, lock=None))
    assert {month.stored_bytes for month in report(store, retention=policy).forecast} == {days * size}


@TRIMMED
@given(backups, rules, st.integers(0, 400))
def test_a_report_can_be_made_at_any_time(found: list[Summary], rule: Rules, later: int) -> None:
    made = report(contents(found, rules=rule), retention=ONLY_DAYS, now=NOW + timedelta(days=later))
    assert len(made.forecast) in (0, 12)
    assert CostReport.model_validate_json(made.model_dump_json()) == made


@TRIMMED
@given(backups, rules, policies)
def test_to_apply_retention_once_a_month_leaves_what_every_day_leaves(
    found: list[Summary], rule: Rules, policy: Retention
) -> None:
    """Retention runs every day; the forecast looks at the ends of months only."""
    ends = [end for _, end in month_ends(NOW, UTC)][:4]
    days = [NOW + DAY * day for day in range((ends[-1] - NOW).days + 1)]
    inventory = take_inventory(contents(found, rules=rule).listing, "shop", NOW, smallest_moved=SMALLEST_MOVED_BYTES)
    store = holdings_of(inventory.lots, found, rule)
    coming = coming_backups([store], found, NOW, ends[-1], UTC)
    if coming is not None:
        every_day = sorted({*days, *ends})
        daily_run = simulate(store, coming, every_day, retention=policy, transitions=True)
        monthly_run = simulate(store, coming, ends, retention=policy, transitions=True)
        assert [daily_run[every_day.index(end)] for end in ends] == monthly_run
