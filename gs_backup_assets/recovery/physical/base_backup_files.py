"""What the files of a new base backup say: whose they are, and which tablespaces there are."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

from gs_backup_assets.catalogue.manifest import StoredFile
from gs_backup_assets.catalogue.physical_manifest import Tablespace
from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres import basebackup
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.wal import PAGE_BYTES, PageHeader, is_segment, read_header
from gs_backup_assets.vault.pipeline import read_exactly
from gs_backup_assets.vault.store import Source


class Exact:
    """A source that gives as much as is asked for, of one that gives more or less at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = b""

    def read(self, size: int, /) -> bytes:
        pieces = [self._left]
        had = len(self._left)
        while had < size and (piece := self._source.read(size)):
            pieces.append(piece)
            had += len(piece)
        data = b"".join(pieces)
        self._left = data[size:]
        return data[:size]


def wal_header(folder: Path) -> PageHeader | None:
    """The header of the first WAL segment in the backup; None when there is none."""
    with tarfile.open(next(folder.glob(f"{basebackup.WAL}*"))) as archive:
        for member in archive:
            stream = archive.extractfile(member) if is_segment(member.name) else None
            if stream is not None:
                return read_header(read_exactly(stream, PAGE_BYTES))
    return None


def require_the_same(target: Target, before: str, by_manifest: str | None, header: PageHeader | None) -> None:
    """The address may lead to another server than at the beginning: what was backed up says whose it is.

    `before` and `by_manifest` are system identifiers. Raises SourceError (`SERVER_CHANGED`).
    """
    found = {by_manifest, header.system_identifier if header else None} - {None}
    if header is None or found != {before}:
        raise SourceError(
            "SERVER_CHANGED",
            f"The backup is of cluster {', '.join(map(str, found)) or 'unknown'}; {target.redacted()} was"
            f" {before} at its beginning.",
            "An address that leads to several servers cannot be backed up: name one of them.",
        )


def tablespaces_in(
    archives: tuple[StoredFile, ...], before: Mapping[int, str], after: Mapping[int, str]
) -> tuple[Tablespace, ...]:
    """The tablespaces with their archives. One that was there all the time and has none was left out: SourceError."""
    files = {Path(file.path).name.split(".")[0]: file.path for file in archives}
    found = {int(oid): path for oid, path in files.items() if oid.isdecimal()}
    missing = [f"{oid} ({before[oid]})" for oid in sorted(before.keys() & after.keys() - found.keys())]
    if missing:
        raise SourceError(
            "TABLESPACE_LEFT_OUT",
            f"The server left out the tablespace {', '.join(missing)}.",
            "Servers before 16 do not back up tablespaces inside of the data directory: move their tables elsewhere.",
        )
    known = {**after, **before}
    return tuple(Tablespace(oid=oid, location=known.get(oid, ""), file=path) for oid, path in sorted(found.items()))
