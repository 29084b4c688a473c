"""The daily job and its schedule: one run a day for the day on which it starts."""

from datetime import date, datetime, timezone
from typing import TYPE_CHECKING

import dagster as dg

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.costing import month_of, require_this_month
from gs_backup_assets.recovery.offsite import due_for_reading_back
from gs_backup_assets.recovery.take import partition_of, require_today
from gs_backup_assets.schedules_drills import drill_job_name
from gs_backup_assets.schedules_physical import base_backup_job_name
from gs_backup_assets.schedules_staging import staging_job_name
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.words import daily_job_name

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def build_daily_job(
    settings: DatabaseSettings, days: dg.DailyPartitionsDefinition, assets: list[dg.AssetsDefinition]
) -> "UnresolvedAssetJobDefinition":
    """The whole chain in one run and one process: nothing passes between its steps but ids and digests."""
    return dg.define_asset_job(
        daily_job_name(settings.name),
        selection=dg.AssetSelection.assets(*assets),
        partitions_def=days,
        executor_def=dg.in_process_executor,
        description=(
            f"Backs {settings.name} up, reads the stored bytes back, restores them on a server of their own, and "
            "proves that the result equals the source's snapshot. Runs for today only; to prove older backups again, "
            "materialise `verified_restore` for their days."
            + (" At last the retention deletes what a newer proven backup has replaced." if settings.retention else "")
        ),
        tags={"gs_backup/database": settings.name},
    )


def build_daily_schedule(settings: DatabaseSettings, job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Runs the daily job at the configured time of the configured zone; running unless somebody stops it."""

    @dg.schedule(
        name=f"{settings.name}_daily_backup_schedule",
        description="Takes the day's backup and proves it. A tick that is caught up on a later day is skipped.",
        job=job,
        cron_schedule=settings.logical.schedule,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def daily_backup_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return plan_run(settings, context.scheduled_execution_time, datetime.now(timezone.utc))

    return daily_backup_schedule


def read_back_job_name(database: str) -> str:
    """`<database>_offsite_read_back`."""
    return f"{database}_offsite_read_back"


def build_read_back_job(
    settings: DatabaseSettings, days: dg.DailyPartitionsDefinition, copy: dg.AssetsDefinition
) -> "UnresolvedAssetJobDefinition":
    """Reads the copy of one day's backup back, byte for byte."""
    return dg.define_asset_job(
        read_back_job_name(settings.name),
        selection=dg.AssetSelection.assets(copy),
        partitions_def=days,
        executor_def=dg.in_process_executor,
        config={"ops": {copy.op.name: {"config": {"read_back": True}}}},
        description=f"Reads every byte of an off-site copy of {settings.name} and compares it with the manifest.",
        tags={"gs_backup/database": settings.name},
    )


def build_read_back_schedule(settings: DatabaseSettings, job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Asks every day for the copies whose turn it is, so that each is read back once in `read_back_days` days."""

    @dg.schedule(
        name=f"{settings.name}_offsite_read_back_schedule",
        description="Reads every byte of some off-site copies back, so that each has its turn in `read_back_days`.",
        job=job,
        cron_schedule="0 5 * * *",
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def offsite_read_back_schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> list[dg.RunRequest] | dg.SkipReason:
        today = partition_of(context.scheduled_execution_time, settings.zone)
        offsite = Catalogue(open_store(settings, "offsite"), settings.name)
        held = sorted({summary.partition for summary in offsite.summaries()})
        due = due_for_reading_back(held, date.fromisoformat(today), settings.stores.read_back_days)
        if not due:
            return dg.SkipReason(f"Of {len(held)} days with a copy, none has its turn today.")
        return [dg.RunRequest(partition_key=day, run_key=f"{settings.name}-read-back-{today}-{day}") for day in due]

    return offsite_read_back_schedule


def cost_job_name(database: str) -> str:
    """`<database>_cost_report`."""
    return f"{database}_cost_report"


def build_cost_job(
    settings: DatabaseSettings, months: dg.MonthlyPartitionsDefinition, report: dg.AssetsDefinition
) -> "UnresolvedAssetJobDefinition":
    """Makes the cost report of this month."""
    return dg.define_asset_job(
        cost_job_name(settings.name),
        selection=dg.AssetSelection.assets(report),
        partitions_def=months,
        executor_def=dg.in_process_executor,
        description=f"Reports what the backups of {settings.name} take up and cost. Runs for this month only.",
        tags={"gs_backup/database": settings.name},
    )


def build_cost_schedule(settings: DatabaseSettings, job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Runs the cost report in the morning of the first day of each month."""

    @dg.schedule(
        name=f"{settings.name}_cost_report_schedule",
        description="Reports on the first of the month what the backups take up and cost.",
        job=job,
        cron_schedule="0 6 1 * *",
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def cost_report_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return plan_cost_run(settings, context.scheduled_execution_time, datetime.now(timezone.utc))

    return cost_report_schedule


def plan_cost_run(settings: DatabaseSettings, scheduled: datetime, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """The run for a tick. One that is caught up in a later month is skipped: what rested then cannot be listed."""
    partition = month_of(scheduled, settings.zone)
    try:
        require_this_month(partition, now, settings.zone)
    except ConfigError as error:
        return dg.SkipReason(f"{error.code}: {error.message}")
    return dg.RunRequest(partition_key=partition, run_key=f"{settings.name}-costs-{partition}")


def disaster_job_name(database: str) -> str:
    """`<database>_disaster_recovery`, which no schedule starts."""
    return f"{database}_disaster_recovery"


# Whose failures are told.
JOB_NAMES = (
    daily_job_name,
    read_back_job_name,
    cost_job_name,
    base_backup_job_name,
    disaster_job_name,
    drill_job_name,
    staging_job_name,
)


def plan_run(settings: DatabaseSettings, scheduled: datetime, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """The run for a tick. A tick that is caught up on a later day is skipped: the past cannot be dumped."""
    partition = partition_of(scheduled, settings.zone)
    try:
        require_today(partition, now, settings.zone)
    except ConfigError as error:
        return dg.SkipReason(f"{error.code}: {error.message}")
    # The cron expression may ask for several backups a day: each tick is a run of its own.
    return dg.RunRequest(partition_key=partition, run_key=f"{settings.name}-{scheduled.isoformat()}")
