"""Unpacks a tar as PostgreSQL writes it, from a stream straight to disk, whoever may have written it.

The tars of a base backup have plain headers (PostgreSQL's source, `port/tar.c`), files and folders. What else may be in
a tar, links above all, is refused, and nothing is written outside of the folder or over what is there.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gs_backup_assets.system.account import Account, current_account

_HEADER = 512


class TarRefused(ValueError):
    """The stream is no tar, was cut, or holds what no tar of PostgreSQL holds."""


class _Blocks:
    """Exact amounts from a stream that comes in blocks of any size."""

    def __init__(self, next_block: Callable[[], bytes]) -> None:
        self._next_block = next_block
        self._block = memoryview(b"")

    def some(self, most: int) -> memoryview:
        """What is at hand, at most `most` bytes; empty at the end."""
        if not self._block:
            self._block = memoryview(self._next_block())
        piece, self._block = self._block[:most], self._block[most:]
        return piece

    def exactly(self, size: int) -> bytes:
        """`size` bytes; TarRefused when the stream ends before."""
        pieces = []
        while size:
            piece = self.some(size)
            if not piece:
                raise TarRefused("it ends in the middle")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def untar(next_block: Callable[[], bytes], into: Path, *, account: Account, skip: frozenset[str] = frozenset()) -> int:
    """Unpack a stream into a folder that is there, and return the bytes of its files.

    `next_block` gives the stream in pieces, an empty one at its end. Files keep their mode and belong to `account`.
    Members named in `skip` are left out. Nothing is synced to disk: a server does so by itself before it begins its
    recovery. Raises TarRefused, OSError, and what `next_block` raises.
    """
    blocks = _Blocks(next_block)
    owner = None if account == current_account() else account
    total = 0
    while True:
        header = blocks.exactly(_HEADER)
        if not any(header):
            break
        try:
            # The encoding of file names: other bytes than UTF-8 come through as they are.
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise TarRefused(f"it has no sound header: {error}") from error
        path = into / _inside(member.name)
        if member.type == tarfile.DIRTYPE:
            _make_folder(path, member.mode, owner)
        elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            _write_file(blocks, None if member.name in skip else path, member, owner)
            total += member.size
        else:
            raise TarRefused(f"{member.name!r} is neither a file nor a folder")
    while blocks.some(1 << 20):  # to the end: a digest of the stream is one of all its bytes
        pass
    return total


def _inside(name: str) -> str:
    """The path of a member; TarRefused for one that leads out of the folder."""
    parts = name.removeprefix("./").rstrip("/").split("/")
    if not all(part not in ("", ".", "..") for part in parts):
        raise TarRefused(f"{name!r} is no path below the folder")
    return "/".join(parts)


def _make_folder(path: Path, mode: int, owner: Account | None) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(mode & 0o750 | 0o700)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)


def _write_file(blocks: _Blocks, path: Path | None, member: tarfile.TarInfo, owner: Account | None) -> None:
    left = member.size
    padding = -left % _HEADER
    if path is None:
        blocks.exactly(left + padding)
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise TarRefused(f"{member.name!r} is there twice, or its folder is not") from error
    try:
        if member.mode & 0o040:  # a cluster whose group may read it
            os.fchmod(descriptor, member.mode & 0o640 | 0o600)
        if owner is not None:
            os.fchown(descriptor, owner.uid, owner.gid)
        while left:
            piece = blocks.some(left)
            if not piece:
                raise TarRefused("it ends in the middle")
            left -= len(piece)
            while piece:
                piece = piece[os.write(descriptor, piece) :]
    finally:
        os.close(descriptor)
    blocks.exactly(padding)
