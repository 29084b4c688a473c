"""What a store of backups can do: the protocol that every kind of store follows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.digests import Digests

MANIFEST = "manifest.json"


@contextmanager
def unless_there() -> Iterator[None]:
    """Put an object inside that another writer may have put before: that its key is taken is no error."""
    try:
        yield
    except StoreError as error:
        if error.code != "OBJECT_EXISTS":
            raise


class Source(Protocol):
    """Bytes to be stored, read once from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end, none after it."""
        ...


@dataclass(frozen=True)
class Listed:
    """One object as a listing shows it.

    `tag` differs when other bytes are in its place. `storage_class` is S3's, or `local`. `size` in bytes.
    """

    key: str
    size: int
    modified: datetime
    storage_class: str
    tag: str


@dataclass(frozen=True)
class OwnChecksum:
    """What a store itself says about an object's bytes, without anybody reading them back.

    `sha256` is the digest of the whole object, or of its parts' digests where `parts` is set. In hex digits.
    """

    size: int
    sha256: str
    parts: int | None


class Store(Protocol):
    """Write-once objects under keys. An object is there whole or not at all, and is never replaced."""

    def describe(self) -> str:
        """Where the store is, for people; never a secret."""
        ...

    def put(self, source: Source, key: str, *, size: int, resume: bool = False) -> Digests:
        """Store bytes durably and return their digests. `size` is about how many there will be.

        With `resume` an upload of the same bytes that broke off goes on where it stopped, where the store can.
        StoreError: `OBJECT_EXISTS`, `STORE_FULL`, `STORE_UNAVAILABLE` and the like.
        """
        ...

    def put_bytes(self, data: bytes, key: str, *, locked: bool = True) -> Digests:
        """Store bytes durably; errors as for `put`. What is not `locked` may be deleted again at any time."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Read an object from its resting place, not from a cache. StoreError (`OBJECT_MISSING`)."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`, sorted."""
        ...

    def objects(self, prefix: str, *, skip: Collection[str] = (), after: str = "") -> Iterator[Listed]:
        """All objects below `prefix`, sorted by key, but for those in folders with a name in `skip`.

        With `after` only those behind that key: of a long listing no more is asked for than is wanted.
        """
        ...

    def own_checksum(self, key: str) -> OwnChecksum | None:
        """The store's own checksum of an object; None where it keeps none. StoreError (`OBJECT_MISSING`)."""
        ...

    def locked_until(self, key: str) -> datetime | None:
        """Until when the store refuses to delete the object; None when it may be deleted."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def delete_tree(self, prefix: str) -> None:
        """Remove everything below `prefix`; `manifest.json` first, so that no reader takes the rest for a backup."""
        ...

    def sweep_uploads(self, prefix: str, before: datetime) -> int:
        """End uploads below `prefix` that were begun before a time and never completed; returns how many."""
        ...


def keys(store: Store, prefix: str) -> Iterator[str]:
    """Keys of all objects below `prefix`, sorted."""
    return (listed.key for listed in store.objects(prefix))
