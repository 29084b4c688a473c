"""Moves backups to the current key: their data keys are wrapped again, nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.audit import AuditLog, Author, failure_noted
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_sections import Encryption
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, StoreError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.key_survey import wrappings_in
from gs_backup_assets.recovery.keyring import OF_THE_BACKUP, key_for_new_backups, rewrap, wrapping_by
from gs_backup_assets.vault.keys import MasterKey
from gs_backup_assets.vault.opening import Which
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class Rewrapped:
    """What came of it: the key, and ids of backups that were moved to it, that are left as they were, and why.

    `as_they_were` counts those that were under that key already, `plain` those that are not encrypted.
    """

    key_id: str
    moved: tuple[str, ...]
    as_they_were: int
    plain: int
    failed: dict[str, BackupError]


def rewrap_backups(
    settings: DatabaseSettings,
    stores: Mapping[Which, Store],
    progress: Progress,
    *,
    by: Author,
    only: str | None = None,
) -> dict[Which, Rewrapped]:
    """Wrap the data keys of all backups, or of one, with the current key, in every given store that has them.

    Each store's audit log tells of it before anything is touched, and again when it is done. A backup that cannot be
    moved stays as it is, and the others go on. Raises ConfigError (`NO_ENCRYPTION`, `BACKUP_NOT_FOUND`, as `load_key`)
    and StoreError (`KEY_REFUSED`, `KEY_UNAVAILABLE`, and what the store raises).
    """
    encryption = settings.encryption
    if encryption is None:
        words = f"backup.yaml names no key for {settings.name}."
        raise ConfigError("NO_ENCRYPTION", words, "Add a section `encryption`; docs/encryption.md shows how.")
    master = key_for_new_backups(encryption, settings.name, settings.folder)
    chosen = None if only is None else _id_of(only, stores.values(), settings.name)
    return {
        which: _rewrap_store(
            Catalogue(store, settings.name), encryption, settings.folder, master, by=by, only=chosen, progress=progress
        )
        for which, store in stores.items()
    }


def _id_of(wanted: str, stores: Iterable[Store], database: str) -> str:
    """The id of a backup that one of the stores has."""
    missing: ConfigError | None = None
    for store in stores:
        try:
            return Catalogue(store, database).find(wanted).id
        except ConfigError as error:
            missing = missing or error
    assert missing is not None
    raise missing


def _rewrap_store(
    catalogue: Catalogue,
    encryption: Encryption,
    folder: Path,
    master: MasterKey,
    *,
    by: Author,
    only: str | None,
    progress: Progress,
) -> Rewrapped:
    store, database = catalogue.store, catalogue.database
    backups = [backup for backup in catalogue.summaries() if only in (None, backup.id)]
    wrappings = wrappings_in(store, database)
    encrypted = [backup for backup in backups if backup.key_id is not None or backup.folder in wrappings]
    due = [backup.id for backup in encrypted if wrappings.get(backup.folder) != (wrapping_by(master),)]
    moved: list[str] = []
    failed: dict[str, BackupError] = {}
    if due:
        ids = {"key": master.id} if only is None else {"key": master.id, "backup": only}
        log = AuditLog(store, database)
        log.append(by, "rewrap", ids, "started", {"backups": len(due)})
        with failure_noted(store, database, by, "rewrap", ids=ids), progress.stage("rewrap") as stage:
            for backup_id in due:
                try:
                    _move(catalogue, backup_id, encryption, folder)
                    moved.append(backup_id)
                except (NotVerifiable, StoreError) as error:
                    if isinstance(error, StoreError) and error.code not in OF_THE_BACKUP:
                        raise
                    failed[backup_id] = error
                stage.advance(1, len(due), "backups")
        log.append(by, "rewrap", ids, "incomplete" if failed else "done", {"moved": len(moved), "failed": len(failed)})
    return Rewrapped(master.id, tuple(moved), len(encrypted) - len(due), len(backups) - len(encrypted), failed)


def _move(catalogue: Catalogue, backup_id: str, encryption: Encryption, folder: Path) -> None:
    entry = catalogue.find(backup_id)
    if entry.manifest is None:
        damage = entry.require_damage()
        raise NotVerifiable(damage.code, damage.message, damage.hint)
    rewrap(catalogue.store, entry.manifest, encryption, folder)
