"""Proves a backup and keeps what came out: the record in the store, report and Data Docs in the reports folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry, proof_id
from gs_backup_assets.catalogue.manifest import NAME, backup_folder
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import NotVerifiable, StoreError
from gs_backup_assets.integrity.report import render
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.stored.stored_bytes import CHECK
from gs_backup_assets.system.reports import DATA_DOCS, REPORT, ReportNotKept, reports_in
from gs_backup_assets.vault.opening import Vault, Which


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


def prove_and_record(
    settings: DatabaseSettings,
    vault: Vault,
    entry: Entry,
    progress: Progress,
    *,
    by: Author,
    which: Which | None = None,
    server: RestoreServer | None = None,
) -> Proved:
    """Prove one backup, store record and report beside its manifest, and leave a copy of the report for people.

    `which` chooses the copy that is proved: without, the off-site one where there is one. Every store that has the
    backup gets the record; one that refuses is in `not_kept`. When no store has kept it, its StoreError is raised, but
    for the refusal to a prover that has no right but to read: then the report is all that stays. In the audit log it
    is `by` who proved. NotVerifiable (`KEY_MISSING`, `KEY_WRONG`) leaves no record. The reports folder holds the newest
    report and Data Docs of each day; where it cannot be written, `not_reported` says so.
    """
    which = which or vault.best
    folder = settings.reports_path / settings.name / entry.partition
    ids = {"backup": entry.id, "partition": entry.partition}
    with reports_in(folder) as reports:
        with failure_noted(vault.primary, settings.name, by, "proof", ids=ids, otherwise=vault.offsite):
            record = prove(settings, vault.store(which), entry, progress, which=which, server=server, docs=reports.docs)
            _require_fetched(record, entry)
            html = render(record, entry.manifest)
            on_record, not_kept = _keep(vault, settings.name, record, html)
        not_reported = reports.keep({REPORT: html}, with_docs=True)
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "proof",
        ids={**ids, "proof": proof_id(record)},
        result=record.verdict.value,
        details={"store": which},
        otherwise=vault.offsite,
    )
    return Proved(
        record,
        report_path=folder / REPORT if not_reported is None else None,
        docs_path=folder / DATA_DOCS if not_reported is None else None,
        not_kept=not_kept,
        not_logged=not_logged,
        not_reported=not_reported,
        on_record=on_record,
    )


def _require_fetched(record: ProofRecord, entry: Entry) -> None:
    """Without its key a backup cannot be looked at: that says nothing of it, and must not outweigh an older proof."""
    stored = record.check(CHECK)
    if stored.status is Status.NOT_VERIFIED and entry.damage is None:
        finding = stored.findings[0]
        raise NotVerifiable(finding.code, finding.message, finding.hint)


def _keep(vault: Vault, database: str, record: ProofRecord, html: bytes) -> tuple[bool, tuple[StoreError, ...]]:
    """Store a proof wherever its backup is; returns whether any store has kept it, and the refusals."""
    refusals: list[StoreError] = []
    kept = False
    folder = backup_folder(record.database, record.partition, record.backup_id)
    for store in vault.named().values():
        try:
            if store.exists(f"{folder}/{NAME}"):
                Catalogue(store, database).add_proof(record, html)
                kept = True
        except StoreError as error:
            refusals.append(error)
    failures = [refusal for refusal in refusals if refusal.code != "STORE_ACCESS_DENIED"]
    if not kept and failures:
        raise failures[0]
    return kept, tuple(refusals)
