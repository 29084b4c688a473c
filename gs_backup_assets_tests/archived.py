"""A production server with base backups and an archive of its log, made by hand: what recovery and drills rest on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.catalogue.wal_positions import Position, put_position
from gs_backup_assets.config import DatabaseSettings, load_config
from gs_backup_assets.postgres.wal import Lsn, Segment, is_history, is_segment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.vault.opening import Vault, open_vault
from gs_backup_assets.vault.store import Store
from gs_backup_assets_tests.production import Production, production

# Segments stay until a test has archived them.
_KEEP = {"wal_keep_size": "1GB", "autovacuum": "off"}


def configuration(folder: Path, **changes: Any) -> DatabaseSettings:
    """backup.yaml in a folder (JSON is YAML), with base backups and WAL switched on, read again."""
    document: dict[str, Any] = {
        "databases": {"studio": {"url_env": "GS_BACKUP_TEST_URL"}},
        "rules": "none",
        "physical": {"compression": "zstd:1"},
        "wal": {"max_lag": "5m"},
        "data_classes": {"critical": {"rpo": "15m", "rto": "1h"}, "important": {"rpo": "1h", "rto": "4h"}},
    }
    document = {name: value for name, value in {**document, **changes}.items() if value is not None}
    path = folder / "backup.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return load_config(path).database()


@dataclass
class Site:
    """A server, and the stores in which its backups and its log lie."""

    server: Production
    settings: DatabaseSettings

    @property
    def vault(self) -> Vault:
        return open_vault(self.settings)

    @property
    def store(self) -> Store:
        return self.vault.primary

    @property
    def cluster(self) -> str:
        """The system identifier."""
        ((identifier,),) = self.server.sql(
            "SELECT system_identifier::text FROM pg_control_system()", database="postgres"
        )
        return str(identifier)

    @property
    def archive(self) -> WalArchive:
        return open_archive(self.settings, self.store, self.cluster, writing=True)

    def base_backup(self, *, full: bool | None = None) -> PhysicalEntry:
        """A base backup, in a second of the server's clock that no other has: ids name seconds."""
        catalogue = PhysicalCatalogue(self.store, "studio")
        newest = catalogue.latest()
        while newest is not None and backup_id(self.now()) <= newest.id:
            time.sleep(0.05)
        week = WEEK.of(datetime.now(timezone.utc), self.settings.zone)
        made = take_base_backup(self.settings, self.server.target("postgres"), self.store, week, Progress(), full=full)
        return catalogue.find(made.id)

    def commit(self, value: int = 0) -> datetime:
        """One transaction that leaves a row, and the server's time after it."""
        self.server.sql("CREATE TABLE IF NOT EXISTS lesson (id bigserial PRIMARY KEY, value int)")
        self.server.sql(f"INSERT INTO lesson (value) VALUES ({value})")
        return self.now()

    def now(self) -> datetime:
        ((moment,),) = self.server.sql("SELECT clock_timestamp()", database="postgres")
        assert isinstance(moment, datetime)
        return moment.astimezone(timezone.utc)

    def switch(self) -> None:
        """Begin a new segment, so that the one before it is whole."""
        self.server.sql("SELECT pg_switch_wal()", database="postgres")

    def flushed(self) -> Lsn:
        """Where the log ends on disk, once the WAL writer has written all of it."""
        deadline = time.monotonic() + 60
        while True:
            ((inserted, flushed),) = self.server.sql(
                "SELECT pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text", database="postgres"
            )
            if inserted == flushed:
                return Lsn.parse(str(flushed))
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def archive_all(self, *, partial: bool = True) -> Lsn:
        """Archive what the server has of its newest timeline and the histories; returns up to where."""
        end = self.flushed()
        archive, folder = self.archive, self.server.data / "pg_wal"
        names = sorted(path.name for path in folder.iterdir())
        timeline = max(int(name[:8], 16) for name in names if is_segment(name))
        there = {archived.segment for archived in archive.segments(timeline) if not archived.partial}
        for name in names:
            if is_history(name):
                archive.put_history(int(name[:8], 16), (folder / name).read_bytes())
            elif is_segment(name) and int(name[:8], 16) == timeline:
                segment = Segment.parse(name)
                if segment.end <= end and segment not in there:
                    archive.put(segment, (folder / name).read_bytes())
                    archive.drop_partials(segment)
                elif partial and segment.start < end < segment.end:
                    archive.put_partial(segment, (folder / name).read_bytes())
        return end

    def heartbeat(self, at: datetime, *, server: Lsn | None = None) -> Position:
        """The stream's record of a moment: everything is archived, or the server was farther."""
        lsn = str(server or self.flushed())
        ((timeline,),) = self.server.sql("SELECT timeline_id FROM pg_control_checkpoint()", database="postgres")
        position = Position(
            system_identifier=self.cluster, timeline=int(str(timeline)), at=at, server_lsn=lsn, archived_lsn=lsn
        )
        put_position(self.store, "studio", position)
        return position

    def stored(self) -> list[str]:
        """Keys of the archived segments, in order."""
        return [listed.key for listed in self.store.objects(self.archive.folder) if ".zst" in listed.key]


@contextmanager
def site(
    major: int, folder: Path, *, checksums: bool = True, server: Mapping[str, str] | None = None, **changes: Any
) -> Iterator[Site]:
    """A new server with an empty database `studio`, and a configuration for it."""
    with production(major, checksums=checksums, settings={**_KEEP, **(server or {})}) as made:
        yield Site(made, configuration(folder, **changes))
