"""The copy in another place: what is missing there is brought, what is there is compared, byte for byte if asked."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

from gs_backup_assets.catalogue.audit import Author, mirror, resume
from gs_backup_assets.catalogue.catalogue import AnyEntry, PhysicalCatalogue, PhysicalEntry, all_summaries
from gs_backup_assets.catalogue.manifest import BULK, HOLD, KEYS, KINDS, NAME, PROOFS, SUMS, StoredFile
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.errors import ProofFailed, StoreError
from gs_backup_assets.progress import Progress, Stage
from gs_backup_assets.recovery.stored.instructions import leave_instructions
from gs_backup_assets.recovery.stored.storing import FILES_AT_A_TIME
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.digests import Digests
from gs_backup_assets.vault.pipeline import Hashing
from gs_backup_assets.vault.store import Store, unless_there
from gs_backup_assets.words import counted

AUDIT_CHECK = "audit_log_continues"
DRILLS = "drills"


@dataclass(frozen=True)
class Copied:
    """What a copy came to: files and bytes that were brought, and files that were there already."""

    files: int
    copied_bytes: int
    present: int


def copy_backup(primary: Store, offsite: Store, entry: AnyEntry, progress: Progress) -> Copied:
    """Bring a backup's missing objects to the off-site store, the manifest last; broken off, it goes on where it was.

    What is brought is compared on its way with the manifest: a damaged primary copy is not spread. Raises ProofFailed
    (`PRIMARY_DAMAGED`, `MANIFEST_DAMAGED` and its like) and StoreError.
    """
    manifest = entry.manifest
    if manifest is None:
        damage = entry.require_damage()
        raise ProofFailed(damage.code, damage.message, damage.hint)
    folder = manifest.folder
    there = {listed.key for listed in offsite.objects(folder)}
    missing = [file for file in manifest.files if f"{folder}/{file.stored_path}" not in there]
    total = sum(file.stored.size for file in missing)
    with progress.stage("copy") as stage:
        jobs = [partial(_copy_file, primary, offsite, folder, file, stage=stage, total=total) for file in missing]
        side_by_side(jobs, at_a_time=FILES_AT_A_TIME, name="copy")
        for path in _beside(listed.key.removeprefix(f"{folder}/") for listed in primary.objects(folder)):
            if f"{folder}/{path}" not in there:
                _copy_small(primary, offsite, f"{folder}/{path}")
        leave_instructions(offsite)
        if f"{folder}/{NAME}" not in there:
            _copy_manifest(primary, offsite, entry)
    return Copied(len(missing), total, len(manifest.files) - len(missing))


def mirror_beside(primary: Store, offsite: Store, database: str) -> int:
    """Bring proofs, holds and wrapped keys that came later than the copies of their backups, and records of drills.

    Returns how many. Only for backups whose copy is complete; the files themselves are not looked at.
    """
    brought = sum(_mirror_beside(primary, offsite, f"{database}/{kind}") for kind in KINDS)
    return brought + _mirror_drills(primary, offsite, f"{database}/{DRILLS}")


def _mirror_drills(primary: Store, offsite: Store, folder: str) -> int:
    """A report comes before the record that names it, as when they were written."""
    there = {listed.key for listed in offsite.objects(folder)}
    missing = [listed.key for listed in primary.objects(folder) if listed.key not in there]
    for key in sorted(missing, key=lambda key: (key.endswith(".json"), key)):
        _copy_small(primary, offsite, key)
    return len(missing)


def _mirror_beside(primary: Store, offsite: Store, top: str) -> int:
    mine, theirs = ([listed.key for listed in store.objects(top, skip=BULK)] for store in (primary, offsite))
    there = set(theirs)
    paths: dict[str, list[str]] = defaultdict(list)  # of each backup: there may be thousands
    for key in mine:
        if len(parts := key.removeprefix(f"{top}/").split("/", 2)) == 3:
            paths[f"{top}/{parts[0]}/{parts[1]}"].append(parts[2])
    brought = 0
    for folder in (key.removesuffix(f"/{NAME}") for key in theirs if key.endswith(f"/{NAME}")):
        for path in _beside(paths[folder]):
            if f"{folder}/{path}" not in there:
                _copy_small(primary, offsite, f"{folder}/{path}")
                brought += 1
    return brought


def mirror_log(primary: Store, offsite: Store, database: str, *, by: Author) -> CheckResult:
    """Bring the new records of each store's audit log to its copy in the other one.

    A log that was lost comes back from its copy first. FAILED when a log is no longer the one that it was when it was
    copied last.
    """
    try:
        for store, other in ((primary, offsite), (offsite, primary)):
            resume(store, other, database, by)
        brought = mirror(primary, offsite, database) + mirror(offsite, primary, database)
    except StoreError as error:
        if not error.code.startswith("AUDIT_"):
            raise
        finding = Finding(code=error.code, message=error.message, hint=error.hint)
        return CheckResult(name=AUDIT_CHECK, status=Status.FAILED, summary=error.message, findings=(finding,))
    metrics: dict[str, float | int] = {"audit_records_copied": brought}
    words = f"{counted(brought, 'record')} brought, after those that were there"
    return CheckResult(name=AUDIT_CHECK, status=Status.PASSED, summary=words, metrics=metrics)


def uncopied(primary: Store, offsite: Store, database: str) -> list[Summary]:
    """Finished backups of the primary store, of every kind, that the off-site store does not have, newest first."""
    there = {summary.folder for summary in all_summaries(offsite, database)}
    return [summary for summary in all_summaries(primary, database) if summary.folder not in there]


def uncopied_bases(primary: Store, offsite: Store, entry: AnyEntry) -> list[PhysicalEntry]:
    """What an incremental backup is based on and has no copy yet, in the order in which it is copied: the full first.

    A base that neither store has any more is left out: what lacks it cannot be restored, and its proof says so.
    """
    bases: list[PhysicalEntry] = []
    wanted = entry.manifest.needs if entry.manifest else None
    if wanted is None:
        return bases
    here, there = (
        {summary.id: summary for summary in PhysicalCatalogue(store, entry.database).summaries()}
        for store in (primary, offsite)
    )
    met: set[str] = set()
    while wanted is not None and wanted in here and wanted not in there and wanted not in met:
        met.add(wanted)
        found = PhysicalCatalogue(primary, entry.database).entry(here[wanted].partition, wanted)
        if found is None:  # it was deleted this moment
            break
        bases.insert(0, found)
        wanted = here[wanted].base
    return bases


def due_for_reading_back(partitions: Sequence[str], today: date, every_days: int) -> list[str]:
    """The days whose copies are read back today, so that each has its turn once in `every_days` days. Pure."""
    turn = today.toordinal() % every_days
    return [day for day in partitions if date.fromisoformat(day).toordinal() % every_days == turn]


def _beside(paths: Iterable[str]) -> list[str]:
    """What lies beside the files, in an order in which it may break off: a proof's record comes last."""
    order = {KEYS: 0, SUMS: 1, HOLD: 1}
    found = [path for path in paths if path.split("/")[0] in (*order, PROOFS)]
    return sorted(found, key=lambda path: (order.get(path.split("/")[0], 3 if path.endswith(".json") else 2), path))


def _copy_file(
    primary: Store, offsite: Store, folder: str, file: StoredFile, go_on: GoOn, *, stage: Stage, total: int
) -> None:
    key = f"{folder}/{file.stored_path}"

    def moved(size: int) -> None:
        go_on()
        stage.advance(size, total)

    with primary.open(key) as stream, unless_there():
        offsite.put(_Guarded(Hashing(stream, moved), file.stored, key), key, size=file.stored.size, resume=True)


class _Guarded:
    """A source that does not come to its end when what was read is not what the manifest says: nothing is stored."""

    def __init__(self, source: Hashing, wanted: Digests, key: str) -> None:
        self._source = source
        self._wanted = wanted
        self._key = key

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        if not data and self._source.sha256 != self._wanted.sha256:
            raise _primary_damaged(self._key)
        return data


def _primary_damaged(key: str) -> ProofFailed:
    return ProofFailed(
        "PRIMARY_DAMAGED",
        f"{key} in the primary store is not what was backed up; it is not copied.",
        "Use another backup, or this one's off-site copy if there is one, and find out who changed it.",
    )


def _copy_manifest(primary: Store, offsite: Store, entry: AnyEntry) -> None:
    """The manifest makes the copy a backup; it is the very one that the files were compared with."""
    key = f"{entry.folder}/{NAME}"
    with primary.open(key) as stream:
        data = stream.read()
    if hashlib.sha256(data).hexdigest() != entry.manifest_sha256:
        raise _primary_damaged(key)
    with unless_there():
        offsite.put_bytes(data, key)


def _copy_small(primary: Store, offsite: Store, key: str) -> None:
    with primary.open(key) as stream:
        data = stream.read()
    with unless_there():
        offsite.put_bytes(data, key, locked=not key.endswith(f"/{HOLD}"))
