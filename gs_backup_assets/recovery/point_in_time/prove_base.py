"""Proves a base backup on its own: recovered to the point at which it is consistent, with no log but its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from gs_backup_assets.catalogue.audit import Author, failure_noted, ids_of, note
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry, proof_id
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.judgement import rto_met
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan
from gs_backup_assets.recovery.point_in_time.recovered_proof import (
    Findings,
    keep_proofs,
    proof_of,
    prove_recovered,
    render_report,
    store_proof,
)
from gs_backup_assets.system.reports import DATA_DOCS, REPORT, ReportNotKept, reports_in
from gs_backup_assets.vault.opening import Vault, Which


@dataclass(frozen=True)
class ProvedBase:
    """A proof, where its page and its Data Docs are (None when `not_reported` says why they are not), what refused to
    keep it, and whether any store has it."""

    record: ProofRecord
    report_path: Path | None
    docs_path: Path | None
    not_kept: tuple[StoreError, ...]
    not_logged: StoreError | None
    not_reported: ReportNotKept | None
    on_record: bool


def prove_base(
    settings: DatabaseSettings,
    vault: Vault,
    entry: PhysicalEntry,
    progress: Progress,
    *,
    by: Author,
    which: Which | None = None,
) -> ProvedBase:
    """Recover a base backup, with the chain that it adds to, on a throwaway server, and look inside.

    The proof lies beside it and every backup of the chain afterwards, in every store that has them; the page lies in
    the reports folder as well. `which` chooses the copy, without it the off-site one where there is one. Raises
    StoreError (`MANIFEST_DAMAGED`, the chain is broken, the store cannot be read), NotVerifiable without the key,
    ProgramError without the programs of the cluster's own major.
    """
    which = which or vault.best
    began = datetime.now(timezone.utc)
    ids = ids_of(entry)
    folder = settings.reports_path / settings.name / "physical" / entry.partition
    with reports_in(folder) as reports:
        with failure_noted(vault.primary, settings.name, by, "proof", ids=ids, otherwise=vault.offsite):
            plan = own_plan(settings, vault, entry, which, began)
            found = Findings(())
            prove_recovered(settings, vault, plan, progress, found, docs=reports.docs)
            objective = settings.rto_target
            found.add(rto_met(found.rto_seconds, objective.total_seconds() if objective else None))
            record = proof_of(settings, plan, entry, found, began=began)
            html = render_report(plan, entry, record)
            refused = store_proof(vault, settings.name, entry, record, html)
            others = keep_proofs(settings, vault, plan, found, began=began, by=by, but=entry.id)
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
    return ProvedBase(
        record,
        report_path=folder / REPORT if not_reported is None else None,
        docs_path=folder / DATA_DOCS if not_reported is None else None,
        not_kept=(*refused, *others),
        not_logged=not_logged,
        not_reported=not_reported,
        on_record=len(refused) < len(vault.named()),
    )


def own_plan(
    settings: DatabaseSettings, vault: Vault, entry: PhysicalEntry, which: Which, now: datetime
) -> RecoveryPlan:
    """The plan of a recovery that goes to the end of the backup's own log. StoreError when its chain is broken."""
    manifest = entry.require_manifest()
    every = PhysicalCatalogue(vault.store(which), settings.name).entries()
    return RecoveryPlan(
        target=RecoveryTarget(),
        which=which,
        database=settings.name,
        system_identifier=manifest.system_identifier,
        timeline=manifest.timeline,
        histories=(),
        chain=chain_of(every, entry),
        segments=(),
        end=Lsn.parse(manifest.stop_lsn),
        last_commit=None,
        stop_at=None,
        to_the_end=True,
        planned_at=now,
        expected_loss_seconds=None,
    )
