"""Reads a backup's stored bytes back, compares them with its manifest, and fetches them while doing so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import AnyEntry
from gs_backup_assets.catalogue.manifest import SUMS, BackupManifest, StoredFile
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.progress import Stage
from gs_backup_assets.recovery.stored.checked_reading import ANOTHER, CheckedReading
from gs_backup_assets.recovery.stored.keyring import OF_THE_BACKUP, find_cipher
from gs_backup_assets.recovery.stored.storing import FILES_AT_A_TIME
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.encryption import BackupCipher
from gs_backup_assets.vault.pipeline import BLOCK, Hashing, drain
from gs_backup_assets.vault.store import Source, Store, keys

CHECK = "stored_bytes_match"
_BESIDE = (f"{manifests.PROOFS}/", f"{manifests.KEYS}/")


def check_stored_bytes(store: Store, entry: AnyEntry, stage: Stage) -> CheckResult:
    """Read every byte of the backup once and compare size and SHA-256 with the manifest; this needs no key.

    A store that cannot be read raises StoreError; a damaged backup is a FAILED result.
    """
    return _check(store, entry, lambda manifest, file, moved: _read_file(store, manifest, file, moved), stage)


def fetch(store: Store, entry: AnyEntry, stage: Stage, into: Path, settings: DatabaseSettings) -> CheckResult:
    """Check as `check_stored_bytes` does, and keep what was read, decrypted, in a private folder.

    What is restored is what was compared. Raises also NotVerifiable: `KEY_MISSING`, `KEY_WRONG`.
    """
    cipher = None
    if entry.manifest is not None:
        try:
            cipher = find_cipher(store, entry.manifest, settings.encryption, settings.folder)
        except StoreError as error:
            if error.code not in OF_THE_BACKUP:
                raise
            return _failed(entry.manifest, [Finding(code=error.code, message=error.message, hint=error.hint)])
    return _check(
        store,
        entry,
        lambda manifest, file, moved: _fetch_file(store, manifest, file, moved, into=into, cipher=cipher),
        stage,
    )


_Moved = Callable[[int], None]


def _check(
    store: Store, entry: AnyEntry, examine: Callable[[BackupManifest, StoredFile, _Moved], Finding | None], stage: Stage
) -> CheckResult:
    if entry.manifest is None:
        damage = entry.require_damage()
        finding = Finding(code=damage.code, message=damage.message, hint=damage.hint)
        # What a newer release wrote may well be sound: it only cannot be read here.
        status = Status.NOT_VERIFIED if entry.verdict is Verdict.NOT_VERIFIED else Status.FAILED
        return CheckResult(name=CHECK, status=status, summary="the manifest cannot be read", findings=(finding,))
    manifest = entry.manifest
    there = (key.removeprefix(f"{manifest.folder}/") for key in keys(store, manifest.folder))
    findings = [*strangers(manifest, there), *_sums_differ(store, entry)]

    def job(file: StoredFile, go_on: GoOn) -> Finding | None:
        def moved(size: int) -> None:
            go_on()
            stage.advance(size, manifest.stored_bytes)

        return examine(manifest, file, moved)

    jobs = [partial(job, file) for file in manifest.files]
    findings += [found for found in side_by_side(jobs, at_a_time=FILES_AT_A_TIME, name="fetch") if found is not None]
    if findings:
        return _failed(manifest, findings)
    summary = f"{len(manifest.files)} files, {manifest.stored_bytes} bytes, all as stored"
    return CheckResult(name=CHECK, status=Status.PASSED, summary=summary, metrics=_metrics(manifest))


def _failed(manifest: BackupManifest, findings: Sequence[Finding]) -> CheckResult:
    summary = f"{len(findings)} of {len(manifest.files)} files are not what was stored"
    return CheckResult(
        name=CHECK, status=Status.FAILED, summary=summary, findings=tuple(findings), metrics=_metrics(manifest)
    )


def _metrics(manifest: BackupManifest) -> dict[str, float | int]:
    return {"stored_files": len(manifest.files), "stored_bytes": manifest.stored_bytes}


def write_sums(store: Store, entry: AnyEntry) -> bool:
    """Write `SHA256SUMS` beside the manifest unless it is there; returns whether it was written."""
    key = f"{entry.folder}/{SUMS}"
    if store.exists(key):
        return False
    store.put_bytes(_expected_sums(store, entry), key)
    return True


def _expected_sums(store: Store, entry: AnyEntry) -> bytes:
    with store.open(f"{entry.folder}/{manifests.NAME}") as stream:
        return manifests.sha256sums(entry.require_manifest(), stream.read())


def _sums_differ(store: Store, entry: AnyEntry) -> list[Finding]:
    key = f"{entry.folder}/{SUMS}"
    if not store.exists(key):
        return []
    with store.open(key) as stream:
        if stream.read() == _expected_sums(store, entry):
            return []
    return [Finding(code="SUMS_DIFFER", message=f"{SUMS} does not agree with the manifest.", hint=ANOTHER)]


def strangers(manifest: BackupManifest, there: Iterable[str]) -> list[Finding]:
    """What lies in a backup's folder, under these paths in it, and has nothing to do with the backup."""
    known = {file.stored_path for file in manifest.files} | {manifests.NAME, SUMS, manifests.HOLD}
    return [
        Finding(code="FILE_UNEXPECTED", message=f"{path} is not in the manifest.", hint="Somebody put it there.")
        for path in there
        if path not in known and not path.startswith(_BESIDE)
    ]


def _read_file(store: Store, manifest: BackupManifest, file: StoredFile, moved: _Moved) -> Finding | None:
    source = _open(store, manifest, file)
    if isinstance(source, Finding):
        return source
    with source:
        stored = Hashing(source, moved)
        drain(stored)
    return _differs(manifest, file, stored.size, stored.sha256)


def _fetch_file(
    store: Store, manifest: BackupManifest, file: StoredFile, moved: _Moved, *, into: Path, cipher: BackupCipher | None
) -> Finding | None:
    path = into / file.path
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(source: Source) -> None:
        with open(path, "wb") as sink:
            while block := source.read(BLOCK):
                sink.write(block)

    try:
        attempt = CheckedReading(store, manifest, cipher).attempt(file, write, moved)
    except StoreError as error:
        return _not_there(file, error)
    if attempt.intact:
        return None
    # Bytes that are not those of the manifest are told as such; an envelope is blamed when they are.
    differs = _read_file(store, manifest, file, lambda _size: None)
    if differs is not None:
        return differs
    if attempt.error is None:
        return _finding(file, "FILE_DIFFERS", "what comes out is not what the manifest says.")
    if attempt.error.code not in OF_THE_BACKUP:
        raise attempt.error
    return Finding(code=attempt.error.code, message=attempt.error.message, hint=ANOTHER)


def _open(store: Store, manifest: BackupManifest, file: StoredFile) -> BinaryIO | Finding:
    try:
        return store.open(f"{manifest.folder}/{file.stored_path}")
    except StoreError as error:
        return _not_there(file, error)


def _not_there(file: StoredFile, error: StoreError) -> Finding:
    if error.code == "OBJECT_MISSING":
        return _finding(file, "FILE_MISSING", "it is not in the store.")
    if error.code == "KEY_INVALID":  # a link in place of the file: what it leads to is not ours
        return _finding(file, "FILE_NOT_OURS", error.message)
    raise error


def _differs(manifest: BackupManifest, file: StoredFile, size: int, sha256: str) -> Finding | None:
    wanted = file.stored
    if sha256 == wanted.sha256:
        return None
    other = next((f.stored_path for f in manifest.files if f.stored.sha256 == sha256 and size), None)
    if other is not None:
        return _finding(file, "FILE_SWAPPED", f"it has the contents of {other}.")
    if size < wanted.size:
        return _finding(file, "FILE_TRUNCATED", f"{size} bytes are left of {wanted.size}.")
    if size > wanted.size:
        return _finding(file, "FILE_EXTENDED", f"it has {size} bytes instead of {wanted.size}.")
    return _finding(file, "FILE_DIFFERS", "its SHA-256 is not the one in the manifest.")


def _finding(file: StoredFile, code: str, message: str) -> Finding:
    return Finding(code=code, message=f"{file.stored_path}: {message}", hint=ANOTHER)
