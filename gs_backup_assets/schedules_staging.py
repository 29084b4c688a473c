"""The job of the staging test and its schedule: once a month."""

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import dagster as dg

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_sections import Staging
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.costing import month_of, require_this_month

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def staging_job_name(database: str) -> str:
    """`<database>_monthly_restore_test`."""
    return f"{database}_monthly_restore_test"


def build_staging_job(
    settings: DatabaseSettings, months: dg.MonthlyPartitionsDefinition, test: dg.AssetsDefinition
) -> "UnresolvedAssetJobDefinition":
    """Restores the newest proven backup on staging."""
    return dg.define_asset_job(
        staging_job_name(settings.name),
        selection=dg.AssetSelection.assets(test),
        partitions_def=months,
        executor_def=dg.in_process_executor,
        description=f"Makes the newest proven backup of {settings.name} the staging database. For this month only.",
        tags={"gs_backup/database": settings.name},
    )


def build_staging_schedule(
    settings: DatabaseSettings, staging: Staging, job: "UnresolvedAssetJobDefinition"
) -> dg.ScheduleDefinition:
    """Asks for the test each month; running unless somebody stops it."""

    @dg.schedule(
        name=f"{settings.name}_monthly_restore_test_schedule",
        description="Restores the newest proven backup on staging, and asks the application for its health.",
        job=job,
        cron_schedule=staging.schedule,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def monthly_restore_test_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return plan_staging_test(settings, context.scheduled_execution_time, datetime.now(timezone.utc))

    return monthly_restore_test_schedule


def plan_staging_test(settings: DatabaseSettings, scheduled: datetime, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """The run for a tick. One that is caught up in a later month is skipped: that month has a tick of its own."""
    partition = month_of(scheduled, settings.zone)
    try:
        require_this_month(partition, now, settings.zone)
    except ConfigError as error:
        return dg.SkipReason(f"{error.code}: {error.message}")
    return dg.RunRequest(partition_key=partition, run_key=f"{settings.name}-staging-{scheduled.isoformat()}")
