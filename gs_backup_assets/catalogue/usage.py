"""What rests in a store: bytes and objects by storage class, age and kind, made of one listing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.manifest import HOLD, KEYS, NAME, PROOFS, SUMS
from gs_backup_assets.vault.store import Listed

_BACKUP = re.compile(r"((logical|physical)/[^/]+/\d{8}T\d{6}Z)/(.+)")
_DAY = timedelta(days=1)


class Kind(str, Enum):
    """What an object is."""

    DUMP = "dump files"
    BASE_BACKUP = "base backup files"
    WAL = "write-ahead log"
    MANIFEST = "manifests"
    PROOF = "proofs"
    DRILL = "drills"
    KEY = "wrapped keys"
    AUDIT = "audit log"
    UNFINISHED = "unfinished attempts"
    OTHER = "other"


class Age(str, Enum):
    """How many whole days ago an object came into the store: what lifecycle rules go by."""

    WEEK = "0-7 days"
    MONTH = "8-30 days"
    QUARTER = "31-90 days"
    YEAR = "91-365 days"
    OLDER = "over 365 days"


# What lies beside the backups in a database's folder.
_BY_FOLDER = {
    "audit": Kind.AUDIT,
    "audit-copy": Kind.AUDIT,
    "wal": Kind.WAL,
    "drills": Kind.DRILL,
    "staging-tests": Kind.DRILL,
}
_LAST_DAYS = ((7, Age.WEEK), (30, Age.MONTH), (90, Age.QUARTER), (365, Age.YEAR))


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgeUsage(_Record):
    """Objects of one storage class and age."""

    storage_class: str
    age: Age
    objects: int
    stored_bytes: int


class KindUsage(_Record):
    """Objects of one kind."""

    kind: Kind
    objects: int
    stored_bytes: int


@dataclass(frozen=True)
class Lot:
    """Bytes of the backup in `folder`, or of none, that came on the same day into the same storage class.

    `folder` is meant from the database's own. Lifecycle rules count the days from `since`; what is `small` stays in its
    class whatever they are.
    """

    folder: str | None
    storage_class: str
    since: datetime
    small: bool
    stored_bytes: int


@dataclass(frozen=True)
class Inventory:
    """What one listing shows. `lots` leave unfinished attempts out: they are gone in a day."""

    by_age: tuple[AgeUsage, ...]
    by_kind: tuple[KindUsage, ...]
    lots: tuple[Lot, ...]


def take_inventory(listing: Sequence[Listed], database: str, now: datetime, *, smallest_moved: int) -> Inventory:
    """Sort the objects of one database, which `listing` holds all of. Pure.

    Lifecycle rules do not move objects of less than `smallest_moved` bytes.
    """
    paths = [listed.key.removeprefix(f"{database}/") for listed in listing]
    finished = {match[1] for path in paths if (match := _BACKUP.fullmatch(path)) and match[3] == NAME}
    ages: dict[tuple[str, Age], list[int]] = defaultdict(list)
    kinds: dict[Kind, list[int]] = defaultdict(list)
    lots: dict[tuple[str | None, str, datetime, bool], int] = defaultdict(int)
    for listed, path in zip(listing, paths, strict=True):
        folder, kind = _classify(path, finished)
        ages[listed.storage_class, age_of(listed.modified, now)].append(listed.size)
        kinds[kind].append(listed.size)
        if kind is not Kind.UNFINISHED:
            small = listed.size < smallest_moved
            lots[folder, listed.storage_class, counted_from(listed.modified), small] += listed.size
    order = list(Age)
    return Inventory(
        by_age=tuple(
            AgeUsage(storage_class=name, age=age, objects=len(sizes), stored_bytes=sum(sizes))
            for (name, age), sizes in sorted(ages.items(), key=lambda item: (item[0][0], order.index(item[0][1])))
        ),
        by_kind=tuple(
            KindUsage(kind=kind, objects=len(kinds[kind]), stored_bytes=sum(kinds[kind]))
            for kind in Kind
            if kind in kinds
        ),
        lots=tuple(Lot(*where, stored_bytes=size) for where, size in lots.items()),
    )


def age_of(modified: datetime, now: datetime) -> Age:
    """The band of an object's age; one that a store's clock puts into the future is new."""
    days = (now - modified) // _DAY
    return next((age for last, age in _LAST_DAYS if days <= last), Age.OLDER)


def counted_from(modified: datetime) -> datetime:
    """From when on a lifecycle rule counts an object's days: the next midnight in UTC ("Lifecycle rules: Based on an
    object's age")."""
    return modified.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


def bytes_by_class(usage: Iterable[AgeUsage]) -> dict[str, int]:
    """Bytes by storage class."""
    totals: dict[str, int] = defaultdict(int)
    for group in usage:
        totals[group.storage_class] += group.stored_bytes
    return dict(totals)


def _classify(path: str, finished: set[str]) -> tuple[str | None, Kind]:
    """The folder of the backup that an object belongs to, if any, and what it is."""
    match = _BACKUP.fullmatch(path)
    if match is None:
        return None, _BY_FOLDER.get(path.partition("/")[0], Kind.OTHER)
    folder, name = match[1], match[3]
    if folder not in finished:
        return None, Kind.UNFINISHED
    if name in (NAME, SUMS, HOLD):
        return folder, Kind.MANIFEST
    beside = {PROOFS: Kind.PROOF, KEYS: Kind.KEY}
    files = Kind.DUMP if match[2] == "logical" else Kind.BASE_BACKUP
    return folder, beside.get(name.partition("/")[0], files)
