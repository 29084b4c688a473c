"""Retention of the write-ahead log in a store: plans what no base backup that stays can need, and deletes it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from gs_backup_assets.catalogue.audit import AuditLog, Author, failure_noted
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_inventory import WalKind, WalObject, wal_folder, wal_objects
from gs_backup_assets.catalogue.wal_retention import KeptBase, WalDecision, plan_wal, without_locked
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress, Stage
from gs_backup_assets.recovery.retention.pruning import PrunePlan, incomplete, pruners_rights
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.store import Store

_DELETED_AT_A_TIME = 8
_NAMED = 20


@dataclass(frozen=True)
class WalPlan:
    """What stays and what goes of a database's write-ahead log in one store."""

    database: str
    decisions: tuple[WalDecision, ...]

    @property
    def going(self) -> tuple[WalDecision, ...]:
        return tuple(decision for decision in self.decisions if not decision.keep)

    @property
    def kept_segments(self) -> int:
        return sum(decision.segments for decision in self.decisions if decision.keep)

    @property
    def freed_bytes(self) -> int:
        return sum(decision.stored_bytes for decision in self.going)


@dataclass(frozen=True)
class WalPruned:
    """What was done: deleted segments and objects. `left` counts objects that something needs that was held since."""

    segments: int
    objects: int
    freed_bytes: int
    left: int


def make_wal_plan(store: Store, database: str, physical: PrunePlan) -> WalPlan:
    """Decide about a store's log by the plan for its base backups. StoreError when the store cannot be read."""
    objects = wal_objects(store.objects(wal_folder(database)), database)
    if not objects:
        return WalPlan(database, ())
    stays = {decision.candidate.folder: decision.candidate for decision in physical.decisions if decision.keep}
    entries = [entry for entry in PhysicalCatalogue(store, database).entries() if entry.folder in stays]
    locked = {f for f, c in stays.items() if c.locked_until is not None and c.locked_until > physical.planned_at}
    decisions = _planned(objects, entries, locked)
    return WalPlan(database, tuple(part for decision in decisions for part in _but_locked(store, decision)))


def prune_wal(store: Store, prune: WalPlan, *, by: Author, progress: Progress) -> WalPruned:
    """Delete what goes. It comes after the base backups: what one of them needs that was held meanwhile stays.

    What the proven base backups come to is read once more, from the store. It may break off anywhere. StoreError: when
    the audit log cannot be written, before anything is deleted, or when the store refuses.
    """
    if not prune.going:
        return WalPruned(0, 0, 0, 0)
    with pruners_rights(store), progress.stage("prune wal") as stage:
        needed = _needed_now(store, prune)
        going = [[f for f in d.objects if f.key not in needed] for d in prune.going]
        left = sum(len(decision.objects) for decision in prune.going) - sum(map(len, going))
        every = [found for some in going for found in some]
        deleted = WalPruned(_segments(every), len(every), sum(found.listed.size for found in every), left)
        if every:
            log = AuditLog(store, prune.database)
            ids = {"wal": "; ".join(_named(prune.going))}
            log.append(by, "prune", ids, "started", {"segments": deleted.segments, "stored_bytes": deleted.freed_bytes})
            with failure_noted(store, prune.database, by, "prune", ids=ids):
                for some in going:
                    _delete(store, some, stage, deleted.freed_bytes)
            details = {"segments": deleted.segments, "freed_bytes": deleted.freed_bytes, "left": left}
            log.append(by, "prune", ids, "done", details)
    return deleted


def range_of(decision: WalDecision) -> str:
    """What a decision is about, for people: a cluster, or the segments of a timeline."""
    if decision.timeline is None or not decision.first:
        return f"cluster {decision.system_identifier}"
    if decision.first == decision.last:
        return decision.first
    return f"{decision.first} - {decision.last}"


def _planned(
    objects: Sequence[WalObject], entries: Sequence[PhysicalEntry], locked: set[str]
) -> tuple[WalDecision, ...]:
    bases = [_base(entry, pinned=entry.held or entry.folder in locked) for entry in entries if entry.manifest]
    return plan_wal(objects, bases, [entry.id for entry in entries if entry.manifest is None])


def _base(entry: PhysicalEntry, *, pinned: bool, proven: bool | None = None) -> KeptBase:
    manifest = entry.require_manifest()
    return KeptBase(
        id=entry.id,
        system_identifier=manifest.system_identifier,
        timeline=manifest.timeline,
        start=Lsn.parse(manifest.start_lsn),
        stop=Lsn.parse(manifest.stop_lsn),
        segment_bytes=manifest.wal_segment_bytes,
        taken_at=entry.taken_at,
        proven=entry.verdict is Verdict.PROVEN if proven is None else proven,
        pinned=pinned,
    )


def _but_locked(store: Store, decision: WalDecision) -> tuple[WalDecision, ...]:
    """A lock ends so many days after its object was stored: where locks begin in a range, a search by halves finds."""
    if decision.keep:
        return (decision,)
    by_age = sorted(decision.objects, key=lambda found: (found.listed.modified, found.key))
    first = bisect_left(by_age, True, key=lambda found: _locked(store, found))
    return without_locked(decision, [found.key for found in by_age[first:]], "object lock")


def _locked(store: Store, found: WalObject) -> bool:
    if found.kind in (WalKind.PARTIAL, WalKind.POSITION):  # they are stored without a lock
        return False
    try:
        return store.locked_until(found.key) is not None
    except StoreError as error:
        if error.code == "OBJECT_MISSING":  # somebody else deleted it this moment
            return False
        raise


def _needed_now(store: Store, prune: WalPlan) -> set[str]:
    """Keys of what goes by the plan, and would not go by one that is made now, of what is there and whole."""
    objects = [found for decision in prune.going for found in decision.objects]
    entries = PhysicalCatalogue(store, prune.database).entries()
    unreadable = [entry.id for entry in entries if entry.manifest is None]
    bases = [
        _base(
            entry, pinned=entry.held, proven=entry.verdict is Verdict.PROVEN and not incomplete(store, entry.manifest)
        )
        for entry in entries
        if entry.manifest is not None
    ]
    everything = wal_objects(store.objects(wal_folder(prune.database)), prune.database)
    now = plan_wal(everything, bases, unreadable)
    going = {found.key for decision in now if not decision.keep for found in decision.objects}
    return {found.key for found in objects if found.key not in going}


def _delete(store: Store, some: Sequence[WalObject], stage: Stage, total: int) -> None:
    """Side by side, but one kind after the other: what the log is read with goes last."""
    start = 0
    for number in range(1, len(some) + 1):
        if number == len(some) or some[number].kind is not some[start].kind:
            jobs = [partial(_delete_one, store, found, stage=stage, total=total) for found in some[start:number]]
            side_by_side(jobs, at_a_time=_DELETED_AT_A_TIME, name="prune")
            start = number


def _delete_one(store: Store, found: WalObject, go_on: GoOn, *, stage: Stage, total: int) -> None:
    go_on()
    store.delete(found.key)
    stage.advance(found.listed.size, total)


def _segments(objects: Sequence[WalObject]) -> int:
    return sum(found.kind is WalKind.SEGMENT for found in objects)


def _named(going: Sequence[WalDecision]) -> Iterator[str]:
    for decision in going[:_NAMED]:
        yield f"{decision.system_identifier}: {range_of(decision)}"
    if len(going) > _NAMED:
        yield f"and {len(going) - _NAMED} more ranges"
