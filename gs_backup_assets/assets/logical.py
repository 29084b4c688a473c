"""The assets of the daily dump: the observed source, the logical backup, and the check of its stored bytes."""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, failure, from_check, step
from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry, catalogue_of
from gs_backup_assets.catalogue.manifest import KINDS, Manifest
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, ProofFailed, StoreError
from gs_backup_assets.postgres.connection import connect, query, server_facts, target_from_environment
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.stored_bytes import CHECK, check_stored_bytes, write_sums
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.vault.opening import Vault
from gs_backup_assets.vault.store import Store


def source_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "source_database"])


def backup_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "logical_backup"])


def checksum_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "backup_checksum"])


def backup_of_partition(settings: DatabaseSettings, store: Store, partition: str) -> Entry:
    """The newest backup of a day in a store; ConfigError (`NO_BACKUP_IN_PARTITION`) when the day has none."""
    entry = Catalogue(store, settings.name).latest(partition)
    if entry is None:
        raise ConfigError(
            "NO_BACKUP_IN_PARTITION",
            f"There is no backup of {settings.name} for {partition} in {store.describe()}.",
            "Backups are taken on their own day only: choose a day that `gs-backup list` shows. To the off-site store "
            "`offsite_copy` brings it.",
        )
    return entry


def build_source(settings: DatabaseSettings) -> dg.SourceAsset:
    """The production database, which is observed and never written to."""

    @dg.observable_source_asset(
        key=source_key(settings).path,
        group_name=settings.name,
        tags={"dagster/kind/postgres": ""},
        description=(
            f"The PostgreSQL database that `{settings.url_env}` names. **Observing** it records its version, size, "
            "LSN and number of tables; nothing is changed. It fails when the server cannot be reached: run "
            "`gs-backup doctor`, which looks at each thing that a backup needs."
        ),
    )
    def source_database(context: dg.OpExecutionContext) -> dg.ObserveResult:
        with connect(target_from_environment(settings.url_env)) as connection:
            facts = server_facts(connection)
            (tables,) = query(
                connection,
                "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"
                " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'",
            )[0]
        return dg.ObserveResult(
            data_version=dg.DataVersion(facts.lsn or "unknown"),
            metadata={
                keys.SERVER_RELEASE: str(facts.release),
                keys.SOURCE_BYTES: facts.database_bytes,
                keys.TABLES: tables,
                keys.LSN: facts.lsn or "unknown",
                keys.SYSTEM_IDENTIFIER: facts.system_identifier or "unknown",
            },
        )

    return source_database


def build_logical_backup(
    settings: DatabaseSettings,
    days: dg.DailyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The dump of the day."""

    @dg.asset(
        key=backup_key(settings),
        partitions_def=days,
        deps=[source_key(settings)],
        group_name=settings.name,
        kinds={"postgres", "backup"},
        owners=list(settings.owners),
        pool=f"pg_{settings.name}",
        retry_policy=retry,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=settings.alerts.stale_after),
        description=(
            "A **pg_dump** in directory format with roles and settings, and the fingerprint of every table under the "
            "same snapshot, in the primary store. A partition holds what was taken on that day: any other day than "
            "today is refused, a second run on the same day makes a second backup. It fails when the server, the "
            "rights, the programs or the store do not allow a backup; the message has a code and says what to do."
        ),
    )
    def logical_backup(context: dg.AssetExecutionContext, vault: VaultResource) -> dg.MaterializeResult:
        with step(context, listener) as progress:
            target = target_from_environment(settings.url_env)
            stores = vault.open(settings)
            store = stores.primary
            by = author(context)
            day = {"partition": context.partition_key}
            with failure_noted(store, settings.name, by, "backup", ids=day, otherwise=stores.offsite):
                manifest = take_backup(settings, target, store, context.partition_key, progress)
            unwritten = [_note_backup(stores, manifest, by)]
        swept, unswept = sweep_attempts(store, settings.name)
        for folder in swept:
            unwritten.append(note(store, settings.name, by, "sweep", ids={"folder": folder}, result="removed"))
        for refusal in filter(None, unwritten):
            context.log.warning(f"The audit log could not be written. {refusal}")
        if unswept is not None:
            context.log.warning(f"Unfinished attempts could not be swept: {unswept}")
        for warning in manifest.warnings:
            context.log.warning(warning)
        for omission in manifest.omissions:
            context.log.warning(f"left out: {omission.kind} {omission.name}: {omission.reason}")
        context.log_event(_observation(settings, manifest))
        entry = backup_of_partition(settings, store, context.partition_key)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(f"sha256:{entry.manifest_sha256}"),
            metadata=_backup_metadata(store, manifest),
        )

    return logical_backup


def sweep_attempts(store: Store, database: str) -> tuple[list[str], StoreError | None]:
    """Remove unfinished attempts. The backup is there already: a role that may not delete is no reason to fail."""
    now = datetime.now(timezone.utc)
    try:
        return [folder for kind in KINDS for folder in catalogue_of(store, database, kind).sweep(now)], None
    except StoreError as error:
        return [], error


def _note_backup(stores: Vault, manifest: Manifest, by: Author) -> StoreError | None:
    return note(
        stores.primary,
        manifest.database,
        by,
        "backup",
        ids={"backup": manifest.id, "partition": manifest.partition},
        result="stored",
        details={"files": len(manifest.files), "stored_bytes": manifest.stored_bytes},
        otherwise=stores.offsite,
    )


def _observation(settings: DatabaseSettings, manifest: Manifest) -> dg.AssetObservation:
    metadata: dict[str, str | int] = {
        keys.SERVER_RELEASE: manifest.server.release,
        keys.SOURCE_BYTES: manifest.source.total_bytes,
        keys.TABLES: len(manifest.fingerprint.tables),
        keys.LSN: manifest.server.lsn or "unknown",
        keys.SYSTEM_IDENTIFIER: manifest.server.system_identifier or "unknown",
    }
    return dg.AssetObservation(asset_key=source_key(settings), metadata=metadata)


def _backup_metadata(store: Store, manifest: Manifest) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        keys.BACKUP_ID: manifest.id,
        keys.STORE: f"{store.describe()}/{manifest.folder}",
        keys.STORED_BYTES: manifest.stored_bytes,
        keys.SOURCE_BYTES: manifest.source.total_bytes,
        keys.COMPRESSION_RATIO: round(manifest.source.total_bytes / max(1, manifest.stored_bytes), 2),
        keys.ROWS: manifest.fingerprint.rows,
        keys.TABLES: len(manifest.fingerprint.tables),
        keys.FILES: len(manifest.files),
        keys.ENCRYPTED: manifest.encryption is not None,
        keys.OMISSIONS: len(manifest.omissions),
        keys.WARNINGS: len(manifest.warnings),
        keys.SERVER_RELEASE: manifest.server.release,
        keys.PROGRAMS_RELEASE: manifest.dump.programs,
        keys.LSN: manifest.server.lsn or "unknown",
    }
    metadata.update({keys.stage_seconds(name): round(s, 3) for name, s in manifest.stage_seconds.items()})
    return metadata


def build_backup_checksum(
    settings: DatabaseSettings,
    days: dg.DailyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The check of the stored bytes."""
    key = checksum_key(settings)

    @dg.asset(
        key=key,
        partitions_def=days,
        deps=[backup_key(settings)],
        group_name=settings.name,
        kinds={"sha256"},
        owners=list(settings.owners),
        retry_policy=retry,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                blocking=True,
                partitions_def=days,
                description="Every stored byte, read back, has the size and SHA-256 that the manifest gives.",
            )
        ],
        description=(
            "Reads every stored byte of the day's newest backup back, compares it with the manifest, and writes "
            "`SHA256SUMS`, so that `sha256sum -c SHA256SUMS` in the backup's folder checks it without this software. "
            "It fails when a file is missing, cut, longer or different: use another backup and find out who changed it."
        ),
    )
    def backup_checksum(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress:
            store = vault.open(settings).primary
            entry = backup_of_partition(settings, store, context.partition_key)
            with progress.stage("checksum") as stage:
                result = check_stored_bytes(store, entry, stage)
            if result.status is Status.PASSED:
                write_sums(store, entry)
        yield from_check(key, result, blocking=True)
        if result.status is not Status.PASSED:
            finding = result.findings[0]
            raise failure(ProofFailed(finding.code, finding.message, finding.hint))
        manifest = entry.require_manifest()
        seconds = progress.seconds["checksum"]
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(f"sha256:{entry.manifest_sha256}"),
            metadata={
                keys.BACKUP_ID: entry.id,
                keys.FILES: len(manifest.files),
                keys.STORED_BYTES: manifest.stored_bytes,
                keys.stage_seconds("checksum"): round(seconds, 3),
                keys.CHECKED_MB_PER_SECOND: round(manifest.stored_bytes / 1e6 / max(seconds, 1e-6), 1),
            },
        )

    return backup_checksum
