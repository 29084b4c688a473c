"""Tests that are overdue: drills and restores on staging that were never done, failed, or are too long ago."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gs_backup_assets.alerts.overdue import overdue_problems
from gs_backup_assets.alerts.staleness import stale_problems
from gs_backup_assets.catalogue.drills import put_drill
from gs_backup_assets.catalogue.staging_tests import put_staging_test
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.status.document import read_database
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.drills import drill_of, staging_test_of
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import NOW, fill

STAGING = {"url_env": "STAGING_URL"}
DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "backups")


def names(store: LocalStore, days: float = 0, **sections: object) -> list[str]:
    settings = settings_in(store.root.parent, **sections)
    problems = overdue_problems(settings, store, NOW + timedelta(days=days))
    return [problem.fingerprint.removeprefix("shop:") for problem in problems]


def test_what_is_not_configured_is_not_asked_for(store: LocalStore) -> None:
    assert names(store) == []
    assert names(store, physical={}) == [], "a drill needs the log as well"
    assert names(store, wal={}) == []


def test_a_drill_that_was_never_made_or_is_older_than_its_schedule(store: LocalStore) -> None:
    assert names(store, physical={}, wal={}) == ["overdue-drill"]
    put_drill(store, drill_of(NOW))
    assert names(store, 8, physical={}, wal={}) == []
    assert names(store, 8.1, physical={}, wal={}) == ["overdue-drill"]
    assert names(store, 2.1, physical={"drill_schedule": "0 4 * * *"}, wal={}) == ["overdue-drill"]


def test_a_drill_that_failed_does_not_count(store: LocalStore) -> None:
    put_drill(store, drill_of(NOW - 9 * DAY))
    put_drill(store, drill_of(NOW, Verdict.FAILED))
    assert names(store, physical={}, wal={}) == ["overdue-drill"]
    put_drill(store, drill_of(NOW - 5 * DAY))
    assert names(store, physical={}, wal={}) == [], "an older one that succeeded is fresh enough"


def test_a_restore_test_is_awaited_every_month(store: LocalStore) -> None:
    """On the first Sunday of a month: the next one is five weeks later at most."""
    assert names(store, staging=STAGING) == ["overdue-staging-test"]
    put_staging_test(store, staging_test_of(NOW))
    assert names(store, 36, staging=STAGING) == []
    assert names(store, 36.1, staging=STAGING) == ["overdue-staging-test"]
    put_staging_test(store, staging_test_of(NOW + 36 * DAY, Verdict.NOT_VERIFIED))
    assert names(store, 36.1, staging=STAGING) == ["overdue-staging-test"]
    put_staging_test(store, staging_test_of(NOW + 400 * DAY))
    assert names(store, 36.1, staging=STAGING) == ["overdue-staging-test"], "a clock was ahead"


def test_it_says_since_when_and_what_to_do(store: LocalStore) -> None:
    put_staging_test(store, staging_test_of(NOW))
    settings = settings_in(store.root.parent, staging=STAGING)
    (problem,) = overdue_problems(settings, store, NOW + 40 * DAY, "https://d/assets")
    assert problem.since == NOW + 36 * DAY and problem.link == "https://d/assets"
    assert "gs-backup staging-test" in problem.hint and f"{NOW:%Y-%m-%d %H:%M}" in problem.body


def test_it_is_among_what_the_watch_tells(store: LocalStore) -> None:
    fill(store, (0,))
    settings = settings_in(store.root.parent, staging=STAGING)
    assert [problem.fingerprint for problem in stale_problems(settings, NOW)] == ["shop:overdue-staging-test"]


def test_a_backup_of_a_clock_that_was_ahead_is_not_fresh_for_ever(store: LocalStore) -> None:
    fill(store, (-400, 3))
    settings = settings_in(store.root.parent)
    stale = stale_problems(settings, NOW)
    assert [problem.fingerprint for problem in stale] == ["shop:stale-backup", "shop:stale-proof"]
    assert all("a clock that was ahead" in problem.body for problem in stale)
    proven = read_database(settings, NOW).proven
    assert proven is not None and proven.taken_at < NOW
