"""Reads a backup's stored bytes back, compares them with its manifest, and fetches them while doing so."""

from __future__ import annotations

from pathlib import Path

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.manifest import Manifest, StoredFile
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict
from gs_backup_assets.errors import StoreError
from gs_backup_assets.progress import Stage
from gs_backup_assets.vault.pipeline import copy_stream
from gs_backup_assets.vault.store import Store

CHECK = "stored_bytes_match"
SUMS = "SHA256SUMS"
_ANOTHER = "Use another backup, or another copy of this one; `gs-backup list` shows which are proven."


def check_stored_bytes(store: Store, entry: Entry, stage: Stage, *, fetch_into: Path | None = None) -> CheckResult:
    """Read every byte of the backup once and compare size and SHA-256 with the manifest.

    With `fetch_into` the bytes are kept there as well: what is restored is what was compared. A store that cannot be
    read raises StoreError; a damaged backup is a FAILED result.
    """
    if entry.manifest is None:
        damage = entry.require_damage()
        finding = Finding(code=damage.code, message=damage.message, hint=damage.hint)
        # What a newer release wrote may well be sound: it only cannot be read here.
        status = Status.NOT_VERIFIED if entry.verdict is Verdict.NOT_VERIFIED else Status.FAILED
        return CheckResult(name=CHECK, status=status, summary="the manifest cannot be read", findings=(finding,))
    manifest = entry.manifest
    findings = [*_unexpected(store, manifest), *_sums_differ(store, entry)]
    for file in manifest.files:
        found = _check_file(store, manifest, file, stage, fetch_into)
        if found is not None:
            findings.append(found)
    metrics = {"stored_files": len(manifest.files), "stored_bytes": manifest.stored_bytes}
    if findings:
        summary = f"{len(findings)} of {len(manifest.files)} files are not what was stored"
        return CheckResult(name=CHECK, status=Status.FAILED, summary=summary, findings=tuple(findings), metrics=metrics)
    summary = f"{len(manifest.files)} files, {manifest.stored_bytes} bytes, all as stored"
    return CheckResult(name=CHECK, status=Status.PASSED, summary=summary, metrics=metrics)


def write_sums(store: Store, entry: Entry) -> bool:
    """Write `SHA256SUMS` beside the manifest unless it is there; returns whether it was written."""
    key = f"{entry.folder}/{SUMS}"
    if store.exists(key):
        return False
    store.put_bytes(_expected_sums(store, entry), key)
    return True


def _expected_sums(store: Store, entry: Entry) -> bytes:
    with store.open(f"{entry.folder}/{manifests.NAME}") as stream:
        return manifests.sha256sums(entry.require_manifest(), stream.read())


def _sums_differ(store: Store, entry: Entry) -> list[Finding]:
    key = f"{entry.folder}/{SUMS}"
    if not store.exists(key):
        return []
    with store.open(key) as stream:
        if stream.read() == _expected_sums(store, entry):
            return []
    return [Finding(code="SUMS_DIFFER", message=f"{SUMS} does not agree with the manifest.", hint=_ANOTHER)]


def _unexpected(store: Store, manifest: Manifest) -> list[Finding]:
    known = {file.path for file in manifest.files} | {manifests.NAME, SUMS}
    found = (key.removeprefix(f"{manifest.folder}/") for key in store.keys(manifest.folder))
    strangers = [path for path in found if path not in known and not path.startswith("proofs/")]
    return [
        Finding(code="FILE_UNEXPECTED", message=f"{path} is not in the manifest.", hint="Somebody put it there.")
        for path in strangers
    ]


def _check_file(
    store: Store, manifest: Manifest, file: StoredFile, stage: Stage, fetch_into: Path | None
) -> Finding | None:
    def finding(code: str, message: str) -> Finding:
        return Finding(code=code, message=f"{file.path}: {message}", hint=_ANOTHER)

    try:
        source = store.open(f"{manifest.folder}/{file.path}")
    except StoreError as error:
        if error.code == "OBJECT_MISSING":
            return finding("FILE_MISSING", "it is not in the store.")
        if error.code == "KEY_INVALID":  # a link in place of the file: what it leads to is not ours
            return finding("FILE_NOT_OURS", error.message)
        raise
    total = manifest.stored_bytes
    with source:
        if fetch_into is None:
            size, sha256 = copy_stream(source, None, advance=lambda n: stage.advance(n, total))
        else:
            path = fetch_into / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as sink:
                size, sha256 = copy_stream(source, sink, advance=lambda n: stage.advance(n, total))
    if sha256 == file.sha256:
        return None
    other = next((f.path for f in manifest.files if f.sha256 == sha256 and size), None)
    if other is not None:
        return finding("FILE_SWAPPED", f"it has the contents of {other}.")
    if size < file.size:
        return finding("FILE_TRUNCATED", f"{size} bytes are left of {file.size}.")
    if size > file.size:
        return finding("FILE_EXTENDED", f"it has {size} bytes instead of {file.size}.")
    return finding("FILE_DIFFERS", "its SHA-256 is not the one in the manifest.")
