"""Moves backups and the log to the current key: their data keys are wrapped again, nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.audit import AuditLog, Author, failure_noted
from gs_backup_assets.catalogue.catalogue import catalogue_of, find_any
from gs_backup_assets.catalogue.manifest import NAME
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import Encryption
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, StoreError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.stored.key_survey import Locked, encrypted_backups, encrypted_timelines
from gs_backup_assets.recovery.stored.keyring import (
    OF_THE_BACKUP,
    key_for_new_backups,
    rewrap,
    rewrap_place,
    wrapping_by,
)
from gs_backup_assets.vault.keys import MasterKey
from gs_backup_assets.vault.opening import Which
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class Rewrapped:
    """What came of it: the key, and names of what was moved to it, of what is left as it was, and why.

    `as_they_were` counts what was under that key already, `plain` backups that are not encrypted.
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
    """Wrap the data keys of all backups and of the log, or of one backup, with the current key, in every given store.

    Each store's audit log tells of it before anything is touched, and again when it is done. A backup that cannot be
    moved stays as it is, and the others go on. Raises ConfigError (`NO_ENCRYPTION`, `BACKUP_NOT_FOUND`, as `load_key`)
    and StoreError (`KEY_REFUSED`, `KEY_UNAVAILABLE`, and what the store raises).
    """
    encryption = settings.encryption
    if encryption is None:
        words = f"backup.yaml names no key for {settings.name}."
        raise ConfigError("NO_ENCRYPTION", words, "Add a section `encryption`; docs/encryption.md shows how.")
    master = key_for_new_backups(encryption, settings.name, settings.folder)
    chosen = None if only is None else _folder_of(only, stores.values(), settings.name)
    return {
        which: _rewrap_store(store, settings, encryption, master, by=by, only=chosen, progress=progress)
        for which, store in stores.items()
    }


def _folder_of(wanted: str, stores: Iterable[Store], database: str) -> str:
    """The folder of a backup that one of the stores has."""
    missing: ConfigError | None = None
    for store in stores:
        try:
            return find_any(store, database, wanted).folder
        except ConfigError as error:
            missing = missing or error
    assert missing is not None
    raise missing


def _rewrap_store(
    store: Store,
    settings: DatabaseSettings,
    encryption: Encryption,
    master: MasterKey,
    *,
    by: Author,
    only: str | None,
    progress: Progress,
) -> Rewrapped:
    backups, plain = encrypted_backups(store, settings.name)
    things = [*backups, *encrypted_timelines(store, settings.name)]
    if only is not None:
        things = [thing for thing in things if thing.folder == only]
        plain = int(not things and store.exists(f"{only}/{NAME}"))
    due = [thing for thing in things if thing.wrappings != (wrapping_by(master),)]
    moved: list[str] = []
    failed: dict[str, BackupError] = {}
    if due:
        ids = {"key": master.id} if only is None else {"key": master.id, "backup": due[0].name}
        log = AuditLog(store, settings.name)
        log.append(by, "rewrap", ids, "started", {"backups": len(due)})
        with failure_noted(store, settings.name, by, "rewrap", ids=ids), progress.stage("rewrap") as stage:
            for thing in due:
                try:
                    _move(store, thing, encryption, settings.folder)
                    moved.append(thing.name)
                except (NotVerifiable, StoreError) as error:
                    if isinstance(error, StoreError) and error.code not in OF_THE_BACKUP:
                        raise
                    failed[thing.name] = error
                stage.advance(1, len(due), "backups")
        log.append(by, "rewrap", ids, "incomplete" if failed else "done", {"moved": len(moved), "failed": len(failed)})
    return Rewrapped(master.id, tuple(moved), len(things) - len(due), plain, failed)


def _move(store: Store, thing: Locked, encryption: Encryption, folder: Path) -> None:
    if thing.wal:
        rewrap_place(store, thing.folder, thing.identity, encryption, folder)
        return
    database, kind = thing.folder.split("/")[:2]
    entry = catalogue_of(store, database, "physical" if kind == "physical" else "logical").find(thing.name)
    if entry.manifest is None:
        damage = entry.require_damage()
        raise NotVerifiable(damage.code, damage.message, damage.hint)
    rewrap(store, entry.manifest, encryption, folder)
