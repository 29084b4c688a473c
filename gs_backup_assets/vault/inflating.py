"""Gzip on the way back, for backups of servers and programs that have nothing else."""

from __future__ import annotations

import zlib

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.pipeline import BLOCK
from gs_backup_assets.vault.store import Source

_WITH_GZIP_HEADER = 31  # zlib's wbits: the largest window, and a gzip header and trailer


class Inflating:
    """A source of the bytes that are in the gzip members of another one; `name` is told in the error."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._name = name
        self._inflater = zlib.decompressobj(_WITH_GZIP_HEADER)
        self._begun = False

    def read(self, size: int = BLOCK, /) -> bytes:
        """At most `size` bytes; none at the end. StoreError (`COMPRESSED_DAMAGED`)."""
        while True:
            left = self._inflater.unconsumed_tail or self._inflater.unused_data
            block = left or self._source.read(BLOCK)
            if not block:
                if self._begun and not self._inflater.eof:
                    raise _damaged(self._name)
                return b""
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_WITH_GZIP_HEADER)
            self._begun = True
            try:
                data = self._inflater.decompress(block, size)
            except zlib.error as error:
                raise _damaged(self._name) from error
            if data:
                return data


def _damaged(name: str) -> StoreError:
    return StoreError(
        "COMPRESSED_DAMAGED",
        f"{name} does not decompress: it was cut or changed.",
        "Use another backup, or another copy of this one; `gs-backup list` shows them.",
    )
