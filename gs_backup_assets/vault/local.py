"""A store in a folder: objects are written aside, synced to disk, and linked into place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.digests import Digests
from gs_backup_assets.vault.pipeline import copy
from gs_backup_assets.vault.store import MANIFEST, Listed, OwnChecksum, Source

_ASIDE = ".partial-"
_CLASS = "local"


class LocalStore:
    """Objects are files below `root`. Files are 0600, folders 0700: dumps hold personal data and role passwords."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self) -> str:
        return str(self.root)

    def put(self, source: Source, key: str, *, size: int, resume: bool = False) -> Digests:
        path = self._path(key)
        aside = path.with_name(f"{_ASIDE}{secrets.token_hex(6)}")
        try:
            _make_folders(path.parent)
            try:
                descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as sink:
                    digests = copy(source, sink, size=size)
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
        return digests

    def put_bytes(self, data: bytes, key: str, *, locked: bool = True) -> Digests:
        return self.put(BytesIO(data), key, size=len(data))

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            stream = BufferedReader(_Reader(path, self._unavailable))
        except FileNotFoundError:
            raise self._missing(key) from None
        except OSError as error:
            raise self._unavailable(error) from error
        if hasattr(os, "posix_fadvise"):  # drop cached pages: what is read must come from the disk
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return stream

    def exists(self, key: str) -> bool:
        try:
            path = self._path(key)
        except StoreError:  # a link is no object, as for `keys` and `folders`
            return False
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._unavailable(error) from error

    def folders(self, prefix: str) -> list[str]:
        try:
            with os.scandir(self._path(prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unavailable(error) from error

    def objects(self, prefix: str, *, skip: Collection[str] = (), after: str = "") -> Iterator[Listed]:
        found = self._listed(str(self._path(prefix)), prefix, skip, after)
        yield from sorted(found, key=lambda listed: listed.key)

    def own_checksum(self, key: str) -> OwnChecksum | None:
        if not self.exists(key):
            raise self._missing(key)
        return None  # a file system keeps none

    def locked_until(self, key: str) -> datetime | None:
        return None

    def sweep_uploads(self, prefix: str, before: datetime) -> int:
        swept = 0
        for parent, _, names in os.walk(self._path(prefix)):
            for name in (name for name in names if name.startswith(_ASIDE)):
                with suppress(FileNotFoundError):
                    path = Path(parent, name)
                    if path.lstat().st_mtime < before.timestamp():
                        path.unlink()
                        swept += 1
        return swept

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            with suppress(FileNotFoundError):
                path.unlink()
                _sync_folder(path.parent)
        except OSError as error:
            raise self._unavailable(error) from error

    def delete_tree(self, prefix: str) -> None:
        folder = self._path(prefix)
        try:
            with suppress(FileNotFoundError):
                (folder / MANIFEST).unlink()
                _sync_folder(folder)
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
        except OSError as error:
            raise self._unavailable(error) from error

    def _listed(self, folder: str, prefix: str, skip: Collection[str], after: str) -> Iterator[Listed]:
        """Regular files below a folder. What cannot be read is an error: a listing that leaves things out would lie."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    key = f"{prefix}/{entry.name}".lstrip("/")
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in skip:
                            yield from self._listed(entry.path, key, skip, after)
                    elif key > after and entry.is_file(follow_symlinks=False) and not entry.name.startswith(_ASIDE):
                        with suppress(FileNotFoundError):  # it was deleted this moment
                            yield _describe(key, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unavailable(error) from error

    def _path(self, key: str) -> Path:
        """The key's file. A key never leads out of the store: not by `..`, not by a root, and not over a link."""
        if not key:  # the store itself, for listings
            return self.root
        path = self.root / key
        plain = "\0" not in key and ".." not in Path(key).parts and not Path(key).is_absolute()
        if not plain or os.path.realpath(path) != os.path.join(os.path.realpath(self.root), os.path.normpath(key)):
            raise StoreError(
                "KEY_INVALID",
                f"{key!r} leads out of the store.",
                "A manifest with such a path is not one of ours; a link inside the store is not followed.",
            )
        return path

    def _missing(self, key: str) -> StoreError:
        return StoreError(
            "OBJECT_MISSING",
            f"{key} is not in the store {self.describe()}.",
            "Somebody removed it; use another backup.",
        )

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


def _describe(key: str, status: os.stat_result) -> Listed:
    # A file that is put in another's place has another inode, or at least another time of change.
    tag = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
    return Listed(key, status.st_size, datetime.fromtimestamp(status.st_mtime, timezone.utc), _CLASS, tag)


class _Reader(FileIO):
    """An object's file, whose disk may fail in the middle of it: that is an error of the store."""

    def __init__(self, path: Path, failure: Callable[[OSError], StoreError]) -> None:
        super().__init__(path)
        self._failure = failure

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise self._failure(error) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise self._failure(error) from error


def _make_folders(folder: Path) -> None:
    """`mkdir -p`, each new folder 0700 and durable in the one above it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        with suppress(FileExistsError):  # another process was first, or it is a file: then the next step says so
            new.mkdir(mode=0o700)
        with suppress(PermissionError):  # above the root there may be a folder that cannot be listed
            _sync_folder(new.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
