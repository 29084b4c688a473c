"""Speaks with a server's WAL sender: how far the server is, its timelines' histories, what it can still send.

The commands are those of PostgreSQL's manual, "Streaming Replication Protocol". They need a role with REPLICATION, and
a line in pg_hba.conf for the database `replication`.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.replication import refusal
from gs_backup_assets.postgres.wal import Lsn, Segment, Switch, parse_history

if TYPE_CHECKING:
    from psycopg2.extras import PhysicalReplicationConnection

_REMOVED = "58P01"  # undefined_file: the server has no file of that segment any more
_PROBE_SECONDS = 2.0
_UNITS = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


@dataclass(frozen=True)
class SystemFacts:
    """What IDENTIFY_SYSTEM tells: the cluster, the timeline that it writes, and up to where its log is safe there.

    On a standby it is the timeline that is received, and up to where it was received.
    """

    system_identifier: str
    timeline: int
    lsn: Lsn


@contextmanager
def wal_sender(target: Target) -> Iterator[PhysicalReplicationConnection]:
    """A replication connection. Raises SourceError: what `refusal` knows, else `SERVER_UNREACHABLE`; no secret."""
    import psycopg2
    from psycopg2.extras import PhysicalReplicationConnection

    keywords: dict[str, Any] = {"connect_timeout": "10", **target.parameters, "application_name": "gs_backup wal"}
    try:
        connection: PhysicalReplicationConnection = psycopg2.connect(
            connection_factory=PhysicalReplicationConnection, password=target.password, **keywords
        )
    except psycopg2.OperationalError as error:
        raise refused(error, target) from None
    try:
        yield connection
    finally:
        connection.close()


def refused(error: Exception, target: Target) -> SourceError:
    """The SourceError for what psycopg2 raised on the way to a server or from it."""
    words = " ".join(str(error).split())
    return refusal(words, target) or SourceError(
        "SERVER_UNREACHABLE",
        f"No replication connection to {target.redacted()}: {words}",
        "Check the address, the network, TLS and the password; `gs-backup doctor` looks at each of them.",
    )


def system_facts(connection: PhysicalReplicationConnection) -> SystemFacts:
    """Ask which cluster it is and how far it has flushed. Raises psycopg2.Error when the server goes away."""
    system, timeline, lsn = _one(connection, "IDENTIFY_SYSTEM")[:3]
    return SystemFacts(str(system), int(timeline), Lsn.parse(lsn))


def segment_bytes(connection: PhysicalReplicationConnection) -> int:
    """How many bytes a segment of this cluster has."""
    text = str(_one(connection, "SHOW wal_segment_size")[0])
    return int(text[:-2]) * _UNITS[text[-2:]]


def server_version(connection: PhysicalReplicationConnection) -> str:
    """The server's version, such as 15.20."""
    return str(_one(connection, "SHOW server_version")[0])


def history_of(connection: PhysicalReplicationConnection, timeline: int) -> bytes:
    """The server's history file of a timeline; nothing for the first one, which has none."""
    if timeline == 1:
        return b""
    content = _one(connection, f"TIMELINE_HISTORY {timeline}")[1]
    return content.encode() if isinstance(content, str) else bytes(content)


def can_send(target: Target, segment: Segment) -> bool:
    """Whether the server can still send a segment; False when it has removed it.

    Asked by beginning to stream it. That it is not written yet is no reason for a no. Raises SourceError:
    `SEGMENT_REFUSED` for any other reason of the server's, and as `wal_sender`.
    """
    import psycopg2
    from psycopg2.extras import REPLICATION_PHYSICAL

    with wal_sender(target) as connection, connection.cursor() as cursor:
        try:
            cursor.start_replication(
                slot_type=REPLICATION_PHYSICAL, start_lsn=segment.start.value, timeline=segment.timeline
            )
            deadline = time.monotonic() + _PROBE_SECONDS
            while cursor.read_message() is None and time.monotonic() < deadline:
                select.select([cursor], [], [], 0.1)
        except psycopg2.Error as error:
            if error.pgcode == _REMOVED:
                return False
            if "ahead of the WAL flush position" in str(error):
                return True
            raise SourceError(
                "SEGMENT_REFUSED",
                f"The server does not send {segment.name}: {' '.join(str(error).split())}",
                "Look at the server's log; docs/wal.md explains.",
            ) from None
    return True


@dataclass(frozen=True)
class Line:
    """The timelines that lead to the one a server writes: which file holds a place of the log.

    `switches` are the ancestors, the oldest first, as its history file names them.
    """

    timeline: int
    switches: tuple[Switch, ...]
    size: int

    @staticmethod
    def of(timeline: int, history: bytes, size: int) -> Line:
        """Read a history file; ValueError for what is none."""
        return Line(timeline, parse_history(history.decode()), size)

    @property
    def timelines(self) -> tuple[int, ...]:
        """All of them, the oldest first."""
        return (*(switch.timeline for switch in self.switches), self.timeline)

    def segment(self, number: int) -> Segment:
        """The file of a segment's number: where timelines meet in it, that of the newest, which has all of it."""
        for switch, newer in zip(reversed(self.switches), reversed(self.timelines[1:]), strict=True):
            if number >= switch.at.value // self.size:
                return Segment(newer, number, self.size)
        return Segment(self.timelines[0], number, self.size)

    def end_of(self, timeline: int) -> Lsn | None:
        """Where the next one branched off a timeline; None for the newest."""
        return next((switch.at for switch in self.switches if switch.timeline == timeline), None)

    def begin_of(self, timeline: int) -> int:
        """The number of the first segment of a timeline of the line; 0 for the oldest."""
        for switch, newer in zip(self.switches, self.timelines[1:], strict=True):
            if newer == timeline:
                return switch.at.value // self.size
        return 0


def _one(connection: PhysicalReplicationConnection, command: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(command)
        row = cursor.fetchone()
    assert row is not None
    return tuple(row)
