"""Takes files from a server's archive_command into the archive: done when safe there, however often they come."""

from __future__ import annotations

from pathlib import Path

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.postgres.wal import Segment, is_history, is_segment, read_header
from gs_backup_assets.postgres.wal_records import is_finished
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.fetching import cluster_of
from gs_backup_assets.vault.store import Store

_PARTIAL = ".partial"
_BACKUP = ".backup"


def push_wal(settings: DatabaseSettings, store: Store, path: Path, *, system_identifier: str | None) -> bool:
    """Archive a file of pg_wal; whether it was not there before. The same bytes again are no error.

    `system_identifier` is the server's own; a segment carries it, a history does not. What a promoted server leaves of
    its old timeline (`.partial`) is kept as a part; backup histories (`.backup`) are taken and dropped: the manifests
    of base backups say it all. Raises StoreError: `WAL_CONFLICT`, `WAL_FOREIGN`, `WAL_MISPLACED`, `WAL_DAMAGED`,
    `WAL_UNFINISHED` and those of the store; ConfigError (`WAL_FILE_UNKNOWN`, and for a history those of `cluster_of`).
    """
    name = path.name
    if name.endswith(_BACKUP) and is_segment(name.partition(".")[0]):
        return False
    if not (is_segment(name.removesuffix(_PARTIAL)) or is_history(name)):
        raise ConfigError(
            "WAL_FILE_UNKNOWN", f"{name} is no file of the write-ahead log.", "Give archive_command's %p as it is."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "WAL_FILE_UNREADABLE",
            f"{path} cannot be read: {error.strerror or error}.",
            "archive_command is run in the data directory, by the server's account; keep it so.",
        ) from None
    if is_history(name):
        system = system_identifier or cluster_of(store, settings.name, None)
        return open_archive(settings, store, system, writing=True).put_history(int(name[:8], 16), data)
    return _push_segment(settings, store, name, data, system_identifier)


def _push_segment(
    settings: DatabaseSettings, store: Store, name: str, data: bytes, system_identifier: str | None
) -> bool:
    header = read_header(data)
    if header is None:
        raise StoreError(
            "WAL_DAMAGED",
            f"{name} does not begin as a WAL segment does.",
            "Look at the server's disk; the server keeps the file until it is archived.",
        )
    segment = Segment.parse(name.removesuffix(_PARTIAL), header.segment_bytes)
    archive = open_archive(
        settings,
        store,
        system_identifier or header.system_identifier,
        writing=True,
        segment_bytes=header.segment_bytes,
    )
    if not name.endswith(_PARTIAL):
        if len(data) == segment.size and not is_finished(data, segment):
            raise StoreError(
                "WAL_UNFINISHED",
                f"{name} is not finished: archived as a whole one, it would keep the finished one out.",
                "Leave it to archive_command, which comes when it is. Where its server is gone for good, copy it to"
                f" {name}{_PARTIAL} and push that: what is written of it is kept.",
            )
        new = archive.put(segment, data)
        archive.drop_partials(segment)
        return new
    known = archive.find(segment)
    if known is not None and not known.partial:
        return False
    return archive.put_partial(segment, data) is not None
