"""What one listing shows of the archive of the write-ahead log: what each object is, and of which timeline."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from gs_backup_assets.catalogue.manifest import KEYS
from gs_backup_assets.catalogue.restore_points import POINTS
from gs_backup_assets.catalogue.wal_archive import FOLDER, PARTIAL
from gs_backup_assets.catalogue.wal_positions import POSITIONS
from gs_backup_assets.vault.store import Listed

_SYSTEM = re.compile(r"\d{1,20}")
_TIMELINE = re.compile(r"[0-9A-F]{8}")
_SEGMENT = re.compile(r"([0-9A-F]{24})\.zst(\.enc)?")
_PARTIAL = re.compile(r"([0-9A-F]{24})\.([0-9A-F]{8})\.zst(\.enc)?")
_WHOLE = 1 << 40  # bytes: no segment is as long
_HISTORY = re.compile(r"[0-9A-F]{8}\.history(\.enc)?")


class WalKind(str, Enum):
    """What an object of the archive is, in the order in which a copy brings it."""

    KEY = "wrapped key"
    HISTORY = "timeline history"
    POINT = "restore point"
    SEGMENT = "segment"
    PARTIAL = "partial segment"
    POSITION = "position"


@dataclass(frozen=True)
class WalObject:
    """One object. `timeline` is set for all but restore points and positions, `segment` (a name) for whole and partial
    segments, `written` (bytes) for partial ones. Names of segments of one timeline sort as their positions do."""

    kind: WalKind
    system_identifier: str
    listed: Listed
    timeline: int | None = None
    segment: str | None = None
    written: int | None = None

    @property
    def key(self) -> str:
        return self.listed.key

    @property
    def order(self) -> tuple[str, int]:
        """Sorts the segments of one timeline, a longer part after a shorter one, the whole one last."""
        return self.segment or "", _WHOLE if self.written is None else self.written


def wal_folder(database: str) -> str:
    """`<database>/wal`."""
    return f"{database}/{FOLDER}"


def wal_objects(listing: Iterable[Listed], database: str) -> list[WalObject]:
    """The objects of a database's archives; what is none of ours is left out."""
    return [found for listed in listing if (found := _parse(listed, database)) is not None]


def _parse(listed: Listed, database: str) -> WalObject | None:
    top = f"{wal_folder(database)}/"
    if not listed.key.startswith(top):
        return None
    system, *parts = listed.key.removeprefix(top).split("/")
    if not _SYSTEM.fullmatch(system) or not parts:
        return None
    match parts:
        case [part, _, *_] if part == POINTS:
            return WalObject(WalKind.POINT, system, listed)
        case [part, _] if part == POSITIONS:
            return WalObject(WalKind.POSITION, system, listed)
        case [timeline, *_] if not _TIMELINE.fullmatch(timeline):
            return None
    number = int(parts[0], 16)
    match parts[1:]:
        case [folder, _] if folder == KEYS:
            return WalObject(WalKind.KEY, system, listed, number)
        case [folder, name] if folder == PARTIAL and (found := _PARTIAL.fullmatch(name)):
            return WalObject(WalKind.PARTIAL, system, listed, number, found[1], int(found[2], 16))
        case [name] if found := _SEGMENT.fullmatch(name):
            return WalObject(WalKind.SEGMENT, system, listed, number, found[1])
        case [name] if _HISTORY.fullmatch(name):
            return WalObject(WalKind.HISTORY, system, listed, number)
    return None


def newest_partials(objects: Iterable[WalObject]) -> list[WalObject]:
    """Of each unfinished segment the longest part.

    More than one may be unfinished: the next one was begun, and the upload of the whole one before is still under way.
    """
    known = list(objects)
    whole = {(o.system_identifier, o.timeline, o.segment) for o in known if o.kind is WalKind.SEGMENT}
    newest: dict[tuple[str, int | None, str | None], WalObject] = {}
    for found in known:
        if found.kind is WalKind.PARTIAL:
            place = found.system_identifier, found.timeline, found.segment
            if place not in newest or newest[place].order < found.order:
                newest[place] = found
    return [found for place, found in newest.items() if place not in whole]
