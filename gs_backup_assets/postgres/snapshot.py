"""An exported snapshot of the source: one transaction that dump and fingerprint share, behind an advisory lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Connection, ServerFacts, Target, connect, query, server_facts
from gs_backup_assets.postgres.inventory import Inventory, take_inventory

# The same for every version of this software: two backups of one database at once would compete for its disks.
_ADVISORY_LOCK = 0x6773_6261_636B_7570  # "gsbackup"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is open: its exported name, when it was taken, and what the database held."""

    connection: Connection
    name: str
    taken_at: datetime
    facts: ServerFacts
    inventory: Inventory


@contextmanager
def exported_snapshot(target: Target) -> Iterator[Snapshot]:
    """Hold a REPEATABLE READ, READ ONLY transaction open and export its snapshot.

    Raises SourceError: `BACKUP_RUNNING` when another backup of the same database holds the lock (it is freed when
    that backup's connection ends, however it ends), `POOLER_IN_THE_WAY` when the connection does not keep its session.
    """
    with connect(target, application="gs_backup snapshot") as connection:
        if not query(connection, "SELECT pg_try_advisory_lock(%s)", (_ADVISORY_LOCK,))[0][0]:
            raise SourceError(
                "BACKUP_RUNNING",
                f"Another backup of {target.redacted()} is running.",
                "Wait for it to end; pg_locks with locktype 'advisory' shows who holds the lock.",
            )
        facts = server_facts(connection)
        with connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        (name, pid) = query(connection, "SELECT pg_export_snapshot(), pg_backend_pid()")[0]
        taken_at = datetime.now(timezone.utc)
        if query(connection, "SELECT pg_backend_pid()")[0][0] != pid:
            raise SourceError(
                "POOLER_IN_THE_WAY",
                "The connection changes its server process between statements: a pooler stands in between.",
                "Use the database's direct address, not the pooler's.",
            )
        yield Snapshot(connection, name, taken_at, facts, take_inventory(connection))
