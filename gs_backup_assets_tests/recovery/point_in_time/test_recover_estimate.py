"""How long a recovery may take, by earlier drills: those of this cluster that were good, the newest of them."""

from __future__ import annotations

from datetime import datetime, timezone

from gs_backup_assets.catalogue.drills import DrillRecord
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.recovery.point_in_time.recover_plan import estimate

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def drill(system: str, verdict: Verdict, *, segments: int, replay: float) -> DrillRecord:
    return DrillRecord(
        database="shop",
        partition="2026-11-22",
        started_at=NOON,
        finished_at=NOON,
        software="0",
        store="primary",
        system_identifier=system,
        server="17.10",
        target="latest",
        chosen="given",
        achieved_lsn=None,
        achieved_at=None,
        timeline=None,
        backups=(),
        segments=segments,
        last_before=None,
        first_after=None,
        verdict=verdict,
        checks=(),
        rules=(),
        foreign_keys=(),
        stage_seconds={"fetch": 10.0, "start": 2.0, "replay": replay, "promote": 3.0, "amcheck": 100.0},
        rto_seconds=None,
        rto_target_seconds=None,
        recoverable_age_seconds=None,
        window_start=None,
        window_end=None,
    )


def test_the_replay_grows_with_the_log_and_what_only_a_drill_does_is_left_out() -> None:
    drills = [
        drill("1", Verdict.PROVEN, segments=10, replay=1000.0),
        drill("1", Verdict.PROVEN, segments=10, replay=20.0),
        drill("1", Verdict.FAILED, segments=10, replay=1.0),
        drill("2", Verdict.PROVEN, segments=10, replay=1.0),
    ]
    assert estimate(drills, "1", 10) == 35.0
    assert estimate(drills, "1", 30) == 75.0
    assert estimate(drills, "3", 30) is None
    assert estimate([drill("1", Verdict.PROVEN, segments=0, replay=0.0)], "1", 5) == 15.0
