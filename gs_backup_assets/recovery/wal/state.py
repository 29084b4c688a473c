"""How the archive of the write-ahead log is, and how far it is behind the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gs_backup_assets.catalogue.coverage import Gap, TimelineLog
from gs_backup_assets.catalogue.wal_archive import archived_clusters
from gs_backup_assets.catalogue.wal_positions import Position, newest_position
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.slots import Slot, SlotLimits, read_slot, slot_limits
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.recovery.wal.access import open_archive_as_stored
from gs_backup_assets.recovery.wal.server import Server, look_at
from gs_backup_assets.recovery.wal.survey import current_cluster, gap_behind_base, logs_of, missing_segments
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class TimelineState:
    """What is archived of a timeline. `end` is up to where, `missing` how many segments between first and last."""

    timeline: int
    first: str
    last: str
    segments: int
    stored_bytes: int
    missing: int
    end: Lsn


@dataclass(frozen=True)
class ClusterState:
    """What is archived of a cluster.

    `gap` is where the way from the newest base backup ends, `gap_segments` how many segments are missing there. What
    was archived behind a gap within `wal.max_lag` is no proof of one: what lies before it may still be on its way.
    """

    system_identifier: str
    timelines: tuple[TimelineState, ...]
    position: Position | None
    gap: Gap | None
    gap_segments: int


@dataclass(frozen=True)
class ServerState:
    """The server beside the archive.

    `lag_seconds`: what was committed longer ago is archived for sure; None when nothing shows since when it is not.
    """

    server: Server
    slot: Slot | None
    limits: SlotLimits
    lag_bytes: int
    lag_seconds: float | None


@dataclass(frozen=True)
class WalState:
    """Everything; `refusal` is why the server could not be asked. `current` is the cluster that is archived now."""

    clusters: tuple[ClusterState, ...]
    current: ClusterState | None
    live: ServerState | None
    refusal: BackupError | None

    def exit_status(self, max_lag: timedelta) -> ExitStatus:
        """FAILED: a gap behind the newest base backup, too far behind, or the slot is gone. NOT_VERIFIED: no server."""
        if self.current is not None and self.current.gap is not None:
            return ExitStatus.FAILED
        if self.live is None:
            return ExitStatus.NOT_VERIFIED
        late = self.live.lag_seconds is None or self.live.lag_seconds > max_lag.total_seconds()
        return ExitStatus.FAILED if late or self.live.slot is None or self.live.slot.lost else ExitStatus.GOOD


def wal_state(settings: DatabaseSettings, store: Store, target: Target, *, now: datetime) -> WalState:
    """Look at archive and server. Raises what the store raises; the server's errors are in the answer."""
    assert settings.wal is not None
    server: Server | None = None
    refusal: BackupError | None = None
    slot, limits = None, SlotLimits(None, None)
    try:
        server = look_at(target)
        with connect(target, application="gs_backup wal") as connection:
            slot, limits = read_slot(connection, settings.wal.slot), slot_limits(connection)
    except BackupError as error:
        server, refusal = None, error
    # After the server: what it had flushed then may be archived by now, and nothing is taken for missing that is not.
    since = now - settings.wal.max_lag
    clusters = tuple(_cluster(settings, store, system, since) for system in archived_clusters(store, settings.name))
    wanted = server.facts.system_identifier if server is not None else current_cluster(settings, store)
    mine = next((c for c in clusters if c.system_identifier == wanted), None)
    live = None if server is None else _beside(server, mine, slot, limits, now)
    return WalState(clusters, mine, live, refusal)


def _beside(
    server: Server, cluster: ClusterState | None, slot: Slot | None, limits: SlotLimits, now: datetime
) -> ServerState:
    flushed = server.facts.lsn
    archived = max(_ends(server, cluster), default=Lsn(0))
    position = None if cluster is None else cluster.position
    seconds: float | None = None
    if archived >= flushed:
        seconds = 0.0
    elif (
        position is not None
        and position.timeline == server.facts.timeline
        and archived >= Lsn.parse(position.server_lsn)
    ):
        seconds = max(0.0, (now - position.at).total_seconds())
    return ServerState(server, slot, limits, max(0, flushed.value - archived.value), seconds)


def _ends(server: Server, cluster: ClusterState | None) -> Iterator[Lsn]:
    """Up to where each timeline on the way to the server's is archived: an older one counts to where it was left."""
    for found in () if cluster is None else cluster.timelines:
        if found.timeline in server.line.timelines:
            left = server.line.end_of(found.timeline)
            yield found.end if left is None else min(found.end, left)


def _cluster(settings: DatabaseSettings, store: Store, system_identifier: str, since: datetime) -> ClusterState:
    archive = open_archive_as_stored(settings, store, system_identifier)
    logs = logs_of(archive)
    position = newest_position(store, settings.name, system_identifier)
    gap = gap_behind_base(archive, logs)
    if gap is not None and not _is_old(gap, logs, since):
        gap = None
    missing = 0 if gap is None else missing_segments(gap, archive.segment_bytes)
    return ClusterState(
        system_identifier, tuple(_timeline(log) for log in logs if log.segments), position, gap, missing
    )


def _is_old(gap: Gap, logs: tuple[TimelineLog, ...], since: datetime) -> bool:
    """Whether something that lies behind a gap was archived before a time.

    A part is stored anew all the time: where there is nothing else behind the gap, it counts since when nothing was
    added before it.
    """
    found = [(a, a.stored_at) for log in logs for a in log.segments if a.stored_at is not None]
    behind = [at for archived, at in found if archived.segment.start >= gap.end and not archived.partial]
    before = [at for archived, at in found if archived.segment.start < gap.end]
    return (min(behind) if behind else max(before, default=since)) <= since


def _timeline(log: TimelineLog) -> TimelineState:
    found = log.segments
    first, last = found[0].segment, found[-1].segment
    return TimelineState(
        timeline=log.number,
        first=first.name,
        last=last.name,
        segments=len(found),
        stored_bytes=sum(archived.stored_bytes or 0 for archived in found),
        missing=last.number - first.number + 1 - len(found),
        end=found[-1].end,
    )
