"""Alarms of point-in-time recovery: base backups and log that are too old, or never came; and what the status says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.alerts.staleness import stale_problems
from gs_backup_assets.alerts.staleness_physical import physical_problems
from gs_backup_assets.catalogue.drills import put_drill
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_positions import Position, put_position
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.status.document import DatabaseStatus, read_database, status_of
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.drills import drill_of
from gs_backup_assets_tests.catalogue.physical import made_up_base, shelve_base
from gs_backup_assets_tests.catalogue.wal import SYSTEM, put_segments, segment
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import NOW, fill, taken


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path / "backups")
    fill(made, (0,))
    return made


def settings(store: LocalStore, **sections: object) -> DatabaseSettings:
    return settings_in(store.root.parent, **sections)


def alarms(settings: DatabaseSettings, now: datetime = NOW) -> list[str]:
    return [problem.fingerprint.removeprefix("shop:") for problem in stale_problems(settings, now)]


def see(store: LocalStore, at: datetime, lsn: str = "0/A000000") -> None:
    put_position(store, "shop", Position(system_identifier=SYSTEM, timeline=1, at=at, server_lsn=lsn, archived_lsn=lsn))


def test_what_is_not_configured_is_not_asked_for(store: LocalStore) -> None:
    assert alarms(settings(store)) == []


def test_a_base_backup_that_never_came_or_is_older_than_its_schedule(store: LocalStore) -> None:
    weekly = settings(store, physical={})
    assert alarms(weekly) == ["stale-base-backup"], "without any it is said once"
    shelve_base(store, made_up_base(taken(7.9)))
    assert alarms(weekly) == []
    assert alarms(weekly, NOW + timedelta(hours=4)) == ["stale-base-backup", "stale-base-proof"]
    daily = settings(store, physical={"schedule": "0 1 * * *"})
    assert alarms(daily) == ["stale-base-backup", "stale-base-proof"]


def test_a_base_backup_that_is_not_proven_is_a_stale_proof(store: LocalStore) -> None:
    weekly = settings(store, physical={})
    shelve_base(store, made_up_base(taken(1)), Verdict.NOT_VERIFIED)
    (problem,) = stale_problems(weekly, NOW)
    assert (
        problem.fingerprint == "shop:stale-base-proof" and "no proven base backup in the primary store" in problem.body
    )
    shelve_base(store, made_up_base(taken(2)))
    assert alarms(weekly) == []
    (problem,) = physical_problems(weekly, store, NOW + timedelta(days=6, hours=1))
    assert problem.fingerprint == "shop:stale-base-proof", "the newest is fresh, and the newest proven one is not"


def test_log_that_never_came_or_no_longer_comes(store: LocalStore) -> None:
    streamed = settings(store, wal={"max_lag": "5m"})
    assert alarms(streamed) == ["stale-wal"]
    now = datetime.now(timezone.utc)
    see(store, now)
    assert alarms(streamed, now + timedelta(minutes=4)) == []
    (problem,) = stale_problems(streamed, now + timedelta(minutes=6))
    assert problem.fingerprint == "shop:stale-wal" and problem.since == now + timedelta(minutes=5)


def test_log_that_somebody_pushes_counts_when_it_came(store: LocalStore) -> None:
    """Sites with an archive_command have no stream that would tell of positions."""
    pushed = settings(store, wal={"max_lag": "5m"})
    put_segments(store, [3])
    now = datetime.now(timezone.utc)
    assert alarms(pushed, now) == []
    assert alarms(pushed, now + timedelta(minutes=6)) == ["stale-wal"]


def test_copies_of_base_backups_and_of_the_log_that_do_not_come_off_site(store: LocalStore, tmp_path: Path) -> None:
    stores = {"primary": {"path": "backups"}, "offsite": {"kind": "local", "path": "elsewhere"}}
    configured = settings(store, physical={}, wal={"max_lag": "5m", "offsite_every": "1m"}, stores=stores)
    offsite = LocalStore(tmp_path / "elsewhere")
    fill(offsite, (0,))
    put_drill(store, drill_of(NOW))
    shelve_base(store, made_up_base(taken(1)))
    see(store, NOW)
    assert alarms(configured) == ["stale-offsite-base-backup", "stale-offsite-wal"]
    shelve_base(offsite, made_up_base(taken(7.9)))
    see(offsite, NOW - timedelta(minutes=6))
    assert alarms(configured) == []
    see(store, NOW + timedelta(minutes=2))
    (problem,) = stale_problems(configured, NOW + timedelta(minutes=2))
    assert problem.fingerprint == "shop:stale-offsite-wal" and problem.since == NOW + timedelta(minutes=1)
    assert "older than 7 min" in problem.title
    for root in (store, offsite):
        see(root, NOW + timedelta(hours=4))
    assert alarms(configured, NOW + timedelta(hours=4)) == ["stale-offsite-base-backup"]


def test_a_position_that_cannot_be_read_says_nothing(store: LocalStore) -> None:
    see(store, NOW)
    for path in store.root.rglob("positions/*.json"):
        path.write_bytes(b"{}")
    assert alarms(settings(store, wal={})) == ["stale-wal"]


def test_a_store_that_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "backups").write_text("a file")
    assert alarms(settings_in(tmp_path, physical={}, wal={})) == ["store"]


def test_the_status_tells_of_base_backups_and_log(store: LocalStore) -> None:
    configured = settings(store, physical={}, wal={}, data_classes={"all": {"rpo": "25h", "rto": "4h"}})
    shelve_base(store, made_up_base(taken(1)))
    newest = shelve_base(store, made_up_base(taken(0.5)))
    see(store, NOW)
    put_drill(store, drill_of(NOW))
    status = status_of([read_database(configured, NOW)], NOW).databases[0]
    assert status.latest_base_backup is not None and status.latest_base_backup.name == newest.id
    assert (status.total_base_backups, status.wal_archived_at, status.total_backups) == (2, NOW, 1)
    assert status.status == "healthy"


def test_the_log_counts_for_what_would_be_lost_where_its_base_backup_is_proven(store: LocalStore) -> None:
    classes = {"critical": {"rpo": "15m", "rto": "1h"}}
    now = NOW + timedelta(hours=1)
    configured = settings(store, physical={}, wal={}, data_classes=classes)

    def status() -> DatabaseStatus:
        return status_of([read_database(configured, now)], now).databases[0]

    put_drill(store, drill_of(NOW))
    shelve_base(store, made_up_base(taken(1)), Verdict.NOT_VERIFIED)
    put_segments(store, [11, 12])
    see(store, now - timedelta(seconds=30), str(segment(12).end))
    (dump,) = status().objectives
    assert (dump.way, dump.rpo_met) == ("dump", False), "nobody has shown that the base backup is any good"
    shelve_base(store, made_up_base(taken(0.9)))
    (goal,) = status().objectives
    assert (goal.way, goal.rpo_seconds, goal.rpo_met, goal.rto_met) == ("log", 30.0, True, True)
    assert status().recoverable_until == now - timedelta(seconds=30)
    # More than was archived at the newest look: then it is the look before that counts.
    see(store, now, str(segment(13).end))
    assert status().objectives[0].rpo_seconds == 30.0
    # A gap behind the base backup: what was archived after it leads nowhere.
    put_segments(store, [14])
    for seconds in (3, 2, 1):
        see(store, now - timedelta(seconds=seconds), str(segment(14).end))
    assert status().objectives[0].rpo_met is False and status().recoverable_until == taken(0), "by the dump"
