"""What the stream of the write-ahead log knows of the server: asked in a thread of its own, as a server may hang."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from gs_backup_assets.errors import BackupError, SourceError
from gs_backup_assets.postgres.connection import Connection, Target, connect
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.slots import Slot, advance_slot, drop_slot, make_slot, read_slot
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.postgres.wal_sender import (
    Line,
    SystemFacts,
    history_of,
    refused,
    segment_bytes,
    server_version,
    system_facts,
    wal_sender,
)

_ASK_SECONDS = 1.0
_SLOT_SECONDS = 5.0
_AGAIN_SECONDS = 2.0
_SAMPLES = 100_000  # more than a day
Tell = Callable[[str, str], None]


@dataclass(frozen=True)
class Server:
    """The server as it was when it was asked. `history` is the file of its timeline; nothing for the first."""

    facts: SystemFacts
    line: Line
    history: bytes
    release: Release


@dataclass(frozen=True)
class Sample:
    """At a moment, aware and in UTC, the server had flushed at least what was committed until then: up to `lsn`."""

    at: datetime
    timeline: int
    lsn: Lsn


def look_at(target: Target) -> Server:
    """Who is at the address. Raises SourceError."""
    import psycopg2

    with wal_sender(target) as connection:
        try:
            facts = system_facts(connection)
            history = history_of(connection, facts.timeline)
            line = Line.of(facts.timeline, history, segment_bytes(connection))
            return Server(facts, line, history, Release.parse(server_version(connection)))
        except psycopg2.Error as error:
            raise refused(error, target) from None


def ensure_slot(target: Target, name: str) -> tuple[Slot, bool]:
    """The slot, made where it is missing and made anew where it is lost; whether it had to be. Raises SourceError."""
    with connect(target, application="gs_backup wal") as connection:
        return _ensured(connection, name)


def _ensured(connection: Connection, name: str) -> tuple[Slot, bool]:
    slot = read_slot(connection, name)
    if slot is not None and slot.kind == "physical" and not slot.lost:
        return slot, False
    if slot is not None and slot.kind == "physical":
        drop_slot(connection, name)
    return make_slot(connection, name)


class ServerWatch:
    """Samples the server's position, follows its timeline, and moves the slot behind the archive.

    `slot_made` is called, from the watch's thread, when the slot had to be made again. What goes wrong is in `error`
    until it goes well again.
    """

    def __init__(self, target: Target, slot: str, server: Server, slot_made: Callable[[], None]) -> None:
        self._target, self._slot, self._slot_made = target, slot, slot_made
        self._ended = threading.Event()
        self._wanted: Lsn | None = None
        self._last = 0.0
        self.server = server
        self.slot: Slot | None = None
        self.error: BackupError | None = None
        self.samples: deque[Sample] = deque(maxlen=_SAMPLES)
        # It dies with the process: nobody who ends the stream waits for a server that hangs.
        threading.Thread(target=self._run, name="wal-watch", daemon=True).start()

    def archived_to(self, lsn: Lsn) -> None:
        """The archive has everything before this position: the server may remove it."""
        self._wanted = lsn

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    @property
    def newest(self) -> Sample | None:
        return self.samples[-1] if self.samples else None

    def _run(self) -> None:
        import psycopg2

        while not self._ended.is_set():
            try:
                self._watch()
            except BackupError as error:
                self.error = error
            except psycopg2.Error as error:
                self.error = refused(error, self._target)
            self._ended.wait(_AGAIN_SECONDS)

    def _watch(self) -> None:
        with wal_sender(self._target) as sender, connect(self._target, application="gs_backup wal") as connection:
            while not self._ended.is_set():
                at = datetime.now(timezone.utc)  # before it is asked: what was committed until then is in the answer
                facts = system_facts(sender)
                if facts.system_identifier != self.server.facts.system_identifier:
                    raise other_cluster(self.server.facts.system_identifier, facts.system_identifier)
                if facts.timeline != self.server.facts.timeline:
                    history = history_of(sender, facts.timeline)
                    line = Line.of(facts.timeline, history, self.server.line.size)
                    self.server = Server(facts, line, history, self.server.release)
                self.samples.append(Sample(at, facts.timeline, facts.lsn))
                self._care_for_slot(connection)
                self.error = None
                self._ended.wait(_ASK_SECONDS)

    def _care_for_slot(self, connection: Connection) -> None:
        if self._wanted is None:  # the stream has not begun: it makes the slot itself, and chooses where to begin by it
            return
        moved = self.slot is None or self.slot.restart_lsn is None or self._wanted > self.slot.restart_lsn
        if not moved and time.monotonic() - self._last < _SLOT_SECONDS:
            return
        self._last = time.monotonic()
        slot, made = _ensured(connection, self._slot)
        if made:
            self._slot_made()
        advance_slot(connection, slot, self._wanted)
        self.slot = read_slot(connection, self._slot)


def other_cluster(wanted: str, found: str) -> SourceError:
    """The error of an address that leads to another cluster than before."""
    return SourceError(
        "SYSTEM_IDENTIFIER_DIFFERS",
        f"The address now leads to the cluster {found}; what was streamed is {wanted}'s.",
        "If the address is wrong, correct it. If the database was made anew: `gs-backup wal stream --new-cluster` once,"
        " and a new base backup.",
    )
