"""Builds the part of a database's graph that leads to a point in time: base backups, the log, their proofs, drills."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from gs_backup_assets.assets.common import ListenerFactory
from gs_backup_assets.assets.drills import build_pitr_drill, build_verified_recovery
from gs_backup_assets.assets.physical import build_base_backup
from gs_backup_assets.assets.wal import Replacement, build_wal_archive, build_wal_sensor
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.schedules import build_base_backups, build_drills, plan_replacement


@dataclass
class Part:
    """Definitions of one part of the graph; `jobs` are unresolved ones, whose type Dagster does not export."""

    assets: list[dg.AssetsDefinition] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    schedules: list[dg.ScheduleDefinition] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)


def build_physical(
    settings: DatabaseSettings,
    days: dg.DailyPartitionsDefinition,
    weeks: dg.WeeklyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> Part:
    """What `physical` and `wal` in backup.yaml ask for; nothing where neither is set. A drill needs both."""
    part = Part()
    replacement: Replacement | None = None
    if settings.physical is not None:
        base_backup = build_base_backup(settings, weeks, listener, retry)
        verified = build_verified_recovery(settings, weeks, listener, retry)
        job, schedules = build_base_backups(settings, settings.physical, weeks, base_backup, verified)
        part.assets += [base_backup, verified]
        part.jobs.append(job)
        replacement = Replacement(job, lambda survey, now: plan_replacement(settings, survey, now, base_backup))
        part.schedules += schedules
    if settings.wal is not None:
        part.assets.append(build_wal_archive(settings, days, listener))
        part.sensors.append(build_wal_sensor(settings, replacement))
    if settings.physical is not None and settings.wal is not None:
        drill = build_pitr_drill(settings, weeks, listener, retry)
        drill_job, drilling = build_drills(settings, settings.physical, weeks, drill)
        part.assets.append(drill)
        part.jobs.append(drill_job)
        part.schedules.append(drilling)
    return part
