"""Makes named restore points, with a fingerprint of exactly what was committed at that position of the log."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from datetime import datetime

from gs_backup_assets.catalogue.restore_points import (
    RestorePointRecord,
    point_exists,
    point_key,
    put_point,
    require_name,
)
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, SourceError
from gs_backup_assets.postgres.connection import Connection, ServerFacts, Target, connect, query, server_facts
from gs_backup_assets.postgres.dump import excluded
from gs_backup_assets.postgres.fingerprint import Fingerprint, Level, sequences_again, take_fingerprint
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.schema import SchemaObject, read_schema
from gs_backup_assets.postgres.toolchain import Toolchain, choose
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.take import jobs_of
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Vault
from gs_backup_assets.vault.store import Store

TRIES = 50
_LONGEST_PAUSE = 0.2
_FLUSH_SECONDS = 60.0
_BUSY = "other transactions were always being committed at the same moment"
# A transaction that has written its commit record but is not yet seen as ended still has its number, and is active.
_ENDING = """
SELECT EXISTS (
  SELECT FROM pg_stat_activity
  WHERE pid <> pg_backend_pid() AND backend_xid IS NOT NULL AND state IS DISTINCT FROM 'idle in transaction'
) OR EXISTS (
  SELECT FROM pg_prepared_xacts, pg_stat_activity
  WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND state IS DISTINCT FROM 'idle'
    AND query ~* 'prepared|<insufficient privilege>'
)
"""


@dataclass(frozen=True)
class _Wanted:
    """What a record is of."""

    settings: DatabaseSettings
    target: Target
    facts: ServerFacts
    name: str

    def record(self, point: _Point, reason: str | None) -> RestorePointRecord:
        """The record of a point without a fingerprint."""
        assert self.facts.system_identifier is not None
        return RestorePointRecord(
            name=self.name,
            database=self.settings.name,
            source_database=self.target.database,
            system_identifier=self.facts.system_identifier,
            timeline=point.timeline,
            lsn=point.lsn,
            at=point.at,
            server=str(self.facts.release),
            reason=reason,
        )


@dataclass(frozen=True)
class _Point:
    """A point in the log, and the exported snapshot that sees what was committed before it; None on a busy server."""

    lsn: str
    at: datetime
    timeline: int
    snapshot: str | None


def create_restore_point(
    settings: DatabaseSettings,
    target: Target,
    store: Store,
    name: str,
    progress: Progress,
    *,
    fingerprint: bool = True,
    tries: int = TRIES,
) -> RestorePointRecord:
    """Create the point on the server, and store its record.

    The fingerprint is of exactly the state at the point, or there is none: on a server that commits all the time the
    point is tried `tries` times, and the last one is recorded without. Raises ConfigError (`POINT_NAME_INVALID`,
    `POINT_EXISTS`), SourceError (`POINT_REFUSED`, `SERVER_UNREACHABLE`), StoreError.
    """
    import psycopg2

    require_name(name)
    try:
        with connect(target, application="gs_backup restore point") as connection:
            facts = server_facts(connection)
            if facts.system_identifier is None:
                raise _refused("the role may not read the system identifier")
            if store.exists(point_key(settings.name, facts.system_identifier, name)):
                raise point_exists(name)
            wanted = _Wanted(settings, target, facts, name)
            if fingerprint:
                record = _with_fingerprint(wanted, connection, tries, progress)
            else:
                point = _create(connection, name)
                _wait_for_disk(connection, point.lsn)
                record = wanted.record(point, "it was not asked for")
    except psycopg2.Error as error:
        raise _refused((error.diag.message_primary or "the connection was lost").strip()) from None
    put_point(store, record)
    return record


def keep_offsite(vault: Vault, record: RestorePointRecord) -> BackupError | None:
    """Store a record in the off-site store as well, if there is one; returns what stood in the way."""
    if vault.offsite is None:
        return None
    try:
        put_point(vault.offsite, record)
    except BackupError as error:
        return error
    return None


def _with_fingerprint(wanted: _Wanted, connection: Connection, tries: int, progress: Progress) -> RestorePointRecord:
    import psycopg2

    target = wanted.target
    toolchain = choose(wanted.facts.release)  # before the point: without programs there is no schema to compare
    # Sequences do not obey snapshots: their states before and after the point are its bounds.
    sequences = replace(take_inventory(connection), tables=(), large_objects_readable=False)
    earlier = take_fingerprint(target, sequences, level=Level.FULL, jobs=1)
    with connect(target, application="gs_backup restore point") as reader:
        with progress.stage("point"):
            point = _quiet_point(connection, reader, wanted.name, tries)
            _wait_for_disk(connection, point.lsn)
        if point.snapshot is None:
            return wanted.record(point, _BUSY)
        try:
            prints, schema = _read(wanted, reader, toolchain, point.snapshot, progress)
        except (psycopg2.Error, BackupError) as error:  # a table was dropped or locked meanwhile
            words = error.message if isinstance(error, BackupError) else error.diag.message_primary
            return wanted.record(point, f"it could not be read: {words}")
    return wanted.record(point, None).model_copy(
        update={
            "programs": str(toolchain.release),
            "fingerprint": _bounded(sequences_again(target, prints), earlier),
            "schema_objects": schema,
        }
    )


def _quiet_point(connection: Connection, reader: Connection, name: str, tries: int) -> _Point:
    """Create points until one has a snapshot that sees exactly what was committed before it.

    The snapshot is taken before the point. If it is the same after it, no transaction has ended in between; and if
    none is about to end, none has its commit record before the point without being in the snapshot.
    """
    for attempt in range(tries):
        with reader.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ((before, exported),) = query(reader, "SELECT pg_current_snapshot()::text, pg_export_snapshot()")
        point = _create(connection, name)
        ((ending,),) = query(connection, _ENDING)
        ((after,),) = query(connection, "SELECT pg_current_snapshot()::text")
        if before == after and not ending:
            return replace(point, snapshot=exported)
        with reader.cursor() as cursor:
            cursor.execute("ROLLBACK")
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.005 * 2**attempt)))
    return point


def _create(connection: Connection, name: str) -> _Point:
    sql = "SELECT p::text, clock_timestamp(), pg_walfile_name(p) FROM pg_create_restore_point(%s) AS p"
    ((lsn, at, file),) = query(connection, sql, (name,))
    return _Point(lsn, at, int(file[:8], 16), None)


def _wait_for_disk(connection: Connection, lsn: str) -> None:
    """The record is not flushed by the function itself; the server's WAL writer does it within a moment."""
    deadline = time.monotonic() + _FLUSH_SECONDS
    while not query(connection, "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", (lsn,))[0][0]:
        if time.monotonic() > deadline:
            raise _refused("the server did not write the point to its disk")
        time.sleep(0.05)


def _read(
    wanted: _Wanted, reader: Connection, toolchain: Toolchain, snapshot: str, progress: Progress
) -> tuple[Fingerprint, tuple[SchemaObject, ...]]:
    target = wanted.target
    inventory = take_inventory(reader)
    with progress.stage("fingerprint") as stage:
        prints = take_fingerprint(
            target,
            inventory,
            level=Level.FULL,
            jobs=jobs_of(wanted.settings.logical.jobs),
            snapshot=snapshot,
            advance=stage.advance,
        )
    with progress.stage("schema"), workspace("point") as folder:
        environment = target.write_service_file(folder)
        return prints, read_schema(toolchain, environment, snapshot=snapshot, exclude=excluded(inventory))


def _bounded(prints: Fingerprint, earlier: Fingerprint) -> Fingerprint:
    """The fingerprint with the sequences' states from before the point as `before`."""
    before = {s.qualified: s.before for s in earlier.sequences}
    sequences = tuple(s.model_copy(update={"before": before.get(s.qualified, s.before)}) for s in prints.sequences)
    return prints.model_copy(update={"sequences": sequences})


def _refused(words: str) -> SourceError:
    return SourceError(
        "POINT_REFUSED",
        f"No restore point was made: {words}.",
        "It is made on the primary, with wal_level replica, by a role with GRANT EXECUTE ON FUNCTION"
        " pg_create_restore_point(text) and pg_monitor; docs/drills.md.",
    )
