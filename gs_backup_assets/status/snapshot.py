"""Everything that the status server shows, read from the stores at one moment."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.wal_archive import archived_clusters
from gs_backup_assets.catalogue.wal_positions import Position, newest_position
from gs_backup_assets.config import BackupConfig, DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.status.document import DatabaseStatus, Reading, StatusDocument, read_databases, status_of
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.opening import open_store

_READERS = 16


@dataclass(frozen=True)
class Detail:
    """One database: what was read, its status, seconds by stage of its last proof, and its stream's last position."""

    reading: Reading
    status: DatabaseStatus
    stage_seconds: Mapping[str, float]
    position: Position | None


@dataclass(frozen=True)
class Snapshot:
    """All databases at one moment."""

    document: StatusDocument
    details: tuple[Detail, ...]

    @property
    def readable(self) -> bool:
        """Whether anything is known at all."""
        return any(detail.reading.readable for detail in self.details)


class Snapshots:
    """Takes snapshots; what a proof said is read once."""

    def __init__(self, config: BackupConfig) -> None:
        self._config = config
        self._stages: dict[tuple[str, str, datetime | None], Mapping[str, float]] = {}
        self._lock = threading.Lock()

    def take(self, now: datetime) -> Snapshot:
        """Read the stores of all databases; what cannot be read is among their problems."""
        readings = read_databases(self._config, now)
        document = status_of(readings, now)
        with Threads(_READERS, "status") as pool:
            stages = list(pool.map(self._stages_of, readings))
            positions = list(pool.map(_position_of, readings))
        made = zip(readings, document.databases, stages, positions, strict=True)
        return Snapshot(document, tuple(Detail(*one) for one in made))

    def _stages_of(self, reading: Reading) -> Mapping[str, float]:
        proven, settings = reading.proven, reading.settings
        if proven is None:
            return {}
        key = (settings.name, proven.id, proven.proved_at)
        with self._lock:
            known = self._stages.get(key)
        if known is None:
            known = _read_stages(settings, proven)
            with self._lock:
                old = [other for other in self._stages if other[0] == settings.name]
                for other in old:
                    del self._stages[other]
                self._stages[key] = known
        return known


def _read_stages(settings: DatabaseSettings, proven: Summary) -> Mapping[str, float]:
    try:
        entry = Catalogue(open_store(settings), settings.name).entry(proven.partition, proven.id)
    except BackupError:  # the backups could be read a moment ago: what is missing shows at the next look
        return {}
    return {} if entry is None or entry.proof is None else entry.proof.stage_seconds


def _position_of(reading: Reading) -> Position | None:
    settings = reading.settings
    if settings.wal is None or not reading.readable:
        return None
    try:
        store = open_store(settings)
        found = [newest_position(store, settings.name, one) for one in archived_clusters(store, settings.name)]
    except BackupError:  # a stream of which nothing is known has no position; the alerts tell why
        return None
    return max((position for position in found if position is not None), key=lambda one: one.at, default=None)
