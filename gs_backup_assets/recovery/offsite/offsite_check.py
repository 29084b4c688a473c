"""Compares a backup's off-site copy with its manifest: by the stores' own checksums, or by reading every byte back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

from gs_backup_assets.catalogue.catalogue import AnyEntry, all_summaries, catalogue_of
from gs_backup_assets.catalogue.manifest import KEYS, NAME, BackupManifest, StoredFile
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified
from gs_backup_assets.errors import StoreError
from gs_backup_assets.progress import Stage
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes, strangers
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.pipeline import Hashing, drain
from gs_backup_assets.vault.store import Listed, OwnChecksum, Store

CHECK = "offsite_matches"
_ASKED_AT_A_TIME = 8
_DAMAGED = "Use the primary copy or another backup. Remove the damaged object, then `gs-backup copy` brings it again."
_MISSING = "Copy it again: `gs-backup copy`. Find out who removed it."


def compare_copy(primary: Store, offsite: Store, entry: AnyEntry, stage: Stage, *, read_back: bool) -> CheckResult:
    """Whether the off-site copy of a backup is what the manifest says.

    With `read_back` every byte is read; else what both stores say of their objects is compared with the manifest, and
    only objects of which a store keeps no SHA-256 are read. A store that cannot be asked raises StoreError.
    """
    if entry.manifest is None:
        damage = entry.require_damage()
        return not_verified(CHECK, damage.message, code=damage.code, hint=damage.hint)
    manifest = entry.manifest
    there = {listed.key.removeprefix(f"{manifest.folder}/"): listed for listed in offsite.objects(manifest.folder)}
    if NAME not in there:
        finding = Finding(code="OFFSITE_MISSING", message=f"{manifest.id} has no copy off-site.", hint=_MISSING)
        return _result(manifest, [finding], {})
    findings = [
        *_manifest_differs(offsite, entry),
        *strangers(manifest, there),
        *_keys_differ(primary, offsite, manifest, there),
    ]
    if read_back:
        copy = catalogue_of(offsite, manifest.database, manifest.kind).find(manifest.id)
        read = check_stored_bytes(offsite, copy, stage)
        findings += [f for f in read.findings if f.code != "FILE_UNEXPECTED"]
        return _result(manifest, findings, {"read_back_bytes": manifest.stored_bytes})
    jobs = [
        partial(_file_differs, primary, offsite, manifest, file, listed=there.get(file.stored_path), stage=stage)
        for file in manifest.files
    ]
    told = side_by_side(jobs, at_a_time=_ASKED_AT_A_TIME, name="compare")
    findings += [finding for finding, _ in told if finding is not None]
    return _result(manifest, findings, {"read_back_bytes": sum(read for _, read in told)})


def read_back_copies(offsite: Store, database: str, partition: str, stage: Stage) -> CheckResult:
    """Read every byte of the copies of one day back, whether or not the primary store still has them.

    On a Sunday these are also the base backups of the week that begins with it.

    An object in an archive class cannot be read at once: then it is not verified. StoreError, ConfigError as usual.
    """
    results = []
    for summary in all_summaries(offsite, database):
        if summary.partition == partition:
            try:
                results.append(
                    check_stored_bytes(offsite, catalogue_of(offsite, database, summary.kind).find(summary.id), stage)
                )
            except StoreError as error:
                if error.code != "OBJECT_ARCHIVED":
                    raise
                results.append(not_verified(CHECK, error.message, code=error.code, hint=error.hint))
    if not results:
        return not_verified(CHECK, f"{offsite.describe()} has no backup of {partition}.", code="NO_BACKUP_IN_PARTITION")
    statuses = {result.status for result in results}
    worst = next(s for s in (Status.FAILED, Status.NOT_VERIFIED, Status.PASSED) if s in statuses)
    read = sum(result.metrics.get("stored_bytes", 0) for result in results)
    return CheckResult(
        name=CHECK,
        status=worst,
        summary=f"read back: {'; '.join(result.summary for result in results)}",
        findings=tuple(finding for result in results for finding in result.findings),
        metrics={"offsite_bytes": read, "read_back_bytes": read, "read_back_backups": len(results)},
    )


def _result(manifest: BackupManifest, findings: list[Finding], metrics: dict[str, float | int]) -> CheckResult:
    read = metrics.get("read_back_bytes", 0)
    summary = f"{len(manifest.files)} files, {manifest.stored_bytes} bytes, all as in the manifest"
    summary += " (read back)" if read == manifest.stored_bytes and read else " (by the store's own checksums)"
    if findings:
        summary = f"{len(findings)} things are not as in the manifest: {', '.join(sorted({f.code for f in findings}))}"
    return CheckResult(
        name=CHECK,
        status=Status.FAILED if findings else Status.PASSED,
        summary=summary,
        findings=tuple(findings),
        metrics={"offsite_files": len(manifest.files), "offsite_bytes": manifest.stored_bytes, **metrics},
    )


def _manifest_differs(offsite: Store, entry: AnyEntry) -> list[Finding]:
    if hashlib.sha256(_read(offsite, f"{entry.folder}/{NAME}")).hexdigest() == entry.manifest_sha256:
        return []
    message = "The manifest off-site is another than the one in the primary store."
    return [Finding(code="OFFSITE_MANIFEST_DIFFERS", message=message, hint=_DAMAGED)]


def _keys_differ(
    primary: Store, offsite: Store, manifest: BackupManifest, there: dict[str, Listed]
) -> Iterator[Finding]:
    """Without its wrapped key a copy is worth nothing; what wraps it for the same master key is the same everywhere."""
    wrapped = [path for path in there if path.split("/")[0] == KEYS]
    if manifest.encryption is not None and not wrapped:
        message = f"{KEYS} is empty off-site: nobody can read the copy."
        yield Finding(code="OFFSITE_MISSING", message=message, hint=_MISSING)
    for path in wrapped:
        key = f"{manifest.folder}/{path}"
        try:
            ours = _read(primary, key)
        except StoreError as error:
            if error.code != "OBJECT_MISSING":  # wrapped for another key here: nothing to compare with
                raise
            continue
        if _read(offsite, key) != ours:
            message = f"{path}: it is not the one in the primary store."
            yield Finding(code="OFFSITE_DIFFERS", message=message, hint=_DAMAGED)


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def _file_differs(
    primary: Store,
    offsite: Store,
    manifest: BackupManifest,
    file: StoredFile,
    go_on: GoOn,
    *,
    listed: Listed | None,
    stage: Stage,
) -> tuple[Finding | None, int]:
    """What is wrong with a file's copy, and how many bytes had to be read to tell."""
    go_on()
    if listed is None:
        return _finding(file, "OFFSITE_MISSING", "it is not off-site.", _MISSING), 0
    if listed.size != file.stored.size:
        return _finding(file, "OFFSITE_DIFFERS", f"{listed.size} bytes instead of {file.stored.size}.", _DAMAGED), 0
    key = f"{manifest.folder}/{file.stored_path}"
    ours = _agrees(_own_checksum(primary, key), file)
    if ours is False:
        hint = "The off-site copy is compared with the manifest, not with this; find out who changed it."
        return _finding(file, "PRIMARY_DIFFERS", "the primary store tells another SHA-256.", hint), 0
    theirs, read = _agrees(offsite.own_checksum(key), file), 0
    if theirs is None:
        theirs, read = _reads_back(offsite, key, file, stage, go_on), file.stored.size
    if not theirs:
        return _finding(file, "OFFSITE_DIFFERS", "its SHA-256 is not the one in the manifest.", _DAMAGED), read
    return None, read


def _own_checksum(store: Store, key: str) -> OwnChecksum | None:
    """None as well where the primary copy is gone: that is not what is asked here."""
    try:
        return store.own_checksum(key)
    except StoreError as error:
        if error.code != "OBJECT_MISSING":
            raise
        return None


def _agrees(told: OwnChecksum | None, file: StoredFile) -> bool | None:
    """Whether a store's own checksum is the manifest's; None when the two cannot be compared."""
    wanted = file.stored
    if told is None:
        return None
    if told.parts is None:
        return told.sha256 == wanted.sha256
    # A digest of the parts' digests that differs may be that of the same bytes in other parts: it tells nothing.
    return True if wanted.parts is not None and told.sha256 == wanted.parts.sha256 else None


def _reads_back(store: Store, key: str, file: StoredFile, stage: Stage, go_on: GoOn) -> bool:
    def moved(size: int) -> None:
        go_on()
        stage.advance(size)

    with store.open(key) as stream:
        source = Hashing(stream, moved)
        drain(source)
    return source.sha256 == file.stored.sha256


def _finding(file: StoredFile, code: str, message: str, hint: str) -> Finding:
    return Finding(code=code, message=f"{file.stored_path}: {message}", hint=hint)
