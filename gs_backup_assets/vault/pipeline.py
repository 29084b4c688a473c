"""One pass over the bytes: read, hash, pass on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from gs_backup_assets.vault.digests import Digester, Digests
from gs_backup_assets.vault.store import Source

BLOCK = 1 << 20


def _nothing(_bytes: int) -> None:
    pass


class Counting:
    """A source that tells how many bytes of another one went by."""

    def __init__(self, source: Source, advance: Callable[[int], None] = _nothing) -> None:
        self._source = source
        self._advance = advance
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.size += len(data)
        self._advance(len(data))
        return data


class Hashing(Counting):
    """A source that hashes what is read from another one, and tells how many bytes went by."""

    def __init__(self, source: Source, advance: Callable[[int], None] = _nothing) -> None:
        super().__init__(source, advance)
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256, in hex digits, of what was read until now."""
        return self._digest.hexdigest()

    def read(self, size: int = -1, /) -> bytes:
        data = super().read(size)
        self._digest.update(data)
        return data


def copy(source: Source, sink: BinaryIO | None, *, size: int = 0) -> Digests:
    """Copy `source`, of about `size` bytes, to `sink` (or only read it, with None) and return its digests."""
    digester = Digester(size)
    while block := source.read(BLOCK):
        digester.update(block)
        if sink is not None:
            sink.write(block)
    return digester.digests()


def read_exactly(source: Source, size: int) -> bytes:
    """`size` bytes, or what is left of the source: some sources give less at a time than was asked for."""
    pieces = []
    while size and (piece := source.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def drain(source: Source) -> None:
    """Read a source to its end and keep nothing."""
    while source.read(BLOCK):
        pass
