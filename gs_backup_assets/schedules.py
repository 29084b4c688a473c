"""Jobs and their schedules. A tick asks for a run of its own day, week or month, and of no other."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

import dagster as dg

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.periods import DAY, MONTH, WEEK, Period
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Physical
from gs_backup_assets.config_recovery import Staging
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.offsite.offsite import due_for_reading_back
from gs_backup_assets.recovery.wal.survey import WalSurvey, needs_new_base
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.words import daily_job_name, disaster_job_name

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as Job

READ_BACK = "offsite_read_back"
COSTS = "cost_report"
BASE_BACKUP = "base_backup"
DRILL = "pitr_drill"
STAGING = "monthly_restore_test"

_Planned = dg.RunRequest | Sequence[dg.RunRequest] | dg.SkipReason
_Plan = Callable[[datetime, datetime], _Planned]


def plan_run(
    settings: DatabaseSettings,
    period: Period,
    scheduled: datetime,
    now: datetime,
    *,
    kind: str,
    config: Mapping[str, Any] | None = None,
) -> dg.RunRequest | dg.SkipReason:
    """The run for a tick. One that is caught up in a later period is skipped: the past cannot be backed up.

    Each tick is a run of its own: a cron expression may ask for several in a period.
    """
    partition = period.of(scheduled, settings.zone)
    try:
        period.require_current(partition, now, settings.zone)
    except ConfigError as error:
        return dg.SkipReason(f"{error.code}: {error.message}")
    run_key = f"{settings.name}-{kind}-{scheduled.isoformat()}"
    return dg.RunRequest(partition_key=partition, run_key=run_key, run_config=config)


def build_daily(
    settings: DatabaseSettings, days: dg.DailyPartitionsDefinition, chain: Sequence[dg.AssetsDefinition]
) -> "tuple[Job, dg.ScheduleDefinition]":
    """The whole chain in one run and one process: nothing passes between its steps but ids and digests."""
    retention = " At last the retention deletes what a newer proven backup has replaced." if settings.retention else ""
    job = _job(
        settings,
        daily_job_name(settings.name),
        days,
        chain,
        f"Backs {settings.name} up, reads the stored bytes back, restores them on a server of their own, and "
        "proves that the result equals the source's snapshot. Runs for today only; to prove older backups again, "
        f"materialise `verified_restore` for their days.{retention}",
    )
    description = "Takes the day's backup and proves it. A tick that is caught up on a later day is skipped."
    return job, _each(DAY, job, settings, "daily_backup", cron=settings.logical.schedule, description=description)


def build_read_back(
    settings: DatabaseSettings, days: dg.DailyPartitionsDefinition, copy: dg.AssetsDefinition
) -> "tuple[Job, dg.ScheduleDefinition]":
    """Reads copies back, byte for byte, each of them once in `read_back_days` days."""
    job = _job(
        settings,
        f"{settings.name}_{READ_BACK}",
        days,
        [copy],
        f"Reads every byte of an off-site copy of {settings.name} and compares it with the manifest.",
        config=_op_config(copy, read_back=True),
    )

    def plan(scheduled: datetime, _now: datetime) -> _Planned:
        today = DAY.of(scheduled, settings.zone)
        offsite = Catalogue(open_store(settings, "offsite"), settings.name)
        held = sorted({summary.partition for summary in offsite.summaries()})
        due = due_for_reading_back(held, date.fromisoformat(today), settings.stores.read_back_days)
        if not due:
            return dg.SkipReason(f"Of {len(held)} days with a copy, none has its turn today.")
        return [dg.RunRequest(partition_key=day, run_key=f"{settings.name}-read-back-{today}-{day}") for day in due]

    description = "Reads every byte of some off-site copies back, so that each has its turn in `read_back_days`."
    return job, _schedule(job, settings, READ_BACK, cron="0 5 * * *", description=description, plan=plan)


def build_costs(
    settings: DatabaseSettings, months: dg.MonthlyPartitionsDefinition, report: dg.AssetsDefinition
) -> "tuple[Job, dg.ScheduleDefinition]":
    """Makes the cost report of the month in the morning of its first day."""
    words = f"Reports what the backups of {settings.name} take up and cost. Runs for this month only."
    job = _job(settings, f"{settings.name}_{COSTS}", months, [report], words)
    description = "Reports on the first of the month what the backups take up and cost."
    return job, _each(MONTH, job, settings, COSTS, cron="0 6 1 * *", description=description)


def build_base_backups(
    settings: DatabaseSettings,
    physical: Physical,
    weeks: dg.WeeklyPartitionsDefinition,
    base_backup: dg.AssetsDefinition,
    proof: dg.AssetsDefinition,
) -> "tuple[Job, list[dg.ScheduleDefinition]]":
    """A full base backup each week, and incremental ones between them unless those are switched off."""
    job = _job(
        settings,
        f"{settings.name}_{BASE_BACKUP}",
        weeks,
        [base_backup, proof],
        f"Takes a base backup of the cluster of {settings.name}, reads it back, copies it off-site, proves it. "
        "For this week only. It adds to the newest chain where that is possible, unless its config says `full`.",
    )

    def schedule(kind: str, cron: str, *, full: bool) -> dg.ScheduleDefinition:
        words = f"Takes {'a full' if full else 'an incremental'} base backup of the cluster, and proves it."
        config = _op_config(base_backup, full=full)
        return _each(WEEK, job, settings, f"{kind}_base_backup", cron=cron, description=words, config=config)

    schedules = [schedule("full", physical.schedule, full=True)]
    if physical.incremental != "never":
        schedules.append(schedule("incremental", physical.incremental_schedule, full=False))
    return job, schedules


def plan_replacement(
    settings: DatabaseSettings, survey: WalSurvey, now: datetime, base_backup: dg.AssetsDefinition
) -> dg.RunRequest | None:
    """The run of a full backup that an archive needs; the same run key as long as it needs it for the same reason."""
    if needs_new_base(survey) is None:
        return None
    behind = survey.base.id if survey.base else "none"
    return dg.RunRequest(
        partition_key=WEEK.of(now, settings.zone),
        run_key=f"{settings.name}-base-backup-for-{survey.system_identifier}-{behind}",
        run_config=_op_config(base_backup, full=True),
    )


def build_drills(
    settings: DatabaseSettings, physical: Physical, weeks: dg.WeeklyPartitionsDefinition, drill: dg.AssetsDefinition
) -> "tuple[Job, dg.ScheduleDefinition]":
    """Recovers to a random moment each week, and proves it."""
    words = f"Recovers the cluster of {settings.name} to a random moment and proves it. For this week only."
    job = _job(settings, f"{settings.name}_{DRILL}", weeks, [drill], words)
    description = "Recovers the cluster to a random moment on a throwaway server, and proves it."
    return job, _each(WEEK, job, settings, DRILL, cron=physical.drill_schedule, description=description)


def build_staging(
    settings: DatabaseSettings, staging: Staging, months: dg.MonthlyPartitionsDefinition, test: dg.AssetsDefinition
) -> "tuple[Job, dg.ScheduleDefinition]":
    """Restores the newest proven backup on staging each month."""
    words = f"Makes the newest proven backup of {settings.name} the staging database. For this month only."
    job = _job(settings, f"{settings.name}_{STAGING}", months, [test], words)
    description = "Restores the newest proven backup on staging, and asks the application for its health."
    return job, _each(MONTH, job, settings, STAGING, cron=staging.schedule, description=description)


def job_names(database: str) -> list[str]:
    """Every job that a database may have: those whose failures are told."""
    scheduled = [f"{database}_{name}" for name in (READ_BACK, COSTS, BASE_BACKUP, DRILL, STAGING)]
    return [daily_job_name(database), disaster_job_name(database), *scheduled]


def _op_config(asset: dg.AssetsDefinition, **values: Any) -> dict[str, Any]:
    return {"ops": {asset.op.name: {"config": values}}}


def _job(
    settings: DatabaseSettings,
    name: str,
    partitions: dg.PartitionsDefinition,
    assets: Sequence[dg.AssetsDefinition],
    description: str,
    *,
    config: dict[str, Any] | None = None,
) -> "Job":
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        partitions_def=partitions,
        executor_def=dg.in_process_executor,
        config=config,
        description=description,
        tags={"gs_backup/database": settings.name},
    )


def _each(
    period: Period,
    job: "Job",
    settings: DatabaseSettings,
    name: str,
    *,
    cron: str,
    description: str,
    config: Mapping[str, Any] | None = None,
) -> dg.ScheduleDefinition:
    """A schedule whose ticks ask for a run of their own period."""

    def plan(scheduled: datetime, now: datetime) -> _Planned:
        return plan_run(settings, period, scheduled, now, kind=name, config=config)

    return _schedule(job, settings, name, cron=cron, description=description, plan=plan)


def _schedule(
    job: "Job", settings: DatabaseSettings, name: str, *, cron: str, description: str, plan: _Plan
) -> dg.ScheduleDefinition:
    """In the configured zone, and running unless somebody stops it."""

    @dg.schedule(
        name=f"{settings.name}_{name}_schedule",
        description=description,
        job=job,
        cron_schedule=cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def planned(context: dg.ScheduleEvaluationContext) -> _Planned:
        return plan(context.scheduled_execution_time, datetime.now(timezone.utc))

    return planned
