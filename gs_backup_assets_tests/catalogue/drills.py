"""Made-up records of drills and staging tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from gs_backup_assets.catalogue.drills import DrillRecord
from gs_backup_assets.catalogue.staging_tests import StagingTestRecord
from gs_backup_assets.catalogue.verdict import Verdict


def drill_of(ended: datetime, verdict: Verdict = Verdict.PROVEN, **other: Any) -> DrillRecord:
    """A drill that ended then."""
    facts: dict[str, Any] = {
        "database": "shop",
        "partition": f"{ended:%Y-%m-%d}",
        "started_at": ended - timedelta(seconds=40),
        "finished_at": ended,
        "software": "1",
        "store": "primary",
        "system_identifier": "7",
        "server": "17.2",
        "target": "latest",
        "chosen": "random",
        "achieved_lsn": "0/3000060",
        "achieved_at": ended,
        "timeline": 1,
        "backups": ("20261122T010000Z",),
        "segments": 3,
        "last_before": None,
        "first_after": None,
        "verdict": verdict,
        "checks": (),
        "rules": (),
        "foreign_keys": (),
        "stage_seconds": {},
        "rto_seconds": 12.5,
        "rto_target_seconds": 3600,
        "recoverable_age_seconds": 7.0,
        "window_start": ended - timedelta(days=9),
        "window_end": ended,
    }
    return DrillRecord(**(facts | other))


def staging_test_of(ended: datetime, verdict: Verdict = Verdict.PROVEN, **other: Any) -> StagingTestRecord:
    """A staging test that ended then."""
    facts: dict[str, Any] = {
        "database": "shop",
        "partition": f"{ended:%Y-%m}-01",
        "started_at": ended - timedelta(seconds=90),
        "finished_at": ended,
        "software": "1",
        "store": "primary",
        "backup_id": "20261122T010000Z",
        "backup_partition": "2026-11-22",
        "staging": "shop_staging",
        "server": "17.2",
        "repaired": None,
        "anonymised": False,
        "verdict": verdict,
        "checks": (),
        "stage_seconds": {},
        "rto_seconds": 80.0,
        "rto_target_seconds": 3600,
    }
    return StagingTestRecord(**(facts | other))
