"""Proves a base backup on its own: recovered to the point at which it is consistent, with no log but its own."""

from __future__ import annotations

from datetime import datetime, timezone

from gs_backup_assets.catalogue.audit import Author, failure_noted, ids_of
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.judgement import rto_met
from gs_backup_assets.recovery.dumps.recording import Kept, Proved, conclude, keep_record
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan
from gs_backup_assets.recovery.point_in_time.recovered_proof import (
    Findings,
    keep_proofs,
    proof_of,
    prove_recovered,
    render_report,
)
from gs_backup_assets.system.reports import reports_in
from gs_backup_assets.vault.opening import Vault, Which


def prove_base(
    settings: DatabaseSettings,
    vault: Vault,
    entry: PhysicalEntry,
    progress: Progress,
    *,
    by: Author,
    which: Which | None = None,
) -> Proved:
    """Recover a base backup, with the chain that it adds to, on a throwaway server, and look inside.

    The proof lies beside it and every backup of the chain afterwards, in every store that has them; the page lies in
    the reports folder as well. `which` chooses the copy, without it the off-site one where there is one. Raises
    StoreError (`MANIFEST_DAMAGED`, the chain is broken, the store cannot be read), NotVerifiable without the key,
    ProgramError without the programs of the cluster's own major.
    """
    which = which or vault.best
    began = datetime.now(timezone.utc)
    folder = settings.reports_path / settings.name / "physical" / entry.partition
    with reports_in(folder) as reports:
        with failure_noted(vault.primary, settings.name, by, "proof", ids=ids_of(entry), otherwise=vault.offsite):
            plan = own_plan(settings, vault, entry, which, began)
            found = Findings(())
            prove_recovered(settings, vault, plan, progress, found, docs=reports.docs)
            objective = settings.rto_target
            found.add(rto_met(found.rto_seconds, objective.total_seconds() if objective else None))
            record = proof_of(settings, plan, entry, found, began=began)
            html = render_report(plan, entry, record)
            own = keep_record(vault, entry, record, html)
            others = keep_proofs(settings, vault, plan, found, began=began, by=by, but=entry.id)
        kept = Kept(own.on_record, (*own.refusals, *others))
        return conclude(vault, entry, record, html, reports=reports, kept=kept, by=by)


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
