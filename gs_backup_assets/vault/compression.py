"""Zstandard on the way: what PostgreSQL's programs leave uncompressed is compressed before it rests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.pipeline import BLOCK
from gs_backup_assets.vault.store import Source

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

SUFFIX = ".zst"


def compress(data: bytes, level: int = 1) -> bytes:
    """A frame with a checksum of its contents."""
    return zstd.compress(data, options=_options(level))


def decompress(data: bytes, name: str) -> bytes:
    """What is in a frame; StoreError (`COMPRESSED_DAMAGED`) names the file."""
    try:
        return zstd.decompress(data)
    except (zstd.ZstdError, EOFError) as error:
        raise _damaged(name) from error


class Compressing:
    """A source of the compressed bytes of another one."""

    def __init__(self, source: Source, level: int = 1) -> None:
        self._source = source
        self._compressor: zstd.ZstdCompressor | None = zstd.ZstdCompressor(options=_options(level))

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, more or fewer than `size`; none at the end."""
        while self._compressor is not None:
            block = self._source.read(BLOCK)
            if not block:
                compressor, self._compressor = self._compressor, None
                return compressor.flush()
            if data := self._compressor.compress(block):
                return data
        return b""


class Decompressing:
    """A source of the bytes that are in the frames of another one; `name` is told in the error."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._name = name
        self._decompressor: zstd.ZstdDecompressor | None = None

    def read(self, size: int = BLOCK, /) -> bytes:
        """At most `size` bytes; none at the end. StoreError (`COMPRESSED_DAMAGED`)."""
        try:
            return self._read(size)
        except (zstd.ZstdError, EOFError) as error:
            raise _damaged(self._name) from error

    def _read(self, size: int) -> bytes:
        while True:
            current = self._decompressor
            if current is not None and not current.eof:
                block = self._source.read(BLOCK) if current.needs_input else b""
                if not block and current.needs_input:
                    raise EOFError
                if data := current.decompress(block, size):
                    return data
                continue
            left = current.unused_data if current is not None else b""
            left = left or self._source.read(BLOCK)
            if not left:
                return b""
            self._decompressor = zstd.ZstdDecompressor()
            if data := self._decompressor.decompress(left, size):
                return data


def _options(level: int) -> dict[int, int]:
    return {zstd.CompressionParameter.compression_level: level, zstd.CompressionParameter.checksum_flag: 1}


def _damaged(name: str) -> StoreError:
    return StoreError(
        "COMPRESSED_DAMAGED",
        f"{name} does not decompress: it was cut or changed.",
        "Use another backup, or another copy of this one; `gs-backup list` shows them.",
    )
