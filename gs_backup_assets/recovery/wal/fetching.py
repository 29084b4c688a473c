"""Gives files of the archive to a server that recovers (restore_command), some of them before it asks."""

from __future__ import annotations

import secrets
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from gs_backup_assets.catalogue.wal_archive import WalArchive, archived_clusters
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, ProgramError, StoreError
from gs_backup_assets.postgres.wal import (
    DEFAULT_SEGMENT_BYTES,
    Segment,
    is_history,
    is_segment,
    read_header,
    require_segment,
)
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.vault.store import Store

AHEAD = "gs_backup_ahead"
WINDOW = 8
_WANTED = "wanted"
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
# What a later try may find better: the store itself cannot be reached. Everything else is said at once.
_PASSING = frozenset({"STORE_UNAVAILABLE", "KEY_UNAVAILABLE", "TRANSFER_DAMAGED"})
_MISFITS = frozenset({"WAL_DAMAGED", "WAL_MISPLACED"})
_T = TypeVar("_T")


def cluster_here(folder: Path) -> str | None:
    """The system identifier of the cluster whose data directory a folder is; None when it is none.

    A server runs restore_command and archive_command in its data directory. The identifier is the first thing in
    `global/pg_control` (`catalog/pg_control.h`).
    """
    try:
        with open(folder / "global" / "pg_control", "rb") as stream:
            head = stream.read(8)
    except OSError:
        return None
    return str(struct.unpack("=Q", head)[0]) if len(head) == 8 else None


def cluster_of(store: Store, database: str, wanted: str | None) -> str:
    """Of which cluster the archive is meant. Raises ConfigError: `NO_WAL_ARCHIVE`, `WAL_CLUSTER_AMBIGUOUS`.

    A store that is not mounted looks empty: that there is no archive at all is never taken for "no such file".
    """
    there = archived_clusters(store, database)
    if wanted is None and len(there) > 1:
        raise ConfigError(
            "WAL_CLUSTER_AMBIGUOUS",
            f"The archive has write-ahead log of several clusters: {', '.join(there)}.",
            "Name one with --system-identifier; `pg_controldata` shows a cluster's.",
        )
    if not there or (wanted is not None and wanted not in there):
        of = f"of the cluster {wanted}" if wanted else f"of {database}"
        raise ConfigError(
            "NO_WAL_ARCHIVE",
            f"{store.describe()} has no write-ahead log {of}.",
            "Check that the store is the right one and is mounted; `gs-backup wal status` shows what there is.",
        )
    return wanted or there[0]


def fetch_wal(
    settings: DatabaseSettings,
    store: Store,
    name: str,
    path: Path,
    *,
    system_identifier: str | None,
    patience: float,
    prefetcher: Sequence[str],
) -> bool:
    """Put a file of the archive at `path`, whole or not at all; False when the archive does not have it.

    A store that cannot be reached is tried again for `patience` seconds. `prefetcher` is the command that fetches
    ahead; it is given the folder and the cluster. Raises what reading raises, and what `cluster_of` does.
    """
    ahead = path.absolute().parent / AHEAD
    if is_segment(name) and (system := _hand_over(ahead / name, path, system_identifier)) is not None:
        _fetch_ahead(ahead, name, prefetcher, system)
        return True
    system = _patiently(lambda: cluster_of(store, settings.name, system_identifier), patience)
    data = _patiently(lambda: read_file(settings, store, system, name), patience)
    if data is None:
        _clear(ahead)  # the end of what there is: nothing more is asked for in its order
        return False
    _write(path, data)
    if is_segment(name):
        _fetch_ahead(ahead, name, prefetcher, system)
    return True


def read_file(settings: DatabaseSettings, store: Store, system_identifier: str, name: str) -> bytes | None:
    """A segment (the whole one, else the longest part, zeros behind it) or a history; None for what is not there."""
    archive = open_archive(settings, store, system_identifier)
    if is_history(name):
        return archive.history_bytes(int(name[:8], 16))
    if not is_segment(name):
        return None
    try:
        found = archive.find(Segment.parse(name))
        return None if found is None else archive.read(found)
    except (StoreError, ValueError) as error:
        # Segments of another size than the usual one: asked for only now, as it costs the reading of one.
        size = None if isinstance(error, StoreError) and error.code not in _MISFITS else archive.stored_segment_bytes()
        if size is None or size == DEFAULT_SEGMENT_BYTES:
            raise
    archive = open_archive(settings, store, system_identifier, segment_bytes=size)
    found = archive.find(Segment.parse(name, size))
    return None if found is None else archive.read(found)


def fetch_ahead(archive: WalArchive, folder: Path, *, idle_seconds: float = 5.0) -> None:
    """Keep the segments after the one that was asked for last ready in a folder, until nobody asks for some seconds.

    Only whole ones: a part grows. One process at a time does it.
    """
    import fcntl

    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        # The folder goes when the last file has been handed out.
        with suppress(FileNotFoundError):
            while (asked := _asked_at(folder)) is not None and time.time() - asked[1] < idle_seconds:
                if not _fetch_next(archive, folder, asked[0]):
                    time.sleep(0.05)


def _fetch_next(archive: WalArchive, folder: Path, asked: str) -> bool:
    """Fetch one segment that is missing of those to have ready; whether there was one to fetch."""
    segment = Segment.parse(asked, archive.segment_bytes)
    ready = {path.name for path in folder.iterdir() if is_segment(path.name)}
    for old in (name for name in ready if name <= asked or name[:8] != asked[:8]):
        (folder / old).unlink(missing_ok=True)
    for _ in range(WINDOW):
        segment = segment.next
        if segment.name in ready:
            continue
        found = archive.find(segment)
        if found is None or found.partial:
            return False
        _write(folder / segment.name, archive.read(found))
        return True
    return False


def _fetch_ahead(ahead: Path, name: str, prefetcher: Sequence[str], system_identifier: str) -> None:
    """See that a process fetches ahead; that it cannot is no failure of this fetch, which is done."""
    with suppress(OSError):
        ahead.mkdir(mode=0o700, exist_ok=True)
        _write(ahead / _WANTED, name.encode())
        if not _is_locked(ahead / "lock"):
            # Not a `Program`, which would end with us: it outlives this call by the seconds in which nobody asks.
            subprocess.Popen(
                [*prefetcher, str(ahead), system_identifier],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )


def prefetching(*arguments: str) -> tuple[str, ...]:
    """The command of the process that fetches ahead."""
    return (sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()", "wal", "prefetch", *arguments)


def _hand_over(ready: Path, path: Path, wanted: str | None) -> str | None:
    """Take a segment that was fetched ahead and is still what it was; of which cluster it is, None without one."""
    try:
        data = ready.read_bytes()
        header = read_header(data)
        if header is None:
            return None
        require_segment(data, Segment.parse(ready.name, header.segment_bytes), wanted or header.system_identifier)
        ready.rename(path)
    except (OSError, StoreError, ValueError):  # then it comes from the store
        return None
    return header.system_identifier


def _asked_at(folder: Path) -> tuple[str, float] | None:
    try:
        path = folder / _WANTED
        return path.read_text(encoding="ascii"), path.stat().st_mtime
    except OSError:
        return None


def _is_locked(path: Path) -> bool:
    import fcntl

    with open(path, "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _clear(ahead: Path) -> None:
    """Remove what was fetched ahead; the process that does it ends when it finds nothing of what was asked."""
    if ahead.is_dir():
        for path in (ahead / _WANTED, *ahead.iterdir()):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # the process may be writing into it this moment
            ahead.rmdir()


def _write(path: Path, data: bytes) -> None:
    """Write a file aside and put it in place. ProgramError (`TARGET_UNWRITABLE`)."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.aside")
    try:
        try:
            aside.write_bytes(data)
            aside.chmod(0o600)
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ProgramError(
            "TARGET_UNWRITABLE",
            f"{path} cannot be written: {error.strerror or error}.",
            "Free space there, and check that this account may write to the folder.",
        ) from error


def _patiently(call: Callable[[], _T], patience: float) -> _T:
    deadline = time.monotonic() + patience
    for pause in (*_PAUSES, *[_PAUSES[-1]] * 10_000):
        try:
            return call()
        except StoreError as error:
            if error.code not in _PASSING or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
    raise AssertionError("the deadline is behind us")
