"""Sections of backup.yaml: objectives by data class, whom to tell when they are missed, and what storage costs."""

from __future__ import annotations

from datetime import timedelta

from pydantic import NonNegativeFloat

from gs_backup_assets.config_values import Duration, Section


class DataClass(Section):
    """Objectives of the tables of one class; a table may be given under several names, of which one exists."""

    rpo: Duration
    rto: Duration
    tables: tuple[str | tuple[str, ...], ...] = ()

    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        return tuple((t,) if isinstance(t, str) else t for t in self.tables)


def default_classes() -> dict[str, DataClass]:
    """Without data classes of one's own every table is `important`, and what a backup a day can hold is promised."""
    return {"important": DataClass(rpo=timedelta(hours=25), rto=timedelta(hours=4))}


class Alerts(Section):
    """Whom to tell, and when a backup or a proof counts as stale.

    The URL in `heartbeat_url_env`, a secret, is asked for after each proven backup: that it was not for too long is
    noticed elsewhere, even when this machine is dead. A problem that comes and goes is told of once in `flap_window`.
    """

    urls_env: str = "GS_BACKUP_ALERT_URLS"
    heartbeat_url_env: str = "GS_BACKUP_HEARTBEAT_URL"
    stale_after: Duration = timedelta(hours=25)
    remind_after: Duration = timedelta(hours=24)
    flap_window: Duration = timedelta(minutes=15)


class Costs(Section):
    """What storage costs in a month: `prices` for 1 GB (10^9 bytes) by storage class, `budget` by storage class.

    The defaults are Amazon's list prices of us-east-1 in 2026 for S3, a disk of 500 GB for 10 a month for `local`, and
    the strategy document's estimates for the budget.
    """

    currency: str = "USD"
    prices: dict[str, NonNegativeFloat] = {
        "local": 0.02,
        "STANDARD": 0.023,
        "INTELLIGENT_TIERING": 0.023,
        "STANDARD_IA": 0.0125,
        "ONEZONE_IA": 0.01,
        "GLACIER_IR": 0.004,
        "GLACIER": 0.0036,
        "DEEP_ARCHIVE": 0.00099,
    }
    budget: dict[str, NonNegativeFloat] = {"local": 10.0, "STANDARD": 25.0, "GLACIER": 5.0}
