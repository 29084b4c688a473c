"""Takes a base backup: pg_basebackup writes into a spool, what it writes is stored meanwhile, the manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import gs_backup_assets
from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.chains import next_backup
from gs_backup_assets.catalogue.manifest import EncryptionRecord, ServerRecord, StoredFile
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.physical_manifest import Collation, PhysicalManifest
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Physical
from gs_backup_assets.errors import BackupError, NotVerifiable, SourceError, StoreError
from gs_backup_assets.postgres import basebackup
from gs_backup_assets.postgres.basebackup import (
    COMPRESSION_UNKNOWN,
    INCREMENTAL_REFUSED,
    Options,
    base_backup_program,
    compressions,
    read_manifest,
)
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.dump import Compression
from gs_backup_assets.postgres.replication import Identity, identify
from gs_backup_assets.postgres.toolchain import Toolchain, choose_own_major
from gs_backup_assets.postgres.whole_cluster import (
    ClusterFacts,
    SettingsScript,
    read_clock,
    read_cluster,
    read_tablespaces,
    settings_script,
)
from gs_backup_assets.progress import Progress, Stage
from gs_backup_assets.recovery.physical.base_backup_files import Exact, require_the_same, tablespaces_in, wal_header
from gs_backup_assets.recovery.physical.unpacking import FOLDER, SERVER_MANIFEST, SETTINGS
from gs_backup_assets.recovery.stored.checked_reading import CheckedReading
from gs_backup_assets.recovery.stored.following import Follower
from gs_backup_assets.recovery.stored.instructions import NAME as INSTRUCTIONS
from gs_backup_assets.recovery.stored.instructions import leave_instructions
from gs_backup_assets.recovery.stored.keyring import OF_THE_BACKUP, begin_encryption, key_for_new_backups
from gs_backup_assets.recovery.stored.storing import Told, store_source
from gs_backup_assets.system.threads import clean_up
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.compression import SUFFIX as ZSTD
from gs_backup_assets.vault.compression import Compressing
from gs_backup_assets.vault.encryption import BackupCipher
from gs_backup_assets.vault.keys import MasterKey
from gs_backup_assets.vault.store import Source, Store

STAGE = "base backup"
_INCREMENTAL_SINCE = 17
_MOST_WARNINGS = 20
# What is wrong with the backup to add to, and with nothing else: a full one does not need it.
_BASE_UNUSABLE = OF_THE_BACKUP | {"FILE_DIFFERS", "FILE_MISSING"}


@dataclass(frozen=True)
class _Work:
    """What stays the same however often pg_basebackup has to be begun again."""

    settings: DatabaseSettings
    options: Physical
    target: Target
    store: Store
    partition: str
    progress: Progress
    master: MasterKey | None
    toolchain: Toolchain
    identity: Identity
    spool: Path
    environment: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def take_base_backup(
    settings: DatabaseSettings,
    target: Target,
    store: Store,
    partition: str,
    progress: Progress,
    *,
    full: bool | None = None,
) -> PhysicalManifest:
    """Back the whole cluster up into `store` and return the manifest, which was written last.

    `target` is the server to take it from, a standby perhaps; `full` demands a full backup, else the catalogue decides.
    Nothing that a reader would take for a backup is left when this fails: the attempt's files are removed. Raises
    ConfigError, SourceError, ProgramError or StoreError; the codes are those of `postgres.basebackup.explain`, and
    `TABLESPACE_LEFT_OUT`, `SERVER_CHANGED`.
    """
    import psycopg2

    WEEK.require_current(partition, datetime.now(timezone.utc), settings.zone)
    # Before anything else: without its key a backup must not even begin, and never rest unencrypted instead.
    master = None
    if settings.encryption is not None:
        master = key_for_new_backups(settings.encryption, settings.name, settings.folder)
    options = settings.physical or Physical()
    with workspace("spool") as spool:
        try:
            with connect(target) as connection:
                facts = read_cluster(connection)
            work = _Work(
                settings,
                options,
                target,
                store,
                partition,
                progress,
                master,
                toolchain=choose_own_major(facts.release),
                identity=identify(target),
                spool=spool,
                environment=target.write_service_file(spool),
            )
            return _until_one_works(work, facts, full=bool(full))
        except psycopg2.Error as error:
            words = (error.diag.message_primary or "the connection was lost").strip()
            raise SourceError(
                "SOURCE_FAILED", f"The source ended the backup: {words}.", "Look in the server's log; run it again."
            ) from None


def _until_one_works(work: _Work, facts: ClusterFacts, *, full: bool) -> PhysicalManifest:
    """Begin again in another way when the server, or pg_basebackup, says that it cannot do it in this one."""
    base, work = _base(work, facts, full=full)
    choices = list(compressions(Compression.parse(work.options.compression), facts.release, work.toolchain.release))
    while True:
        try:
            return _attempt(work, base, choices[0])
        except BackupError as error:
            if error.code == INCREMENTAL_REFUSED and base is not None:
                base, warning = None, f"{error.message} A full one was taken instead."
                work = replace(work, warnings=(*work.warnings, warning))
            elif error.code == COMPRESSION_UNKNOWN and len(choices) > 1:
                del choices[0]
            else:
                raise


@dataclass(frozen=True)
class _Base:
    """The backup that the new one adds to, and PostgreSQL's manifest of it in the spool."""

    id: str
    server_manifest: Path


def _base(work: _Work, facts: ClusterFacts, *, full: bool) -> tuple[_Base | None, _Work]:
    """The backup that the new one adds to, if any; what stands against an incremental one becomes a warning."""
    if full or work.options.incremental == "never" or facts.release.major < _INCREMENTAL_SINCE:
        return None, work
    chosen = next_backup(
        PhysicalCatalogue(work.store, work.settings.name).entries(),
        system_identifier=work.identity.system_identifier,
        major=facts.release.major,
        longest=work.options.chain_length,
        full=False,
    )
    if chosen.base is None:
        return None, work
    if not facts.summarizes_wal:
        words = "summarize_wal is off on the server, so that no incremental backup is possible: a full one was taken."
        return None, replace(work, warnings=(*work.warnings, words))
    path = work.spool / "base_manifest"
    try:
        CheckedReading.of(work.settings, work.store, chosen.base.require_manifest()).copy_out(SERVER_MANIFEST, path)
    except BackupError as error:
        if not isinstance(error, NotVerifiable) and error.code not in _BASE_UNUSABLE:
            raise
        words = f"Nothing can be added to {chosen.base.id}: {error.message} A full backup was taken instead."
        return None, replace(work, warnings=(*work.warnings, words))
    return _Base(chosen.base.id, path), work


def _attempt(work: _Work, base: _Base | None, compression: str) -> PhysicalManifest:
    """One run of pg_basebackup, stored while it goes on."""
    with connect(work.target) as connection:
        facts = read_cluster(connection)
        script = settings_script(connection)
    WEEK.require_current(work.partition, facts.now, work.settings.zone)  # the week may have ended meanwhile
    draft = _draft(work, facts, script, base, compression)
    if work.store.exists(f"{draft.folder}/{manifests.NAME}"):
        raise StoreError(
            "OBJECT_EXISTS", f"{draft.folder} is already there.", "Run the backup again: ids name seconds."
        )
    try:
        return _store(work, draft, script, base.server_manifest if base else None, facts)
    except BaseException as error:
        # An object that is there already belongs to another run, of the same second: its folder is not ours to clear.
        if not (isinstance(error, StoreError) and error.code == "OBJECT_EXISTS"):
            with suppress(StoreError):  # what went wrong first is told; without a manifest the rest is swept later
                clean_up(lambda: work.store.delete_tree(draft.folder), after=error)
        raise


def _draft(
    work: _Work, facts: ClusterFacts, script: SettingsScript, base: _Base | None, compression: str
) -> PhysicalManifest:
    """What is known before the backup; the rest is filled in after it."""
    return PhysicalManifest(
        id=manifests.backup_id(facts.now),
        database=work.settings.name,
        partition=work.partition,
        timezone=work.settings.timezone,
        software=gs_backup_assets.__version__,
        finished_at=facts.now,
        server=ServerRecord(
            release=str(facts.release),
            system_identifier=work.identity.system_identifier,
            in_recovery=facts.in_recovery,
            lsn=facts.lsn,
        ),
        files=(),
        warnings=(*work.warnings, *script.warnings),
        stage_seconds={},
        system_identifier=work.identity.system_identifier,
        timeline=work.identity.timeline,
        start_lsn=work.identity.lsn,
        stop_lsn=work.identity.lsn,
        started_at=facts.now,
        consistent_at=facts.now,
        base=base.id if base is not None else None,
        programs=str(work.toolchain.release),
        compression=compression,
        cluster_bytes=facts.size,
        unpacked_bytes=0,
        wal_segment_bytes=facts.wal_segment_bytes,
        data_checksums=facts.data_checksums,
        collations=tuple(Collation(**asdict(collation)) for collation in facts.collations),
    )


class _Sink:
    """Puts files into the new backup's folder; its data key is made with the first: most failures come before."""

    def __init__(self, work: _Work, draft: PhysicalManifest) -> None:
        self._work = work
        self._draft = draft
        self._cipher: BackupCipher | None = None
        self.encryption: EncryptionRecord | None = None

    def begin(self) -> None:
        """Make the data key unless it was made, or none is needed."""
        if self._work.master is not None and self._cipher is None:
            self._cipher, self.encryption = begin_encryption(self._work.store, self._work.master, self._draft)

    def put(self, source: Source, name: str, size: int) -> StoredFile:
        return store_source(
            self._work.store,
            source,
            f"{FOLDER}/{name}",
            size=size,
            folder=self._draft.folder,
            cipher=self._cipher,
        )


def _store(
    work: _Work, draft: PhysicalManifest, script: SettingsScript, incremental: Path | None, facts: ClusterFacts
) -> PhysicalManifest:
    sink = _Sink(work, draft)
    folder = work.spool / "backup"
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt before this one
    with work.progress.stage(STAGE) as stage:
        archives, said = _run(work, draft, sink, folder, incremental=incremental, stage=stage)
    with connect(work.target) as connection:
        consistent_at, tablespaces = read_clock(connection), read_tablespaces(connection)
    server_manifest = read_manifest(folder / basebackup.MANIFEST)
    header = wal_header(folder)
    require_the_same(work.target, draft.system_identifier, server_manifest.system_identifier, header)
    with work.progress.stage("store") as stage:
        rest = [_put_wal(sink, folder, draft.compression, stage.advance)]
        settings_file = work.spool / SETTINGS
        settings_file.touch(mode=0o600)
        settings_file.write_text(script.text, encoding="utf-8")
        rest += [_put_file(sink, path, stage.advance) for path in (folder / basebackup.MANIFEST, settings_file)]
        warnings = (*draft.warnings, *said, *_leave_instructions(work.store))
    manifest = draft.model_copy(
        update={
            "files": tuple(sorted((*archives, *rest), key=lambda file: file.path)),
            "encryption": sink.encryption,
            "warnings": warnings,
            "timeline": server_manifest.wal.timeline,
            "start_lsn": str(server_manifest.wal.start),
            "stop_lsn": str(server_manifest.wal.stop),
            "consistent_at": consistent_at,
            "cluster_bytes": server_manifest.bytes if draft.base is None else draft.cluster_bytes,
            "unpacked_bytes": server_manifest.bytes,
            "tablespaces": tablespaces_in(archives, facts.tablespaces, tablespaces),
            "finished_at": datetime.now(timezone.utc),
            "stage_seconds": dict(work.progress.seconds),
        }
    )
    work.store.put_bytes(manifests.encode(manifest), f"{manifest.folder}/{manifests.NAME}")
    return manifest


def _run(
    work: _Work, draft: PhysicalManifest, sink: _Sink, folder: Path, *, incremental: Path | None, stage: Stage
) -> tuple[tuple[StoredFile, ...], list[str]]:
    """Run pg_basebackup to its end and store what it writes; the files stored, and what was warned of."""
    options = Options(draft.compression, work.options.checkpoint, work.options.max_rate, incremental)
    program = base_backup_program(work.toolchain, work.environment, folder, options, on_progress=stage.update)

    def archives() -> list[Path]:
        # The archive of WAL is written to until the very end, in its middle as well: it is stored afterwards.
        found = [p for p in folder.glob("*.tar*") if not p.name.startswith(basebackup.WAL)] if folder.is_dir() else []
        if found:
            sink.begin()
        return sorted(found)

    with Follower(lambda source, name: sink.put(source, name, draft.cluster_bytes)) as follower, program:
        finished = program.wait(tick=lambda: follower.look(archives()))
        if finished.status != 0:
            raise basebackup.explain(finished.stderr, finished.status, work.target)
        stored = follower.finish(archives())
    said = [line.strip() for line in finished.stderr if "WARNING:" in line or "warning:" in line]
    return stored, said[:_MOST_WARNINGS]


def _put_file(sink: _Sink, path: Path, advance: Callable[[int], None]) -> StoredFile:
    with open(path, "rb") as stream:
        return sink.put(Told(stream, advance), path.name, path.stat().st_size)


def _put_wal(sink: _Sink, folder: Path, compression: str, advance: Callable[[int], None]) -> StoredFile:
    """The archive of WAL, which servers do not compress, and pg_basebackup with gzip only."""
    path = next(folder.glob(f"{basebackup.WAL}*"))
    if path.suffix != ".tar" or compression in ("none", "0"):
        return _put_file(sink, path, advance)
    with open(path, "rb") as stream:
        return sink.put(Exact(Compressing(Told(stream, advance))), path.name + ZSTD, path.stat().st_size)


def _leave_instructions(store: Store) -> tuple[str, ...]:
    try:
        leave_instructions(store)
    except StoreError as error:  # a role may have rights below the database's folder only
        return (f"{INSTRUCTIONS} could not be left in the store: {error.message}",)
    return ()
