"""The job of base backups and its two schedules: a full one each week, incremental ones between them."""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_sections import Physical
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.base_backup import require_this_week, week_of
from gs_backup_assets.recovery.wal_survey import WalSurvey, needs_new_base

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def base_backup_job_name(database: str) -> str:
    """`<database>_base_backup`."""
    return f"{database}_base_backup"


def build_base_backup_job(
    settings: DatabaseSettings, weeks: dg.WeeklyPartitionsDefinition, *assets: dg.AssetsDefinition
) -> "UnresolvedAssetJobDefinition":
    """Takes a base backup for this week, and proves it."""
    return dg.define_asset_job(
        base_backup_job_name(settings.name),
        selection=dg.AssetSelection.assets(*assets),
        partitions_def=weeks,
        executor_def=dg.in_process_executor,
        description=(
            f"Takes a base backup of the cluster of {settings.name}, reads it back, copies it off-site, proves it. "
            "For this week only. It adds to the newest chain where that is possible, unless its config says `full`."
        ),
        tags={"gs_backup/database": settings.name},
    )


def build_base_backup_schedules(
    settings: DatabaseSettings, physical: Physical, job: "UnresolvedAssetJobDefinition", asset: dg.AssetsDefinition
) -> list[dg.ScheduleDefinition]:
    """Full backups, and incremental ones unless those are switched off; running unless somebody stops them."""
    schedules = [_schedule(settings, job, asset, cron=physical.schedule, full=True)]
    if physical.incremental != "never":
        schedules.append(_schedule(settings, job, asset, cron=physical.incremental_schedule, full=False))
    return schedules


def _schedule(
    settings: DatabaseSettings,
    job: "UnresolvedAssetJobDefinition",
    asset: dg.AssetsDefinition,
    *,
    cron: str,
    full: bool,
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{settings.name}_{'full' if full else 'incremental'}_base_backup_schedule",
        description=f"Takes {'a full' if full else 'an incremental'} base backup of the cluster, and proves it.",
        job=job,
        cron_schedule=cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def base_backup_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = datetime.now(timezone.utc)
        return plan_base_backup(settings, context.scheduled_execution_time, now, _config(asset, full=full))

    return base_backup_schedule


def plan_replacement(
    settings: DatabaseSettings, survey: WalSurvey, now: datetime, asset: dg.AssetsDefinition
) -> dg.RunRequest | None:
    """The run of a full backup that an archive needs; the same run key as long as it needs it for the same reason."""
    if needs_new_base(survey) is None:
        return None
    behind = survey.base.id if survey.base else "none"
    return dg.RunRequest(
        partition_key=week_of(now, settings.zone),
        run_key=f"{settings.name}-base-backup-for-{survey.system_identifier}-{behind}",
        run_config=_config(asset, full=True),
    )


def _config(asset: dg.AssetsDefinition, *, full: bool) -> dict[str, Any]:
    return {"ops": {asset.op.name: {"config": {"full": full}}}}


def plan_base_backup(
    settings: DatabaseSettings, scheduled: datetime, now: datetime, config: Mapping[str, Any]
) -> dg.RunRequest | dg.SkipReason:
    """The run for a tick. One that is caught up in a later week is skipped: the past cannot be copied."""
    partition = week_of(scheduled, settings.zone)
    try:
        require_this_week(partition, now, settings.zone)
    except ConfigError as error:
        return dg.SkipReason(f"{error.code}: {error.message}")
    run_key = f"{settings.name}-base-backup-{scheduled.isoformat()}"
    return dg.RunRequest(partition_key=partition, run_key=run_key, run_config=config)
