"""How the archive of the write-ahead log is, and how far it is behind the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from gs_backup_assets.catalogue.wal_archive import WalArchive, archived_clusters
from gs_backup_assets.catalogue.wal_positions import Position, newest_position
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.slots import Slot, SlotLimits, read_slot, slot_limits
from gs_backup_assets.postgres.wal import DEFAULT_SEGMENT_BYTES, Lsn
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.server import Server, look_at
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
    """What is archived of a cluster."""

    system_identifier: str
    timelines: tuple[TimelineState, ...]
    position: Position | None


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
    """Everything; `refusal` is why the server could not be asked."""

    clusters: tuple[ClusterState, ...]
    live: ServerState | None
    refusal: BackupError | None

    def exit_status(self, max_lag: timedelta) -> ExitStatus:
        """FAILED: too far behind, or the slot is gone. NOT_VERIFIED: the server could not be asked."""
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
    clusters = tuple(_cluster(settings, store, system) for system in archived_clusters(store, settings.name))
    if server is None:
        return WalState(clusters, None, refusal)
    mine = next((c for c in clusters if c.system_identifier == server.facts.system_identifier), None)
    return WalState(clusters, _beside(server, mine, slot, limits, now), None)


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


def _cluster(settings: DatabaseSettings, store: Store, system_identifier: str) -> ClusterState:
    archive = open_archive(settings, store, system_identifier)
    size = archive.stored_segment_bytes() or DEFAULT_SEGMENT_BYTES
    if size != archive.segment_bytes:
        archive = open_archive(settings, store, system_identifier, segment_bytes=size)
    timelines = [_timeline(archive, timeline) for timeline in archive.timelines()]
    position = newest_position(store, settings.name, system_identifier)
    return ClusterState(system_identifier, tuple(t for t in timelines if t is not None), position)


def _timeline(archive: WalArchive, timeline: int) -> TimelineState | None:
    found = archive.segments(timeline)
    if not found:
        return None
    first, last = found[0].segment, found[-1].segment
    return TimelineState(
        timeline=timeline,
        first=first.name,
        last=last.name,
        segments=len(found),
        stored_bytes=sum(archived.stored_bytes or 0 for archived in found),
        missing=last.number - first.number + 1 - len(found),
        end=found[-1].end,
    )
