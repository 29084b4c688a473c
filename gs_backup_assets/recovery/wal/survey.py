"""What the archive of the write-ahead log comes to: continuity, gaps, and the last commit that can be recovered.

All of it is read from the archived objects and their bytes, never from the counters of a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.coverage import Base, ClusterLog, Gap, Reach, TimelineLog, gaps, reaches, runs
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive, archived_clusters
from gs_backup_assets.catalogue.wal_positions import Position, newest_position, positions
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, StoreError
from gs_backup_assets.postgres.wal import DEFAULT_SEGMENT_BYTES, Lsn, Segment
from gs_backup_assets.postgres.waldump import Commit
from gs_backup_assets.recovery.wal.access import open_archive, open_archive_as_stored
from gs_backup_assets.recovery.wal.tail import known_tail, read_tail
from gs_backup_assets.vault.store import Store

_BASES_LOOKED_AT = 20


@dataclass(frozen=True)
class TimelineSurvey:
    """What is archived of one timeline. Bytes are those at rest; `end` is up to where its log goes."""

    timeline: int
    first: str
    last: str
    segments: int
    stored_bytes: int
    end: Lsn


@dataclass(frozen=True)
class WalSurvey:
    """One look at a cluster's archive at `at`.

    `end`, on `timeline`, is the last position that can be recovered to: where the log ends that goes on from the
    newest base backup without a gap; without a base backup where the newest log ends. `commit` is the last commit
    before it, `position` the stream's newest record, `covered` the newest of its records up to which the archive has
    all that the server had. `gap_after_base` is the first gap behind the newest base backup;
    `off_timeline` says that the newest timeline cannot be reached from it. `damage` is an archived segment among the
    newest that cannot be read, `unread` why bytes could not be looked at.
    """

    system_identifier: str
    at: datetime
    segment_bytes: int
    timelines: tuple[TimelineSurvey, ...] = ()
    base: PhysicalEntry | None = None
    end: Lsn | None = None
    timeline: int | None = None
    commit: Commit | None = None
    position: Position | None = None
    covered: Position | None = None
    gaps: tuple[Gap, ...] = ()
    gap_after_base: Gap | None = None
    off_timeline: bool = False
    damage: StoreError | None = None
    unread: BackupError | None = None

    @property
    def segments(self) -> int:
        return sum(timeline.segments for timeline in self.timelines)

    @property
    def stored_bytes(self) -> int:
        return sum(timeline.stored_bytes for timeline in self.timelines)

    @property
    def gap_segments(self) -> int:
        """Segments that are missing, or not there to their end, between those that are."""
        return sum(missing_segments(gap, self.segment_bytes) for gap in self.gaps)

    @property
    def lag_bytes(self) -> int | None:
        """How much of the log that the server had at the stream's last look is not archived; None without a look."""
        if self.position is None or self.end is None:
            return None
        return max(0, Lsn.parse(self.position.server_lsn).value - self.end.value)

    @property
    def complete(self) -> bool:
        """Whether all was archived that the server had at the stream's last look."""
        return self.position is not None and self.covered == self.position

    @property
    def recoverable_until(self) -> datetime | None:
        """No transaction that was committed before this moment is missing; None when nothing can be recovered.

        An idle server commits nothing: it counts that the archive has all the log that it had at a look of the stream.
        """
        if self.base is None:
            return None
        moments = [self.base.require_manifest().consistent_at]
        if self.commit is not None:
            moments.append(self.commit.at)
        if self.covered is not None:
            moments.append(self.covered.at)
        return max(moments)

    @property
    def age_seconds(self) -> float | None:
        """How much would be lost now, in seconds."""
        until = self.recoverable_until
        return None if until is None else max(0.0, (self.at - until).total_seconds())


def missing_segments(gap: Gap, segment_bytes: int) -> int:
    """How many segments of a gap are not there, or not whole."""
    return (gap.end.value - 1) // segment_bytes - gap.start.value // segment_bytes + 1


def needs_new_base(survey: WalSurvey) -> str | None:
    """Why a new, full base backup is needed for what comes now to be recoverable; None when it is not."""
    if survey.base is None:
        return "there is no base backup of the cluster"
    if survey.gap_after_base is not None:
        return f"the log behind {survey.base.id} has a gap at {survey.gap_after_base.missing}"
    if survey.off_timeline:
        return f"the server's timeline does not come from that of {survey.base.id}"
    if survey.damage is not None:
        return f"the log behind {survey.base.id} is damaged: {survey.damage.message}"
    return None


def current_cluster(settings: DatabaseSettings, store: Store) -> str | None:
    """The system identifier of the cluster whose log is archived now; None when there is none.

    Of several (a cluster was made anew) it is the one that the stream looked at last, else that of the newest base
    backup.
    """
    known = archived_clusters(store, settings.name)
    if len(known) < 2:
        return next(iter(known), None)
    looks = [p for p in (newest_position(store, settings.name, name) for name in known) if p is not None]
    if looks:
        return max(looks, key=lambda look: look.at).system_identifier
    newest = PhysicalCatalogue(store, settings.name).latest()
    manifest = newest.manifest if newest else None
    return manifest.system_identifier if manifest and manifest.system_identifier in known else known[-1]


def survey_archive(
    settings: DatabaseSettings, store: Store, system_identifier: str, *, now: datetime, reading: bool = True
) -> WalSurvey:
    """Look at a cluster's archive in one store. Reads the newest segments' bytes, unless they are those of last time.

    Without `reading` names since the base backup and the stream's records are all that is looked at, and what is
    remembered of last time: quick, but blind to damage, and where the stream lags to commits that nobody has read yet.

    Raises StoreError when the store cannot be listed; what is wrong with what lies in it is told in the survey.
    """
    entry = _newest_base(store, settings.name, system_identifier)
    segment_bytes = entry.require_manifest().wal_segment_bytes if entry else DEFAULT_SEGMENT_BYTES
    archive = open_archive(settings, store, system_identifier, segment_bytes=segment_bytes)
    unread: BackupError | None = None
    logs: tuple[TimelineLog, ...] = ()
    try:
        if entry is None:
            archive = open_archive_as_stored(settings, store, system_identifier)
            segment_bytes = archive.segment_bytes
        logs = logs_of(archive, since=None if reading or entry is None else _stop_of(entry))
    except BackupError as error:  # as of a history that cannot be read: nothing can be said of what follows what
        unread = error
    cluster = ClusterLog(system_identifier, (_base(entry),) if entry else (), logs, segment_bytes)
    newest = max((log.number for log in logs if log.segments), default=None)
    reach = _reach(cluster)
    segments: tuple[Archived, ...] = ()
    if reach is not None:
        segments = reach.segments
    elif newest is not None:
        segments = runs(cluster, newest)[-1].segments
    begin = reach.base.stop if reach is not None else segments[0].segment.start if segments else None
    end, commit, damage = begin, None, None
    if begin is not None and unread is None:
        try:
            tail = (read_tail if reading else known_tail)(archive, segments, begin)
            end, commit, damage = tail.end, tail.commit, tail.damage
        except BackupError as error:
            unread = error
    timeline = reach.timeline if reach is not None else newest
    looks = list(positions(store, settings.name, system_identifier))
    return WalSurvey(
        system_identifier=system_identifier,
        at=now,
        segment_bytes=segment_bytes,
        timelines=tuple(_timeline(log) for log in logs if log.segments),
        base=entry,
        end=end,
        timeline=timeline,
        commit=commit,
        position=looks[0] if looks else None,
        covered=_covered(looks, end, timeline),
        gaps=gaps(cluster),
        gap_after_base=_gap_at(cluster, reach),
        off_timeline=entry is not None and newest is not None and not reaches(cluster, newest),
        damage=damage,
        unread=unread,
    )


def gap_behind_base(archive: WalArchive, logs: tuple[TimelineLog, ...]) -> Gap | None:
    """The gap behind a cluster's newest base backup; None without one, and for gaps that lie before it."""
    entry = _newest_base(archive.store, archive.database, archive.system_identifier)
    cluster = ClusterLog(archive.system_identifier, (_base(entry),) if entry else (), logs, archive.segment_bytes)
    return _gap_at(cluster, _reach(cluster))


def _covered(looks: Sequence[Position], end: Lsn | None, timeline: int | None) -> Position | None:
    """The newest look, of those on the server's timeline, at which it had nothing that lies behind `end`.

    A server on a newer timeline than the archive may be at a position that the archive has of another history.
    """
    if end is None or timeline is None or not looks or looks[0].timeline > timeline:
        return None
    same = (look for look in looks if look.timeline == looks[0].timeline)
    return next((look for look in same if Lsn.parse(look.server_lsn) <= end), None)


def _newest_base(store: Store, database: str, system_identifier: str) -> PhysicalEntry | None:
    """The newest base backup of the cluster that is not known to be bad."""
    catalogue = PhysicalCatalogue(store, database)
    good = [s for s in catalogue.summaries() if s.damage is None and s.verdict is not Verdict.FAILED]
    for summary in good[:_BASES_LOOKED_AT]:
        entry = catalogue.entry(summary.partition, summary.id)
        if entry is not None and entry.manifest is not None and entry.manifest.system_identifier == system_identifier:
            return entry
    return None


def _stop_of(entry: PhysicalEntry) -> Segment:
    """The segment in which a base backup ends: recovery needs no log before it but what the backup itself has."""
    manifest = entry.require_manifest()
    return Segment.at(Lsn.parse(manifest.stop_lsn), manifest.timeline, manifest.wal_segment_bytes)


def _base(entry: PhysicalEntry) -> Base:
    manifest = entry.require_manifest()
    start, stop = Lsn.parse(manifest.start_lsn), Lsn.parse(manifest.stop_lsn)
    return Base(entry.id, manifest.timeline, start, stop, manifest.consistent_at)


def logs_of(archive: WalArchive, since: Segment | None = None) -> tuple[TimelineLog, ...]:
    """All that is archived of a cluster (`since` a segment), by timeline. StoreError (`WAL_DAMAGED`) when a history
    cannot be read."""
    return tuple(
        TimelineLog(timeline, archive.history(timeline), tuple(archive.segments(timeline, since)))
        for timeline in archive.timelines()
    )


def _timeline(log: TimelineLog) -> TimelineSurvey:
    return TimelineSurvey(
        timeline=log.number,
        first=log.segments[0].segment.name,
        last=log.segments[-1].segment.name,
        segments=sum(not archived.partial for archived in log.segments),
        stored_bytes=sum(archived.stored_bytes or 0 for archived in log.segments),
        end=log.segments[-1].end,
    )


def _reach(cluster: ClusterLog) -> Reach | None:
    """How far recovery gets from the base backup on the newest timeline that it leads to."""
    for log in sorted(cluster.timelines, key=lambda log: log.number, reverse=True):
        found = reaches(cluster, log.number)
        if found:
            return found[-1]
    return None


def _gap_at(cluster: ClusterLog, reach: Reach | None) -> Gap | None:
    """The gap that ends the way from the base backup; a later base backup may have left older ones behind."""
    if reach is None or reach.beyond is None:
        return None
    missing = Segment.at(reach.end, reach.base.timeline, cluster.segment_bytes).name
    own = Gap(reach.base.timeline, reach.end, reach.beyond, missing)
    return next((gap for gap in gaps(cluster) if gap.end == reach.beyond), own)
