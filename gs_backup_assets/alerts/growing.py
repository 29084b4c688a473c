"""Problems to come: the growth of the database will break an RTO before long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.catalogue.attainment import FORECAST_ALARM, restored_of, rto_forecast, sizes_of
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.config import DatabaseSettings


def forecast_problems(
    settings: DatabaseSettings, backups: Sequence[Summary], now: datetime, link: str = ""
) -> list[Problem]:
    """A warning when the shortest RTO is broken within 90 days; `backups` are the dumps, newest first.

    One that is broken now is no forecast: the proof's `rto_met` tells it. Too little history tells nothing.
    """
    restored = restored_of(backups)
    if settings.rto_target is None or not restored:
        return []
    forecast = rto_forecast(sizes_of(backups), restored, settings.rto_target.total_seconds(), now)
    if forecast.outcome != "breaks" or forecast.on is None or forecast.on > (now + FORECAST_ALARM).date():
        return []
    return [
        Problem(
            fingerprint=f"{settings.name}:rto-forecast",
            title=f"{settings.name}: growth will break the RTO within {FORECAST_ALARM.days} days",
            body=f"A restore takes longer than is promised from about {forecast.on} on ({forecast.why}).",
            hint="Give restores more jobs or faster disks; docs/objectives.md. `gs-backup objectives` shows all of it.",
            severity="warning",
            link=link,
        )
    ]
