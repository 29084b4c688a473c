"""Reads the end of an archived log: up to where it goes, and the last commit in it. What was read is remembered."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import gs_backup_assets
from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import Toolchain, choose_own_major
from gs_backup_assets.postgres.wal import Lsn, read_header
from gs_backup_assets.postgres.waldump import Commit, read_wal
from gs_backup_assets.system.cache import cache_root
from gs_backup_assets.system.workspace import workspace

# Log without a commit is rare: the end of a load, or a server that is idle but for checkpoints.
MOST_SEGMENTS = 32
_KEPT = 100
# Errors that are about what lies in the store, not about the way to it or about a key that is not here.
_DAMAGE = frozenset(
    {"WAL_DAMAGED", "WAL_FOREIGN", "WAL_MISPLACED", "COMPRESSED_DAMAGED", "ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED"}
)


@dataclass(frozen=True)
class Tail:
    """The end of a log. `end` is up to where it can be read, `commit` the last one before that, None if there is none
    in the segments that were read. `damage` is what is wrong with the newest segments; `end` lies before it.
    """

    end: Lsn
    commit: Commit | None
    damage: StoreError | None = None


def read_tail(archive: WalArchive, segments: Sequence[Archived], begin: Lsn) -> Tail:
    """Look at the newest of these segments, which follow each other, and go back until there is a commit.

    Not before `begin`, and over at most 32 segments. The same objects are not read twice. Raises what reading raises,
    but for damaged segments: those are told.
    """
    if not segments:
        return Tail(begin, None)
    path = _path(archive, segments[-1], begin)
    known = _recall(path)
    if known is not None:
        return known
    tail = _read(archive, segments, begin)
    if tail.damage is None:  # a damaged one may be mended under the same key
        _keep(path, tail)
    return tail


def known_tail(archive: WalArchive, segments: Sequence[Archived], begin: Lsn) -> Tail:
    """The same without reading a byte of the log: what was read of these very objects before, else where their names
    say that the log ends, and no commit."""
    if not segments:
        return Tail(begin, None)
    return _recall(_path(archive, segments[-1], begin)) or Tail(max(segments[-1].end, begin), None)


def _read(archive: WalArchive, segments: Sequence[Archived], begin: Lsn) -> Tail:
    end, damage = segments[-1].end, None
    known_end = False
    timeline = segments[-1].segment.timeline
    toolchain: Toolchain | None = None
    with workspace("wal") as folder:
        after: Archived | None = None
        for archived in list(reversed(segments))[:MOST_SEGMENTS]:
            if archived.end <= begin:
                break
            try:
                data = archive.read(archived)
                toolchain = toolchain or _programs(data)
                # The newest timeline's number in every name: its log includes that of those before it.
                first = archived.segment.on(timeline)
                (folder / first.name).write_bytes(data)
                last = first if after is None else after.segment.on(timeline)
                limit = (after or archived).end if (after or archived).partial else None
                read = read_wal(toolchain, folder, first, last, end=limit)
            except StoreError as error:
                if error.code not in _DAMAGE:
                    raise
                damage, end, after, known_end = error, archived.segment.start, None, False
                continue
            if not known_end:
                end, known_end = read.end, read.end > first.start  # one record may fill all of it
            if read.commits:
                return Tail(end, read.commits[-1], damage)
            after = archived
    return Tail(max(end, begin), None, damage)


def _programs(data: bytes) -> Toolchain:
    header = read_header(data)
    assert header is not None  # `WalArchive.read` has looked
    return choose_own_major(Release.parse(f"{header.major}.0"))


def _path(archive: WalArchive, newest: Archived, begin: Lsn) -> Path:
    """A file for what was read of these very objects: a segment is never overwritten, and a part has another name.

    On the way to a newer timeline less of the same object counts.
    """
    tag = f"{newest.key} {newest.stored_bytes} {newest.stored_at} {begin} {newest.end}"
    place = f"{gs_backup_assets.__version__}\n{archive.store.describe()}\n{tag}"
    return cache_root() / "wal" / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"


def _recall(path: Path) -> Tail | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(path.read_bytes())
        commit = document["commit"]
        made = None if commit is None else Commit(commit[0], Lsn.parse(commit[1]), datetime.fromisoformat(commit[2]))
        return Tail(Lsn.parse(document["end"]), made)
    return None


def _keep(path: Path, tail: Tail) -> None:
    """A cache that fails is no failure. Only the newest reading is of use: older ones are removed."""
    commit = tail.commit
    document = {
        "end": str(tail.end),
        "commit": None if commit is None else [commit.xid, str(commit.lsn), commit.at.isoformat()],
    }
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        aside.write_text(json.dumps(document), encoding="utf-8")
        os.replace(aside, path)
        for old in sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
