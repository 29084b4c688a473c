"""The job of the disaster recovery: the same as `gs-backup disaster-recover`, started by people and by nothing else."""

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, step
from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.disaster.disaster import Recovered, Request, recover_from_disaster
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.words import disaster_job_name


class DisasterConfig(dg.Config):
    """What whoever launches it says. `confirm` is the name of the database: nobody begins this by accident."""

    confirm: str
    restart: bool = False
    force: bool = False


def build_disaster_job(settings: DatabaseSettings, listener: ListenerFactory) -> dg.JobDefinition:
    """One op, no schedule. A run that failed is launched again: it goes on with the step that was not done."""

    @dg.op(
        name=f"{settings.name}_recover_from_disaster",
        description="All steps, each in the log with its time. The report is in the metadata.",
    )
    def recover_op(context: dg.OpExecutionContext, config: DisasterConfig, vault: VaultResource) -> None:
        with step(context, listener) as progress:  # type: ignore[arg-type]
            if config.confirm != settings.name:
                raise ConfigError(
                    "NOT_CONFIRMED", "The run was not confirmed.", f"Launch it with confirm: {settings.name}."
                )
            done = recover_from_disaster(
                settings,
                vault.open(settings),
                Request(restart=config.restart, force=config.force),
                progress,
                by=Author.here(f"dagster run {context.run_id[:8]}"),
                tell=context.log.info,
            )
        if done.not_reported is not None:
            context.log.warning(str(done.not_reported))
        context.add_output_metadata(_metadata(done))

    @dg.job(
        name=disaster_job_name(settings.name),
        executor_def=dg.in_process_executor,
        description=(
            f"**After the complete loss of {settings.name}**: newest copy, recovery to the last recoverable commit (or "
            "the newest proven dump), checks, your hooks, health address, report. Nothing starts it but people, with "
            "`confirm`. Launched again after a failure, it goes on with the step that was not done. "
            "`gs-backup disaster-recover --dry-run` prints the runbook; docs/disaster-recovery.md explains it."
        ),
        tags={"gs_backup/database": settings.name},
    )
    def disaster_recovery() -> None:
        recover_op()

    return disaster_recovery


def _metadata(done: Recovered) -> dict[str, dg.MetadataValue]:
    report = done.report
    rows = [
        f"| {one.data_class} | {'?' if one.lost is None else round(one.lost, 1)} | {one.rpo_target:.0f}"
        f" | {one.rpo.value} | {one.recovered:.1f} | {one.rto_target:.0f} | {one.rto.value} |"
        for one in report.objectives
    ]
    head = "| class | lost s | RPO s | | back after s | RTO s | |\n|---|---:|---:|---|---:|---:|---|"
    numbers = {keys.stage_seconds(line.name): dg.MetadataValue.float(line.seconds) for line in report.steps}
    return {
        keys.STATUS: dg.MetadataValue.text(report.status.value),
        keys.BACKUP_ID: dg.MetadataValue.text(report.backup),
        keys.STORE: dg.MetadataValue.text(report.store),
        keys.RECOVERY_SECONDS: dg.MetadataValue.float(report.recovery_seconds),
        **({keys.LOST_SECONDS: dg.MetadataValue.float(report.lost_seconds)} if report.lost_seconds is not None else {}),
        keys.OBJECTIVES: dg.MetadataValue.md("\n".join([head, *rows])),
        **({keys.REPORT: dg.MetadataValue.path(str(done.html))} if done.html is not None else {}),
        **numbers,
    }
