"""The asset of the off-site copy, and its check."""

from collections.abc import Iterator

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, failure, from_check, step
from gs_backup_assets.assets.logical import backup_of_partition, checksum_key, sweep_attempts
from gs_backup_assets.catalogue.audit import note
from gs_backup_assets.catalogue.catalogue import catalogue_of
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.recovery.offsite.copying import copy_and_compare, copy_log
from gs_backup_assets.recovery.offsite.offsite import AUDIT_CHECK, mirror_beside, mirror_log, uncopied
from gs_backup_assets.recovery.offsite.offsite_check import CHECK, read_back_copies
from gs_backup_assets.recovery.wal.offsite import CHECK as WAL_CHECK
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.vault.opening import Vault

# Older backups that a run brings beside its own: after an outage the copies are complete again in some days.
_CAUGHT_UP = 3


def offsite_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "offsite_copy"])


class OffsiteCopyConfig(dg.Config):
    """`read_back` copies nothing, and reads every byte of the day's copies."""

    read_back: bool = False


def build_offsite_copy(
    settings: DatabaseSettings,
    days: dg.DailyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The copy of the day's newest backup in the off-site store."""
    key = offsite_key(settings)

    @dg.asset(
        key=key,
        partitions_def=days,
        deps=[checksum_key(settings)],
        group_name=settings.name,
        kinds={settings.stores.offsite.kind} if settings.stores.offsite else set(),
        owners=list(settings.owners),
        retry_policy=retry,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                blocking=True,
                partitions_def=days,
                description=(
                    "Every object of the copy has the size and SHA-256 that the manifest gives: by what the store "
                    "itself says of it, and from time to time by reading every byte back."
                ),
            ),
            dg.AssetCheckSpec(
                AUDIT_CHECK,
                asset=key,
                partitions_def=days,
                description="The audit log goes on from its copy off-site: nobody changed what was copied before.",
            ),
            *([_wal_check(key, days)] if settings.wal is not None else []),
        ],
        description=(
            "The day's newest backup in the **off-site store**: what is missing there is brought, the manifest last, "
            "each part checked by the server; then the copy is compared. Broken off, it goes on where it was. Up to "
            "three older backups that have no copy are brought as well, base backups too, and all write-ahead log that "
            "is missing there. "
            "`verified_restore` proves this copy: it is the one that one would use. It fails when the store cannot be "
            "reached or refuses, when the primary copy is damaged, or when the copy is not what the manifest says."
        ),
    )
    def offsite_copy(
        context: dg.AssetExecutionContext, config: OffsiteCopyConfig, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        if config.read_back:
            yield from _read_back(context, settings, vault.open(settings), listener)
        else:
            yield from _copy(context, settings, vault.open(settings), listener)

    return offsite_copy


def _wal_check(key: dg.AssetKey, days: dg.DailyPartitionsDefinition) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        WAL_CHECK,
        asset=key,
        blocking=False,
        partitions_def=days,
        description=(
            "All write-ahead log of the primary store is off-site as well; nothing there is another than here, and "
            "nothing that is damaged here was brought."
        ),
    )


def _copy(
    context: dg.AssetExecutionContext, settings: DatabaseSettings, stores: Vault, listener: ListenerFactory
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    key = offsite_key(settings)
    primary, offsite = stores.primary, stores.store("offsite")
    with step(context, listener) as progress:
        entry = backup_of_partition(settings, primary, context.partition_key)
        copied, result = copy_and_compare(stores, entry, progress, by=author(context), told=context.log.warning)
        caught_up = 0
        waiting = uncopied(primary, offsite, settings.name)
        for summary in waiting[:_CAUGHT_UP] if result.status is Status.PASSED else ():
            try:
                older = catalogue_of(primary, settings.name, summary.kind).find(summary.id)
                _, compared = copy_and_compare(stores, older, progress, by=author(context), told=context.log.warning)
                caught_up += compared.status is Status.PASSED
            except ProofFailed as error:  # an old backup that is damaged is no reason to fail today's
                context.log.warning(f"{summary.id} could not be copied. {error}")
        log = copy_log(stores, settings.name, progress, by=author(context), told=context.log.warning)
        brought = mirror_beside(primary, offsite, settings.name)
        mirrored = mirror_log(primary, offsite, settings.name, by=author(context))
    _, unswept = sweep_attempts(offsite, settings.name)
    if unswept is not None:
        context.log.warning(f"Unfinished copies could not be swept: {unswept}")
    yield from _checked(key, result)
    yield from_check(key, mirrored, blocking=False)
    if settings.wal is not None:
        yield from_check(key, log.check, blocking=False)
    for finding in log.findings:
        context.log.warning(f"{finding.code}: {finding.message} {finding.hint}")
    left = len(waiting) - caught_up
    if left:
        context.log.warning(f"{left} older backups have no copy off-site; `gs-backup copy` brings all of them at once.")
    seconds = progress.seconds["copy"]
    yield dg.MaterializeResult(
        asset_key=key,
        data_version=dg.DataVersion(f"sha256:{entry.manifest_sha256}"),
        metadata={
            keys.BACKUP_ID: entry.id,
            keys.STORE: f"{offsite.describe()}/{entry.folder}",
            keys.FILES: copied.files + copied.present,
            keys.COPIED_BYTES: copied.copied_bytes,
            keys.STORED_BYTES: entry.require_manifest().stored_bytes,
            keys.PROOFS_COPIED: brought,
            keys.WAL_COPIED_BYTES: log.copied_bytes,
            keys.UNCOPIED_BACKUPS: left,
            keys.COPIED_MB_PER_SECOND: round(copied.copied_bytes / 1e6 / max(seconds, 1e-6), 1),
            **{keys.stage_seconds(name): round(s, 3) for name, s in progress.seconds.items()},
        },
    )


def _read_back(
    context: dg.AssetExecutionContext, settings: DatabaseSettings, stores: Vault, listener: ListenerFactory
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """The day's copies are read back, also where retention has let the primary ones go already."""
    key = offsite_key(settings)
    offsite = stores.store("offsite")
    with step(context, listener) as progress:
        with progress.stage("read back") as stage:
            result = read_back_copies(offsite, settings.name, context.partition_key, stage)
        ids = {"partition": context.partition_key}
        refusal = note(
            stores.primary,
            settings.name,
            author(context),
            "read_back",
            ids=ids,
            result=result.status.value,
            otherwise=offsite,
        )
        mirrored = mirror_log(stores.primary, offsite, settings.name, by=author(context))
    if refusal is not None:
        context.log.warning(f"The audit log could not be written. {refusal}")
    yield from _checked(key, result)
    yield from_check(key, mirrored, blocking=False)
    yield dg.MaterializeResult(
        asset_key=key,
        metadata={
            keys.STORE: offsite.describe(),
            keys.STORED_BYTES: result.metrics.get("offsite_bytes", 0),
            **{keys.stage_seconds(name): round(s, 3) for name, s in progress.seconds.items()},
        },
    )


def _checked(key: dg.AssetKey, result: CheckResult) -> Iterator[dg.AssetCheckResult]:
    yield from_check(key, result, blocking=True)
    if result.status is Status.FAILED:
        finding = result.findings[0]
        raise failure(ProofFailed(finding.code, finding.message, finding.hint))
