"""How long a schedule lets pass."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gs_backup_assets.catalogue.cron import longest_pause


@pytest.mark.parametrize(
    ("schedule", "days"),
    [
        ("0 1 * * 0", 7),
        ("0 1 * * sun", 7),
        ("0 1 * * 7", 7),
        ("0 2 * * *", 1),
        ("*/5 * * * *", 1),
        ("0 1 * * 1-6", 2),
        ("0 1 * * mon,thu", 4),
        ("0 1 1 * *", 31),
        ("0 1 1,15 * *", 17),
        ("0 1 */2 * *", 2),
        ("0 1 1 jan,jul *", 184),
        ("0 1 1 * 0", 7),
        ("0 1 29 2 *", 1461),
        ("0 1 31 2 *", 9 * 366),
        ("@weekly", 7),
        ("@daily", 1),
        ("0 1 * * fri#2", 35),
        ("0 1 * * 1#1,3#3", 19),
        ("0 1 1 * fri#2", 35),
        ("0 1 * * L5", 35),
        ("0 1 L * *", 31),
        ("0 1 * * 6-0", 6),
        ("0 1 * * fri-mon", 4),
        ("0 1 28-3 * *", 25),
        ("0 1 1 nov-feb *", 274),
        ("0 1 */2 * 1", 2),
    ],
)
def test_the_longest_pause(schedule: str, days: int) -> None:
    assert longest_pause(schedule) == timedelta(days=days)
