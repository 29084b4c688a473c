"""The asset of the base backup, with the checks of what is stored."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, failure, from_check, step
from gs_backup_assets.assets.logical import source_key
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite_check import CHECK as OFFSITE_CHECK
from gs_backup_assets.recovery.physical.base_backup_verb import BaseBackup, base_backup
from gs_backup_assets.recovery.stored.stored_bytes import CHECK as STORED_CHECK
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.vault.store import Store


def base_backup_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "base_backup"])


class BaseBackupConfig(dg.Config):
    """`full` demands a full backup; otherwise one that adds to the newest chain is taken where that is possible."""

    full: bool = False


def build_base_backup(
    settings: DatabaseSettings,
    weeks: dg.WeeklyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The base backups of the week."""
    key = base_backup_key(settings)
    check_specs = [
        dg.AssetCheckSpec(
            STORED_CHECK,
            asset=key,
            blocking=True,
            partitions_def=weeks,
            description="Every stored byte, read back, has the size and SHA-256 that the manifest gives.",
        )
    ]
    if settings.stores.offsite is not None:
        check_specs.append(
            dg.AssetCheckSpec(
                OFFSITE_CHECK,
                asset=key,
                blocking=True,
                partitions_def=weeks,
                description="Every object of the off-site copy has the size and SHA-256 that the manifest gives.",
            )
        )

    @dg.asset(
        key=key,
        partitions_def=weeks,
        deps=[source_key(settings)],
        group_name=settings.name,
        kinds={"postgres", "backup"},
        owners=list(settings.owners),
        pool=f"pg_{settings.name}",
        retry_policy=retry,
        check_specs=check_specs,
        description=(
            "A **pg_basebackup** of the whole cluster in the primary store, full or incremental, read back and copied "
            "off-site: with the archived WAL it leads to any moment after it. A partition is a week, from its Sunday "
            "on, and holds what was taken in it: any other week than this one is refused. It fails when the server, "
            "the rights, the programs or the store do not allow a backup, or when what is stored is not what was "
            "written; the message has a code and says what to do. `gs-backup doctor` looks at each of them."
        ),
    )
    def base_backup_asset(
        context: dg.AssetExecutionContext, config: BaseBackupConfig, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress:
            taken = base_backup(
                settings,
                vault.open(settings),
                context.partition_key,
                progress,
                full=config.full,
                by=author(context),
                told=context.log.warning,
            )
            store = vault.open(settings).primary
        for check in taken.checks:
            yield from_check(key, check, blocking=True)
        _require_passed(taken.checks)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(f"sha256:{taken.entry.manifest_sha256}"),
            metadata=_metadata(store, taken, progress),
        )

    return base_backup_asset


def _require_passed(checks: tuple[CheckResult, ...]) -> None:
    for check in checks:
        if check.status is Status.FAILED:
            finding = check.findings[0]
            raise failure(ProofFailed(finding.code, finding.message, finding.hint))


def _metadata(store: Store, taken: BaseBackup, progress: Progress) -> dict[str, Any]:
    manifest = taken.entry.require_manifest()
    metadata: dict[str, Any] = {
        keys.BACKUP_ID: manifest.id,
        keys.BASE: manifest.base or "none: it is a full backup",
        keys.CHAIN_LENGTH: taken.chain_length,
        keys.STORE: f"{store.describe()}/{manifest.folder}",
        keys.STORED_BYTES: manifest.stored_bytes,
        keys.SOURCE_BYTES: manifest.cluster_bytes,
        keys.COMPRESSION_RATIO: taken.compression_ratio,
        keys.WAL_BYTES: taken.wal_bytes,
        keys.COPIED_BYTES: taken.copied_bytes,
        keys.FILES: len(manifest.files),
        keys.ENCRYPTED: manifest.encryption is not None,
        keys.WARNINGS: len(manifest.warnings),
        keys.SERVER_RELEASE: manifest.server.release,
        keys.PROGRAMS_RELEASE: manifest.programs,
        keys.LSN: manifest.start_lsn,
        keys.SYSTEM_IDENTIFIER: manifest.system_identifier,
    }
    return {**metadata, **{keys.stage_seconds(name): round(s, 3) for name, s in progress.seconds.items()}}
