"""Proves a backup and keeps what came out: the record in the store, report and Data Docs in the reports folder."""

from __future__ import annotations

from gs_backup_assets.catalogue.audit import Author, failure_noted, ids_of
from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import NotVerifiable
from gs_backup_assets.integrity.report import render
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.recording import Kept, Proved, conclude, keep_record
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.stored.stored_bytes import CHECK
from gs_backup_assets.system.reports import reports_in
from gs_backup_assets.vault.opening import Vault, Which


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
    with reports_in(folder) as reports:
        with failure_noted(vault.primary, settings.name, by, "proof", ids=ids_of(entry), otherwise=vault.offsite):
            record = prove(settings, vault.store(which), entry, progress, which=which, server=server, docs=reports.docs)
            _require_fetched(record, entry)
            html = render(record, entry.manifest)
            kept = _keep(vault, entry, record, html)
        return conclude(vault, entry, record, html, reports=reports, kept=kept, by=by)


def _require_fetched(record: ProofRecord, entry: Entry) -> None:
    """Without its key a backup cannot be looked at: that says nothing of it, and must not outweigh an older proof."""
    stored = record.check(CHECK)
    if stored.status is Status.NOT_VERIFIED and entry.damage is None:
        finding = stored.findings[0]
        raise NotVerifiable(finding.code, finding.message, finding.hint)


def _keep(vault: Vault, entry: Entry, record: ProofRecord, html: bytes) -> Kept:
    """Store a proof wherever its backup is. Only a prover that has no right but to read may leave no record."""
    kept = keep_record(vault, entry, record, html)
    failures = [refusal for refusal in kept.refusals if refusal.code != "STORE_ACCESS_DENIED"]
    if not kept.on_record and failures:
        raise failures[0]
    return kept
