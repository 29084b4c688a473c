"""Which backups stay and which go: a pure plan over what the catalogue knows, with a reason for each."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

from gs_backup_assets.catalogue.manifest import parse_id
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config_backups import Retention

_FOR_EVER = datetime.max.year  # of a lock without an end: a legal hold


@dataclass(frozen=True)
class Candidate:
    """A backup as the plan sees it. `partition` is the day in the configured zone, `folder` where it lies in the store.

    `base` is the id of the backup without which this one cannot be restored. `stays` says why it must stay whatever the
    policy says: it is nothing that this release can judge. Times are aware, sizes in bytes.
    """

    id: str
    partition: str
    verdict: Verdict
    held: bool = False
    locked_until: datetime | None = None
    base: str | None = None
    stored_bytes: int = 0
    stays: str | None = None
    folder: str = ""

    @cached_property
    def taken_at(self) -> datetime:
        """When the backup was started; aware, in UTC."""
        return parse_id(self.id)

    @cached_property
    def day(self) -> date | None:
        """The day of its partition; None when the folder is not named after one."""
        try:
            day = date.fromisoformat(self.partition)
        except ValueError:
            return None
        return day if day.isoformat() == self.partition else None  # Python reads more ways of writing a day

    @property
    def order(self) -> tuple[str, str]:
        """Sorts by age, the oldest first."""
        return self.id, self.partition


@dataclass(frozen=True)
class Decision:
    """Whether a backup stays, and why, in words for people. `replaced_by` is the proven one for whose sake it goes."""

    candidate: Candidate
    keep: bool
    reasons: tuple[str, ...]
    replaced_by: Candidate | None = None


@dataclass(frozen=True)
class _Period:
    """Days of one name: `words` go before it, `name` gives it to a day."""

    words: str
    name: Callable[[date], str]
    count: Callable[[Retention], int]


_Reasons = defaultdict[Candidate, list[str]]
_DAYS = _Period("", lambda day: day.isoformat(), lambda policy: policy.daily)
_PERIODS = (
    _DAYS,
    _Period("week ", lambda day: "{:04}-W{:02}".format(*day.isocalendar()), lambda policy: policy.weekly),
    _Period("month ", lambda day: day.isoformat()[:7], lambda policy: policy.monthly),
    _Period("year ", lambda day: day.isoformat()[:4], lambda policy: policy.yearly),
)


def plan(candidates: Iterable[Candidate], policy: Retention, now: datetime) -> tuple[Decision, ...]:
    """Decide about every backup; newest first. The same backups and policy give the same plan.

    Periods are counted and not limited by the calendar: only a day, week, month or year with a PROVEN backup counts, so
    a month without one deletes nothing good. A backup goes only when a newer one that is PROVEN stays.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.order, reverse=True)
    bases = _Bases(ordered)
    proven = [candidate for candidate in ordered if _counts(candidate, bases, now)]
    reasons: _Reasons = defaultdict(list)
    for candidate in ordered:
        reasons[candidate] += _protections(candidate, bases, now)
    for period in _PERIODS:
        for name, candidate in _newest_of_each(period, proven, policy).items():
            reasons[candidate].append(f"newest proven of {period.words}{name}")
    for candidate in proven[: policy.keep_proven]:
        newest = "the newest proven" if policy.keep_proven == 1 else f"one of the {policy.keep_proven} newest proven"
        reasons[candidate].append(newest)
    judged = [candidate for candidate in ordered if not _doubts(candidate, bases, now)]
    for candidate, reason in _not_replaced(judged, proven, policy):
        reasons[candidate].append(reason)
    _add_bases(ordered, bases, reasons)
    return tuple(_decisions(ordered, proven, reasons))


def deletion_order(decisions: Sequence[Decision]) -> tuple[Candidate, ...]:
    """What goes, in an order that may break off anywhere: dependents before their bases, then the oldest first."""
    going = sorted((d.candidate for d in decisions if not d.keep), key=lambda candidate: candidate.order)
    bases = _Bases(going)
    place = {candidate: number for number, candidate in enumerate(going)}
    waiting = [0] * len(going)  # how many of its dependents are not deleted yet
    for candidate in going:
        for base in bases.of(candidate):
            waiting[place[base]] += 1
    ready = [number for number, dependents in enumerate(waiting) if not dependents]
    order: dict[Candidate, None] = {}
    while ready:
        candidate = going[heapq.heappop(ready)]
        order[candidate] = None
        for base in bases.of(candidate):
            waiting[place[base]] -= 1
            if not waiting[place[base]]:
                heapq.heappush(ready, place[base])
    # Bases that name each other in a circle are none of ours, and none of them can be restored.
    return (*order, *(candidate for candidate in going if candidate not in order))


def relied_on(decisions: Sequence[Decision], policy: Retention, now: datetime) -> tuple[Candidate, ...]:
    """The proven backups for whose sake others go, and the newest ones that stay anyway; none when nothing goes."""
    if all(decision.keep for decision in decisions):
        return ()
    ordered = [decision.candidate for decision in decisions]
    bases = _Bases(ordered)
    newest = [candidate for candidate in ordered if _counts(candidate, bases, now)][: policy.keep_proven]
    return tuple(dict.fromkeys([*newest, *(d.replaced_by for d in decisions if d.replaced_by is not None)]))


class _Bases:
    """Which backups others cannot be restored without."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._by_id: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            self._by_id[candidate.id].append(candidate)

    def of(self, candidate: Candidate) -> Sequence[Candidate]:
        """The base itself; none where it has none, or where it is missing."""
        return self._by_id.get(candidate.base, ()) if candidate.base is not None else ()

    def lacks(self, candidate: Candidate) -> str | None:
        """The id that is missing, directly or further down; or the first one that is met again, in a circle."""
        met = {candidate.id}
        while candidate.base is not None:
            found = self.of(candidate)
            if not found or candidate.base in met:
                return candidate.base
            met.add(candidate.base)
            candidate = found[0]
        return None


def _counts(candidate: Candidate, bases: _Bases, now: datetime) -> bool:
    """Whether it is a proven backup that others may go for."""
    return candidate.verdict is Verdict.PROVEN and not _doubts(candidate, bases, now)


def _doubts(candidate: Candidate, bases: _Bases, now: datetime) -> list[str]:
    """Why a backup cannot be judged."""
    doubts = [candidate.stays] if candidate.stays is not None else []
    if candidate.day is None:
        doubts.append("its folder is not named after a day")
    if candidate.taken_at > now:
        doubts.append("its time lies in the future: a clock is wrong")
    if candidate.verdict is Verdict.PROVEN and (missing := bases.lacks(candidate)) is not None:
        doubts.append(f"its base {missing} is missing here")
    return doubts


def _protections(candidate: Candidate, bases: _Bases, now: datetime) -> list[str]:
    """What keeps a backup whatever the policy says."""
    reasons = _doubts(candidate, bases, now)
    if candidate.held:
        reasons.append("held")
    if candidate.locked_until is not None and candidate.locked_until > now:
        endless = candidate.locked_until.year == _FOR_EVER
        reasons.append(
            f"object lock {'without end' if endless else f'until {candidate.locked_until:%Y-%m-%d %H:%M} UTC'}"
        )
    return reasons


def _newest_of_each(period: _Period, proven: Sequence[Candidate], policy: Retention) -> dict[str, Candidate]:
    """The newest proven backup of each period that the policy keeps, by the period's name."""
    newest: dict[str, Candidate] = {}
    for candidate in proven:
        if candidate.day is not None:
            newest.setdefault(period.name(candidate.day), candidate)
    return {name: newest[name] for name in sorted(newest, reverse=True)[: period.count(policy)]}


def _not_replaced(
    judged: Sequence[Candidate], proven: Sequence[Candidate], policy: Retention
) -> Iterator[tuple[Candidate, str]]:
    """Backups that are not proven, and that nothing proven has replaced; each with the reason."""
    days = _newest_of_each(_DAYS, proven, policy)
    # While fewer days than the policy wants have a proven backup, the days before them are within its range.
    first = min(days) if len(days) == policy.daily > 0 else ""
    covered = {candidate.partition for candidate in proven}
    for candidate in judged:
        if candidate.verdict is Verdict.PROVEN:
            continue
        if not proven or candidate.order > proven[0].order:
            yield candidate, "nothing proven has replaced it"
        within = policy.daily > 0 and candidate.partition >= first and candidate.partition not in covered
        if candidate.verdict is Verdict.NOT_VERIFIED and within:
            covered.add(candidate.partition)
            yield candidate, f"newest of {candidate.partition}, which has no proven one"


def _add_bases(ordered: Sequence[Candidate], bases: _Bases, reasons: _Reasons) -> None:
    """What a backup that stays needs stays as well, and what that needs."""
    follow = [candidate for candidate in ordered if reasons[candidate]]
    for candidate in follow:
        for base in bases.of(candidate):
            if not reasons[base]:
                follow.append(base)
            reasons[base].append(f"base of {candidate.id}")


def _decisions(ordered: Sequence[Candidate], proven: Sequence[Candidate], reasons: _Reasons) -> Iterator[Decision]:
    counted = set(proven)
    newer: Candidate | None = None  # the nearest newer proven one that stays
    for candidate in ordered:
        if reasons[candidate]:
            yield Decision(candidate, True, tuple(reasons[candidate]))
            newer = candidate if candidate in counted else newer
        else:
            assert newer is not None  # the newest proven one always stays
            yield Decision(candidate, False, (f"replaced by {newer.id} (proven)",), newer)
