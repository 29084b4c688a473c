"""Keeps what a proof came to: its record beside the backup, the report for people, and a line in the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.audit import Author, ids_of, note
from gs_backup_assets.catalogue.catalogue import Entry, PhysicalEntry, catalogue_of, proof_id
from gs_backup_assets.catalogue.manifest import NAME
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.errors import StoreError
from gs_backup_assets.system.reports import DATA_DOCS, REPORT, ReportNotKept, Reports
from gs_backup_assets.vault.opening import Vault


@dataclass(frozen=True)
class Kept:
    """Whether any store has kept a record, and the refusals of those that have not."""

    on_record: bool
    refusals: tuple[StoreError, ...]


@dataclass(frozen=True)
class Proved:
    """A proof, and where its report and its Data Docs can be read, None when `not_reported` says why they cannot;
    `on_record` is whether any store has kept it."""

    record: ProofRecord
    report_path: Path | None
    docs_path: Path | None
    not_kept: tuple[StoreError, ...]
    not_logged: StoreError | None
    not_reported: ReportNotKept | None
    on_record: bool


def keep_record(vault: Vault, entry: Entry | PhysicalEntry, record: ProofRecord, html: bytes) -> Kept:
    """Store a proof in every store that has its backup."""
    refusals: list[StoreError] = []
    on_record = False
    for store in vault.named().values():
        try:
            if store.exists(f"{entry.folder}/{NAME}"):
                catalogue_of(store, entry.database, entry.kind).add_proof(record, html)
                on_record = True
        except StoreError as error:
            refusals.append(error)
    return Kept(on_record, tuple(refusals))


def log_proof(vault: Vault, entry: Entry | PhysicalEntry, record: ProofRecord, by: Author) -> StoreError | None:
    """Put a proof into the audit log: one without would look as if somebody had put it there. Returns a refusal."""
    return note(
        vault.primary,
        record.database,
        by,
        "proof",
        ids={**ids_of(entry), "proof": proof_id(record)},
        result=record.verdict.value,
        details={"store": record.store},
        otherwise=vault.offsite,
    )


def conclude(
    vault: Vault,
    entry: Entry | PhysicalEntry,
    record: ProofRecord,
    html: bytes,
    *,
    reports: Reports,
    kept: Kept,
    by: Author,
) -> Proved:
    """Leave people's copy of a proof that was `kept`, and log it."""
    not_reported = reports.keep({REPORT: html}, with_docs=True)
    folder = reports.folder if not_reported is None else None
    return Proved(
        record,
        report_path=folder / REPORT if folder else None,
        docs_path=folder / DATA_DOCS if folder else None,
        not_kept=kept.refusals,
        not_logged=log_proof(vault, entry, record, by),
        not_reported=not_reported,
        on_record=kept.on_record,
    )
