"""A base backup as verbs and assets take it: put on record, its stored bytes read back, copied off-site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.connection import target_from_environment
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.copying import copy_and_compare
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes, write_sums
from gs_backup_assets.vault.opening import Vault


@dataclass(frozen=True)
class BaseBackup:
    """What was taken, and what came of checking it. `offsite` is None without an off-site store, or a sound backup.

    `chain_length` counts the backups that a restore needs, this one included. `copied_bytes` went off-site.
    """

    entry: PhysicalEntry
    chain_length: int
    stored: CheckResult
    offsite: CheckResult | None
    copied_bytes: int

    @property
    def wal_bytes(self) -> int:
        """WAL between the backup's beginning and its end, in bytes."""
        manifest = self.entry.require_manifest()
        return Lsn.parse(manifest.stop_lsn).value - Lsn.parse(manifest.start_lsn).value

    @property
    def compression_ratio(self) -> float:
        manifest = self.entry.require_manifest()
        return round(manifest.unpacked_bytes / max(1, manifest.stored_bytes), 2)

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        return (self.stored,) if self.offsite is None else (self.stored, self.offsite)


def base_backup(
    settings: DatabaseSettings,
    vault: Vault,
    partition: str,
    progress: Progress,
    *,
    full: bool,
    by: Author,
    told: Callable[[str], None],
) -> BaseBackup:
    """Take a base backup, read back what is stored, and copy it off-site where that is configured.

    `told` hears of warnings. A check that does not pass is in the result and no error. Raises what the steps raise.
    """
    store = vault.primary
    target = target_from_environment(settings.physical_url_env)
    week = {"partition": partition, "kind": "physical"}
    with failure_noted(store, settings.name, by, "backup", ids=week, otherwise=vault.offsite):
        manifest = take_base_backup(settings, target, store, partition, progress, full=full)
    details = {"files": len(manifest.files), "stored_bytes": manifest.stored_bytes}
    refusal = note(
        store,
        settings.name,
        by,
        "backup",
        ids={"backup": manifest.id, **week, **({"base": manifest.base} if manifest.base else {})},
        result="stored",
        details=details,
        otherwise=vault.offsite,
    )
    for warning in (*manifest.warnings, *([f"The audit log could not be written. {refusal}"] if refusal else [])):
        told(warning)
    catalogue = PhysicalCatalogue(store, settings.name)
    entries = catalogue.entries()
    entry = next(one for one in entries if one.id == manifest.id)
    with progress.stage("checksum") as stage:
        stored = check_stored_bytes(store, entry, stage)
    sound = stored.status is Status.PASSED
    if sound:
        write_sums(store, entry)
    offsite, copied_bytes = None, 0
    if sound and vault.offsite is not None:
        copied, offsite = copy_and_compare(vault, entry, progress, by=by, told=told)
        copied_bytes = copied.copied_bytes
    _sweep(catalogue, by, told)
    return BaseBackup(entry, len(chain_of(entries, entry)), stored, offsite, copied_bytes)


def _sweep(catalogue: PhysicalCatalogue, by: Author, told: Callable[[str], None]) -> None:
    """Remove unfinished attempts. The backup is there: a role that may not delete is no reason to fail."""
    try:
        for folder in catalogue.sweep(datetime.now(timezone.utc)):
            refusal = note(catalogue.store, catalogue.database, by, "sweep", ids={"folder": folder}, result="removed")
            if refusal is not None:
                told(f"The audit log could not be written. {refusal}")
    except StoreError as error:
        told(f"Unfinished attempts could not be swept: {error}")
