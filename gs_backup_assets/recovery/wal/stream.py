"""The stream of the write-ahead log: pg_receivewal into the spool, the spool into the archive, the slot behind it.

pg_receivewal would tell a slot of its own what is on this machine's disk. So it has none, and the slot is an anchor
that is moved to what the archive has: whatever happens to this machine, the server keeps what the archive lacks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeVar

from gs_backup_assets.catalogue.audit import Author, note
from gs_backup_assets.catalogue.wal_archive import archived_clusters
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ConfigError, ProgramError, SourceError, StoreError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.postgres.wal_sender import Line, can_send
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.heartbeat import Beat, Heart
from gs_backup_assets.recovery.wal.lag import Lag, forget_before, lag_of
from gs_backup_assets.recovery.wal.leftover import Leftover, leftovers
from gs_backup_assets.recovery.wal.mirroring import Mirror
from gs_backup_assets.recovery.wal.pauses import Pauses
from gs_backup_assets.recovery.wal.receiver import Receiver, end_left_receiver, receiver_for
from gs_backup_assets.recovery.wal.server import Server, ServerWatch, ensure_slot, look_at, other_cluster
from gs_backup_assets.recovery.wal.shipping import FATAL, Shipper
from gs_backup_assets.recovery.wal.spool import Spool, SpoolLock, clusters_in
from gs_backup_assets.recovery.wal.start import where_to_begin
from gs_backup_assets.recovery.wal.words import Words
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.store import Store

_T = TypeVar("_T")
_TICK = 0.1
_STEADY_SECONDS = 20.0
_LAST_WORDS_SECONDS = 8.0
_WAITED_FOR = (SourceError, ProgramError, StoreError)


class _Stopped(Exception):
    """The stream was asked to end while it waited for somebody."""


@dataclass(frozen=True)
class Streamed:
    """What a stream did until it was ended. `archived_lsn` is None when it never reached the server."""

    system_identifier: str | None
    segments: int
    bytes: int
    archived_lsn: Lsn | None


def stream_wal(
    settings: DatabaseSettings,
    store: Store,
    target: Target,
    *,
    stop: threading.Event,
    words: Words,
    offsite: Store | None = None,
    new_cluster: bool = False,
) -> Streamed:
    """Stream until `stop` is set. What may pass is waited for and told, once a change, through `words`.

    What is archived in `store` is brought to the store `offsite` as well, every `wal.offsite_every`.

    Raises what does not pass: ConfigError (`WAL_STREAM_RUNNING`, and keys that are wrong), SourceError
    (`SYSTEM_IDENTIFIER_DIFFERS`), StoreError (`WAL_CONFLICT`, `WAL_FOREIGN`, `WAL_MISPLACED`), ProgramError
    (`PROGRAMS_OF_MAJOR_MISSING`).
    """
    assert settings.wal is not None
    with SpoolLock(settings.spool_path) as lock:
        every = settings.wal.offsite_every.total_seconds()
        mirror = Mirror(store, offsite, settings.name, every)
        stream = _Stream(settings, store, target, mirror=mirror, stop=stop, words=words)
        try:
            stream.meet(new_cluster=new_cluster)
            while not stop.is_set():
                stream.run_once(lock)
        except _Stopped:
            pass
        return stream.say_goodbye()


class _Stream:
    """The state of one stream: one cluster, its spool and its archive, and how far it is."""

    def __init__(
        self,
        settings: DatabaseSettings,
        store: Store,
        target: Target,
        *,
        mirror: Mirror,
        stop: threading.Event,
        words: Words,
    ) -> None:
        assert settings.wal is not None
        self._settings, self._wal, self._store, self._target = settings, settings.wal, store, target
        self._mirror, self._stop, self._words = mirror, stop, words
        self._helpers = Threads(2, "wal-help")
        self._pauses = Pauses()
        self._frontier = 0
        self._compare = True
        self._left: list[Leftover] = []
        self._watch: ServerWatch | None = None
        self._shipper: Shipper | None = None
        self._heart: Heart | None = None

    def meet(self, *, new_cluster: bool) -> None:
        """Find out which cluster it is, and open its spool and archive."""
        # What an earlier stream left is brought at once: the server may never come back.
        self._left = leftovers(self._settings, self._store)
        server = self._patiently(lambda: look_at(self._target), "server")
        system = server.facts.system_identifier
        known = self._patiently(lambda: archived_clusters(self._store, self._settings.name), "store")
        known = [*known, *clusters_in(self._settings.spool_path)]
        others = set(known) - {system}
        if others and system not in known and not new_cluster:
            raise other_cluster(", ".join(sorted(others)), system)
        if others:
            self._words.say("WAL_CLUSTER", f"the archive of cluster {system} is used; others are kept as they are")
        archive = open_archive(self._settings, self._store, system, writing=True, segment_bytes=server.line.size)
        archived: set[Segment] = set()
        begun: set[Segment] = set()
        for timeline in server.line.timelines:
            for found in self._patiently(lambda t=timeline: archive.segments(t), "store"):  # type: ignore[misc]
                (begun if found.partial else archived).add(found.segment)
        self._left = [left for left in self._left if left.system_identifier != system]
        self._spool = Spool(self._settings.spool_path / system, server.line.size)
        self._spool.open()
        self._archive, self._line = archive, server.line
        self._shipper = Shipper(self._spool, archive, archived, begun)
        self._heart = Heart(self._spool, archive, self._settings.name, self._shipper)
        self._watch = ServerWatch(self._target, self._wal.slot, server, self._slot_made)

    def run_once(self, lock: SpoolLock) -> None:
        """From the choice of where to begin until pg_receivewal ends, whyever it does."""
        try:
            lock.renew()
            end_left_receiver(self._spool)
            self._spool.open()
            server, begin = self._patiently(self._prepare, "server")
            self._spool.begin_at(begin)
            toolchain = receiver_for(server.release)
            self._words.say("WAL_STREAMING", f"from {begin.name} on, with {toolchain}")
            with Receiver(toolchain, self._target, self._spool) as receiver:
                started = time.monotonic()
                while receiver.running and not self._stop.is_set():
                    self._tick()
                    if self._must_begin_again():
                        receiver.stop()
                        return
                    if time.monotonic() - started > _STEADY_SECONDS:
                        self._pauses.steady()
                        self._words.well("stream")
                    self._stop.wait(_TICK)
                if self._stop.is_set():
                    receiver.stop()
                    return
                failure: BackupError = receiver.failure()
        except (ProgramError, SourceError) as error:
            if error.code in ("PROGRAMS_OF_MAJOR_MISSING", "SYSTEM_IDENTIFIER_DIFFERS"):
                raise
            failure = error
        self._words.trouble("stream", failure)
        # A spool with room for one segment only would receive that one again and again.
        self._compare = failure.code != "SPOOL_FULL"
        if failure.code == "SPOOL_FULL":
            assert self._shipper is not None
            self._pauses.full(len(self._shipper.archived))
        self._wait_a_while()

    def say_goodbye(self) -> Streamed:
        """Bring what is there to the archive, for some seconds, and tell what was done."""
        if self._shipper is None or self._watch is None or self._heart is None:
            return Streamed(None, 0, 0, None)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        last: Future[Beat] | None = None
        while time.monotonic() < deadline:
            self._shipper.step(time.monotonic())
            self._move_frontier()
            if self._heart.idle and last is None:
                last = self._heart.begin(self._watch.newest, self._line, self._frontier)
            if self._shipper.idle and self._shipper.failure is None and last is not None and last.done():
                break
            time.sleep(_TICK / 2)
        self._heart.collect(self._words)
        self._last_copy(deadline)
        lag, counts = self._lag(), self._shipper.counts
        self._watch.archived_to(self._frontier_lsn)
        if not self._shipper.idle:
            self._words.say("WAL_SPOOL_KEPT", f"not everything was archived: the rest waits in {self._spool.folder}")
        self._words.progress(lag, counts, self._archived_lsn)
        self._watch.end()
        return Streamed(self._archive.system_identifier, counts.segments, counts.bytes, self._archived_lsn)

    def _last_copy(self, deadline: float) -> None:
        """Bring the newest off-site, as far as there is time: the next stream, or the daily copy, brings the rest."""
        begun = False
        while time.monotonic() < deadline and not (begun and self._mirror.idle):
            if self._mirror.idle:
                self._mirror.begin(time.monotonic())
                begun = True
            time.sleep(_TICK / 2)
        self._mirror.collect(self._words)

    def _prepare(self) -> tuple[Server, Segment]:
        """Who is there, and with which segment to begin. Tells a gap when there is one."""
        assert self._shipper is not None
        server = look_at(self._target)
        mine = self._archive.system_identifier
        if server.facts.system_identifier != mine:
            raise other_cluster(mine, server.facts.system_identifier)
        slot, made = ensure_slot(self._target, self._wal.slot)
        if made:
            self._slot_made()
        if server.history:
            self._spool.add_history(server.facts.timeline, server.history)
        self._follow(server.line)
        assert slot.restart_lsn is not None
        archived = set(self._shipper.archived)
        start = where_to_begin(server.line, {*archived, *self._spool.whole()}, slot.restart_lsn)
        if start.segment == start.otherwise or can_send(self._target, start.segment):
            # What waits in the spool is behind the place to begin, and not yet archived.
            self._frontier = where_to_begin(server.line, archived, slot.restart_lsn).segment.number
            return server, self._one_before(server, start.segment)
        first, count = start.lost
        self._tell_gap(first, count)
        self._frontier = start.otherwise.number
        return server, start.otherwise

    def _one_before(self, server: Server, segment: Segment) -> Segment:
        """The newest archived segment, to be received once more where it can be: it is compared with what is archived.

        So a server that writes other log under the same names is found out, and not taken for the continuation.
        """
        assert self._shipper is not None
        if segment.start > server.facts.lsn:
            raise SourceError(
                "SERVER_BEHIND_ARCHIVE",
                f"The archive has the log up to {segment.start}, the server only up to {server.facts.lsn}.",
                "A standby that lags catches up by itself. A primary that lost its newest log must not go on as it is:"
                " recover it from the archive, so that it gets a timeline of its own.",
            )
        before = server.line.segment(max(0, segment.number - 1))
        known = self._compare and before in self._shipper.archived
        return before if known and can_send(self._target, before) else segment

    def _tick(self) -> None:
        """One look at everything that goes on besides pg_receivewal."""
        assert self._shipper is not None and self._watch is not None and self._heart is not None
        now = time.monotonic()
        try:
            self._ship(now)
        except ProgramError as error:
            self._words.trouble("spool", error)
        else:
            self._words.well("spool")
        if self._shipper.failure is None:
            self._words.well("store")
        else:
            self._words.trouble("store", self._shipper.failure)
        if self._watch.error is not None:
            if self._watch.error.code == "SYSTEM_IDENTIFIER_DIFFERS":
                raise self._watch.error
            self._words.trouble("server", self._watch.error)
        else:
            self._words.well("server")
        self._follow(self._watch.server.line)
        self._move_frontier()
        self._watch.archived_to(self._frontier_lsn)
        self._heart.collect(self._words)
        if self._watch.newest is not None and self._heart.due(now, self._wal.partial_every.total_seconds()):
            self._heart.begin(self._watch.newest, self._line, self._frontier)
        self._mirror.step(now, self._words)
        if self._words.progress_due:
            self._words.progress(self._lag(), self._shipper.counts, self._archived_lsn)

    def _ship(self, now: float) -> None:
        for left in self._left:
            left.step(now)
        if self._shipper is not None:
            self._shipper.step(now)

    def _must_begin_again(self) -> bool:
        assert self._shipper is not None
        if self._shipper.receive_again:  # a file of the spool was damaged: the server has it still
            self._shipper.receive_again = False
            return True
        return not self._spool.there

    def _follow(self, line: Line) -> None:
        """Go over to the server's timeline. The segment in which it branched off is needed on the new one, whole."""
        if line == self._line:
            return
        branch = line.begin_of(line.timeline)
        self._words.say("WAL_TIMELINE", f"the server writes timeline {line.timeline}, from {line.switches[-1].at} on")
        if self._frontier > branch:
            self._words.say(
                "WAL_DIVERGED",
                f"timeline {self._line.timeline} is archived beyond that: what was committed there later is not on the"
                " new timeline",
            )
            self._frontier = branch
        self._line = line

    def _move_frontier(self) -> None:
        assert self._shipper is not None
        while self._line.segment(self._frontier) in self._shipper.archived:
            self._frontier += 1

    @property
    def _frontier_lsn(self) -> Lsn:
        return self._line.segment(self._frontier).start

    @property
    def _archived_lsn(self) -> Lsn:
        """Up to here the archive has the log without a hole: whole segments, and the newest part."""
        assert self._heart is not None
        return self._heart.archived_to(self._line, self._frontier)

    def _lag(self) -> Lag:
        assert self._watch is not None
        archived = self._archived_lsn
        forget_before(self._watch.samples, archived)
        return lag_of(self._watch.samples.copy(), archived, datetime.now(timezone.utc))

    def _tell_gap(self, first: Segment, count: int) -> None:
        last = self._line.segment(first.number + count - 1)
        self._words.say(
            "WAL_GAP",
            f"{count} segments from {first.name} to {last.name} are neither archived nor at the server any more:"
            f" nothing between {first.start} and {last.end} can be recovered to; take a new base backup",
        )
        ids = {"system_identifier": self._archive.system_identifier, "first": first.name, "last": last.name}
        refusal = note(
            self._store,
            self._settings.name,
            Author.here("wal stream"),
            "wal_gap",
            ids=ids,
            result="WAL_GAP",
            otherwise=self._mirror.offsite,
        )
        if refusal is not None:
            self._words.trouble("audit", refusal)

    def _slot_made(self) -> None:
        self._words.say(
            "WAL_SLOT_MADE", f"the slot {self._wal.slot} was not there or lost, and is made: it keeps the log from now"
        )

    def _patiently(self, call: Callable[[], _T], whom: str) -> _T:
        """The answer of somebody who may be away, asked again and again; _Stopped when the stream ends before it."""
        while True:
            answer = self._helpers.submit(call)
            while not answer.done():
                if self._stop.wait(_TICK):
                    raise _Stopped
                self._ship(time.monotonic())
            try:
                result = answer.result()
            except _WAITED_FOR as error:
                if error.code in FATAL or error.code == "SYSTEM_IDENTIFIER_DIFFERS":
                    raise
                self._words.trouble(whom, error)
                self._wait_a_while()
            else:
                self._words.well(whom)
                return result

    def _wait_a_while(self) -> None:
        deadline = time.monotonic() + self._pauses.next()
        while time.monotonic() < deadline:
            if self._stop.wait(_TICK):
                raise _Stopped
            if self._shipper is not None and self._watch is not None:
                self._tick()


def require_configured(settings: DatabaseSettings) -> None:
    """ConfigError (`WAL_NOT_CONFIGURED`) when there is no section `wal`."""
    if settings.wal is None:
        raise ConfigError(
            "WAL_NOT_CONFIGURED",
            f"backup.yaml has no section `wal` for {settings.name}: there is no archive of the write-ahead log.",
            "Add `wal: {}`; docs/wal.md says what the server and the role need.",
        )
