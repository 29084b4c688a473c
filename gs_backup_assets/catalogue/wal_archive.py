"""The archive of the write-ahead log in a store: whole segments, the newest part of an unfinished one, histories.

    <database>/wal/<system identifier>/<timeline>/<segment>.zst[.enc]
                                                 /<timeline>.history[.enc]
                                                 /partial/<segment>.<bytes, 8 hex digits>.zst[.enc]
                                                 /keys/<master key>.enc

The system identifier is a level of its own: a cluster that was made anew begins with the same names for other bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO

from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import (
    DEFAULT_SEGMENT_BYTES,
    Lsn,
    Segment,
    Switch,
    history_name,
    parse_history,
    read_header,
    require_segment,
)
from gs_backup_assets.postgres.wal_records import written_end
from gs_backup_assets.vault import compression
from gs_backup_assets.vault.encryption import SUFFIX as ENCRYPTED
from gs_backup_assets.vault.encryption import BackupCipher, Identity
from gs_backup_assets.vault.pipeline import BLOCK
from gs_backup_assets.vault.store import Listed, Source, Store

FOLDER = "wal"
PARTIAL = "partial"
# The cipher of a timeline's folder: None where nothing is to be encrypted. The argument is the timeline.
Ciphers = Callable[[int], BackupCipher | None]
_TIMELINE = re.compile(r"[0-9A-F]{8}")
_SYSTEM = re.compile(r"\d{1,20}")
_STORED = re.compile(r"(?P<name>[0-9A-F]{24})(\.(?P<bytes>[0-9A-F]{8}))?\.zst(\.enc)?")


@dataclass(frozen=True)
class Archived:
    """A segment in the archive; `written` is set for an unfinished one: the bytes of it that were there.

    It is also set for one of which no more is to be read (`up_to`). `end` is the position up to which it has the log:
    the segment's end, or what is written. Size and time of the object are those of a listing, None without one.
    """

    segment: Segment
    key: str
    written: int | None = None
    stored_bytes: int | None = None
    stored_at: datetime | None = None

    @property
    def partial(self) -> bool:
        return self.written is not None

    @property
    def unfinished(self) -> bool:
        """Whether the object itself is a part, and not a whole segment of which no more is to be read."""
        return f"/{PARTIAL}/" in self.key

    @property
    def end(self) -> Lsn:
        return self.segment.end if self.written is None else Lsn(self.segment.start.value + self.written)

    def up_to(self, position: Lsn) -> Archived:
        """The same with nothing behind a position, from which on it is not the log that is wanted."""
        return self if self.end <= position else replace(self, written=position.value - self.segment.start.value)


def archive_folder(database: str, system_identifier: str) -> str:
    """`<database>/wal/<system identifier>`."""
    return f"{database}/{FOLDER}/{system_identifier}"


def timeline_identity(database: str, system_identifier: str, timeline: int) -> Identity:
    """What the envelopes of a timeline's folder belong to."""
    return Identity(database, f"{system_identifier}/{timeline:08X}")


def archived_clusters(store: Store, database: str) -> list[str]:
    """System identifiers of the clusters of which the store has write-ahead log."""
    return [name for name in store.folders(f"{database}/{FOLDER}") if _SYSTEM.fullmatch(name)]


def _no_ciphers(_timeline: int) -> BackupCipher | None:
    return None


class WalArchive:
    """One cluster's write-ahead log in one store.

    `ciphers` are for writing; for reading as well where files are encrypted. Reads raise StoreError: `OBJECT_MISSING`,
    `COMPRESSED_DAMAGED`, `ENVELOPE_DAMAGED`, `ENVELOPE_MISPLACED`, and those of `require_segment`.
    """

    def __init__(
        self,
        store: Store,
        database: str,
        system_identifier: str,
        ciphers: Ciphers = _no_ciphers,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> None:
        self.store = store
        self.database = database
        self.system_identifier = system_identifier
        self.segment_bytes = segment_bytes
        self.folder = archive_folder(database, system_identifier)
        self._ciphers = ciphers

    def timelines(self) -> list[int]:
        """Timelines of which there is anything, the oldest first."""
        return [int(name, 16) for name in self.store.folders(self.folder) if _TIMELINE.fullmatch(name)]

    def segments(self, timeline: int, since: Segment | None = None) -> list[Archived]:
        """What is there of a timeline, in order; of a long archive what is there `since` a segment is listed sooner.

        An unfinished segment counts where the whole one is not there.
        """
        found: dict[Segment, Archived] = {}
        folder = self.timeline_folder(timeline)
        after = f"{folder}/{since.on(timeline).name}" if since is not None else ""
        for archived in self._listed(self.store.objects(folder, after=after)):
            known = found.get(archived.segment)
            if known is None or (known.partial and (not archived.partial or archived.end > known.end)):
                found[archived.segment] = archived
        return sorted(found.values(), key=lambda archived: archived.segment)

    def find(self, segment: Segment) -> Archived | None:
        """One segment: the whole one, else the longest part of it; None when there is neither."""
        folder = self.timeline_folder(segment.timeline)
        for suffix in ("", ENCRYPTED):
            key = f"{folder}/{segment.name}{compression.SUFFIX}{suffix}"
            if self.store.exists(key):
                return Archived(segment, key)
        parts = [a for a in self._listed(self.store.objects(f"{folder}/{PARTIAL}")) if a.segment == segment]
        return max(parts, key=lambda archived: archived.end, default=None)

    def read(self, archived: Archived) -> bytes:
        """A segment's bytes, as long as a whole segment, checked against its name and this cluster.

        Behind what is `written` there are zeros. A part that made room for more of its segment since it was listed is
        read from that.
        """
        try:
            data = self._read(archived)
        except StoreError as error:
            if error.code != "OBJECT_MISSING" or archived.written is None:
                raise
            more = self._more_than(archived)
            if more is None:
                raise
            data = self._read(more)
        if archived.written is None:
            return data
        return data[: archived.written] + bytes(len(data) - archived.written)

    def _more_than(self, archived: Archived) -> Archived | None:
        """What took the place of a part that is gone: a longer one, or the whole segment; None when nothing did."""
        found = self.find(archived.segment)
        return None if found is None or found.end < archived.end else found

    def _read(self, archived: Archived) -> bytes:
        name = _name_of(archived.key)
        data = compression.decompress(self._open(archived.key, archived.segment.timeline, name), archived.key)
        require_segment(data, archived.segment, self.system_identifier, whole=not archived.partial)
        return data

    def stored_segment_bytes(self) -> int | None:
        """How many bytes a segment of this cluster has, as one of them says; None where there is none."""
        for timeline in self.timelines():
            for listed in self.store.objects(self.timeline_folder(timeline)):
                if _STORED.fullmatch(listed.key.rpartition("/")[2]) is not None:
                    opened = self._open(listed.key, timeline, _name_of(listed.key))
                    header = read_header(compression.decompress(opened, listed.key))
                    return None if header is None else header.segment_bytes
        return None

    def put(self, segment: Segment, data: bytes) -> bool:
        """Store a whole segment; returns whether it was not there before. The same bytes again are no error.

        Raises StoreError: `WAL_CONFLICT` when another segment is there under the name; those of `require_segment`.
        """
        require_segment(data, segment, self.system_identifier)
        key = self._key(segment.timeline, f"{segment.name}{compression.SUFFIX}")
        if self._put(key, segment.timeline, compression.compress(data), locked=True):
            return True
        there = self.read(Archived(segment, key))
        if there != data:
            raise StoreError(
                "WAL_CONFLICT",
                f"Another segment is archived as {segment.name}; it is kept, this one is not.",
                "Two servers archive as one cluster: one of them was not promoted, but started from a copy. Stop it.",
            )
        return False

    def put_partial(self, segment: Segment, data: bytes) -> Archived | None:
        """Store what is written of an unfinished segment, and drop what is stored of less; None when it is no more."""
        require_segment(data, segment, self.system_identifier, whole=False)
        # To the byte: what is added to a page that has begun must be another part, under another name.
        written = written_end(data, segment).value - segment.start.value
        # What lies behind belongs to an older segment, or is not there yet: a part is what it says, and zeros.
        data = data[:written] + bytes(len(data) - written)
        name = f"{segment.name}.{written:08X}{compression.SUFFIX}"
        key = self._key(segment.timeline, f"{PARTIAL}/{name}")
        stored = self._put(key, segment.timeline, compression.compress(data), locked=False)
        self.drop_partials(segment, below=written)
        return Archived(segment, key, written) if stored else None

    def drop_partials(self, segment: Segment, *, below: int | None = None) -> None:
        """Remove parts of a segment that are no longer needed: all, or those with fewer than `below` bytes."""
        folder = f"{self.timeline_folder(segment.timeline)}/{PARTIAL}"
        for archived in self._listed(self.store.objects(folder)):
            if archived.segment == segment and (below is None or (archived.written or 0) < below):
                self.store.delete(archived.key)

    def put_history(self, timeline: int, data: bytes) -> bool:
        """Store a timeline's history; returns whether it was not there. StoreError (`WAL_CONFLICT`, `WAL_DAMAGED`)."""
        _parsed(timeline, data)
        key = self._key(timeline, history_name(timeline))
        if self._put(key, timeline, data, locked=True):
            return True
        if self.history_bytes(timeline) != data:
            raise StoreError(
                "WAL_CONFLICT",
                f"Another history is archived for timeline {timeline}; it is kept, this one is not.",
                "Two servers were promoted to the same timeline: only one of them may go on archiving here.",
            )
        return False

    def history_bytes(self, timeline: int) -> bytes | None:
        """A timeline's history file; None when there is none."""
        for suffix in ("", ENCRYPTED):
            key = f"{self.timeline_folder(timeline)}/{history_name(timeline)}{suffix}"
            if self.store.exists(key):
                return self._open(key, timeline, history_name(timeline))
        return None

    def history(self, timeline: int) -> tuple[Switch, ...]:
        """The ancestors of a timeline, the oldest first; none for one without a history. StoreError (`WAL_DAMAGED`)."""
        data = self.history_bytes(timeline)
        return () if data is None else _parsed(timeline, data)

    def timeline_folder(self, timeline: int) -> str:
        """`<database>/wal/<system identifier>/<timeline>`."""
        return f"{self.folder}/{timeline:08X}"

    def _key(self, timeline: int, name: str) -> str:
        suffix = ENCRYPTED if self._ciphers(timeline) is not None else ""
        return f"{self.timeline_folder(timeline)}/{name}{suffix}"

    def _put(self, key: str, timeline: int, data: bytes, *, locked: bool) -> bool:
        """Whether the object was not there before."""
        cipher = self._ciphers(timeline)
        if cipher is not None:
            data = _all_of(cipher.encrypting(BytesIO(data), _name_of(key)))
        try:
            self.store.put_bytes(data, key, locked=locked)
        except StoreError as error:
            if error.code != "OBJECT_EXISTS":
                raise
            return False
        return True

    def _open(self, key: str, timeline: int, name: str) -> bytes:
        with self.store.open(key) as stream:
            data = stream.read()
        if not key.endswith(ENCRYPTED):
            return data
        cipher = self._ciphers(timeline)
        if cipher is None:
            raise StoreError(
                "KEY_MISSING", f"{key} is encrypted, and no key is given.", "Name the key in backup.yaml's encryption."
            )
        return _all_of(cipher.decrypting(BytesIO(data), name))

    def _listed(self, objects: Iterable[Listed]) -> Iterator[Archived]:
        for listed in objects:
            archived = self._parse(listed)
            if archived is not None:
                yield archived

    def _parse(self, listed: Listed) -> Archived | None:
        """What an object of a timeline's folder is; None for what is no segment."""
        match = _STORED.fullmatch(listed.key.rpartition("/")[2])
        in_partial = f"/{PARTIAL}/" in listed.key
        if match is None or (match["bytes"] is not None) != in_partial:
            return None
        written = None if match["bytes"] is None else int(match["bytes"], 16)
        try:
            segment = Segment.parse(match["name"], self.segment_bytes)
        except ValueError:
            return None
        return Archived(segment, listed.key, written, listed.size, listed.modified)


def _name_of(key: str) -> str:
    """What an envelope is bound to: the object's name without the envelope's ending."""
    return key.rpartition("/")[2].removesuffix(ENCRYPTED)


def _all_of(source: Source) -> bytes:
    pieces = []
    while piece := source.read(BLOCK):
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(timeline: int, data: bytes) -> tuple[Switch, ...]:
    try:
        return parse_history(data.decode())
    except ValueError:
        raise StoreError(
            "WAL_DAMAGED",
            f"{history_name(timeline)} is not a timeline history.",
            "Look for it in the server's pg_wal or in the other store.",
        ) from None
