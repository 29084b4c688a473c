"""Measures what is reached of the objectives, by the records in the store: proofs, drills, tests, and the log."""

from __future__ import annotations

from datetime import datetime, timedelta

from gs_backup_assets.catalogue.attainment import (
    Evidence,
    ObjectivesReport,
    Restored,
    Way,
    attained,
    history_of,
    restored_of,
    sizes_of,
    worst_gap,
)
from gs_backup_assets.catalogue.audit import AuditLog, decode
from gs_backup_assets.catalogue.catalogue import Catalogue, PhysicalCatalogue
from gs_backup_assets.catalogue.drills import read_drills
from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS
from gs_backup_assets.catalogue.staging_tests import read_staging_tests
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.recovery.wal.survey import current_cluster, survey_archive
from gs_backup_assets.vault.store import Store

CRITICAL_SECONDS = "critical_seconds"
_HISTORY = 90
_RECORDS_LOOKED_AT = 20
_AUDIT_LOOKED_AT = 100
# The document wants a drill a quarter: what was measured longer ago says little.
_EVIDENCE_FOR = timedelta(days=100)


def measure_objectives(settings: DatabaseSettings, store: Store, now: datetime) -> ObjectivesReport:
    """What is reached at `now`, by what lies in `store` alone. Raises StoreError when it cannot be read."""
    dumps = Catalogue(store, settings.name).summaries()
    notes: list[str] = []
    ways = [_by_dump(settings, store, dumps, now)]
    if settings.wal is not None:
        ways.insert(0, way_by_log(settings, store, now, notes))
    return ObjectivesReport(
        database=settings.name,
        at=now,
        classes=tuple(attained(settings.data_classes, ways, CRITICAL_CLASS, now)),
        history=history_of(dumps)[-_HISTORY:],
        notes=tuple(notes),
    )


def _by_dump(settings: DatabaseSettings, store: Store, dumps: list[Summary], now: datetime) -> Way:
    proven = [dump for dump in dumps if dump.verdict is Verdict.PROVEN]
    gap = worst_gap((dump.taken_at for dump in proven), now)
    rpo = None
    if gap is not None:
        by = f"the longest time between two proven backups in a week, from {gap[1]:%Y-%m-%d %H:%M} UTC"
        over = (now - min(dump.taken_at for dump in proven)).total_seconds()
        if len(proven) == 1:
            by = f"the age of the only proven backup, {proven[0].id}"
        rpo = Evidence(seconds=gap[0], by=by, at=now, over_seconds=over)
    restored = restored_of(proven)
    newest = next((dump for dump in proven if dump.rto_seconds is not None), None)
    rto = None
    if newest is not None and newest.rto_seconds is not None:
        by = f"the proof of {newest.id}"
        rto = Evidence(seconds=newest.rto_seconds, by=by, at=newest.proved_at or newest.taken_at)
    tested = _staging(settings, store, now)
    if tested is not None and (rto is None or tested.seconds > rto.seconds):
        rto = tested  # with the application, which counts until it works
        size = next((dump.source_bytes for dump in dumps if dump.source_bytes and dump.taken_at <= tested.at), None)
        restored = (Restored(source_bytes=size, seconds=tested.seconds),) if size else restored
    critical = _critical_first(store, settings.name, now) if CRITICAL_CLASS in settings.data_classes else None
    return Way(name="dump", rpo=rpo, rto=rto, critical_rto=critical, sizes=sizes_of(dumps), restored=restored)


def _staging(settings: DatabaseSettings, store: Store, now: datetime) -> Evidence | None:
    """The newest good staging test."""
    if settings.staging is None:
        return None
    for test in reversed(read_staging_tests(store, settings.name, newest=_RECORDS_LOOKED_AT)):
        recent = now - test.finished_at <= _EVIDENCE_FOR
        if test.verdict is Verdict.PROVEN and test.rto_seconds is not None and recent:
            by = f"the restore test on staging of {test.finished_at:%Y-%m-%d}"
            return Evidence(seconds=test.rto_seconds, by=by, at=test.finished_at)
    return None


def _critical_first(store: Store, database: str, now: datetime) -> Evidence | None:
    """The newest restore that brought the critical tables first, by the audit log."""
    log = AuditLog(store, database)
    newest = log.newest()
    numbers = range(max(1, newest - _AUDIT_LOOKED_AT + 1), newest + 1)
    found = [log.key(number) for number in numbers]
    for key, line in reversed(list(zip(found, log.lines(found), strict=True))):
        try:
            record = decode(line, key=key)
        except StoreError:  # a damaged record proves nothing; `gs-backup audit verify` tells of it
            continue
        seconds = record.details.get(CRITICAL_SECONDS)
        if record.event != "restore" or record.result != Verdict.PROVEN.value or isinstance(seconds, str):
            continue
        if seconds is not None and now - record.at <= _EVIDENCE_FOR:
            by = f"`restore --critical-first` of {record.at:%Y-%m-%d}"
            return Evidence(seconds=float(seconds), by=by, at=record.at)
    return None


def way_by_log(
    settings: DatabaseSettings, store: Store, now: datetime, notes: list[str], *, reading: bool = True
) -> Way:
    """What is reached by a base backup and the log. `notes` are added to. Without `reading` no byte of the log is read:
    see `survey_archive`. Raises StoreError."""
    bases = PhysicalCatalogue(store, settings.name).summaries()
    rto = _drilled(store, settings.name, now)
    if rto is None:
        notes.append("no recovery drill has succeeded lately: how long recovery takes is not known")
    rpo = _log_rpo(settings, store, now, notes, reading=reading)
    return Way(name="log", rpo=rpo, rto=rto, sizes=sizes_of(bases), restored=restored_of(bases))


def _drilled(store: Store, database: str, now: datetime) -> Evidence | None:
    """The newest good drill; nearly always it is the newest one, and only that is read."""
    for count in (1, _RECORDS_LOOKED_AT):
        for drill in reversed(read_drills(store, database, newest=count)):
            recent = now - drill.finished_at <= _EVIDENCE_FOR
            if drill.verdict is Verdict.PROVEN and drill.rto_seconds is not None and recent:
                by = f"the recovery drill of {drill.finished_at:%Y-%m-%d}"
                return Evidence(seconds=drill.rto_seconds, by=by, at=drill.finished_at)
    return None


def _log_rpo(
    settings: DatabaseSettings, store: Store, now: datetime, notes: list[str], *, reading: bool
) -> Evidence | None:
    """What would be lost now, by the archived log behind a base backup that is proven."""
    cluster = current_cluster(settings, store)
    if cluster is None:
        notes.append("no write-ahead log is archived")
        return None
    survey = survey_archive(settings, store, cluster, now=now, reading=reading)
    if survey.unread is not None or survey.base is None or survey.recoverable_until is None:
        reason = survey.unread.message if survey.unread else "there is no base backup of its cluster"
        notes.append(f"the archived log cannot be counted on: {reason}")
        return None
    if survey.base.verdict is not Verdict.PROVEN:
        notes.append(f"the archived log is not counted on: its base backup {survey.base.id} is not proven")
        return None
    by = f"the archived log behind {survey.base.id}, recoverable until {survey.recoverable_until:%Y-%m-%d %H:%M:%S} UTC"
    return Evidence(seconds=(now - survey.recoverable_until).total_seconds(), by=by, at=now)
