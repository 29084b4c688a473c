"""The asset of the off-site copy, and its check."""

from collections.abc import Iterator

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, failure, from_check, step
from gs_backup_assets.assets.logical import backup_of_partition, checksum_key
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.recovery.offsite import AUDIT_CHECK, copy_backup, mirror_beside, mirror_log, note_copy, uncopied
from gs_backup_assets.recovery.offsite_check import CHECK, compare_copy
from gs_backup_assets.resources import VaultResource


def offsite_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "offsite_copy"])


class OffsiteCopyConfig(dg.Config):
    """`read_back` reads every byte of the copy, instead of asking the store for its own checksums."""

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
        ],
        description=(
            "The day's newest backup in the **off-site store**: what is missing there is brought, the manifest last, "
            "each part checked by the server; then the copy is compared. Broken off, it goes on where it was. "
            "`verified_restore` proves this copy: it is the one that one would use. It fails when the store cannot be "
            "reached or refuses, when the primary copy is damaged, or when the copy is not what the manifest says."
        ),
    )
    def offsite_copy(
        context: dg.AssetExecutionContext, config: OffsiteCopyConfig, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress:
            stores = vault.open(settings)
            primary, offsite = stores.primary, stores.store("offsite")
            entry = backup_of_partition(settings, primary, context.partition_key)
            copied = copy_backup(primary, offsite, entry, progress)
            with progress.stage("compare") as stage:
                result = compare_copy(primary, offsite, entry, stage, read_back=config.read_back)
            brought = mirror_beside(primary, offsite, settings.name)
            waiting = [summary.id for summary in uncopied(primary, offsite, settings.name)]
            refusal = note_copy(stores, entry, copied, result, author(context))
            mirrored = mirror_log(primary, offsite, settings.name)
        if refusal is not None:
            context.log.warning(f"The audit log could not be written. {refusal}")
        yield from_check(key, result, blocking=True)
        yield from_check(key, mirrored, blocking=False)
        if result.status is not Status.PASSED:
            finding = result.findings[0]
            raise failure(ProofFailed(finding.code, finding.message, finding.hint))
        if waiting:
            context.log.warning(
                f"{len(waiting)} older backups have no copy off-site: {', '.join(waiting[:5])}. "
                "`gs-backup copy` brings them, or a backfill of this asset."
            )
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
                keys.UNCOPIED_BACKUPS: len(waiting),
                keys.COPIED_MB_PER_SECOND: round(copied.copied_bytes / 1e6 / max(seconds, 1e-6), 1),
                **{keys.stage_seconds(name): round(s, 3) for name, s in progress.seconds.items()},
            },
        )

    return offsite_copy
