"""One pass over the bytes: read, hash, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

_BLOCK = 1 << 20


def copy_stream(
    source: BinaryIO, sink: BinaryIO | None, *, advance: Callable[[int], None] = lambda _bytes: None
) -> tuple[int, str]:
    """Copy `source` to `sink` (or only read it, with None) and return the bytes and their SHA-256 as hex digits."""
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    while count := source.readinto(view):  # type: ignore[attr-defined]
        digest.update(view[:count])
        if sink is not None:
            sink.write(view[:count])
        size += count
        advance(count)
    return size, digest.hexdigest()
