"""Reads files of a stored backup, decrypted, and compares every byte with the manifest while it passes by."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.manifest import BackupManifest, StoredFile
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.recovery.stored.keyring import find_cipher
from gs_backup_assets.vault.encryption import BackupCipher
from gs_backup_assets.vault.pipeline import BLOCK, Counting, Hashing, drain
from gs_backup_assets.vault.store import Source, Store

ANOTHER = "Use another backup, or another copy of this one; `gs-backup list` shows which are proven."


@dataclass(frozen=True)
class Attempt:
    """What became of reading a file: whether it is intact, and what stood in the way of its use."""

    intact: bool
    error: StoreError | None


@dataclass(frozen=True)
class CheckedReading:
    """The files of one backup in one store."""

    store: Store
    manifest: BackupManifest
    cipher: BackupCipher | None

    @classmethod
    def of(cls, settings: DatabaseSettings, store: Store, manifest: BackupManifest) -> CheckedReading:
        """With the backup's key; errors as for `find_cipher`."""
        return cls(store, manifest, find_cipher(store, manifest, settings.encryption, settings.folder))

    def read(
        self, file: StoredFile, use: Callable[[Source], object], moved: Callable[[int], None] = lambda _size: None
    ) -> None:
        """Give a file's bytes, decrypted, to `use`; `moved` hears of stored bytes that were read.

        Raises StoreError: `FILE_DIFFERS`, `OBJECT_MISSING`, and what `use` and the store raise. Bytes that are not the
        stored ones are told as such, whatever `use` stumbled over because of them.
        """
        attempt = self.attempt(file, use, moved)
        if attempt.intact:
            return
        name = f"{self.manifest.folder}/{file.stored_path}"
        with self.store.open(name) as stream:
            stored = Hashing(stream)
            drain(stored)
        if (stored.size, stored.sha256) != (file.stored.size, file.stored.sha256):
            raise StoreError("FILE_DIFFERS", f"{name} is not what was stored: it has another SHA-256.", ANOTHER)
        if attempt.error is not None:
            raise attempt.error
        raise StoreError("FILE_DIFFERS", f"{name}: what comes out is not what the manifest says.", ANOTHER)

    def attempt(self, file: StoredFile, use: Callable[[Source], object], moved: Callable[[int], None]) -> Attempt:
        """Give a file's bytes, decrypted, to `use`, and tell whether they are the ones that were backed up.

        Every byte of an envelope is authenticated: of those with the right size that give the right contents, only
        somebody who has the key could make another. So one digest is enough, and only what fails is read once more.
        """
        with self.store.open(f"{self.manifest.folder}/{file.stored_path}") as stream:
            stored = Hashing(stream, moved) if self.cipher is None else Counting(stream, moved)
            plain = stored if isinstance(stored, Hashing) else self._plain(stored, file)
            error: StoreError | None = None
            try:
                use(plain)
                drain(plain)
                drain(stored)  # behind the end of an envelope there must be nothing
            except StoreError as raised:
                error = raised
        right = (stored.size, plain.size, plain.sha256) == (file.stored.size, file.size, file.sha256)
        return Attempt(error is None and right, error)

    def _plain(self, stored: Counting, file: StoredFile) -> Hashing:
        assert self.cipher is not None
        return Hashing(self.cipher.decrypting(stored, file.path))

    def copy_out(self, path: str, into: Path) -> None:
        """One file into a new private file. StoreError as for `read`, and `FILE_MISSING` when the backup has none."""
        file = next((file for file in self.manifest.files if file.path == path), None)
        if file is None:
            raise StoreError("FILE_MISSING", f"{self.manifest.folder} has no {path}.", ANOTHER)
        with open(os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:

            def write(source: Source) -> None:
                while block := source.read(BLOCK):
                    sink.write(block)

            self.read(file, write)
