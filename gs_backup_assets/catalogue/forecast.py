"""What will rest in a store: the backups to come, and what retention and lifecycle rules make of them by then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from statistics import median
from zoneinfo import ZoneInfo

from gs_backup_assets.catalogue.growth import Trend, backups_per_day
from gs_backup_assets.catalogue.manifest import UNKNOWN_VERSION, backup_id
from gs_backup_assets.catalogue.retention import Candidate, plan
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.usage import Lot, counted_from
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config_backups import Retention

# Amazon's lifecycle rules move objects only down this list ("Supported transitions").
_DOWNWARDS = (
    "STANDARD",
    "STANDARD_IA",
    "INTELLIGENT_TIERING",
    "ONEZONE_IA",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
)
_RECENT = 7
# Amazon moves no smaller object to another class, unless a rule says so (`TransitionDefaultMinimumObjectSize`).
SMALLEST_MOVED_BYTES = 128 * 1024

BytesByClass = Mapping[str, int]


@dataclass(frozen=True)
class Rules:
    """What a store does with its objects: the class they come in, how long they are locked, when they move on.

    `transitions` gives the age at which objects of at least `smallest_moved` bytes move into a class.
    """

    storage_class: str
    lock: timedelta | None
    transitions: Mapping[str, timedelta]
    smallest_moved: int = SMALLEST_MOVED_BYTES


@dataclass(frozen=True)
class Copy:
    """One backup in one store.

    It `stays` whatever the policy says when it is held, or of a release that this one does not know; and until
    `locked_until` the store refuses to delete it.
    """

    id: str
    partition: str
    taken_at: datetime
    verdict: Verdict
    stays: bool
    locked_until: datetime | None
    lots: tuple[Lot, ...]


@dataclass(frozen=True)
class Holdings:
    """Everything of one database in one store. `rest` are the bytes that belong to no dump: they stay as they are."""

    rules: Rules
    copies: tuple[Copy, ...]
    rest: tuple[Lot, ...]


@dataclass(frozen=True)
class Coming:
    """The backups that are expected.

    `beside_bytes` is what rests beside the files of each (manifest, proofs, keys), `small_share` the share of all its
    bytes in objects that lifecycle rules do not move.
    """

    taken: tuple[datetime, ...]
    per_day: float
    trend: Trend
    beside_bytes: float
    small_share: float
    zone: ZoneInfo


def holdings_of(lots: Sequence[Lot], summaries: Sequence[Summary], rules: Rules) -> Holdings:
    """Put the lots of one store together by backup; both are made of the same listing."""
    by_folder: dict[str | None, list[Lot]] = defaultdict(list)
    for lot in lots:
        by_folder[lot.folder].append(lot)
    copies = [_copy(s, by_folder.pop(s.folder.removeprefix(f"{s.database}/"), []), rules) for s in summaries]
    return Holdings(rules, tuple(copies), tuple(lot for some in by_folder.values() for lot in some))


def coming_backups(
    stores: Sequence[Holdings], summaries: Sequence[Summary], now: datetime, until: datetime, zone: ZoneInfo
) -> Coming | None:
    """The backups from `now` to `until`: as many a day as there were, each as large as the trend says.

    `summaries` are those of all stores. None when there is no backup to begin with.
    """
    sizes = {s.id: (s.taken_at, s.stored_bytes) for s in summaries if s.stored_bytes is not None}
    trend = Trend.of(sizes.values())
    if trend is None:
        return None
    newest = sorted(sizes, reverse=True)[:_RECENT]
    copies = {copy.id: copy for store in reversed(stores) for copy in store.copies if copy.lots}
    beside, small = [], []
    for one in (copies[name] for name in newest if name in copies):
        total = sum(lot.stored_bytes for lot in one.lots)
        beside.append(max(0, total - sizes[one.id][1]))
        small.append(sum(lot.stored_bytes for lot in one.lots if lot.small) / max(1, total))
    taken = [moment for moment, _ in sizes.values()]
    per_day = backups_per_day(taken, now)
    return Coming(
        tuple(_ticks(max(taken).astimezone(zone), timedelta(days=1 / per_day), now, until)),
        per_day,
        trend,
        median(beside) if beside else 0.0,
        median(small) if small else 0.0,
        zone,
    )


def simulate(
    store: Holdings,
    coming: Coming,
    ends: Sequence[datetime],
    *,
    retention: Retention | None,
    transitions: bool,
) -> list[BytesByClass]:
    """Bytes by storage class at each of `ends`, which are in order. New backups count as proven.

    Without `retention` everything stays; without `transitions` all is in the class in which it is stored first.
    """
    present = list(store.copies)
    totals: list[BytesByClass] = []
    awaited = [_expected(coming, moment, store.rules) for moment in coming.taken]
    for end in ends:
        present += [copy for copy in awaited if copy.taken_at <= end]
        awaited = [copy for copy in awaited if copy.taken_at > end]
        if retention is not None:
            present = _survivors(present, retention, end)
        sizes: dict[str, int] = defaultdict(int)
        for lot in (*store.rest, *(lot for copy in present for lot in copy.lots)):
            sizes[_class_at(lot, end, store.rules, moved=transitions)] += lot.stored_bytes
        totals.append(dict(sizes))
    return totals


def _copy(summary: Summary, lots: Sequence[Lot], rules: Rules) -> Copy:
    stored = min((lot.since for lot in lots), default=summary.taken_at)
    return Copy(
        summary.id,
        summary.partition,
        summary.taken_at,
        summary.verdict,
        summary.held or summary.damage == UNKNOWN_VERSION,
        stored + rules.lock if rules.lock is not None else None,
        tuple(lots),
    )


def _ticks(last: datetime, step: timedelta, now: datetime, until: datetime) -> Iterator[datetime]:
    """When backups are due after `last` and after `now`; in the hours of its zone, as a schedule's are."""
    moment = last + step
    while moment <= until:
        if moment > now:
            yield moment.astimezone(timezone.utc)
        moment += step


def _expected(coming: Coming, moment: datetime, rules: Rules) -> Copy:
    total = coming.trend.expected(moment) + coming.beside_bytes
    small = round(total * coming.small_share)
    name = backup_id(moment)
    sizes = ((True, small), (False, round(total) - small))
    return Copy(
        name,
        moment.astimezone(coming.zone).date().isoformat(),
        moment,
        Verdict.PROVEN,
        False,
        moment + rules.lock if rules.lock is not None else None,
        tuple(Lot(name, rules.storage_class, counted_from(moment), is_small, size) for is_small, size in sizes if size),
    )


def _survivors(present: Sequence[Copy], policy: Retention, moment: datetime) -> list[Copy]:
    """What the plan keeps; the plan is the one that really deletes."""
    candidates = [
        Candidate(copy.id, copy.partition, copy.verdict, held=copy.stays, locked_until=copy.locked_until)
        for copy in present
    ]
    kept = {decision.candidate.order for decision in plan(candidates, policy, moment) if decision.keep}
    return [copy for copy, candidate in zip(present, candidates, strict=True) if candidate.order in kept]


def _class_at(lot: Lot, moment: datetime, rules: Rules, *, moved: bool) -> str:
    """The class in which a lot is at `moment`: as far down as the lifecycle rules have moved it by then, never up."""
    start = lot.storage_class
    if not moved:
        return rules.storage_class if start in rules.transitions else start
    if lot.small or start not in _DOWNWARDS:
        return start
    reached = (name for name, after in rules.transitions.items() if moment - lot.since >= after)
    return max((start, *reached), key=_DOWNWARDS.index)
