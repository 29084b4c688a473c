"""Objectives by evidence: the worst gap, the way that counts, the verdicts, and the day when growth breaks the RTO."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.attainment import (
    Attained,
    Evidence,
    ObjectivesReport,
    Restored,
    Way,
    attained,
    objectives_met,
    rto_forecast,
    worst_gap,
)
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config_watching import DataClass

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=timezone.utc)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GB = 10**9
CLASSES = {
    "critical": DataClass(rpo=timedelta(minutes=15), rto=HOUR),
    "important": DataClass(rpo=25 * HOUR, rto=4 * HOUR),
}


def evidence(seconds: float) -> Evidence:
    return Evidence(seconds=seconds, by="a test", at=NOW)


def way(name: str, rpo: float | None, rto: float | None, critical: float | None = None) -> Way:
    made = {
        key: None if seconds is None else evidence(seconds)
        for key, seconds in (("rpo", rpo), ("rto", rto), ("critical_rto", critical))
    }
    return Way.model_validate({"name": name, **made})


def judge(*ways: Way) -> dict[str, Attained]:
    return {one.data_class: one for one in attained(CLASSES, ways, "critical", NOW)}


def report(*ways: Way) -> ObjectivesReport:
    classes = tuple(judge(*ways).values())
    return ObjectivesReport(database="shop", at=NOW, classes=classes, history=(), notes=())


@pytest.mark.parametrize(
    ("hours_ago", "gap_hours"),
    [
        ([], None),
        ([2], 2),
        ([26], 26),
        ([1, 25, 49], 24),
        ([1, 25, 73], 48),  # a day was missed
        ([1, 25, 24 * 9], 24 * 9 - 25),  # it began before the week and ended in it
        ([1, 24 * 6, 24 * 8, 24 * 30], 24 * 6 - 1),  # what ended before the week is history
        ([-1], None),  # a clock that was ahead proves nothing yet
    ],
)
def test_the_worst_gap_of_a_week(hours_ago: list[float], gap_hours: float | None) -> None:
    gap = worst_gap([NOW - hours * HOUR for hours in hours_ago], NOW)
    assert (gap and gap[0] / 3600) == gap_hours


def test_each_class_is_judged_by_what_was_measured() -> None:
    found = judge(way("dump", 24 * 3600, 600))
    assert (found["critical"].rpo_status, found["critical"].rto_status) == (Status.FAILED, Status.PASSED)
    assert (found["important"].rpo_status, found["important"].rto_status) == (Status.PASSED, Status.PASSED)
    check = objectives_met(report(way("dump", 24 * 3600, 600)))
    assert check.status is Status.FAILED
    assert [finding.code for finding in check.findings] == ["RPO_EXCEEDED"]


def test_one_way_has_to_reach_both() -> None:
    """The log loses little and is slow, the dump is quick and loses a day: neither is both."""
    found = judge(way("log", 60, 2 * 3600), way("dump", 24 * 3600, 600))
    critical = found["critical"]
    assert Status.FAILED in (critical.rpo_status, critical.rto_status)
    assert critical.rpo is not None and critical.rto is not None
    assert (critical.rpo.seconds, critical.rto.seconds) in ((60, 7200), (86400, 600))
    assert judge(way("log", 60, 1800), way("dump", 24 * 3600, 600))["critical"].way == "log"


def test_what_was_not_measured_is_open_and_not_met() -> None:
    assert objectives_met(report()).status is Status.NOT_VERIFIED
    found = judge(way("log", 60, None))["critical"]
    assert (found.rpo_status, found.rto_status) == (Status.PASSED, Status.NOT_VERIFIED)
    check = objectives_met(report(way("log", 60, None)))
    assert check.status is Status.NOT_VERIFIED
    assert {finding.code for finding in check.findings} == {"RTO_NOT_MEASURED"}


def test_all_met_is_passed_and_no_class_is_open() -> None:
    assert objectives_met(report(way("log", 60, 1800))).status is Status.PASSED
    nothing = ObjectivesReport(database="shop", at=NOW, classes=(), history=(), notes=())
    assert objectives_met(nothing).status is Status.NOT_VERIFIED


def test_the_critical_class_counts_until_its_own_tables_are_back() -> None:
    found = judge(way("dump", 60, 2 * 3600, critical=300))
    assert found["critical"].rto == evidence(300) and found["critical"].rto_status is Status.PASSED
    assert found["important"].rto == evidence(7200)


def sizes(days: int, grow: int, first: int = GB) -> list[tuple[datetime, int]]:
    """A backup a day, the newest today."""
    return [(NOW - (days - 1 - day) * DAY, first + day * grow) for day in range(days)]


def test_the_day_on_which_growth_breaks_the_rto() -> None:
    """1 GB in 100 s, 10 MB a day: each day a second more; 1.29 GB take 129 s now, 200 s in 71 days."""
    restored = [Restored(source_bytes=GB, seconds=100.0)] * 3
    forecast = rto_forecast(sizes(30, GB // 100), restored, 200.0, NOW)
    assert forecast.outcome == "breaks" and forecast.on is not None
    assert abs((forecast.on - NOW.date()).days - 71) <= 1
    assert "29 days" in forecast.why


@pytest.mark.parametrize("days", [1, 4, 7])
def test_too_little_history_gives_no_day(days: int) -> None:
    forecast = rto_forecast(sizes(days, GB // 100), [Restored(source_bytes=GB, seconds=100.0)], 200.0, NOW)
    assert (forecast.outcome, forecast.on) == ("unknown", None) and "too little history" in forecast.why


def test_without_a_restore_nothing_is_known() -> None:
    assert rto_forecast(sizes(30, GB), [], 200.0, NOW).outcome == "unknown"


def test_one_that_does_not_grow_holds_and_one_that_is_too_slow_is_broken() -> None:
    restored = [Restored(source_bytes=GB, seconds=100.0)]
    assert rto_forecast(sizes(30, 0), restored, 200.0, NOW).outcome == "holds"
    assert rto_forecast(sizes(30, -1000), restored, 200.0, NOW).outcome == "holds"
    assert rto_forecast(sizes(30, 1), restored, 200.0, NOW).outcome == "holds", "not within ten years"
    assert rto_forecast(sizes(30, 0), restored, 99.0, NOW).outcome == "broken"


def test_a_restore_that_was_slow_once_moves_the_day_little() -> None:
    usual = [Restored(source_bytes=GB, seconds=100.0)] * 6
    odd = [*usual, Restored(source_bytes=GB, seconds=900.0)]
    assert rto_forecast(sizes(30, GB // 100), odd, 200.0, NOW) == rto_forecast(sizes(30, GB // 100), usual, 200.0, NOW)


@given(
    grow=st.integers(10**5, 10**8),
    days=st.integers(8, 60),
    target=st.floats(150.0, 5000.0),
    more=st.floats(1.0, 3.0),
)
def test_a_longer_target_is_never_broken_earlier(grow: int, days: int, target: float, more: float) -> None:
    restored = [Restored(source_bytes=GB, seconds=100.0)]
    near = rto_forecast(sizes(days, grow), restored, target, NOW)
    far = rto_forecast(sizes(days, grow), restored, target * more, NOW)
    order = ("broken", "breaks", "holds")
    assert order.index(near.outcome) <= order.index(far.outcome)
    if near.outcome == far.outcome == "breaks":
        assert near.on is not None and far.on is not None and near.on <= far.on
