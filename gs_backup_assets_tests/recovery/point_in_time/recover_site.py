"""A production server, a store and its archive for the tests of recovery; the log is brought by the test itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.wal import Lsn, Segment, is_history, is_segment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.point_in_time.recover import Recovered, recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan, plan_recovery
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Vault, open_vault
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.production import Production, production


@dataclass
class Site:
    """A server and where its backups go. `archive()` stores what pg_wal has, whole segments and the one at work."""

    server: Production
    settings: DatabaseSettings
    vault: Vault
    folder: Path

    def base_backup(self, server: Production | None = None, *, full: bool = True) -> PhysicalManifest:
        newest = PhysicalCatalogue(self.vault.primary, self.settings.name).latest()
        if newest is not None:  # ids name seconds
            wait_until(lambda: backup_id(datetime.now(timezone.utc)) > newest.id, what="the next second")
        week = WEEK.of(datetime.now(timezone.utc), self.settings.zone)
        target = (server or self.server).target("postgres")
        return take_base_backup(self.settings, target, self.vault.primary, week, Progress(), full=full)

    def system_identifier(self) -> str:
        return str(self.server.sql("SELECT system_identifier FROM pg_control_system()", database="postgres")[0][0])

    def open_archive(self, *, writing: bool = True, which: str = "primary") -> WalArchive:
        store = self.vault.primary if which == "primary" else self.vault.offsite
        assert store is not None
        size = self.server.segment_bytes
        return open_archive(self.settings, store, self.system_identifier(), writing=writing, segment_bytes=size)

    def archive(self, server: Production | None = None, *, partial: bool = True) -> None:
        """Store all that the server has flushed: whole segments, histories, and the unfinished segment."""
        server = server or self.server
        archive, size = self.open_archive(), server.segment_bytes
        flushed = Lsn.parse(str(server.sql("SELECT pg_current_wal_flush_lsn()", database="postgres")[0][0]))
        timeline = int(
            str(server.sql("SELECT pg_walfile_name(pg_current_wal_lsn())", database="postgres")[0][0])[:8], 16
        )
        for path in sorted((server.data / "pg_wal").iterdir()):
            if is_history(path.name):
                archive.put_history(int(path.name[:8], 16), path.read_bytes())
            elif is_segment(path.name):
                segment = Segment.parse(path.name, size)
                if segment.timeline == timeline and segment.end <= flushed:
                    archive.put(segment, path.read_bytes())
                elif partial and segment.timeline == timeline and segment.start < flushed:
                    archive.put_partial(segment, path.read_bytes())

    def copy_offsite(self) -> None:
        """Bring everything to the off-site store, object by object, as it is."""
        assert self.vault.offsite is not None
        for listed in self.vault.primary.objects(self.settings.name):
            with self.vault.primary.open(listed.key) as source:
                self.vault.offsite.put(source, listed.key, size=listed.size)

    def switch(self, server: Production | None = None) -> None:
        """End the segment at work."""
        (server or self.server).sql("SELECT pg_switch_wal()", database="postgres")

    def lsn(self, server: Production | None = None) -> Lsn:
        """Where the log is, flushed up to there."""
        (value,) = (server or self.server).sql("SELECT pg_current_wal_flush_lsn()", database="postgres")[0]
        return Lsn.parse(str(value))

    def plan(self, to: str | RecoveryTarget, **options: Any) -> RecoveryPlan:
        target = RecoveryTarget.parse(to, timeline=options.pop("timeline", None)) if isinstance(to, str) else to
        now = options.pop("now", datetime.now(timezone.utc))
        return plan_recovery(self.settings, self.vault, target, now=now, **options)

    @contextmanager
    def recovered(self, to: str | RecoveryTarget, **options: Any) -> Iterator[Recovered]:
        """Recover, as a drill does, into a folder that is gone afterwards."""
        with workspace("recovered", owner=server_account()) as folder:
            plan = self.plan(to, **options)
            with recovered(plan, self.settings, self.vault, folder / "into", Progress(), durable=False) as found:
                yield found


def rows(target: Target, statement: str) -> list[tuple[Any, ...]]:
    """Ask a recovered server."""
    with connect(target, settings={"search_path": "public"}) as connection:
        return query(connection, statement)


def ids(found: Recovered, table: str = "t") -> list[int]:
    """The ids in a table of the recovered server's database `studio`."""
    return [row[0] for row in rows(found.target("studio"), f"SELECT id FROM {table} ORDER BY id")]


@contextmanager
def site(
    folder: Path,
    major: int = 17,
    *,
    settings: Mapping[str, str] | None = None,
    segment_megabytes: int = 1,
    **overrides: Any,
) -> Iterator[Site]:
    """A new server with a table `t`, and an empty store."""
    kept = {"wal_keep_size": "256MB", **(settings or {})}  # the tests bring the log when they like
    with production(major, settings=kept, segment_megabytes=segment_megabytes) as server:
        own = settings_in(folder, **overrides)
        server.sql("CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
        yield Site(server, own, open_vault(own), folder)
