"""The forecast of costs: what is there in a year, by growth, retention and lifecycle rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from gs_backup_assets.catalogue.cost_report import month_ends
from gs_backup_assets.catalogue.forecast import SMALLEST_MOVED_BYTES, Rules
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets_tests.catalogue.ledger import (
    DAY,
    GB,
    GLACIER,
    NEWEST,
    NOW,
    ONLY_DAYS,
    contents,
    daily,
    listed,
    report,
    stored,
    summary,
)

# Days from the first backup after NOW to the end of each month: 2026-12 to 2027-11.
DAYS_UNTIL = (30, 61, 89, 120, 150, 181, 211, 242, 273, 303, 334, 364)


def test_the_months_end_in_the_zone() -> None:
    ends = month_ends(datetime(2026, 12, 1, 5, 59, tzinfo=timezone.utc), ZoneInfo("America/Chicago"))
    assert [name for name, _ in ends][:3] == ["2026-11", "2026-12", "2027-01"] and len(ends) == 12
    assert ends[0][1].astimezone(timezone.utc).isoformat() == "2026-12-01T06:00:00+00:00"
    assert ends[-1][0] == "2027-10"


def test_without_retention_everything_is_added_up() -> None:
    made = report(contents(daily([GB] * 10)))
    assert [month.month for month in made.forecast][::11] == ["2026-12", "2027-11"]
    assert stored(made) == [10 + days for days in DAYS_UNTIL]
    assert made.forecast[0].cost.known == pytest.approx(40 * 0.02)
    assert [s.configured for s in made.savings] == [False, False]


def test_retention_keeps_the_size_and_saves_the_rest() -> None:
    made = report(contents(daily([GB] * 10)), retention=ONLY_DAYS)
    assert stored(made) == [7.0] * 12
    retention = made.savings[0]
    assert retention.configured and retention.stored_bytes == (10 + 364 - 7) * GB
    assert retention.last_month == pytest.approx(367 * 0.02)
    assert retention.all_months == pytest.approx(sum(3 + days for days in DAYS_UNTIL) * 0.02)


def test_several_backups_a_day_and_rare_ones_are_carried_on() -> None:
    often = [summary(NEWEST - timedelta(hours=12 * back)) for back in range(60)]
    assert stored(report(contents(often)))[0] == 60 + 2 * 30 + 1  # from 14:00 of the first to 14:00 of the last
    weekly = [summary(NEWEST - 7 * DAY * back) for back in range(5)]
    assert stored(report(contents(weekly)))[0] == 5 + 4


def test_a_backup_that_is_held_or_locked_stays() -> None:
    backups = daily([GB] * 10)
    held = replace(backups[0], held=True)
    assert stored(report(contents([held, *backups[1:]]), retention=ONLY_DAYS)) == [8.0] * 12
    locking = Rules("local", 20 * DAY, {})
    # On New Year's Day those of the last 20 days before it cannot be deleted; the newest seven are among them.
    assert stored(report(contents(backups, rules=locking), retention=ONLY_DAYS))[0] == 20.0


def test_what_failed_goes_when_backups_to_come_have_replaced_it() -> None:
    backups = [replace(one, verdict=Verdict.FAILED) for one in daily([GB] * 10)]
    assert stored(report(contents(backups), retention=ONLY_DAYS)) == [7.0] * 12


def test_an_old_store_that_takes_no_backups_any_more_is_expected_to_go_on() -> None:
    made = report(contents(daily([GB] * 10)), now=NOW + 60 * DAY)
    assert made.backups_per_day == 1.0 and made.forecast[0].month == "2027-01"
    assert stored(made)[0] == 10 + 1  # on the 31st; what was missed in between is not made up for


def test_lifecycle_rules_move_what_is_old_enough_and_large_enough() -> None:
    """A rule counts from the midnight after: the ten up to 1 December are 30 days old at New Year."""
    made = report(contents(daily([GB] * 10), rules=GLACIER))
    december = made.forecast[0]
    assert {c.storage_class: c.stored_bytes for c in december.classes} == {"GLACIER": 10 * GB, "STANDARD": 30 * GB}
    assert december.cost.known == pytest.approx(10 * 0.0036 + 30 * 0.023)
    moved = [10 + days - 30 for days in DAYS_UNTIL]
    transitions = made.savings[1]
    assert transitions.configured and transitions.stored_bytes == 0
    assert transitions.last_month == pytest.approx(moved[-1] * (0.023 - 0.0036))
    assert transitions.all_months == pytest.approx(sum(moved) * (0.023 - 0.0036))


def test_small_objects_are_not_moved() -> None:
    made = report(contents(daily([SMALLEST_MOVED_BYTES - 1] * 10), rules=GLACIER))
    assert {c.storage_class for month in made.forecast for c in month.classes} == {"STANDARD"}
    made = report(contents(daily([SMALLEST_MOVED_BYTES] * 10), rules=GLACIER))
    assert {c.storage_class for month in made.forecast for c in month.classes} == {"STANDARD", "GLACIER"}
    made = report(contents(daily([GB] * 10), rules=replace(GLACIER, smallest_moved=GB + 1)))
    assert {c.storage_class for month in made.forecast for c in month.classes} == {"STANDARD"}


def test_of_several_rules_the_coldest_class_that_is_reached_counts() -> None:
    rules = Rules("STANDARD", None, {"DEEP_ARCHIVE": 180 * DAY, "STANDARD_IA": 30 * DAY, "GLACIER": 90 * DAY})
    made = report(contents(daily([GB]), rules=rules))
    last = {c.storage_class: c.stored_bytes / GB for c in made.forecast[-1].classes}
    assert last == {"STANDARD": 30, "STANDARD_IA": 60, "GLACIER": 90, "DEEP_ARCHIVE": 365 - 180}


def test_what_rules_have_moved_already_saves_as_well_and_nothing_moves_up() -> None:
    backups = daily([GB] * 10)
    warm = Rules("STANDARD", None, {"GLACIER": 30 * DAY, "STANDARD_IA": 60 * DAY})
    made = report(contents(backups, rules=warm, classes={one.id: "GLACIER" for one in backups}))
    assert made.forecast[-1].class_bytes("STANDARD_IA") == 0
    assert made.savings[1].last_month == pytest.approx((374 - 30) * (0.023 - 0.0036))


def test_every_store_is_simulated_by_its_own_rules() -> None:
    backups = daily([GB] * 10)
    made = report(contents(backups), contents(backups[5:], name="offsite", rules=GLACIER))
    assert {(c.store, c.storage_class): c.stored_bytes // GB for c in made.forecast[0].classes} == {
        ("primary", "local"): 40,
        ("offsite", "GLACIER"): 5,
        ("offsite", "STANDARD"): 30,
    }
    assert made.cost.known == pytest.approx(10 * 0.02 + 5 * 0.023)


def test_what_lies_beside_the_files_comes_with_every_backup() -> None:
    backups = daily([GB] * 10)
    proofs = [listed(f"{b.folder.removeprefix('shop/')}/proofs/a.html", GB // 2, b.taken_at) for b in backups]
    made = report(contents(backups, more=[*proofs, listed("audit/00000/00000001.json", GB)]), retention=ONLY_DAYS)
    assert stored(made) == [7 * 1.5 + 1] * 12


def test_attempts_are_swept_before_the_month_ends() -> None:
    attempt = listed("logical/2026-12-01/20261201T030000Z/dump/1.dat", 50 * GB)
    made = report(contents(daily([GB] * 10), more=[attempt]), retention=ONLY_DAYS)
    assert made.stores[0].stored_bytes == 60 * GB
    assert stored(made) == [7.0] * 12


def test_a_store_whose_manifests_cannot_be_read_has_no_forecast() -> None:
    made = report(contents([summary(NEWEST, None)], more=[listed("notes.txt", GB)]))
    assert made.forecast == () and made.cost.known == pytest.approx(0.02)
