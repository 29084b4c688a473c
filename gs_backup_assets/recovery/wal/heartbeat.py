"""The stream's heartbeat: the begun segment so far, and a record of where server and archive are."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.catalogue.wal_positions import Position, put_position
from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.postgres.wal_records import written_end
from gs_backup_assets.postgres.wal_sender import Line
from gs_backup_assets.recovery.wal.server import Sample
from gs_backup_assets.recovery.wal.shipping import FATAL, Shipper
from gs_backup_assets.recovery.wal.spool import Spool
from gs_backup_assets.recovery.wal.words import Words
from gs_backup_assets.system.threads import Threads


@dataclass(frozen=True)
class Beat:
    """What one beat stored: up to where each begun segment is archived."""

    parts: dict[Segment, Lsn]


class Heart:
    """Beats one at a time, in a thread of its own: the store may hang."""

    def __init__(self, spool: Spool, archive: WalArchive, database: str, shipper: Shipper) -> None:
        self._spool, self._archive, self._database, self._shipper = spool, archive, database, shipper
        self._pool = Threads(1, "wal-heart")
        self._beat: Future[Beat] | None = None
        self._last = float("-inf")
        self._parts: dict[Segment, Lsn] = {}

    @property
    def idle(self) -> bool:
        return self._beat is None or self._beat.done()

    def due(self, now: float, every: float) -> bool:
        """Whether it is time for a beat; `now` and `every` in seconds."""
        if not self.idle or now - self._last < every:
            return False
        self._last = now
        return True

    def begin(self, sample: Sample | None, line: Line, frontier: int) -> Future[Beat]:
        """Begin a beat. `sample` was taken before: the parts that are read now may well have more."""
        # What is known of the archive now: segments that arrive meanwhile are told by the next beat.
        self._beat = self._pool.submit(self._do, sample, line, frontier)
        return self._beat

    def collect(self, words: Words) -> None:
        """Take in what was stored. Raises StoreError (FATAL), tells other errors."""
        if self._beat is None or not self._beat.done():
            return
        beat, self._beat = self._beat, None
        try:
            self._parts = beat.result().parts
        except BackupError as error:
            if error.code in FATAL:
                raise
            words.trouble("heartbeat", error)
        else:
            words.well("heartbeat")

    def archived_to(self, line: Line, frontier: int) -> Lsn:
        """Up to where the archive has the log, when it has every segment before number `frontier`."""
        segment = line.segment(frontier)
        # The part may be on the timeline before, up to where the newest one branched off.
        ends = [segment.start]
        for timeline in line.timelines:
            part, branch = self._parts.get(segment.on(timeline)), line.end_of(timeline)
            if part is not None:
                ends.append(part if branch is None else min(part, branch))
        return max(ends)

    def _do(self, sample: Sample | None, line: Line, frontier: int) -> Beat:
        known, parts = dict(self._parts), {}
        for segment, path in self._spool.partials().items():
            data = self._spool.read(path)
            if len(data) != segment.size or not data.strip(b"\0"):
                continue
            end = written_end(data, segment)
            if end > known.get(segment, segment.start) and segment not in self._shipper.archived:
                self._shipper.begun(segment)
                self._archive.put_partial(segment, data)
            if segment in self._shipper.archived:  # it was finished meanwhile
                self._archive.drop_partials(segment)
            else:
                parts[segment] = end
        for segment, path in self._spool.partials().items():
            # The end of a timeline: it grows no more, and is in the archive.
            if path.parent == self._spool.waiting and (segment in parts or segment in self._shipper.archived):
                self._spool.remove(path)
        if sample is not None and sample.timeline == line.timeline:
            self._parts = parts
            put_position(self._archive.store, self._database, self._position(sample, line, frontier))
        return Beat(parts)

    def _position(self, sample: Sample, line: Line, frontier: int) -> Position:
        return Position(
            system_identifier=self._archive.system_identifier,
            timeline=sample.timeline,
            at=sample.at,
            server_lsn=str(sample.lsn),
            archived_lsn=str(self.archived_to(line, frontier)),
        )
