"""Opens the archive of the write-ahead log with the keys that its timelines need."""

from __future__ import annotations

import threading

from gs_backup_assets.catalogue.manifest import KEYS
from gs_backup_assets.catalogue.wal_archive import Ciphers, WalArchive, archive_folder, timeline_identity
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import DEFAULT_SEGMENT_BYTES
from gs_backup_assets.recovery.stored.keyring import key_for_new_backups, new_data_key, open_cipher
from gs_backup_assets.vault.encryption import BackupCipher
from gs_backup_assets.vault.store import Store


def open_archive(
    settings: DatabaseSettings,
    store: Store,
    system_identifier: str,
    *,
    writing: bool = False,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> WalArchive:
    """A cluster's archive in one store. For `writing` a timeline without a data key gets one, if keys are configured.

    Using it raises also what `open_cipher` and `key_for_new_backups` do.
    """
    ciphers = _ciphers(settings, store, system_identifier, writing=writing)
    return WalArchive(store, settings.name, system_identifier, ciphers, segment_bytes=segment_bytes)


def open_archive_as_stored(settings: DatabaseSettings, store: Store, system_identifier: str) -> WalArchive:
    """The same, to be read by somebody who does not know how long its segments are: one of them is read for that."""
    archive = open_archive(settings, store, system_identifier)
    size = archive.stored_segment_bytes() or DEFAULT_SEGMENT_BYTES
    if size == archive.segment_bytes:
        return archive
    return open_archive(settings, store, system_identifier, segment_bytes=size)


def _ciphers(settings: DatabaseSettings, store: Store, system_identifier: str, *, writing: bool) -> Ciphers:
    """The cipher of each timeline, asked for once: a key of KMS is asked over the network."""
    known: dict[int, BackupCipher | None] = {}
    lock = threading.Lock()

    def cipher(timeline: int) -> BackupCipher | None:
        with lock:
            if timeline not in known:
                known[timeline] = _cipher(settings, store, system_identifier, timeline, writing=writing)
            return known[timeline]

    return cipher


def _cipher(
    settings: DatabaseSettings, store: Store, system_identifier: str, timeline: int, *, writing: bool
) -> BackupCipher | None:
    folder = f"{archive_folder(settings.name, system_identifier)}/{timeline:08X}"
    identity = timeline_identity(settings.name, system_identifier, timeline)
    encryption = settings.encryption
    if writing and encryption is None:
        return None
    if writing and encryption is not None and not any(True for _ in store.objects(f"{folder}/{KEYS}")):
        master = key_for_new_backups(encryption, settings.name, settings.folder)
        try:
            return new_data_key(store, folder, identity, master)
        except StoreError as error:
            if error.code != "OBJECT_EXISTS":  # else another writer of this timeline was first: its key is ours
                raise
    return open_cipher(store, folder, identity, encryption, settings.folder)
