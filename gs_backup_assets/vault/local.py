"""A store in a folder: objects are written aside, synced to disk, and linked into place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.pipeline import copy_stream
from gs_backup_assets.vault.store import StoredObject

_ASIDE = ".partial-"
_MANIFEST = "manifest.json"


class LocalStore:
    """Objects are files below `root`. Files are 0600, folders 0700: dumps hold personal data and role passwords."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self) -> str:
        return str(self.root)

    def put_file(self, source: Path, key: str, *, advance: Callable[[int], None] = lambda _bytes: None) -> StoredObject:
        with open(source, "rb") as stream:
            return self._put(stream, key, advance)

    def put_bytes(self, data: bytes, key: str) -> StoredObject:
        return self._put(BytesIO(data), key, lambda _bytes: None)

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            stream = open(path, "rb")
        except FileNotFoundError:
            raise StoreError(
                "OBJECT_MISSING",
                f"{key} is not in the store {self.describe()}.",
                "Somebody removed it; use another backup.",
            ) from None
        except OSError as error:
            raise self._unavailable(error) from error
        if hasattr(os, "posix_fadvise"):  # drop cached pages: what is read must come from the disk
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return stream

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def folders(self, prefix: str) -> list[str]:
        try:
            with os.scandir(self._path(prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unavailable(error) from error

    def keys(self, prefix: str) -> Iterator[str]:
        found = (path for path in self._path(prefix).rglob("*") if path.is_file() and _ASIDE not in path.name)
        yield from sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete_tree(self, prefix: str) -> None:
        folder = self._path(prefix)
        with suppress(FileNotFoundError):
            (folder / _MANIFEST).unlink()
            _sync_folder(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        path = self.root / key
        if ".." in Path(key).parts or Path(key).is_absolute():
            raise StoreError(
                "KEY_INVALID", f"{key!r} leads out of the store.", "A manifest with such a path is not one of ours."
            )
        return path

    def _put(self, stream: BinaryIO, key: str, advance: Callable[[int], None]) -> StoredObject:
        path = self._path(key)
        aside = path.with_name(f"{_ASIDE}{secrets.token_hex(6)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as sink:
                    size, sha256 = copy_stream(stream, sink, advance=advance)
                    sink.flush()
                    os.fsync(sink.fileno())
                os.link(aside, path)  # unlike a rename, a link never replaces what is there
            finally:
                with suppress(FileNotFoundError):
                    aside.unlink()
            _sync_folder(path.parent)
        except FileExistsError:
            raise StoreError(
                "OBJECT_EXISTS",
                f"{key} is already in the store {self.describe()}.",
                "Objects are never replaced; start the backup again.",
            ) from None
        except OSError as error:
            raise self._unavailable(error) from error
        return StoredObject(key, size, sha256)

    def _unavailable(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(
                "STORE_FULL",
                f"No space is left in the store {self.describe()}.",
                "Free space or move the store; the backups that it holds are untouched.",
            )
        return StoreError(
            "STORE_UNAVAILABLE",
            f"The store {self.describe()} cannot be used: {error.strerror or error}.",
            "Check that the folder is mounted and that this account may write to it.",
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
