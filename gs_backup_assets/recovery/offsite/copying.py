"""Copies a backup, or the write-ahead log, off-site, compares the copy, and puts both on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gs_backup_assets.catalogue.audit import Author, ids_of, note
from gs_backup_assets.catalogue.catalogue import AnyEntry
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite import Copied, copy_backup, uncopied_bases
from gs_backup_assets.recovery.offsite.offsite_check import compare_copy
from gs_backup_assets.recovery.wal.offsite import MirroredWal, compare_wal, mirror_wal
from gs_backup_assets.vault.opening import Vault


def copy_and_compare(
    vault: Vault,
    entry: AnyEntry,
    progress: Progress,
    *,
    by: Author,
    told: Callable[[str], None],
    read_back: bool = False,
) -> tuple[Copied, CheckResult]:
    """Bring what is missing of a backup to the off-site store and compare it there; errors as for both.

    What an incremental backup is based on comes before it, compared and on record as well; the result is about the
    backup itself. That the audit log could not be written is `told`, and ends nothing: the copy is there.
    """
    for base in uncopied_bases(vault.primary, vault.store("offsite"), entry):
        _, compared = _copy(vault, base, progress, by=by, told=told, read_back=read_back)
        if compared.status is not Status.PASSED:
            told(f"{base.id}, which {entry.id} is based on: {compared.summary}")
    return _copy(vault, entry, progress, by=by, told=told, read_back=read_back)


def _copy(
    vault: Vault,
    entry: AnyEntry,
    progress: Progress,
    *,
    by: Author,
    told: Callable[[str], None],
    read_back: bool,
) -> tuple[Copied, CheckResult]:
    offsite = vault.store("offsite")
    copied = copy_backup(vault.primary, offsite, entry, progress)
    with progress.stage("compare") as stage:
        compared = compare_copy(vault.primary, offsite, entry, stage, read_back=read_back)
    refusal = note(
        vault.primary,
        entry.database,
        by,
        "copy",
        ids=ids_of(entry),
        result=compared.status.value,
        details={"files": copied.files, "copied_bytes": copied.copied_bytes},
        otherwise=offsite,
    )
    if refusal is not None:
        told(f"The audit log could not be written. {refusal}")
    return copied, compared


def copy_log(
    vault: Vault,
    database: str,
    progress: Progress,
    *,
    by: Author,
    told: Callable[[str], None],
    read_back: bool = False,
) -> MirroredWal:
    """Bring what is missing of the write-ahead log to the off-site store; errors as for `mirror_wal`.

    With `read_back` everything that both stores have is compared as well, not what is brought alone. What was brought
    is on record; a log that could not be written is `told`.
    """
    offsite = vault.store("offsite")
    mirrored = mirror_wal(vault.primary, offsite, database, progress)
    if read_back:
        with progress.stage("compare wal") as stage:
            differing = compare_wal(vault.primary, offsite, database, stage)
        mirrored = replace(mirrored, findings=tuple(dict.fromkeys([*mirrored.findings, *differing])))
    if mirrored.brought or mirrored.findings:
        refusal = note(
            vault.primary,
            database,
            by,
            "copy",
            ids={"kind": "wal"},
            result=mirrored.check.status.value,
            details={"objects": mirrored.brought, "copied_bytes": mirrored.copied_bytes},
            otherwise=offsite,
        )
        if refusal is not None:
            told(f"The audit log could not be written. {refusal}")
    return mirrored
