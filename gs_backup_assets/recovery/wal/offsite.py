"""The write-ahead log in another place: what the primary archive has and the off-site one lacks is brought there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.catalogue.wal_inventory import (
    WalKind,
    WalObject,
    newest_partials,
    wal_folder,
    wal_objects,
)
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import Segment, read_header, require_segment
from gs_backup_assets.progress import Progress, Stage
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault import compression
from gs_backup_assets.vault.store import Store
from gs_backup_assets.words import counted

CHECK = "offsite_wal_matches"
_AT_A_TIME = 4
# Comes and goes: what is newer takes its place.
_PASSING = (WalKind.PARTIAL, WalKind.POSITION)
# Of each timeline so many segments are looked at again and again: one may arrive after those behind it.
_LOOKED_AT_AGAIN = 64
_OTHER = "One of the two was changed. `gs-backup wal status` reads both; remove the wrong one, then `gs-backup copy`."


@dataclass(frozen=True)
class Place:
    """Where to look in both archives: below a folder, behind a key of it; at all of it where that is empty."""

    folder: str
    after: str = ""


@dataclass(frozen=True)
class MirroredWal:
    """What a copy came to: objects and bytes that were brought, whole segments that are in both stores now.

    `removed` are parts of segments and positions off-site that newer ones replace. What is in `findings` was not
    brought, or is not the same in both stores: `WAL_CONFLICT`, `PRIMARY_DAMAGED`. In `newest` is all that is archived
    from now on: a later copy may look only there.
    """

    brought: int
    copied_bytes: int
    segments: int
    removed: int
    findings: tuple[Finding, ...]
    newest: tuple[Place, ...]

    @property
    def check(self) -> CheckResult:
        """The same as a check's result; FAILED with findings."""
        words = f"{counted(self.segments, 'segment')} off-site, {self.brought} brought"
        if self.findings:
            words = f"{counted(len(self.findings), 'object')} of the log not as in the primary store"
        return CheckResult(
            name=CHECK,
            status=Status.FAILED if self.findings else Status.PASSED,
            summary=words,
            findings=self.findings,
            metrics={
                "wal_segments": self.segments,
                "wal_copied": self.brought,
                "wal_copied_bytes": self.copied_bytes,
            },
        )


def mirror_wal(
    primary: Store, offsite: Store, database: str, progress: Progress, *, places: tuple[Place, ...] = ()
) -> MirroredWal:
    """Bring what the off-site archive lacks, in an order that may break off anywhere; nothing there is replaced.

    It costs a listing of both archives, of `places` only where they are given, and what is brought. Of what both have
    sizes are compared; a segment that is brought is compared with what the stores say of it, and looked into where it
    is not encrypted: what is damaged in the primary store is not spread, and keeps nothing else from its copy. Of each
    unfinished segment the longest part is brought, of each cluster the newest position, and those before them go
    off-site. Where nothing was ever archived there is nothing to tell of, and no stage. Raises StoreError when a store
    cannot be used.
    """
    if not places and not any(store.folders(wal_folder(database)) for store in (primary, offsite)):
        return MirroredWal(brought=0, copied_bytes=0, segments=0, removed=0, findings=(), newest=())
    with progress.stage("copy wal") as stage:
        places = (*places, *_not_looked_at(primary, database, places)) if places else (Place(wal_folder(database)),)
        mine, theirs = (_objects(store, database, places) for store in (primary, offsite))
        there = {found.key: found for found in theirs}
        passing = [*newest_partials(mine), *_newest_positions(mine)]
        wanted = [found for found in mine if found.kind not in _PASSING] + passing
        findings = [_conflict(found) for found in wanted if _differs(found, there.get(found.key))]
        missing = [found for found in wanted if found.key not in there]
        total = sum(found.listed.size for found in missing)
        brought: list[WalObject] = []
        for kind in WalKind:
            some = [found for found in missing if found.kind is kind]
            jobs = [partial(_bring, primary, offsite, found, stage=stage, total=total) for found in some]
            told = side_by_side(jobs, at_a_time=_AT_A_TIME, name="wal")
            findings += [outcome for outcome in told if isinstance(outcome, Finding)]
            brought += [found for found, outcome in zip(some, told, strict=True) if outcome is True]
        removed = _remove_replaced(offsite, passing, [*theirs, *brought])
    return MirroredWal(
        brought=len(brought),
        copied_bytes=sum(found.listed.size for found in brought),
        segments=sum(found.kind is WalKind.SEGMENT for found in (*theirs, *brought)),
        removed=removed,
        findings=tuple(findings),
        newest=_newest_places(mine, database),
    )


def compare_wal(primary: Store, offsite: Store, database: str, stage: Stage) -> list[Finding]:
    """Compare every segment and history that both archives have, byte for byte, by the stores' own checksums where both
    keep them. For thousands of segments this takes minutes. StoreError when a store cannot be used."""
    mine, theirs = (wal_objects(store.objects(wal_folder(database)), database) for store in (primary, offsite))
    there = {found.key for found in theirs}
    both = [f for f in mine if f.key in there and f.kind in (WalKind.SEGMENT, WalKind.HISTORY, WalKind.POINT)]
    jobs = [partial(_same, primary, offsite, found, stage=stage, total=len(both)) for found in both]
    told = side_by_side(jobs, at_a_time=_AT_A_TIME, name="wal")
    return [_conflict(found) for found, same in zip(both, told, strict=True) if not same]


def _not_looked_at(primary: Store, database: str, places: tuple[Place, ...]) -> list[Place]:
    """Clusters whose archive was begun since the places were found."""
    top = wal_folder(database)
    known = {place.folder.removeprefix(f"{top}/").partition("/")[0] for place in places}
    return [Place(f"{top}/{system}") for system in primary.folders(top) if system not in known]


def _objects(store: Store, database: str, places: tuple[Place, ...]) -> list[WalObject]:
    """What lies in places; parts of segments that are before them are left out as well, wherever they lie."""
    objects: list[WalObject] = []
    for place in places:
        before = place.after.rpartition("/")[2].partition(".")[0]
        found = wal_objects(store.objects(place.folder, after=place.after), database)
        objects += [one for one in found if one.kind is not WalKind.PARTIAL or (one.segment or "") > before]
    return objects


def _newest_places(objects: Sequence[WalObject], database: str) -> tuple[Place, ...]:
    """The ends of all timelines. Behind a cluster's newest one come later timelines, restore points and positions."""
    segments: dict[str, dict[int, list[str]]] = {}
    for found in objects:
        timelines = segments.setdefault(found.system_identifier, {})
        if found.timeline is not None:
            keys = timelines.setdefault(found.timeline, [])
            keys += [found.key] if found.kind is WalKind.SEGMENT else []
    places = []
    for system, timelines in segments.items():
        top = f"{wal_folder(database)}/{system}"
        for timeline, keys in timelines.items():
            folder = f"{top}/{timeline:08X}"
            newest = timeline == max(timelines)
            after = sorted(keys)[-_LOOKED_AT_AGAIN - 1] if len(keys) > _LOOKED_AT_AGAIN else f"{folder}/"
            places.append(Place(top if newest else folder, after))
        if not timelines:
            places.append(Place(top))
    return tuple(places)


def _newest_positions(objects: Sequence[WalObject]) -> list[WalObject]:
    newest: dict[str, WalObject] = {}
    for found in objects:  # their names are times
        if found.kind is WalKind.POSITION:
            known = newest.get(found.system_identifier)
            if known is None or known.key < found.key:
                newest[found.system_identifier] = found
    return list(newest.values())


def _differs(found: WalObject, there: WalObject | None) -> bool:
    """Whether what is in both stores is not the same size. Keys are wrapped in each store by itself."""
    return there is not None and found.kind is not WalKind.KEY and found.listed.size != there.listed.size


def _conflict(found: WalObject) -> Finding:
    message = (
        f"{found.key} is another {found.kind.value} off-site than in the primary store; both are left as they are."
    )
    return Finding(code="WAL_CONFLICT", message=message, hint=_OTHER)


def _bring(
    primary: Store, offsite: Store, found: WalObject, go_on: GoOn, *, stage: Stage, total: int
) -> Finding | bool:
    """Whether it was brought; the finding when it could not be. False when it is there already, or no longer here."""
    go_on()
    try:
        data = _read(primary, found.key)
    except StoreError as error:
        if error.code == "OBJECT_MISSING":  # a newer one has replaced it, or retention removed it
            return False
        raise
    damage = _damage(primary, found, data)
    if damage is not None:
        hint = "It is not copied. Look for it in the server's pg_wal; `gs-backup coverage` shows what it leaves out."
        return Finding(code="PRIMARY_DAMAGED", message=f"{found.key} in the primary store: {damage}", hint=hint)
    go_on()
    try:
        offsite.put_bytes(data, found.key, locked=found.kind not in _PASSING)
    except StoreError as error:
        if error.code != "OBJECT_EXISTS":
            raise
        # Another copy was quicker.
        return False if found.kind is WalKind.KEY or _read(offsite, found.key) == data else _conflict(found)
    stage.advance(found.listed.size, total)
    return True


def _damage(primary: Store, found: WalObject, data: bytes) -> str | None:
    """What shows that the bytes are not those that were archived; None when nothing does."""
    told = primary.own_checksum(found.key) if found.kind is WalKind.SEGMENT else None
    if told is not None and told.parts is None and told.sha256 != hashlib.sha256(data).hexdigest():
        return "what was read has another SHA-256 than the store tells."
    if found.segment is None or not found.key.endswith(compression.SUFFIX):
        return None  # what is in an envelope only its key shows
    try:
        _look_into(found, found.segment, compression.decompress(data, found.key))
    except StoreError as error:
        return error.message
    return None


def _look_into(found: WalObject, name: str, contents: bytes) -> None:
    header = read_header(contents)
    size = header.segment_bytes if header is not None else len(contents)
    require_segment(contents, Segment.parse(name, size), found.system_identifier, whole=found.kind is WalKind.SEGMENT)


def _same(primary: Store, offsite: Store, found: WalObject, go_on: GoOn, *, stage: Stage, total: int) -> bool:
    go_on()
    ours, theirs = primary.own_checksum(found.key), offsite.own_checksum(found.key)
    stage.advance(1, total, "objects")
    if ours is not None and theirs is not None and ours.parts == theirs.parts:
        return ours.sha256 == theirs.sha256
    return _read(primary, found.key) == _read(offsite, found.key)


def _remove_replaced(offsite: Store, newest: Sequence[WalObject], there: Sequence[WalObject]) -> int:
    """Remove what something there replaces: parts by a longer one or the whole segment, positions by a newer one."""
    present = {found.key for found in there}
    whole = {(f.system_identifier, f.timeline, f.segment) for f in there if f.kind is WalKind.SEGMENT}
    replaced = 0
    for found in there:
        if found.kind not in _PASSING:
            continue
        place = found.system_identifier, found.timeline
        newer = any(
            other.kind is found.kind
            and (other.system_identifier, other.timeline) == place
            and other.key in present
            and _after(other, found)
            for other in newest
        )
        if newer or (*place, found.segment) in whole:
            offsite.delete(found.key)
            replaced += 1
    return replaced


def _after(one: WalObject, other: WalObject) -> bool:
    if one.kind is WalKind.PARTIAL:  # that the next segment was begun makes up for no part of this one
        return one.segment == other.segment and one.order > other.order
    return one.key > other.key


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()
