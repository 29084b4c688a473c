"""Brings the files of a backup into a store: one pass for hash, encryption and upload, several files at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gs_backup_assets.catalogue.manifest import Envelope, StoredFile
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.encryption import SUFFIX, BackupCipher
from gs_backup_assets.vault.pipeline import Hashing
from gs_backup_assets.vault.store import Source, Store

FILES_AT_A_TIME = 3


def store_files(
    store: Store,
    paths: Iterable[tuple[str, Path]],
    folder: str,
    cipher: BackupCipher | None,
    advance: Callable[[int], None],
) -> tuple[StoredFile, ...]:
    """Store files under the paths given with them, in `folder`, and return what the manifest says of them, in order.

    `advance` hears of bytes read, from several threads. StoreError ends the work of all.
    """
    jobs = [
        partial(_store_file, store, path, name, folder=folder, cipher=cipher, advance=advance) for name, path in paths
    ]
    return side_by_side(jobs, at_a_time=FILES_AT_A_TIME, name="store")


def _store_file(
    store: Store,
    path: Path,
    name: str,
    go_on: GoOn,
    *,
    folder: str,
    cipher: BackupCipher | None,
    advance: Callable[[int], None],
) -> StoredFile:
    def moved(size: int) -> None:
        go_on()
        advance(size)

    with open(path, "rb") as stream:
        told = Told(stream, moved)
        return store_source(store, told, name, size=path.stat().st_size, folder=folder, cipher=cipher)


class Told:
    """A source that tells how many bytes are read from another one."""

    def __init__(self, source: Source, advance: Callable[[int], None]) -> None:
        self._source = source
        self._advance = advance

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._advance(len(data))
        return data


def store_source(
    store: Store, source: Source, name: str, *, size: int, folder: str, cipher: BackupCipher | None
) -> StoredFile:
    """Store bytes, of which there are about `size`, under the path `name` in `folder`; what the manifest says of them.

    A short read from the source is its end. Raises StoreError, and what the source raises: then nothing is stored.
    """
    if cipher is None:
        stored = store.put(source, f"{folder}/{name}", size=size)
        return StoredFile(path=name, size=stored.size, sha256=stored.sha256, parts=stored.parts)
    plain = Hashing(source)
    stored = store.put(cipher.encrypting(plain, name), f"{folder}/{name}{SUFFIX}", size=cipher.sealed_size(size))
    envelope = Envelope(size=stored.size, sha256=stored.sha256, parts=stored.parts)
    return StoredFile(path=name, size=plain.size, sha256=plain.sha256, envelope=envelope)
