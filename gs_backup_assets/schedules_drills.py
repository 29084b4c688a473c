"""The job of the drill and its schedule: once a week."""

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import dagster as dg

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_sections import Physical
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.base_backup import require_this_week, week_of

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def drill_job_name(database: str) -> str:
    """`<database>_pitr_drill`."""
    return f"{database}_pitr_drill"


def build_drill_job(
    settings: DatabaseSettings, weeks: dg.WeeklyPartitionsDefinition, drill: dg.AssetsDefinition
) -> "UnresolvedAssetJobDefinition":
    """Recovers to a random moment and proves it."""
    return dg.define_asset_job(
        drill_job_name(settings.name),
        selection=dg.AssetSelection.assets(drill),
        partitions_def=weeks,
        executor_def=dg.in_process_executor,
        description=f"Recovers the cluster of {settings.name} to a random moment and proves it. For this week only.",
        tags={"gs_backup/database": settings.name},
    )


def build_drill_schedule(
    settings: DatabaseSettings, physical: Physical, job: "UnresolvedAssetJobDefinition"
) -> dg.ScheduleDefinition:
    """Asks for a drill each week; running unless somebody stops it."""

    @dg.schedule(
        name=f"{settings.name}_pitr_drill_schedule",
        description="Recovers the cluster to a random moment on a throwaway server, and proves it.",
        job=job,
        cron_schedule=physical.drill_schedule,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def pitr_drill_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return plan_drill(settings, context.scheduled_execution_time, datetime.now(timezone.utc))

    return pitr_drill_schedule


def plan_drill(settings: DatabaseSettings, scheduled: datetime, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """The run for a tick. One that is caught up in a later week is skipped: that week has a tick of its own."""
    partition = week_of(scheduled, settings.zone)
    try:
        require_this_week(partition, now, settings.zone)
    except ConfigError as error:
        return dg.SkipReason(f"{error.code}: {error.message}")
    return dg.RunRequest(partition_key=partition, run_key=f"{settings.name}-drill-{scheduled.isoformat()}")
