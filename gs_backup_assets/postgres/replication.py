"""Connections of the replication protocol: why a server refuses one, and whose server it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Target

# What servers say of a connection that they refuse -> code, what happened, what to do.
_REFUSALS = (
    (
        ("must be superuser or replication role", "permission denied to start WAL sender"),
        "REPLICATION_RIGHT_MISSING",
        "the role may not start a base backup or a stream",
        "As a superuser: ALTER ROLE ... REPLICATION; docs/base-backups.md has the least rights.",
    ),
    (
        ("no pg_hba.conf entry for replication", "pg_hba.conf rejects replication"),
        "NO_HBA_ENTRY",
        "the server's pg_hba.conf lets no replication connection in from here",
        "Add a line such as `hostssl replication ROLE ADDRESS scram-sha-256` and reload; `all` does not cover it.",
    ),
    (
        ("exceeds max_wal_senders", "remaining connection slots", "too many connections", "too many clients"),
        "WAL_SENDERS_FULL",
        "all connections that the server has for replication are in use, or it has none",
        "Raise max_wal_senders (a base backup takes two) and restart the server; wal_level must be replica or logical.",
    ),
    (
        ("all replication slots are in use",),
        "SLOTS_FULL",
        "all replication slots of the server are in use",
        "Raise max_replication_slots, or drop a slot that nobody uses: see pg_replication_slots.",
    ),
)


@dataclass(frozen=True)
class Identity:
    """What a server answers to IDENTIFY_SYSTEM: the cluster it is of, its timeline, and its position in the WAL."""

    system_identifier: str
    timeline: int
    lsn: str


def identify(target: Target) -> Identity:
    """Open a replication connection and ask who is there.

    Raises SourceError: `REPLICATION_RIGHT_MISSING`, `NO_HBA_ENTRY`, `WAL_SENDERS_FULL`, `SERVER_UNREACHABLE`.
    """
    import psycopg2
    from psycopg2.extras import PhysicalReplicationConnection

    keywords: dict[str, Any] = {"connect_timeout": "10", **target.parameters, "application_name": "gs_backup"}
    try:
        connection = psycopg2.connect(
            password=target.password, connection_factory=PhysicalReplicationConnection, **keywords
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute("IDENTIFY_SYSTEM")
                system_identifier, timeline, lsn, _ = cursor.fetchone()
        finally:
            connection.close()
    except psycopg2.Error as error:
        words = " ".join(str(error).split())
        raise refusal(words, target) or SourceError(
            "SERVER_UNREACHABLE",
            f"No replication connection to {target.redacted()}: {words}",
            "Check the address, the network, TLS and the password; `gs-backup doctor` looks at each of them.",
        ) from None
    return Identity(str(system_identifier), int(timeline), str(lsn))


def refusal(words: str, target: Target) -> SourceError | None:
    """What a server's words say about a replication connection that it refused; None for anything else."""
    for phrases, code, what, hint in _REFUSALS:
        if any(phrase in words for phrase in phrases):
            return SourceError(code, f"{target.redacted()}: {what}.", hint)
    return None
