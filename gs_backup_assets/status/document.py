"""The status document: one look says whether every database has a fresh, proven backup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.staleness import read_dumps, stale_problems
from gs_backup_assets.alerts.staleness_physical import last_archived
from gs_backup_assets.catalogue.attainment import Attained, Evidence, Way, attained
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.freshness import dated_by
from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import BackupConfig, DatabaseSettings
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets.recovery.objectives_report import way_by_log
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.words import over_text

_MOST_BACKUPS = 10
_READERS = 16  # databases read side by side: their stores may be far away
Health = Literal["healthy", "warning", "error"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackupSummary(_Record):
    """One backup. `age` is in milliseconds, `size` in bytes: the fields of the strategy document's endpoint."""

    name: str
    size: int | None
    created: datetime
    age: int
    verdict: Verdict
    proved_at: datetime | None
    broken_rules: int


class ClassObjective(_Record):
    """Targets of a data class in seconds, what would be lost now, and how long the last proof of that took.

    `way` is chosen as `gs-backup objectives` does: the archived log with its newest drill, or the last proven dump.
    """

    name: str
    rpo_target_seconds: float
    rto_target_seconds: float
    rpo_seconds: float | None
    rto_seconds: float | None
    rpo_met: bool | None
    rto_met: bool | None
    way: Literal["dump", "log"] | None = None


class DatabaseStatus(_Record):
    """Status of one database. `problems` says in words what is wrong, worst first.

    `headlines` says the same in short, without paths, hosts and addresses: for readers from elsewhere. Without
    `store_readable` nothing is known of the backups in the primary store. `wal_archived_at` is when the archive of the
    write-ahead log was last known to be where the server was, or else was written to. `recoverable_until` is the newest
    moment to which anything proven leads: what was committed before it is not lost.
    """

    database: str
    status: Health
    store_readable: bool
    latest_backup: BackupSummary | None
    total_backups: int
    backups: tuple[BackupSummary, ...]
    last_proven: BackupSummary | None
    objectives: tuple[ClassObjective, ...]
    problems: tuple[str, ...]
    headlines: tuple[str, ...]
    latest_base_backup: BackupSummary | None = None
    total_base_backups: int = 0
    wal_archived_at: datetime | None = None
    recoverable_until: datetime | None = None


class StatusDocument(_Record):
    """Status of the worst database, with the fields of the strategy document for the first one, and all of them."""

    status: Health
    latest_backup: BackupSummary | None
    total_backups: int
    backups: tuple[BackupSummary, ...]
    databases: tuple[DatabaseStatus, ...]
    generated_at: datetime

    @property
    def exit_status(self) -> ExitStatus:
        return ExitStatus.GOOD if self.status == "healthy" else ExitStatus.FAILED


@dataclass(frozen=True)
class Reading:
    """What the stores of one database said at `now`: its dumps and base backups, newest first, and what is wrong.

    `log` is what is reached by the archived log, None where none is.
    """

    settings: DatabaseSettings
    now: datetime
    summaries: tuple[Summary, ...]
    stale: tuple[Problem, ...]
    readable: bool
    base_backups: tuple[Summary, ...] = ()
    wal_archived_at: datetime | None = None
    log: Way | None = None

    @property
    def proven(self) -> Summary | None:
        """The newest proven backup, but for those of a clock that was ahead: they would be fresh for ever."""
        proven = (one for one in self.summaries if one.verdict is Verdict.PROVEN)
        return next((one for one in proven if dated_by(one.taken_at, self.now)), None)


def read_database(settings: DatabaseSettings, now: datetime) -> Reading:
    """Read the stores of one database. What cannot be read is among the problems."""
    dumps = read_dumps(settings)
    stale = stale_problems(settings, now, dumps=dumps)
    if isinstance(dumps, BackupError):
        return Reading(settings, now, (), stale, readable=False)
    base_backups, archived, log = _read_physical(settings, now)
    return Reading(settings, now, dumps, stale, True, base_backups, archived, log)


def _read_physical(
    settings: DatabaseSettings, now: datetime
) -> tuple[tuple[Summary, ...], datetime | None, Way | None]:
    """Base backups, newest first, when the log was archived last, and what it is good for; nothing where that cannot be
    read."""
    fresh_after = now - settings.wal.max_lag if settings.wal is not None else None
    try:
        store = open_store(settings)
        base_backups = tuple(PhysicalCatalogue(store, settings.name).summaries())
        archived = last_archived(store, settings.name, fresh_after)
        log = way_by_log(settings, store, now, [], reading=False) if settings.wal is not None else None
        return base_backups, archived, log
    except BackupError:  # it is among the problems, where base backups or the log are configured
        return (), None, None


def read_databases(config: BackupConfig, now: datetime, database: str | None = None) -> list[Reading]:
    """Read the stores of all databases (or of one), several side by side."""
    names = (database,) if database else config.names()
    with Threads(_READERS, "status") as pool:
        return list(pool.map(lambda name: read_database(config.database(name), now), names))


def build_status(config: BackupConfig, now: datetime, database: str | None = None) -> StatusDocument:
    """Read the stores of all databases (or of one) and judge them at `now`."""
    return status_of(read_databases(config, now, database), now)


def status_of(readings: Sequence[Reading], now: datetime) -> StatusDocument:
    """Judge what was read at `now`."""
    databases = tuple(_database_status(reading) for reading in readings)
    order: tuple[Health, ...] = ("error", "warning", "healthy")
    first = databases[0]
    return StatusDocument(
        status=min((d.status for d in databases), key=order.index),
        latest_backup=first.latest_backup,
        total_backups=first.total_backups,
        backups=first.backups,
        databases=databases,
        generated_at=now,
    )


def _database_status(reading: Reading) -> DatabaseStatus:
    settings, now, entries, proven = reading.settings, reading.now, reading.summaries, reading.proven
    told = [" ".join(filter(None, (f"{one.title}.", one.body, one.last_good))) for one in reading.stale]
    more = []
    if entries and entries[0].verdict is Verdict.FAILED:
        more.append(f"{settings.name}: the newest backup, {entries[0].id}, FAILED its proof.")
    if proven and proven.broken_rules:
        more.append(f"{settings.name}: broken in production: {', '.join(proven.broken_rules)}.")
    ways = _ways(reading)
    goals = attained(settings.data_classes, ways, CRITICAL_CLASS, now)
    if proven is not None:
        more += [f"{settings.name}: {words}" for words in _missed(goals)]
    problems = (*told, *more)
    summaries = tuple(_summary(entry, now) for entry in entries[:_MOST_BACKUPS])
    return DatabaseStatus(
        database=settings.name,
        # Without any proven backup there is nothing to fall back on; everything else is a warning.
        status="error" if proven is None else "warning" if problems else "healthy",
        store_readable=reading.readable,
        latest_backup=summaries[0] if summaries else None,
        total_backups=len(entries),
        latest_base_backup=_summary(reading.base_backups[0], now) if reading.base_backups else None,
        total_base_backups=len(reading.base_backups),
        wal_archived_at=reading.wal_archived_at,
        backups=summaries,
        last_proven=_summary(proven, now) if proven else None,
        recoverable_until=_recoverable_until(ways, now),
        objectives=tuple(_objective(goal) for goal in goals),
        problems=problems,
        headlines=(*(_headline(problem) for problem in reading.stale), *more),
    )


def _headline(problem: Problem) -> str:
    code = f" ({problem.code})" if problem.code else ""
    return f"{problem.title}{code}. {problem.last_good}" if problem.last_good else f"{problem.title}{code}"


def _missed(goals: Sequence[Attained]) -> Iterator[str]:
    """What is promised to a data class and not reached now."""
    for goal in goals:
        if goal.rpo is not None and goal.rpo_status is Status.FAILED:
            lost, target = over_text(goal.rpo.seconds, goal.rpo_target_seconds)
            yield f"{goal.data_class}: {lost} would be lost now, no more than {target} is promised."
        if goal.rto is not None and goal.rto_status is Status.FAILED:
            taken, target = over_text(goal.rto.seconds, goal.rto_target_seconds)
            yield f"{goal.data_class}: it would be back in {taken}, {target} is promised."


def _summary(entry: Summary, now: datetime) -> BackupSummary:
    return BackupSummary(
        name=entry.id,
        size=entry.stored_bytes,
        created=entry.taken_at,
        age=int((now - entry.taken_at).total_seconds() * 1000),
        verdict=entry.verdict,
        proved_at=entry.proved_at,
        broken_rules=len(entry.broken_rules),
    )


def _ways(reading: Reading) -> tuple[Way, ...]:
    """The ways back, the log first. What would be lost now of a dump is what came after it."""
    proven, log = reading.proven, reading.log
    ways = (log,) if log is not None and log.rpo is not None else ()
    if proven is None:
        return ways
    lost, taken, by = (reading.now - proven.taken_at).total_seconds(), proven.rto_seconds, f"the proof of {proven.id}"
    rpo = Evidence(seconds=lost, by=by, at=reading.now)
    rto = Evidence(seconds=taken, by=by, at=proven.proved_at or proven.taken_at) if taken is not None else None
    return (*ways, Way(name="dump", rpo=rpo, rto=rto))


def _recoverable_until(ways: Sequence[Way], now: datetime) -> datetime | None:
    return max((now - timedelta(seconds=way.rpo.seconds) for way in ways if way.rpo is not None), default=None)


def _objective(goal: Attained) -> ClassObjective:
    met = {Status.PASSED: True, Status.FAILED: False, Status.NOT_VERIFIED: None}
    return ClassObjective(
        name=goal.data_class,
        rpo_target_seconds=goal.rpo_target_seconds,
        rto_target_seconds=goal.rto_target_seconds,
        rpo_seconds=goal.rpo.seconds if goal.rpo else None,
        rto_seconds=goal.rto.seconds if goal.rto else None,
        rpo_met=met[goal.rpo_status],
        rto_met=met[goal.rto_status],
        way=goal.way,
    )
