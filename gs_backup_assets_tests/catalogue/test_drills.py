"""Tests of the records of drills: their order, their damage, and the exit status that they come to."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.assets.drills import coverage_map
from gs_backup_assets.catalogue.drills import DrillRecord, drill_key, put_drill, read_drills
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.errors import ExitStatus, StoreError
from gs_backup_assets.vault.local import LocalStore

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def _record(day: int = 0, verdict: Verdict = Verdict.PROVEN, beside: Status = Status.PASSED) -> DrillRecord:
    check = CheckResult(name="rpo_met", status=beside, summary="of no weight for the verdict")
    return DrillRecord(
        database="shop",
        partition=f"{NOON + timedelta(days=day - day % 7):%Y-%m-%d}",
        started_at=NOON + timedelta(days=day),
        finished_at=NOON + timedelta(days=day, seconds=40),
        software="1",
        store="primary",
        system_identifier="7",
        server="17.2",
        target="latest",
        chosen="given",
        achieved_lsn="0/3000060",
        achieved_at=NOON,
        timeline=2,
        backups=("20261122T010000Z",),
        segments=3,
        last_before=None,
        first_after=None,
        verdict=verdict,
        checks=(check,),
        rules=(),
        foreign_keys=(),
        stage_seconds={"fetch": 1.0},
        rto_seconds=12.5,
        rto_target_seconds=3600,
        recoverable_age_seconds=7.0,
        window_start=NOON - timedelta(days=9),
        window_end=NOON + timedelta(days=day),
    )


def test_the_newest_are_read_in_order_over_weeks(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    records = [_record(day) for day in (8, 0, 3, 15)]
    for record in records:
        put_drill(store, record)
    assert read_drills(store, "shop", newest=3) == (records[2], records[0], records[3])
    assert read_drills(store, "other", newest=3) == ()


def test_a_damaged_record_proves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put_drill(store, _record(0))
    put_drill(store, _record(1, Verdict.FAILED))
    path = tmp_path / drill_key(_record(1))
    path.write_bytes(path.read_bytes().replace(b"FAILED", b"PROVEN"))
    assert read_drills(store, "shop", newest=3) == (_record(0),)


def test_a_record_is_never_replaced(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put_drill(store, _record(0, Verdict.FAILED))
    with pytest.raises(StoreError, match="OBJECT_EXISTS"):
        put_drill(store, _record(0))


@pytest.mark.parametrize(
    ("verdict", "beside", "status"),
    [
        (Verdict.PROVEN, Status.PASSED, ExitStatus.GOOD),
        (Verdict.PROVEN, Status.FAILED, ExitStatus.FAILED),
        (Verdict.PROVEN, Status.NOT_VERIFIED, ExitStatus.GOOD),
        (Verdict.NOT_VERIFIED, Status.PASSED, ExitStatus.NOT_VERIFIED),
        (Verdict.NOT_VERIFIED, Status.FAILED, ExitStatus.FAILED),
        (Verdict.FAILED, Status.PASSED, ExitStatus.FAILED),
    ],
)
def test_the_exit_status_is_that_of_the_worst(verdict: Verdict, beside: Status, status: ExitStatus) -> None:
    assert _record(0, verdict, beside).exit_status is status


def test_the_map_shows_the_newest_drill_first() -> None:
    lines = coverage_map((_record(0), _record(8, Verdict.FAILED))).splitlines()
    assert len(lines) == 4 and "FAILED" in lines[2] and "PROVEN" in lines[3]
    assert "| latest | 12.5 s | 7 s |" in lines[3]
