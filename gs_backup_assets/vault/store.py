"""What a store of backups can do: the protocol that every kind of store follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class StoredObject:
    """One object: its key (`/`-separated, relative to the store's root), size in bytes, and SHA-256 as hex digits."""

    key: str
    size: int
    sha256: str


class Store(Protocol):
    """Write-once objects under keys. An object is there whole or not at all, and is never replaced."""

    def describe(self) -> str:
        """Where the store is, for people; never a secret."""
        ...

    def put_file(self, source: Path, key: str, *, advance: Callable[[int], None] = ...) -> StoredObject:
        """Store a file durably. StoreError: `OBJECT_EXISTS`, `STORE_FULL`, `STORE_UNAVAILABLE`."""
        ...

    def put_bytes(self, data: bytes, key: str) -> StoredObject:
        """Store bytes durably; errors as for `put_file`."""
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

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of all objects below `prefix`, sorted."""
        ...

    def delete_tree(self, prefix: str) -> None:
        """Remove everything below `prefix`; `manifest.json` first, so that no reader takes the rest for a backup."""
        ...
