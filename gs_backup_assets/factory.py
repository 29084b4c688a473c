"""Builds the Dagster definitions from a configuration: one graph for each database."""

from __future__ import annotations

import warnings
from datetime import date

import dagster as dg

from gs_backup_assets.assets.common import ListenerFactory, StepLog
from gs_backup_assets.assets.costs import build_cost_report
from gs_backup_assets.assets.disaster import build_disaster_job
from gs_backup_assets.assets.logical import build_backup_checksum, build_logical_backup, build_source
from gs_backup_assets.assets.objectives import build_objectives, build_objectives_sensor
from gs_backup_assets.assets.offsite import build_offsite_copy
from gs_backup_assets.assets.policy import build_retention
from gs_backup_assets.assets.proof import build_proof
from gs_backup_assets.assets.replicas import build_replica_sensor, build_replica_status
from gs_backup_assets.assets.staging import build_staging_test
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.config import BackupConfig
from gs_backup_assets.factory_physical import build_physical
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.schedules import build_costs, build_daily, build_read_back, build_staging
from gs_backup_assets.sensors import build_sensors

# Steps cross a network to the source and the store: errors that may pass by themselves are tried again.
RETRY = dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL)


def build_definitions(
    config: BackupConfig, *, listener: ListenerFactory = StepLog, retry: dg.RetryPolicy | None = RETRY
) -> dg.Definitions:
    """One graph for each database. `listener` receives the progress of steps, `retry` says what is tried again."""
    days = dg.DailyPartitionsDefinition(config.first_partition, timezone=config.timezone, end_offset=1)
    # Months begin with the first day's, so that every day lies in one.
    months = dg.MonthlyPartitionsDefinition(f"{config.first_partition[:7]}-01", timezone=config.timezone, end_offset=1)
    # Weeks begin on Sunday; the first is the one of the first day.
    weeks = dg.WeeklyPartitionsDefinition(
        WEEK.of_day(date.fromisoformat(config.first_partition)), timezone=config.timezone, day_offset=0, end_offset=1
    )
    assets: list[dg.AssetsDefinition | dg.SourceAsset] = []
    jobs, schedules = [], []
    reporters: list[dg.SensorDefinition] = []
    disaster_jobs: list[dg.JobDefinition] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks
        warnings.simplefilter("ignore", dg.BetaWarning)  # the observable source
        databases = [config.database(name) for name in config.names()]
        for settings in databases:
            chain = [
                build_logical_backup(settings, days, listener, retry),
                build_backup_checksum(settings, days, listener, retry),
                build_proof(settings, days, listener, retry),
            ]
            if settings.stores.offsite is not None:
                copy = build_offsite_copy(settings, days, listener, retry)
                chain.insert(2, copy)
                read_back, reading_back = build_read_back(settings, days, copy)
                jobs.append(read_back)
                schedules.append(reading_back)
            if settings.retention is not None:
                chain.append(build_retention(settings, listener, retry))
            daily_job, daily = build_daily(settings, days, chain)
            costs = build_cost_report(settings, months, listener, retry)
            cost_job, monthly = build_costs(settings, months, costs)
            assets += [build_source(settings), *chain, costs, build_objectives(settings, listener)]
            part = build_physical(settings, days, weeks, listener, retry)
            assets += part.assets
            jobs += part.jobs
            schedules += part.schedules
            reporters += part.sensors
            if settings.replicas:
                assets.append(build_replica_status(settings, listener))
                reporters.append(build_replica_sensor(settings))
            if settings.staging is not None:
                staging_test = build_staging_test(settings, months, listener)
                staging_job, testing = build_staging(settings, settings.staging, months, staging_test)
                assets.append(staging_test)
                jobs.append(staging_job)
                schedules.append(testing)
            if settings.disaster_recovery is not None:
                disaster_jobs.append(build_disaster_job(settings, listener))
            jobs += [cost_job, daily_job]
            schedules += [monthly, daily]
        specs = [spec for asset in assets if isinstance(asset, dg.AssetsDefinition) for spec in asset.check_specs]
        checks = {spec.key: spec.partitions_def for spec in specs}
        reporters.append(build_objectives_sensor(databases))
        sensors = [*build_sensors(config, databases, checks), *reporters]
        resources = {"vault": VaultResource()}
        return dg.Definitions(
            assets=assets, jobs=[*jobs, *disaster_jobs], schedules=schedules, sensors=sensors, resources=resources
        )
