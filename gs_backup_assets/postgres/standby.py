"""What servers say of replication: senders and slots of a primary, replay and conflicts of a standby.

Facts are from PostgreSQL's manual: "pg_stat_replication", "pg_replication_slots", "pg_stat_wal_receiver",
"pg_stat_database_conflicts", "Recovery Information Functions".
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, query, server_facts


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sender(_Fact):
    """A connection that the write-ahead log is sent through. Lags are seconds and bytes; None where unknown or idle.

    `hidden` says that the role may not see more than that there is one: it needs `pg_monitor`.
    """

    application: str
    slot: str | None
    state: str | None
    sync_state: str | None
    write_lag_bytes: int | None
    flush_lag_bytes: int | None
    replay_lag_bytes: int | None
    write_lag_seconds: float | None
    flush_lag_seconds: float | None
    replay_lag_seconds: float | None
    hidden: bool


class SlotState(_Fact):
    """A replication slot. `retained_bytes` is what the server keeps for it, None for one that was never used.

    `wal_status` is `reserved`, `extended`, `unreserved` or `lost`; `inactive_since` is known from PostgreSQL 17 on.
    """

    name: str
    kind: str
    active: bool
    wal_status: str | None
    retained_bytes: int | None
    inactive_since: datetime | None


class PrimaryState(_Fact):
    """A server as the source of replication. `slot_limit_mb` is max_slot_wal_keep_size, -1 for none."""

    release: str
    system_identifier: str | None
    in_recovery: bool
    timeline: int | None
    lsn: str
    slot_limit_mb: int
    senders: tuple[Sender, ...]
    slots: tuple[SlotState, ...]


class StandbyState(_Fact):
    """A server that replays. `conflicts` counts cancelled queries by reason since the statistics were reset.

    `receiver` is the state of its connection to the primary: `streaming`, ..., `hidden` without `pg_monitor`, or None
    when there is no connection.
    """

    release: str
    system_identifier: str | None
    in_recovery: bool
    timeline: int | None
    replay_lsn: str | None
    receive_lsn: str | None
    replayed_at: datetime | None
    replay_paused: bool
    receiver: str | None
    slot: str | None
    hot_standby_feedback: bool
    conflicts: dict[str, int]

    @property
    def all_conflicts(self) -> int:
        return sum(self.conflicts.values())


_SENDERS = """
SELECT r.application_name, s.slot_name, r.state, r.sync_state,
       (pos.lsn - r.write_lsn)::bigint, (pos.lsn - r.flush_lsn)::bigint, (pos.lsn - r.replay_lsn)::bigint,
       extract(epoch FROM r.write_lag)::float8, extract(epoch FROM r.flush_lag)::float8,
       extract(epoch FROM r.replay_lag)::float8, r.state IS NULL
FROM pg_catalog.pg_stat_replication AS r
CROSS JOIN (SELECT %s::pg_lsn AS lsn) AS pos
LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.active_pid = r.pid
ORDER BY 1, r.pid
"""

_SLOTS = """
SELECT slot_name, slot_type, active, wal_status,
       greatest(0, (%s::pg_lsn - restart_lsn)::bigint), {inactive_since}
FROM pg_catalog.pg_replication_slots ORDER BY 1
"""

_STANDBY = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_last_wal_receive_lsn()::text,
       pg_last_xact_replay_timestamp(),
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
       nullif(current_setting('primary_slot_name'), ''), current_setting('hot_standby_feedback')::boolean
"""

_CONFLICTS = ("tablespace", "lock", "snapshot", "bufferpin", "deadlock")


def primary_state(connection: Connection) -> PrimaryState:
    """What the connected server says of those it sends to. Without `pg_monitor` the senders are hidden."""
    facts = server_facts(connection)
    assert facts.lsn is not None
    inactive_since = "inactive_since" if facts.release.major >= 17 else "NULL::timestamptz"
    senders = query(connection, _SENDERS, (facts.lsn,))
    slots = query(connection, _SLOTS.format(inactive_since=inactive_since), (facts.lsn,))
    (limit,) = query(connection, "SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")[0]
    return PrimaryState(
        release=str(facts.release),
        system_identifier=facts.system_identifier,
        in_recovery=facts.in_recovery,
        timeline=None if facts.in_recovery else current_timeline(connection),
        lsn=facts.lsn,
        slot_limit_mb=int(limit),
        senders=tuple(
            Sender(
                application=row[0] or "",
                slot=row[1],
                state=row[2],
                sync_state=row[3],
                write_lag_bytes=row[4],
                flush_lag_bytes=row[5],
                replay_lag_bytes=row[6],
                write_lag_seconds=row[7],
                flush_lag_seconds=row[8],
                replay_lag_seconds=row[9],
                hidden=row[10],
            )
            for row in senders
        ),
        slots=tuple(
            SlotState(
                name=row[0],
                kind=row[1],
                active=row[2],
                wal_status=row[3],
                retained_bytes=row[4],
                inactive_since=row[5],
            )
            for row in slots
        ),
    )


def standby_state(connection: Connection) -> StandbyState:
    """What the connected server says of its recovery."""
    facts = server_facts(connection)
    recovering, replay, receive, replayed_at, paused, slot, feedback = query(connection, _STANDBY)[0]
    receiver = query(connection, "SELECT status, received_tli FROM pg_catalog.pg_stat_wal_receiver")
    status, received = receiver[0] if receiver else (None, None)
    columns = ", ".join(f"coalesce(sum(confl_{name}), 0)::bigint" for name in _CONFLICTS)
    counts = query(connection, f"SELECT {columns} FROM pg_catalog.pg_stat_database_conflicts")[0]
    return StandbyState(
        release=str(facts.release),
        system_identifier=facts.system_identifier,
        in_recovery=recovering,
        timeline=_replayed_timeline(connection, received) if recovering else current_timeline(connection),
        replay_lsn=replay,
        receive_lsn=receive,
        replayed_at=replayed_at,
        replay_paused=paused,
        receiver="hidden" if receiver and status is None else status,
        slot=slot,
        hot_standby_feedback=feedback,
        conflicts=dict(zip(_CONFLICTS, counts, strict=True)),
    )


def replay_position(connection: Connection) -> str | None:
    """Up to where the connected server has replayed, or written when it does not recover any more."""
    sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text"
    (position,) = query(connection, sql)[0]
    return position if position is None else str(position)


def current_timeline(connection: Connection) -> int:
    """The timeline that a server writes to; it must not be in recovery."""
    return int(query(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)


def _replayed_timeline(connection: Connection, received: int | None) -> int | None:
    """The timeline that a standby follows. That of its restart point may be an older one."""
    import psycopg2

    try:
        (restarted,) = query(connection, "SELECT timeline_id FROM pg_control_checkpoint()")[0]
    except psycopg2.errors.InsufficientPrivilege:
        return received
    return max(int(restarted), received or 0)
