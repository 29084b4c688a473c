"""Copies a backup off-site, compares the copy, and puts both on record."""

from __future__ import annotations

from collections.abc import Callable

from gs_backup_assets.catalogue.audit import Author, note
from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite import Copied, copy_backup
from gs_backup_assets.recovery.offsite_check import compare_copy
from gs_backup_assets.vault.opening import Vault


def copy_and_compare(
    vault: Vault,
    entry: Entry,
    progress: Progress,
    *,
    by: Author,
    told: Callable[[str], None],
    read_back: bool = False,
) -> tuple[Copied, CheckResult]:
    """Bring what is missing of a backup to the off-site store and compare it there; errors as for both.

    That the audit log could not be written is `told`, and ends nothing: the copy is there.
    """
    offsite = vault.store("offsite")
    copied = copy_backup(vault.primary, offsite, entry, progress)
    with progress.stage("compare") as stage:
        compared = compare_copy(vault.primary, offsite, entry, stage, read_back=read_back)
    refusal = note(
        vault.primary,
        entry.database,
        by,
        "copy",
        ids={"backup": entry.id, "partition": entry.partition},
        result=compared.status.value,
        details={"files": copied.files, "copied_bytes": copied.copied_bytes},
        otherwise=offsite,
    )
    if refusal is not None:
        told(f"The audit log could not be written. {refusal}")
    return copied, compared
