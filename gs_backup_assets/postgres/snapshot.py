"""An exported snapshot of the source: one transaction that dump and fingerprint share, behind an advisory lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Connection, ServerFacts, Target, connect, query, server_facts
from gs_backup_assets.postgres.inventory import Inventory, take_inventory

LOCK_WAIT_SECONDS = 120.0
LOCK_TIMEOUT_HINT = (
    "Look in pg_locks for an ACCESS EXCLUSIVE lock (a migration, VACUUM FULL), and run the backup again."
)

# The same for every version of this software: two backups of one database at once would compete for its disks.
_ADVISORY_LOCK = 0x6773_6261_636B_7570  # "gsbackup"


def lock_timeout_message(seconds: float) -> str:
    """What to say when a table could not be locked in time."""
    return f"A table stayed locked by another session for {seconds:.0f} s."


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is open: its exported name, when it was taken, and what the database held."""

    connection: Connection
    name: str
    taken_at: datetime
    facts: ServerFacts
    inventory: Inventory


@contextmanager
def exported_snapshot(target: Target, *, lock_wait: float = LOCK_WAIT_SECONDS) -> Iterator[Snapshot]:
    """Hold a REPEATABLE READ, READ ONLY transaction open and export its snapshot.

    Raises SourceError: `BACKUP_RUNNING` when another backup of the same database holds the lock (it is freed when
    that backup's connection ends, however it ends), `LOCK_TIMEOUT` when a table stays locked for `lock_wait` seconds:
    to ask for its size takes a lock.
    """
    import psycopg2

    limit = {"lock_timeout": f"{lock_wait * 1000:.0f}"}
    with connect(target, application="gs_backup snapshot", settings=limit) as connection:
        facts = server_facts(connection)
        with connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The lock belongs to the transaction: behind a pooler, one of the session would stay with a server process.
        if not query(connection, "SELECT pg_try_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))[0][0]:
            raise SourceError(
                "BACKUP_RUNNING",
                f"Another backup of {target.redacted()} is running.",
                "Wait for it to end; pg_locks with locktype 'advisory' shows who holds the lock.",
            )
        (name,) = query(connection, "SELECT pg_export_snapshot()")[0]
        taken_at = datetime.now(timezone.utc)
        try:
            inventory = take_inventory(connection)
        except psycopg2.errors.LockNotAvailable:
            raise SourceError("LOCK_TIMEOUT", lock_timeout_message(lock_wait), LOCK_TIMEOUT_HINT) from None
        yield Snapshot(connection, name, taken_at, facts, inventory)
