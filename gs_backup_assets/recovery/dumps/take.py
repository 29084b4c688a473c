"""Takes a logical backup: snapshot, dump and fingerprint side by side, then the store, the manifest last."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gs_backup_assets
from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.manifest import DumpRecord, Manifest, ServerRecord
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import SourceError, StoreError
from gs_backup_assets.postgres.connection import Target, query
from gs_backup_assets.postgres.database import database_facts
from gs_backup_assets.postgres.dump import FALLBACK_COMPRESSION, Compression, dump_database, dump_globals, excluded
from gs_backup_assets.postgres.fingerprint import Fingerprint, Level, sequences_again, take_fingerprint
from gs_backup_assets.postgres.roles import read_roles
from gs_backup_assets.postgres.schema import SchemaObject, read_schema
from gs_backup_assets.postgres.snapshot import LOCK_WAIT_SECONDS, Snapshot, exported_snapshot
from gs_backup_assets.postgres.toolchain import Toolchain, choose
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.stored.instructions import NAME as INSTRUCTIONS
from gs_backup_assets.recovery.stored.instructions import leave_instructions
from gs_backup_assets.recovery.stored.keyring import begin_encryption, key_for_new_backups
from gs_backup_assets.recovery.stored.stored_settings import SETTINGS_FILE, save_settings
from gs_backup_assets.recovery.stored.storing import store_files
from gs_backup_assets.system.threads import Threads, clean_up
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.keys import MasterKey
from gs_backup_assets.vault.store import Store

if TYPE_CHECKING:
    import psycopg2

DUMP_FOLDER = "dump"
GLOBALS_FILE = "globals.sql"


class _Cancelled(Exception):
    """Raised inside a worker thread when its sibling failed."""


def jobs_of(setting: int | str) -> int:
    """Parallel jobs: as configured, or one per processor, at most eight."""
    return setting if isinstance(setting, int) else max(1, min(8, os.cpu_count() or 1))


def take_backup(
    settings: DatabaseSettings,
    target: Target,
    store: Store,
    partition: str,
    progress: Progress,
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
) -> Manifest:
    """Back the database up into `store` and return the manifest, which was written last.

    Nothing that a reader would take for a backup is left when this fails: the attempt's files are removed.
    `lock_wait` is how many seconds to wait for a table that another session holds locked (`LOCK_TIMEOUT`).
    Raises ConfigError, SourceError, ProgramError or StoreError.
    """
    import psycopg2

    DAY.require_current(partition, datetime.now(timezone.utc), settings.zone)
    # Before the dump: without its key a backup must not even begin, and never rest unencrypted instead.
    master = None
    if settings.encryption is not None:
        master = key_for_new_backups(settings.encryption, settings.name, settings.folder)
    with workspace("spool") as spool:
        try:
            draft = _read_source(settings, target, spool, partition, progress=progress, lock_wait=lock_wait)
        except psycopg2.Error as error:
            raise _source_failed(error) from None
        return _store_files(draft, spool, store, master, progress)


def _source_failed(error: psycopg2.Error) -> SourceError:
    """What the server said, without anything out of a row."""
    words = (error.diag.message_primary or "the connection was lost").strip()
    return SourceError(
        "SOURCE_FAILED",
        f"The source ended the backup's reading: {words}.",
        "Look in the server's log; a table that was dropped or altered meanwhile is one cause. Run the backup again.",
    )


def _read_source(
    settings: DatabaseSettings, target: Target, spool: Path, partition: str, *, progress: Progress, lock_wait: float
) -> Manifest:
    """Everything that needs the source; the lock and the snapshot are held only for this long."""
    warnings: list[str] = []
    with exported_snapshot(target, lock_wait=lock_wait) as snapshot:
        DAY.require_current(partition, snapshot.taken_at, settings.zone)  # midnight may have passed
        toolchain = choose(snapshot.facts.release)
        compression = _compression(settings, toolchain, warnings)
        dump = DumpRecord(
            programs=str(toolchain.release),
            compression=str(compression),
            jobs=jobs_of(settings.logical.jobs),
            role_passwords=query(snapshot.connection, "SELECT current_setting('is_superuser') = 'on'")[0][0],
        )
        if not dump.role_passwords:
            warnings.append("The role is not a superuser: roles are backed up without their passwords.")
        facts = database_facts(snapshot.connection)
        save_settings(snapshot.connection, spool)
        roles = read_roles(snapshot.connection)
        level = Level(settings.logical.fingerprint)
        fingerprint, schema = _dump_and_fingerprint(
            target,
            spool,
            snapshot,
            toolchain,
            dump=dump,
            encoding=facts.encoding,
            level=level,
            lock_wait=lock_wait,
            progress=progress,
        )
    return Manifest(
        id=manifests.backup_id(snapshot.taken_at),
        database=settings.name,
        partition=partition,
        timezone=settings.timezone,
        software=gs_backup_assets.__version__,
        snapshot_at=snapshot.taken_at,
        finished_at=datetime.now(timezone.utc),
        server=ServerRecord(
            release=str(snapshot.facts.release),
            system_identifier=snapshot.facts.system_identifier,
            in_recovery=snapshot.facts.in_recovery,
            lsn=snapshot.facts.lsn,
        ),
        source=facts,
        dump=dump,
        files=(),
        fingerprint=fingerprint,
        schema_objects=schema,
        roles=roles,
        omissions=snapshot.inventory.omissions,
        warnings=tuple(warnings),
        stage_seconds={},
    )


def _dump_and_fingerprint(
    target: Target,
    spool: Path,
    snapshot: Snapshot,
    toolchain: Toolchain,
    *,
    dump: DumpRecord,
    encoding: str,
    level: Level,
    lock_wait: float,
    progress: Progress,
) -> tuple[Fingerprint, tuple[SchemaObject, ...]]:
    """Run the dump in a thread and the fingerprint in this one, under one snapshot; when one fails, end the other."""
    cancelled = threading.Event()
    environment = target.write_service_file(spool)
    exclude = excluded(snapshot.inventory)

    def dump_all() -> tuple[SchemaObject, ...]:
        with progress.stage("dump") as stage:

            def written(size: int) -> None:
                if cancelled.is_set():
                    raise _Cancelled
                stage.update(size)

            dump_globals(
                toolchain,
                environment,
                spool / GLOBALS_FILE,
                database=target.database,
                passwords=dump.role_passwords,
            )
            schema = read_schema(toolchain, environment, snapshot=snapshot.name, exclude=exclude, lock_wait=lock_wait)
            dump_database(
                toolchain,
                environment,
                spool / DUMP_FOLDER,
                snapshot=snapshot.name,
                jobs=dump.jobs,
                compression=Compression.parse(dump.compression),
                encoding=encoding,
                exclude=exclude,
                lock_wait=lock_wait,
                written=written,
            )
            return schema

    with Threads(1, "dump") as pool:
        dumping = pool.submit(dump_all)
        try:
            fingerprint = _fingerprint(target, snapshot, level, progress, failed=lambda: _failed(dumping))
            schema = dumping.result()
        except BaseException:
            cancelled.set()
            with suppress(_Cancelled):
                dumping.result()  # when both failed, the dump's own error is the one to tell
            raise
    return sequences_again(target, fingerprint), schema


def _fingerprint(
    target: Target, snapshot: Snapshot, level: Level, progress: Progress, *, failed: Callable[[], bool]
) -> Fingerprint:
    # One table at a time: the dump beside it already keeps the source's disks and processors busy.
    total = sum(relation.total_bytes for relation in snapshot.inventory.tables)
    with progress.stage("fingerprint") as stage:

        def advance(size: int) -> None:
            if failed():
                raise _Cancelled
            stage.advance(size, total)

        return take_fingerprint(
            target, snapshot.inventory, level=level, jobs=1, snapshot=snapshot.name, advance=advance
        )


def _failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def _compression(settings: DatabaseSettings, toolchain: Toolchain, warnings: list[str]) -> Compression:
    wanted = Compression.parse(settings.logical.compression)
    if wanted.supported_by(toolchain):
        return wanted
    warnings.append(
        f"{wanted} is not known to pg_dump {toolchain.release}: {FALLBACK_COMPRESSION} is used,"
        " which is slower and larger."
    )
    return FALLBACK_COMPRESSION


def _store_files(draft: Manifest, spool: Path, store: Store, master: MasterKey | None, progress: Progress) -> Manifest:
    """Bring the spool into the store; the manifest makes it a backup."""
    paths = sorted(path for path in (spool / GLOBALS_FILE, spool / SETTINGS_FILE, *(spool / DUMP_FOLDER).iterdir()))
    total = sum(path.stat().st_size for path in paths)
    if store.exists(f"{draft.folder}/{manifests.NAME}"):
        raise StoreError(
            "OBJECT_EXISTS", f"{draft.folder} is already there.", "Run the backup again: ids name seconds."
        )
    cipher, encryption = None, None
    try:
        with progress.stage("store") as stage:
            if master is not None:
                cipher, encryption = begin_encryption(store, master, draft)
            named = [(path.relative_to(spool).as_posix(), path) for path in paths]
            files = store_files(store, named, draft.folder, cipher, lambda n: stage.advance(n, total))
        try:
            leave_instructions(store)
            warnings = draft.warnings
        except StoreError as error:  # a role may have rights below the database's folder only
            warnings = (*draft.warnings, f"{INSTRUCTIONS} could not be left in the store: {error.message}")
        manifest = draft.model_copy(
            update={
                "files": files,
                "warnings": warnings,
                "encryption": encryption,
                "finished_at": datetime.now(timezone.utc),
                "stage_seconds": dict(progress.seconds),
            }
        )
        store.put_bytes(manifests.encode(manifest), f"{manifest.folder}/{manifests.NAME}")
    except BaseException as error:
        # An object that is there already belongs to another run, of the same second: its folder is not ours to clear.
        if not (isinstance(error, StoreError) and error.code == "OBJECT_EXISTS"):
            with suppress(StoreError):  # what went wrong first is told; without a manifest the rest is swept later
                clean_up(lambda: store.delete_tree(draft.folder), after=error)
        raise
    return manifest
