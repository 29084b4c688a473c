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
from gs_backup_assets.schedules_drills import build_drill_job, build_drill_schedule
from gs_backup_assets.schedules_physical import build_base_backup_job, build_base_backup_schedules, plan_replacement


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
        job = build_base_backup_job(settings, weeks, base_backup, verified)
        part.assets += [base_backup, verified]
        part.jobs.append(job)
        replacement = Replacement(job, lambda survey, now: plan_replacement(settings, survey, now, base_backup))
        part.schedules += build_base_backup_schedules(settings, settings.physical, job, base_backup)
    if settings.wal is not None:
        part.assets.append(build_wal_archive(settings, days, listener))
        part.sensors.append(build_wal_sensor(settings, replacement))
    if settings.physical is not None and settings.wal is not None:
        drill = build_pitr_drill(settings, weeks, listener, retry)
        drill_job = build_drill_job(settings, weeks, drill)
        part.assets.append(drill)
        part.jobs.append(drill_job)
        part.schedules.append(build_drill_schedule(settings, settings.physical, drill_job))
    return part
