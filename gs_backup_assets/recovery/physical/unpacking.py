"""Brings a chain of base backups back to disk: fetched, checked, decrypted, unpacked and combined, in one pass."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from gs_backup_assets.catalogue.catalogue import PhysicalEntry
from gs_backup_assets.catalogue.manifest import StoredFile
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProgramError, StoreError
from gs_backup_assets.postgres import basebackup
from gs_backup_assets.postgres.toolchain import Toolchain, choose_own_major, reachable
from gs_backup_assets.postgres.wal import Segment, is_segment
from gs_backup_assets.postgres.wal_tablespaces import inside_of_the_data_directory
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.stored.checked_reading import ANOTHER, CheckedReading
from gs_backup_assets.recovery.stored.storing import FILES_AT_A_TIME
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.system.untar import TarRefused, untar
from gs_backup_assets.vault.compression import SUFFIX as ZSTD
from gs_backup_assets.vault.compression import Decompressing
from gs_backup_assets.vault.inflating import Inflating
from gs_backup_assets.vault.pipeline import BLOCK
from gs_backup_assets.vault.store import Source, Store

FOLDER = "base"
SERVER_MANIFEST = f"{FOLDER}/{basebackup.MANIFEST}"
SETTINGS = "server_settings.conf"
CHECK = "backup_manifest_matches"
# Links to tablespaces are made here; the map, with the places where they were, would undo them when the server starts.
TABLESPACE_MAP = "tablespace_map"
_GZIP = ".gz"
_AHEAD = 8
_MOST_FINDINGS = 20
_ROOM = 64 << 20  # bytes that folders, links and small files may take beside the contents


@dataclass(frozen=True)
class Unpacked:
    """A cluster's files, ready to be started: `data` with a backup_label, its tablespaces by OID, and the programs.

    `toolchain` is of the cluster's own major, at a place that `account` can reach. Nothing was synced to disk: a
    server that begins its recovery syncs its whole data directory first.
    """

    data: Path
    tablespaces: Mapping[int, Path]
    toolchain: Toolchain
    account: Account
    manifest: PhysicalManifest


def unpack_chain(
    settings: DatabaseSettings,
    store: Store,
    chain: Sequence[PhysicalEntry],
    into: Path,
    progress: Progress,
    *,
    account: Account,
) -> Unpacked:
    """Unpack a chain, the full backup first, into `into`/data and `into`/tablespaces; they must not be there yet.

    `into` is a folder that `account` may enter; everything in it will belong to `account`. Tablespaces are linked to
    their new places. What was made is removed when this fails or is interrupted. Raises StoreError: `FILE_DIFFERS`,
    `OBJECT_MISSING`, `COMPRESSED_DAMAGED`, `ARCHIVE_INVALID`, and what the store and the key raise; ProgramError:
    `NO_SPACE`, `TARGET_NOT_EMPTY`, `PROGRAMS_OF_MAJOR_MISSING`, `COMBINE_FAILED`, `TABLESPACE_RECORD_PARTED`.
    """
    manifests = [entry.require_manifest() for entry in chain]
    last = manifests[-1]
    toolchain = reachable(choose_own_major(last.release), account)
    final, parts = into / "data", into / "increments"
    spaces = into / "tablespaces"
    for path in (final, spaces, parts):
        if path.exists():
            raise ProgramError("TARGET_NOT_EMPTY", f"{path} is already there.", "Choose an empty folder.")
    _require_space(into, manifests)
    try:
        places = [_Place(final, spaces)] if len(chain) == 1 else [_Place(parts / m.id, parts / m.id) for m in manifests]
        for place, manifest in zip(places, manifests, strict=True):
            place.make(manifest, account)
        with progress.stage("fetch") as stage:
            total = sum(manifest.stored_bytes for manifest in manifests)
            jobs: list[Callable[[GoOn], None]] = []
            for manifest, place in zip(manifests, places, strict=True):
                reading = CheckedReading.of(settings, store, manifest)
                for file, use in _jobs(manifest, place, account, wal=manifest is last):
                    jobs.append(partial(_fetch, reading, file, use, lambda size: stage.advance(size, total)))
            side_by_side(jobs, at_a_time=FILES_AT_A_TIME, name="unpack")
        for place, manifest in zip(places, manifests, strict=True):
            place.link(manifest, account)
        _keep_out_of_other_tablespaces(places[-1].data / "pg_wal", last.wal_segment_bytes)
        if len(chain) > 1:
            with progress.stage("combine"):
                _combine(toolchain, places, last, into=_Place(final, spaces), account=account)
                shutil.rmtree(parts)
    except BaseException as error:
        for path in (final, parts, spaces):
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise _disk(error, into) from error
        raise
    return Unpacked(final, _Place(final, spaces).tablespaces(last), toolchain, account, last)


@dataclass(frozen=True)
class _Place:
    """Where one backup is unpacked: its data directory, and the folder of its tablespaces."""

    data: Path
    spaces: Path

    def tablespaces(self, manifest: PhysicalManifest) -> dict[int, Path]:
        """OID -> folder; those inside of the data directory stay there."""
        return {
            space.oid: self.spaces / str(space.oid)
            if PurePath(space.location).is_absolute()
            else self.data / "pg_tblspc" / str(space.oid)
            for space in manifest.tablespaces
        }

    def make(self, manifest: PhysicalManifest, account: Account) -> None:
        """The folders that archives are unpacked into."""
        # The archive of the WAL may be quicker than that of the cluster, which has the folder of its marks.
        for folder in (self.data, self.data / "pg_wal" / "archive_status", *self.tablespaces(manifest).values()):
            _make_folders(folder, account)

    def link(self, manifest: PhysicalManifest, account: Account) -> None:
        """Links to the tablespaces, as the server wants them."""
        for oid, folder in self.tablespaces(manifest).items():
            link = self.data / "pg_tblspc" / str(oid)
            if link != folder:
                link.symlink_to(folder)
                if account != current_account():
                    os.lchown(link, account.uid, account.gid)


def _keep_out_of_other_tablespaces(wal: Path, segment_bytes: int) -> None:
    """The backup's own log may make a tablespace, too: one that is younger than the backup's begin."""
    for path in wal.iterdir():
        if is_segment(path.name) and path.stat().st_size == segment_bytes:
            data = path.read_bytes()
            changed = inside_of_the_data_directory(data, Segment.parse(path.name, segment_bytes))
            if changed is not data:
                path.write_bytes(changed)


def _make_folders(folder: Path, account: Account) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(mode=0o700)
        if account != current_account():
            os.chown(new, account.uid, account.gid)


def _require_space(into: Path, manifests: Sequence[PhysicalManifest]) -> None:
    last = manifests[-1]
    wal = sum(file.size for file in last.files if PurePath(file.path).name.startswith(basebackup.WAL))
    needed = sum(m.unpacked_bytes for m in manifests) + max(wal, 2 * last.wal_segment_bytes) + _ROOM
    if len(manifests) > 1:
        needed += max(last.cluster_bytes, manifests[0].unpacked_bytes)
    free = shutil.disk_usage(into).free
    if free < needed:
        raise ProgramError(
            "NO_SPACE",
            f"{into} has {free / 1e9:.2f} GB free; the backup needs {needed / 1e9:.2f} GB there.",
            "Free space, or choose a folder on a larger disk.",
        )


def _disk(error: OSError, into: Path) -> ProgramError:
    code = "NO_SPACE" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "UNPACK_FAILED"
    return ProgramError(
        code, f"{into} cannot be written to: {error.strerror or error}.", "Free space, or choose another folder."
    )


def _jobs(
    manifest: PhysicalManifest, place: _Place, account: Account, *, wal: bool
) -> list[tuple[StoredFile, Callable[[Source], None]]]:
    """The files to fetch of one backup, and what becomes of each. Of the WAL only the newest backup's is needed."""
    spaces = place.tablespaces(manifest)
    targets = {space.file: spaces[space.oid] for space in manifest.tablespaces}
    uses: list[tuple[StoredFile, Callable[[Source], None]]] = []
    for file in manifest.files:
        name = PurePath(file.path).name
        if name.startswith(basebackup.BASE):
            targets[file.path] = place.data
        elif name.startswith(basebackup.WAL) and wal:
            targets[file.path] = place.data / "pg_wal"
        if file.path in targets:
            uses.append((file, partial(_unpack, file=file, into=targets[file.path], account=account)))
        elif file.path == SERVER_MANIFEST:
            uses.append((file, partial(_write, path=place.data / basebackup.MANIFEST, account=account)))
    return uses


def _unpack(source: Source, *, file: StoredFile, into: Path, account: Account) -> None:
    if file.path.endswith(ZSTD):
        source = Decompressing(source, file.path)
    elif file.path.endswith(_GZIP):
        source = Inflating(source, file.path)
    with _Ahead(source) as ahead:
        try:
            untar(ahead.next_block, into, account=account, skip=frozenset({TABLESPACE_MAP}))
        except TarRefused as error:
            raise StoreError("ARCHIVE_INVALID", f"{file.path} is no archive of a cluster: {error}.", ANOTHER) from error


def _write(source: Source, *, path: Path, account: Account) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        if account != current_account():
            os.fchown(descriptor, account.uid, account.gid)
        while block := source.read(BLOCK):
            sink.write(block)


def _fetch(
    reading: CheckedReading,
    file: StoredFile,
    use: Callable[[Source], None],
    advance: Callable[[int], None],
    go_on: GoOn,
) -> None:
    def moved(size: int) -> None:
        go_on()
        advance(size)

    reading.read(file, use, moved)


class _Ahead:
    """Reads a source some blocks ahead in a thread of its own: bytes are decompressed while others are written."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._thread = Threads(1, "decompress")
        self._blocks: deque[Future[bytes]] = deque(self._submit() for _ in range(_AHEAD))

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for block in self._blocks:
            block.cancel()
        self._thread.end(error)

    def next_block(self) -> bytes:
        """The next block; an empty one at the end. Raises what reading raised."""
        block = self._blocks.popleft().result()
        self._blocks.append(self._submit())
        return block

    def _submit(self) -> Future[bytes]:
        return self._thread.submit(self._source.read, BLOCK)


def _combine(
    toolchain: Toolchain, places: Sequence[_Place], last: PhysicalManifest, *, into: _Place, account: Account
) -> None:
    """Make one data directory out of a chain's, with pg_combinebackup."""
    argv: list[str | Path] = [toolchain.program("pg_combinebackup"), "--no-sync", "--manifest-checksums=SHA256"]
    # The parts are removed right afterwards: what needs no change may as well be the same file.
    if toolchain.release.major >= 18:
        argv.append("--link")
    elif sys.platform == "linux":
        argv.append("--copy-file-range")
    with suppress(FileExistsError):
        into.spaces.mkdir(mode=0o700)
    shutil.chown(into.spaces, account.uid, account.gid)
    shutil.chown(into.data.parent / "increments", account.uid, account.gid)
    old, new = places[-1].tablespaces(last), into.tablespaces(last)
    argv += [f"--tablespace-mapping={old[oid]}={new[oid]}" for oid in old if new[oid].is_relative_to(into.spaces)]
    argv += [f"--output={into.data}", *(place.data for place in places)]
    done = run(argv, account=account)
    if done.status != 0:
        words = " | ".join(done.stderr[-4:]) or f"status {done.status}"
        if "No space left on device" in words:
            raise ProgramError("NO_SPACE", f"pg_combinebackup filled the disk: {words}.", "Free space there.")
        raise ProgramError("COMBINE_FAILED", f"pg_combinebackup: {words}", ANOTHER)


def verify_unpacked(unpacked: Unpacked) -> CheckResult:
    """Compare every file with PostgreSQL's backup_manifest (pg_verifybackup), before the server changes them.

    What the WAL has to be is not looked at: recovery reads it. A program that cannot run gives NOT_VERIFIED.
    """
    try:
        program = unpacked.toolchain.program("pg_verifybackup")
        argv: list[str | Path] = [program, "--no-parse-wal", f"--ignore={TABLESPACE_MAP}", unpacked.data]
        done = run(argv, account=unpacked.account)
    except ProgramError as error:
        finding = Finding(code=error.code, message=error.message, hint=error.hint)
        summary = "pg_verifybackup could not run"
        return CheckResult(name=CHECK, status=Status.NOT_VERIFIED, summary=summary, findings=(finding,))
    metrics = {"seconds": round(done.seconds, 3)}
    if done.status == 0:
        summary = "every file is as PostgreSQL's backup_manifest says"
        return CheckResult(name=CHECK, status=Status.PASSED, summary=summary, metrics=metrics)
    lines = [line.removeprefix("pg_verifybackup: ") for line in done.stderr if line.strip()]
    findings = [Finding(code="BACKUP_MANIFEST_DIFFERS", message=line, hint=ANOTHER) for line in lines[:_MOST_FINDINGS]]
    return CheckResult(
        name=CHECK,
        status=Status.FAILED,
        summary=f"{len(lines)} differences from PostgreSQL's backup_manifest",
        findings=tuple(findings) or (Finding(code="BACKUP_MANIFEST_DIFFERS", message=f"status {done.status}"),),
        metrics=metrics,
    )
