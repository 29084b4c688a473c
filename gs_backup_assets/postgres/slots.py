"""Physical replication slots: they keep the server from removing log that is not yet in the archive.

Facts are from PostgreSQL's manual: "Replication Slots", the view `pg_replication_slots`, and "Replication Management
Functions". A role with REPLICATION may call all that is called here, on a standby too.
"""

from __future__ import annotations

from dataclasses import dataclass

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.wal import Lsn


@dataclass(frozen=True)
class Slot:
    """A slot as the server shows it.

    `restart_lsn`: the oldest log that it keeps; None when it keeps nothing. `wal_status`: reserved, extended,
    unreserved or lost. `safe_bytes`: how much can be written before it is in danger of being lost; None without limit.
    """

    name: str
    kind: str
    active: bool
    restart_lsn: Lsn | None
    wal_status: str | None
    safe_bytes: int | None

    @property
    def lost(self) -> bool:
        """Whether the server removes what the slot was to keep."""
        return self.restart_lsn is None or self.wal_status == "lost"


@dataclass(frozen=True)
class SlotLimits:
    """The server's settings that can end a slot: bytes that slots may keep, and seconds that one may be idle.

    None: no limit, which for bytes means that a slot nobody moves fills the server's disk.
    """

    keep_bytes: int | None
    idle_seconds: int | None


def read_slot(connection: Connection, name: str) -> Slot | None:
    """The slot of that name; None when there is none."""
    rows = query(
        connection,
        "SELECT slot_name::text, slot_type, active, restart_lsn::text, wal_status, safe_wal_size"
        " FROM pg_replication_slots WHERE slot_name = %s",
        (name,),
    )
    if not rows:
        return None
    found, kind, active, restart, status, safe = rows[0]
    lsn = None if restart is None else Lsn.parse(restart)
    return Slot(found, kind, bool(active), lsn, status, None if safe is None else int(safe))


def make_slot(connection: Connection, name: str) -> tuple[Slot, bool]:
    """Create a physical slot that keeps the log from now on: on a primary from the newest checkpoint's begin.

    Returns it, and whether it was not there before. Raises SourceError (`SLOT_REFUSED`): no right, or none free.
    """
    import psycopg2

    made = True
    try:
        query(connection, "SELECT pg_create_physical_replication_slot(%s, true)", (name,))
    except psycopg2.errors.DuplicateObject:  # another one was first
        made = False
    except psycopg2.Error as error:
        raise _refused(name, "created", error) from None
    slot = read_slot(connection, name)
    if slot is None or slot.kind != "physical":
        raise SourceError(
            "SLOT_REFUSED",
            f"The slot {name} is {'gone again' if slot is None else 'a ' + slot.kind + ' one'}.",
            "Name a slot that nobody else uses in wal.slot.",
        )
    return slot, made


def advance_slot(connection: Connection, slot: Slot, to: Lsn) -> None:
    """Let the server remove what lies before a position. Where the slot is further already nothing is done.

    Raises SourceError (`SLOT_REFUSED`): somebody else uses the slot, or it is lost.
    """
    import psycopg2

    # To where it is already: that counts as use, and an idle slot is one that PostgreSQL 18 may end.
    if slot.restart_lsn is None or to < slot.restart_lsn:
        return
    try:
        query(connection, "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", (slot.name, str(to)))
    except psycopg2.OperationalError:
        raise
    except psycopg2.Error as error:
        raise _refused(slot.name, "moved", error) from None


def drop_slot(connection: Connection, name: str) -> None:
    """Remove a slot. SourceError (`SLOT_REFUSED`): somebody uses it."""
    import psycopg2

    try:
        query(connection, "SELECT pg_drop_replication_slot(%s)", (name,))
    except psycopg2.errors.UndefinedObject:
        return
    except psycopg2.Error as error:
        raise _refused(name, "removed", error) from None


def slot_limits(connection: Connection) -> SlotLimits:
    """The settings `max_slot_wal_keep_size` (megabytes) and, since 18, `idle_replication_slot_timeout` (seconds)."""
    rows = query(
        connection,
        "SELECT name, setting::bigint, unit FROM pg_settings"
        " WHERE name IN ('max_slot_wal_keep_size', 'idle_replication_slot_timeout')",
    )
    found = {name: (int(value), unit) for name, value, unit in rows}
    keep, _ = found.get("max_slot_wal_keep_size", (-1, "MB"))
    idle, unit = found.get("idle_replication_slot_timeout", (0, "s"))
    return SlotLimits(None if keep < 0 else keep << 20, (idle * (60 if unit == "min" else 1)) or None)


def _refused(name: str, what: str, error: Exception) -> SourceError:
    return SourceError(
        "SLOT_REFUSED",
        f"The slot {name} cannot be {what}: {' '.join(str(error).split())}",
        "The role needs REPLICATION, the server a free max_replication_slots, and nobody else may use the slot.",
    )
