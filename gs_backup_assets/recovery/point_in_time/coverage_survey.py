"""Reads from one store what coverage needs: base backups, their chains, and what is archived of each cluster's log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.catalogue.coverage import Base, ClusterLog, Reach, TimelineLog, Window, reaches, windows
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_archive import WalArchive, archived_clusters
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.toolchain import choose_own_major
from gs_backup_assets.postgres.wal import DEFAULT_SEGMENT_BYTES, Lsn
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.log_end import LogEnd, LogReader
from gs_backup_assets.vault.store import Store

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Surveyed:
    """One cluster as a store has it: pure facts, and the means to read its log."""

    cluster: ClusterLog
    entries: Mapping[str, PhysicalEntry]
    archive: WalArchive

    @cached_property
    def reader(self) -> LogReader:
        """Programs of the cluster's own major are found when the log is read first. ProgramError."""
        newest = max(self.entries.values(), key=lambda entry: entry.id).require_manifest()
        return LogReader(self.archive, choose_own_major(newest.release))

    def chain(self, base: Base) -> tuple[PhysicalEntry, ...]:
        """The backups that a usable base needs, the full one first."""
        return chain_of(self.entries.values(), self.entries[base.id])

    def end_of(self, reach: Reach) -> LogEnd:
        """What the log comes to at the end of a reach; see `LogReader.end_of`."""
        if not reach.segments:
            return LogEnd((), reach.end, None, None)
        found = self.reader.end_of(reach.segments, reach.end)
        # Commits that lie before the base's end are in the base.
        end = max(found.end, reach.base.stop)
        if found.last is None or found.last.lsn < reach.base.stop:
            return replace(found, end=end, last=None, latest_at=None)
        return replace(found, end=end)

    @property
    def newest(self) -> datetime:
        """The last sign of life, by which the cluster in use is told from older ones."""
        bases = [base.consistent_at for base in self.cluster.bases]
        stored = [a.stored_at for log in self.cluster.timelines for a in log.segments if a.stored_at is not None]
        return max([*bases, *stored], default=_NEVER)


def survey(settings: DatabaseSettings, store: Store) -> list[Surveyed]:
    """Every cluster of which the store has a base backup or log, the one in use first.

    Backups whose manifest cannot be read are not in it. Raises StoreError, NotVerifiable.
    """
    entries = PhysicalCatalogue(store, settings.name).entries()
    by_cluster: dict[str, dict[str, PhysicalEntry]] = {name: {} for name in archived_clusters(store, settings.name)}
    for entry in entries:
        if entry.manifest is not None:
            by_cluster.setdefault(entry.manifest.system_identifier, {})[entry.id] = entry
    found = [_surveyed(settings, store, name, own) for name, own in by_cluster.items()]
    return sorted(found, key=lambda surveyed: surveyed.newest, reverse=True)


def windows_with_times(surveyed: Surveyed) -> tuple[Window, ...]:
    """The windows of a cluster with the times at which they end, read from the log itself."""
    return tuple(_with_time(surveyed, window) for window in windows(surveyed.cluster))


def latest_time(surveyed: Surveyed, reach: Reach, end: LogEnd) -> datetime:
    """The latest time of which the log of a reach shows what there was then.

    That of the last commit, or that at which a base backup inside of it was consistent: until then the log goes on.
    """
    later = [
        other.base.consistent_at
        for other in reaches(surveyed.cluster, reach.timeline)
        if reach.base.stop <= other.base.stop <= max(end.end, reach.base.stop)
    ]
    return max([reach.base.consistent_at, *later, *([end.latest_at] if end.latest_at else [])])


def _with_time(surveyed: Surveyed, window: Window) -> Window:
    every = reaches(surveyed.cluster, window.timeline)
    reach = next(reach for reach in reversed(every) if reach.base == window.bases[-1])
    end = surveyed.end_of(reach)
    return replace(window, end=end.end, ends_at=latest_time(surveyed, reach, end), damage=end.damage)


def _surveyed(
    settings: DatabaseSettings, store: Store, system_identifier: str, entries: Mapping[str, PhysicalEntry]
) -> Surveyed:
    manifests = [entry.require_manifest() for entry in entries.values()]
    segment_bytes = manifests[0].wal_segment_bytes if manifests else DEFAULT_SEGMENT_BYTES
    archive = open_archive(settings, store, system_identifier, segment_bytes=segment_bytes)
    logs = tuple(
        TimelineLog(number, archive.history(number), tuple(archive.segments(number))) for number in archive.timelines()
    )
    bases = tuple(_base(entries, entry) for entry in entries.values())
    return Surveyed(ClusterLog(system_identifier, bases, logs, segment_bytes), dict(entries), archive)


def _base(entries: Mapping[str, PhysicalEntry], entry: PhysicalEntry) -> Base:
    manifest = entry.require_manifest()
    unusable: str | None = None
    try:
        failed = [link.id for link in chain_of(entries.values(), entry) if link.verdict is Verdict.FAILED]
        if failed:
            unusable = f"{', '.join(failed)} FAILED its proof"
    except StoreError as error:
        unusable = error.message
    return Base(
        entry.id,
        manifest.timeline,
        Lsn.parse(manifest.start_lsn),
        Lsn.parse(manifest.stop_lsn),
        manifest.consistent_at,
        entry.verdict,
        unusable,
    )
