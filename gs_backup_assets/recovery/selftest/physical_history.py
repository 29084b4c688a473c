"""Makes the self-test's base backups and archived log: the history of a tiny cluster, and of its promoted copy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.wal_positions import Position, put_position
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import RawEncryption
from gs_backup_assets.config_watching import DataClass
from gs_backup_assets.postgres.cluster import create_database, running_cluster
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.toolchain import embedded_server
from gs_backup_assets.postgres.wal import Lsn, Segment, is_history, is_segment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite import copy_backup
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.point_in_time.recover import recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import plan_recovery
from gs_backup_assets.recovery.point_in_time.restore_points import create_restore_point
from gs_backup_assets.recovery.selftest.physical_copy import Landmarks, PhysicalCopy
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.offsite import mirror_wal
from gs_backup_assets.recovery.wal.pushing import push_wal
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore

_POINT = "before_the_mistake"
_SEGMENT_BYTES = 1 << 20
_LINKS, _EARLY, _BEFORE_POINT, _COMMITS = 3, 5, 3, 6
_SERVER = {
    "fsync": "off",
    "autovacuum": "off",  # the files of tables stay what they are from the base backup on
    "wal_level": "replica",
    "max_wal_senders": "4",
    "max_replication_slots": "4",
    "summarize_wal": "on",
    "wal_keep_size": "512MB",
    "shared_buffers": "32MB",
    "jit": "off",
    "max_connections": "20",
}
_TABLES = (
    "CREATE TABLE t (id int)",
    "CREATE TABLE late (id int)",
    "CREATE TABLE quiet AS SELECT n AS id, repeat('x', 50) AS words FROM generate_series(1, 1000) n",
    "CREATE TABLE zeroed AS SELECT n AS id FROM generate_series(1, 1000) n",
    "CREATE TABLE indexed (id int PRIMARY KEY)",
    "INSERT INTO indexed SELECT generate_series(1, 200)",
    "VACUUM (FREEZE, ANALYZE)",
    "CHECKPOINT",
)


def make_history(folder: Path, settings: DatabaseSettings) -> PhysicalCopy:
    """Run a tiny cluster, back it up, archive its log, promote a recovered copy of it and archive that one's log too.

    What comes out lies in `folder`, with a key of its own. Raises ProgramError when a server does not come up, and
    what backups and recovery raise.
    """
    folder.mkdir(mode=0o700)
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(f"{new_raw_key()}\n", encoding="ascii")
    # Whatever is missing at the end of the log is too much.
    data_class = DataClass(rpo=timedelta(microseconds=1), rto=timedelta(hours=1))
    settings = settings.model_copy(
        update={
            "folder": folder,
            "encryption": RawEncryption(kind="raw-aes-256", key_file=Path(key.name)),
            "data_classes": {"critical": data_class},
        }
    )
    with _production(settings) as production:
        chain = [production.base_backup(full=index == 0).id for index in range(_LINKS)]
        early = [production.commit() for _ in range(_EARLY)]
        newest = production.base_backup(full=True)
        sound = PhysicalCopy(folder, settings, tuple(chain), newest.id, production.history(tuple(early)))
    sound = _promoted(sound)
    for entry in sound.entries():
        copy_backup(sound.primary, sound.offsite, entry, Progress())
    mirror_wal(sound.primary, sound.offsite, settings.name, Progress())
    return sound


@contextmanager
def _production(settings: DatabaseSettings) -> Iterator[_Server]:
    arguments = ("--data-checksums", f"--wal-segsize={_SEGMENT_BYTES >> 20}")
    with running_cluster(embedded_server(), purpose="source", settings=_SERVER, initdb=arguments) as cluster:
        with connect(cluster.target()) as connection:
            create_database(connection, settings.name)
        with connect(cluster.target(settings.name), settings={"search_path": "public"}) as connection:
            for statement in _TABLES:
                connection.cursor().execute(statement)
            yield _Server(settings, cluster.target(settings.name), cluster.folder / "data", connection)


@dataclass(frozen=True)
class _Server:
    """A server that runs, a session on it, and where its files are."""

    settings: DatabaseSettings
    target: Target
    data: Path
    connection: Connection

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.settings.folder / "primary")

    def base_backup(self, *, full: bool) -> PhysicalManifest:
        now = datetime.now(timezone.utc)
        there = {path.name for path in self.store.root.glob(f"{self.settings.name}/physical/*/*")}
        while backup_id(now) in there:  # ids name seconds
            time.sleep(0.05)
            now = datetime.now(timezone.utc)
        week = WEEK.of(now, self.settings.zone)
        return take_base_backup(self.settings, self.target, self.store, week, Progress(), full=full)

    def commit(self) -> int:
        """Commit a row, and end the segment; returns the number of the transaction."""
        xid = int(self.ask("INSERT INTO t SELECT pg_current_xact_id()::text::int RETURNING id"))
        self.ask("SELECT pg_switch_wal()")
        return xid

    def history(self, early: tuple[int, ...]) -> Landmarks:
        """What happens behind the newest base backup: commits, a restore point, and a transaction that spans it."""
        segments, ends = [], []
        with connect(self.target, settings={"search_path": "public"}) as spanning:
            for number in range(_COMMITS):
                if number == _BEFORE_POINT:
                    spanning.cursor().execute("BEGIN")
                    ((late,),) = query(spanning, "INSERT INTO late SELECT pg_current_xact_id()::text::int RETURNING id")
                    self.ask("INSERT INTO t VALUES (-1)")
                    create_restore_point(self.settings, self.target, self.store, _POINT, Progress())
                    spanning.cursor().execute("COMMIT")
                self.ask(f"INSERT INTO t VALUES ({number})")
                segments.append(self.segment())
                ends.append(self.flushed())
                self.ask("SELECT pg_switch_wal()")
        self.ask("INSERT INTO t VALUES (-2)")
        quiet, zeroed, index = (
            self.ask(f"SELECT pg_relation_filepath('{name}')") for name in ("quiet", "zeroed", "indexed_pkey")
        )
        system = self.ask("SELECT system_identifier FROM pg_control_system()")
        self.archive(system)
        return Landmarks(
            system_identifier=system,
            segment_bytes=_SEGMENT_BYTES,
            first=tuple(segments),
            committed=tuple(ends),
            second=(),
            end=self.flushed(),
            looked_at=datetime.now(timezone.utc),
            point=_POINT,
            committed_early=early,
            committed_late=late,
            quiet_file=quiet,
            zeroed_file=zeroed,
            index_file=index,
        )

    def archive(self, system: str) -> tuple[Segment, ...]:
        """Archive all that the server has flushed, the unfinished segment too; the segments of its timeline."""
        end, current = self.flushed(), self.segment()
        found = []
        for path in sorted((self.data / "pg_wal").iterdir()):
            if is_history(path.name):
                push_wal(self.settings, self.store, path, system_identifier=system)
            elif is_segment(path.name):
                segment = Segment.parse(path.name, _SEGMENT_BYTES)
                if segment.timeline != current.timeline or segment.start >= end:
                    continue
                found.append(segment)
                if segment.end <= end:
                    push_wal(self.settings, self.store, path, system_identifier=system)
                else:
                    archive = open_archive(
                        self.settings, self.store, system, writing=True, segment_bytes=_SEGMENT_BYTES
                    )
                    archive.put_partial(segment, path.read_bytes())
        return tuple(found)

    def segment(self) -> Segment:
        """The segment that is being written."""
        return Segment.parse(self.ask("SELECT pg_walfile_name(pg_current_wal_insert_lsn())"), _SEGMENT_BYTES)

    def flushed(self) -> Lsn:
        return Lsn.parse(self.ask("SELECT pg_current_wal_flush_lsn()"))

    def ask(self, sql: str) -> str:
        """The first value of a statement's first row; nothing where it has none."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return str(row[0]) if row else ""


def _promoted(sound: PhysicalCopy) -> PhysicalCopy:
    """Recover to the end, which promotes, and go on writing: a second timeline, with a stream that saw its end."""
    settings, store, system = sound.settings, sound.primary, sound.log.system_identifier
    plan = plan_recovery(settings, sound.vault, RecoveryTarget(), now=datetime.now(timezone.utc))
    session = {"search_path": "public", "synchronous_commit": "on"}  # what is committed is in the log's files at once
    with (
        workspace("promoted", owner=server_account()) as folder,
        recovered(plan, settings, sound.vault, folder / "into", Progress(), durable=False) as running,
        connect(running.target(settings.name), settings=session) as connection,
    ):
        server = _Server(settings, running.target(settings.name), running.data, connection)
        for _ in range(2):
            server.commit()
        server.ask("INSERT INTO t VALUES (-3)")
        second, end = server.archive(system), server.flushed()
        looked_at = datetime.now(timezone.utc)
        position = Position(
            system_identifier=system, timeline=2, at=looked_at, server_lsn=str(end), archived_lsn=str(end)
        )
        put_position(store, settings.name, position)
    return replace(sound, log=replace(sound.log, second=second, end=end, looked_at=looked_at))
