"""What is reached of the objectives of each data class, by what evidence, and when growth will break them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from gs_backup_assets.catalogue.growth import MIN_DAYS, Trend
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict
from gs_backup_assets.config_watching import DataClass

OBJECTIVES_MET = "objectives_met"
RPO_WINDOW = timedelta(days=7)
FORECAST_ALARM = timedelta(days=90)
_HORIZON = timedelta(days=3650)
_RECENT = 7
_LOOKED_AT = 60  # backups: the growth of two months says more about the next ones than that of a year


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(_Record):
    """A number of seconds, what it was measured by, and when.

    `over_seconds` is for how long it was measured, where it is the longest of something: a target that is longer than
    that cannot have been broken yet, and so it is not known to be met.
    """

    seconds: float
    by: str
    at: AwareDatetime
    over_seconds: float | None = None


class Restored(_Record):
    """A restore that was measured: how long it took, of a database of how many bytes."""

    source_bytes: int
    seconds: float


class Way(_Record):
    """One way back: by a dump, or by a base backup and the log. `rpo` is what would be lost, `rto` how long it takes.

    `critical_rto` is how soon the critical tables are back, where they are brought first. `sizes` are those of the
    database, by when, and `restored` the restores that are the measure of the forecast.
    """

    name: Literal["dump", "log"]
    rpo: Evidence | None
    rto: Evidence | None
    critical_rto: Evidence | None = None
    sizes: tuple[tuple[AwareDatetime, int], ...] = ()
    restored: tuple[Restored, ...] = ()


class Forecast(_Record):
    """When growth breaks the RTO. `on` is that day; `unknown` is not verified, whatever `why` says."""

    outcome: Literal["breaks", "broken", "holds", "unknown"]
    on: date | None = None
    why: str


class Attained(_Record):
    """One data class: targets in seconds, what was reached, by which way and evidence, and what is to come."""

    data_class: str
    rpo_target_seconds: float
    rto_target_seconds: float
    way: Literal["dump", "log"] | None
    rpo: Evidence | None
    rto: Evidence | None
    rpo_status: Status
    rto_status: Status
    forecast: Forecast


class Point(_Record):
    """A proven backup in the history: how long its restore took, and how long it was since the one before."""

    at: AwareDatetime
    rto_seconds: float | None
    since_previous_seconds: float | None


class ObjectivesReport(_Record):
    """The objectives of a database at one moment; `notes` say what could not be used as evidence."""

    database: str
    at: AwareDatetime
    classes: tuple[Attained, ...]
    history: tuple[Point, ...]
    notes: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether there is evidence of anything."""
        return any(one.rpo is not None or one.rto is not None for one in self.classes)


def worst_gap(
    taken: Iterable[datetime], now: datetime, window: timedelta = RPO_WINDOW
) -> tuple[float, datetime] | None:
    """The longest time in seconds for which nothing proven was there to fall back on, within `window` before `now`,
    and when that time began. A gap counts whole though it began earlier. None without any backup."""
    moments = sorted(moment for moment in taken if moment <= now)
    if not moments:
        return None
    gaps = [(later - earlier, earlier) for earlier, later in pairwise([*moments, now]) if later >= now - window]
    longest, began = max(gaps, key=lambda gap: gap[0])
    return longest.total_seconds(), began


def history_of(summaries: Iterable[Summary]) -> tuple[Point, ...]:
    """The proven backups, the oldest first."""
    proven = sorted((s for s in summaries if s.verdict is Verdict.PROVEN), key=lambda s: s.taken_at)
    before = [None, *proven[:-1]]
    return tuple(
        Point(
            at=one.taken_at,
            rto_seconds=one.rto_seconds,
            since_previous_seconds=(one.taken_at - earlier.taken_at).total_seconds() if earlier else None,
        )
        for earlier, one in zip(before, proven, strict=False)
    )


def sizes_of(summaries: Sequence[Summary]) -> tuple[tuple[datetime, int], ...]:
    """How large the database was at each of its newest backups, which come first in `summaries`."""
    return tuple((s.taken_at, s.source_bytes) for s in summaries[:_LOOKED_AT] if s.source_bytes)


def restored_of(summaries: Iterable[Summary]) -> tuple[Restored, ...]:
    """The newest seven restores that proved their backup."""
    proven = [
        Restored(source_bytes=s.source_bytes, seconds=s.rto_seconds)
        for s in summaries
        if s.verdict is Verdict.PROVEN and s.source_bytes and s.rto_seconds is not None
    ]
    return tuple(proven[:_RECENT])


def rto_forecast(
    sizes: Iterable[tuple[datetime, int]], restored: Sequence[Restored], target_seconds: float, now: datetime
) -> Forecast:
    """When a restore takes longer than `target_seconds`, if the database goes on growing as it did.

    A restore is taken to need as many seconds a byte as the measured ones did, in the middle. That errs on the safe
    side: what does not depend on the size, such as starting a server, grows with it here.
    """
    rates = [one.seconds / one.source_bytes for one in restored if one.source_bytes > 0]
    trend = Trend.of(sizes)
    if not rates or trend is None:
        return Forecast(outcome="unknown", why="no restore of a known size was measured")
    if trend.growth is None:
        return Forecast(outcome="unknown", why=f"too little history: it takes backups of {MIN_DAYS} days in a week")
    rate = median(rates)
    today, per_day = rate * trend.expected(now), rate * trend.growth.bytes_per_day
    seen = f"by the growth of {trend.growth.span_days:g} days"
    if today > target_seconds:
        return Forecast(outcome="broken", on=now.date(), why=f"a restore takes {today:.0f} s now")
    if per_day <= 0:
        return Forecast(outcome="holds", why=f"the database does not grow, {seen}")
    days = (target_seconds - today) / per_day
    if days > _HORIZON.days:
        return Forecast(outcome="holds", why=f"not within ten years, {seen}")
    return Forecast(outcome="breaks", on=(now + timedelta(days=days)).date(), why=f"{per_day:.2g} s a day, {seen}")


def attained(classes: Mapping[str, DataClass], ways: Sequence[Way], critical: str, now: datetime) -> list[Attained]:
    """Judge every class by the way that serves it best. Both objectives count for one way: that the log loses little
    and a dump is quick does not give both at once. `critical` is the class whose tables can be brought first."""
    return [_best([_judge(name, one, way, critical, now) for way in (*ways, None)]) for name, one in classes.items()]


def _best(judged: Sequence[Attained]) -> Attained:
    order = (Status.PASSED, Status.FAILED, Status.NOT_VERIFIED)

    def rank(one: Attained) -> tuple[int, int]:
        both = (order.index(one.rpo_status), order.index(one.rto_status))
        return max(both), sum(both)

    return min(judged, key=rank)


def _judge(name: str, goal: DataClass, way: Way | None, critical: str, now: datetime) -> Attained:
    rpo = way.rpo if way else None
    rto = way.rto if way else None
    restored = way.restored if way else ()
    if way is not None and way.critical_rto is not None and name == critical:
        # The share of the whole restore is what a measure of the critical part alone tells of later ones.
        if rto is not None and rto.seconds > 0:
            share = way.critical_rto.seconds / rto.seconds
            restored = tuple(one.model_copy(update={"seconds": one.seconds * share}) for one in restored)
        rto = way.critical_rto
    rpo_target, rto_target = goal.rpo.total_seconds(), goal.rto.total_seconds()
    return Attained(
        data_class=name,
        rpo_target_seconds=rpo_target,
        rto_target_seconds=rto_target,
        way=way.name if way else None,
        rpo=rpo,
        rto=rto,
        rpo_status=_status(rpo, rpo_target),
        rto_status=_status(rto, rto_target),
        forecast=rto_forecast(way.sizes if way else (), restored, rto_target, now),
    )


def _status(evidence: Evidence | None, target: float) -> Status:
    if evidence is None:
        return Status.NOT_VERIFIED
    if evidence.seconds > target:
        return Status.FAILED
    short = evidence.over_seconds is not None and evidence.over_seconds < target
    return Status.NOT_VERIFIED if short else Status.PASSED


_HINTS = {
    "rpo": "Take backups more often, stream the log (docs/wal.md), or promise less in data_classes.",
    "rto": "Give restores more jobs or faster disks, bring critical tables first, or promise less in data_classes.",
}


def objectives_met(report: ObjectivesReport) -> CheckResult:
    """Whether every objective of every class is reached; open where one was not measured."""
    if not report.classes:
        finding = Finding(code="NO_OBJECTIVE", message="There are no data classes.", hint="Add them to backup.yaml.")
        return CheckResult(
            name=OBJECTIVES_MET, status=Status.NOT_VERIFIED, summary="nothing is promised", findings=(finding,)
        )
    findings = []
    statuses = set()
    for one in report.classes:
        goals = (
            ("rpo", one.rpo, one.rpo_status, one.rpo_target_seconds),
            ("rto", one.rto, one.rto_status, one.rto_target_seconds),
        )
        for goal, evidence, status, target in goals:
            statuses.add(status)
            if status is Status.FAILED and evidence is not None:
                words = f"{one.data_class}: {evidence.seconds:.0f} s, {target:.0f} s are promised ({evidence.by})."
                findings.append(Finding(code=f"{goal.upper()}_EXCEEDED", message=words, hint=_HINTS[goal]))
            elif status is Status.NOT_VERIFIED:
                words = f"{one.data_class}: nothing shows what is reached."
                hint = "Take and prove a backup: `gs-backup run`."
                if evidence is not None:
                    words = f"{one.data_class}: backups were proven for less time than is promised ({evidence.by})."
                    hint = "It is measured when they have been for that long."
                findings.append(Finding(code=f"{goal.upper()}_NOT_MEASURED", message=words, hint=hint))
    status = next((s for s in (Status.FAILED, Status.NOT_VERIFIED) if s in statuses), Status.PASSED)
    summary = f"RPO and RTO of {len(report.classes)} classes are met"
    if findings:
        summary = "; ".join(f"{finding.code} {finding.message.rstrip('.')}" for finding in findings)
    return CheckResult(name=OBJECTIVES_MET, status=status, summary=summary, findings=tuple(findings))
