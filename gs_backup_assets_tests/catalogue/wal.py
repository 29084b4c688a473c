"""Made-up write-ahead log, and archives of it, for tests of the vault: whole to the last page header."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.postgres.wal import MAGICS, PAGE_BYTES, Segment
from gs_backup_assets.vault.store import Store

SEGMENT_BYTES = 1 << 20  # the smallest that initdb makes
SYSTEM = "7312345678901234567"
_LONG = struct.Struct("=HHIQI4xQII")
_SHORT = struct.Struct("=HHIQ")


def segment(number: int, timeline: int = 1) -> Segment:
    """A segment of the made-up cluster."""
    return Segment(timeline, number, SEGMENT_BYTES)


def log_of(some: Segment, *, system: str = SYSTEM, fill: int = 0, written: int | None = None) -> bytes:
    """A segment's bytes. Another `fill` makes other ones; without `written` bytes of it all is written."""
    pages = []
    for page in range(some.size // PAGE_BYTES):
        address = some.start.value + page * PAGE_BYTES
        if page * PAGE_BYTES >= (some.size if written is None else written):
            pages.append(bytes(PAGE_BYTES))
            continue
        if page == 0:
            head = _LONG.pack(MAGICS[17], 2, some.timeline, address, 0, int(system), some.size, PAGE_BYTES)
        else:
            head = _SHORT.pack(MAGICS[17], 0, some.timeline, address)
        pages.append(head + bytes([fill]) * (PAGE_BYTES - len(head)))
    return b"".join(pages)


def archive(store: Store, *, database: str = "shop", system: str = SYSTEM) -> WalArchive:
    """An archive that is not encrypted."""
    return WalArchive(store, database, system, segment_bytes=SEGMENT_BYTES)


def put_segments(
    store: Store, numbers: Iterable[int], timeline: int = 1, *, system: str = SYSTEM, database: str = "shop"
) -> None:
    """Archive whole segments."""
    for number in numbers:
        some = segment(number, timeline)
        archive(store, system=system, database=database).put(some, log_of(some, system=system))


def put_history(store: Store, timeline: int, *switches: tuple[int, int], system: str = SYSTEM) -> None:
    """Archive a timeline's history. A switch is a timeline, and the number of the segment in which it was left."""
    lines = []
    for parent, number in switches:
        lines.append(f"{parent}\t{segment(number).start}\tno recovery target specified\n")
    archive(store, system=system).put_history(timeline, "".join(lines).encode())
