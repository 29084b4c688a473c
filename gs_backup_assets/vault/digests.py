"""SHA-256 of bytes on their way, as a whole and by parts: what a store that keeps objects in parts will say of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

# Amazon S3's limits ("Amazon S3 multipart upload limits"): 10,000 parts of an object, none but the last below 5 MiB.
_SMALLEST_PART = 8 << 20
_MOST_PARTS = 9_000


class Parts(BaseModel):
    """An object in parts of `size` bytes: how many, and the SHA-256 of their digests one after the other, in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Digests:
    """Size in bytes and SHA-256 in hex digits; `parts` for what is larger than one part."""

    size: int
    sha256: str
    parts: Parts | None


def part_size(size: int) -> int:
    """Bytes of each part of an object of about `size` bytes: 8 MiB, or more so that S3's number of parts is enough."""
    part = _SMALLEST_PART
    while size > part * _MOST_PARTS:
        part *= 2
    return part


class Digester:
    """Takes bytes in any pieces and gives their digests in the end. Parts have the size that fits `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = 0
        self._part_size = part_size(size)
        self._whole = hashlib.sha256()
        self._part = hashlib.sha256()
        self._in_part = 0
        self._finished: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        self._whole.update(data)
        view = memoryview(data)
        self.size += len(view)
        while view:
            if self._in_part == self._part_size:
                self._next_part()
            piece = view[: self._part_size - self._in_part]
            self._part.update(piece)
            self._in_part += len(piece)
            view = view[len(piece) :]

    def digests(self) -> Digests:
        """The digests of everything that was taken."""
        if not self._finished:
            return Digests(self.size, self._whole.hexdigest(), None)
        every = (*self._finished, self._part.digest())
        parts = Parts(size=self._part_size, count=len(every), sha256=hashlib.sha256(b"".join(every)).hexdigest())
        return Digests(self.size, self._whole.hexdigest(), parts)

    def _next_part(self) -> None:
        self._finished.append(self._part.digest())
        self._part = hashlib.sha256()
        self._in_part = 0
