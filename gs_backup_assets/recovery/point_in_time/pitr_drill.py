"""The drill: recovers to a moment on a throwaway server, and proves that just what was committed before is there."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timezone

import gs_backup_assets
from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.catalogue.drills import BoundaryRecord, DrillRecord, put_drill
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.restore_points import RestorePointRecord, find_point
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.toolchain import choose_own_major
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.postgres.waldump import Commit
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.judgement import rto_met
from gs_backup_assets.recovery.point_in_time.boundaries import (
    Boundaries,
    commits_after_absent,
    commits_before_present,
    read_boundaries,
    target_reached,
)
from gs_backup_assets.recovery.point_in_time.drill_moment import covered_now
from gs_backup_assets.recovery.point_in_time.recover import Recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan, plan_recovery
from gs_backup_assets.recovery.point_in_time.recovered_checks import compare_with_point
from gs_backup_assets.recovery.point_in_time.recovered_proof import (
    Findings,
    keep_proofs,
    prove_recovered,
    verdict_of_checks,
)
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.checks import Surveyed, survey_and_judge
from gs_backup_assets.vault.opening import Vault, Which

_COMMITS = ("target_reached", "commits_before_present", "commits_after_absent")
_EQUALITY = ("rows_equal", "contents_equal", "schema_equal", "sequences_equal")


@dataclass(frozen=True)
class Drill:
    """A drill that is on record; what stores and the audit log refused to keep, and what was done nevertheless."""

    record: DrillRecord
    not_kept: tuple[StoreError, ...]
    not_logged: StoreError | None


def run_drill(
    settings: DatabaseSettings,
    vault: Vault,
    progress: Progress,
    *,
    by: Author,
    now: datetime,
    rng: random.Random,
    target: RecoveryTarget | None = None,
    which: Which | None = None,
) -> Drill:
    """Recover to a moment that is drawn, or to `target`, from the copy that one would use, and put it to the proof.

    The record lies in every store afterwards, and the base backups that were used have a proof of it beside them.
    Raises what `plan_recovery` does when there is nothing to recover to; ConfigError; StoreError when the store cannot
    be read; NotVerifiable without the key, ProgramError without the programs of the cluster's own major.
    """
    which = which or vault.best
    with failure_noted(vault.primary, settings.name, by, "drill", ids={}, otherwise=vault.offsite):
        covered = covered_now(settings, vault.store(which))
        wanted = target or covered.draw(rng)
        point = _point(settings, vault, which, wanted)
        # The record's position is the very one that was fingerprinted; the log may have the name several times.
        aim = RecoveryTarget(lsn=Lsn.parse(point.lsn), inclusive=False) if point is not None else wanted
        with progress.stage("plan"):
            plan = plan_recovery(settings, vault, aim, which=which, now=now)
        found = Findings((*_COMMITS, *(_EQUALITY if point else ())))
        boundaries = _boundaries(settings, vault, plan, progress, found)
        began = datetime.now(timezone.utc)

        def look(recovered: Recovered) -> None:
            """Before anything changes the cluster: its numbers of transactions are still those of the source."""
            if boundaries is not None:
                found.add(target_reached(boundaries, recovered.achieved))
                with connect(recovered.server) as connection:
                    found.add(commits_before_present(connection, boundaries.before))
                    found.add(commits_after_absent(connection, boundaries.after))
            if point is not None:
                found.add(*compare_with_point(settings, recovered, point, progress))

        prove_recovered(settings, vault, plan, progress, found, look=look)
        surveyed = survey_and_judge(settings, vault.store(which), now=now)
        objective = settings.rto_target.total_seconds() if settings.rto_target else None
        found.add(rto_met(found.rto_seconds, objective), _rpo(surveyed))
        record = _record(settings, plan, wanted, found, boundaries, began=began, now=now)
        record = record.model_copy(
            update={
                "chosen": "random" if target is None else "given",
                "recoverable_age_seconds": surveyed.survey.age_seconds if surveyed.survey else None,
                "window_start": covered.starts_at,
                "window_end": covered.ends_at,
            }
        )
        refused = [*keep_proofs(settings, vault, plan, found, began=began, by=by), *_keep(vault, record)]
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "drill",
        ids={"backup": plan.base.id, "partition": plan.base.partition, "drill": record.id},
        result=record.verdict.value,
        details={"store": which, "target": record.target},
        otherwise=vault.offsite,
    )
    return Drill(record, tuple(refused), not_logged)


def _point(settings: DatabaseSettings, vault: Vault, which: Which, target: RecoveryTarget) -> RestorePointRecord | None:
    """The record of the restore point that is the target, in the store that is used or in another one."""
    if target.name is None:
        return None
    for store in (vault.store(which), *vault.named().values()):
        record = find_point(store, settings.name, target.name)
        if record is not None:
            return record
    return None


def _boundaries(
    settings: DatabaseSettings, vault: Vault, plan: RecoveryPlan, progress: Progress, found: Findings
) -> Boundaries | None:
    """What the archived log has on both sides of the point; None when it cannot be read."""
    size = plan.base.wal_segment_bytes
    archive = open_archive(settings, vault.store(plan.which), plan.system_identifier, segment_bytes=size)
    try:
        with progress.stage("boundaries"):
            toolchain = choose_own_major(plan.base.release)
            older = _older(archive, plan)
            segments = (*older, *plan.segments)
            base = min(len(older), len(segments) - 1)
            return read_boundaries(archive, toolchain, segments, plan.target, plan.stop_at, base=base)
    except StoreError as error:
        found.leave_open(error, "commits_before_present", "commits_after_absent")
        return None


def _older(archive: WalArchive, plan: RecoveryPlan) -> tuple[Archived, ...]:
    """The log before the base backup: long after it there may be no commit, and those before it must be there."""
    first = plan.segments[0].segment if plan.segments else _last_of_base(plan.base)
    there = {a.segment: a for a in archive.segments(plan.base.timeline) if not a.partial}
    found: list[Archived] = []
    number = first.number - 1
    while (archived := there.get(Segment(plan.base.timeline, number, first.size))) is not None:
        found.append(archived)
        number -= 1
    return tuple(reversed(found))


def _last_of_base(base: PhysicalManifest) -> Segment:
    return Segment.at(Lsn.parse(base.stop_lsn), base.timeline, base.wal_segment_bytes)


def _rpo(surveyed: Surveyed) -> CheckResult:
    return next(check for check in surveyed.checks if check.name == "rpo_met")


def _record(
    settings: DatabaseSettings,
    plan: RecoveryPlan,
    wanted: RecoveryTarget,
    found: Findings,
    boundaries: Boundaries | None,
    *,
    began: datetime,
    now: datetime,
) -> DrillRecord:
    achieved, objective = found.achieved, settings.rto_target
    checks = found.ordered
    return DrillRecord(
        database=settings.name,
        partition=WEEK.of(now, settings.zone),
        started_at=began,
        finished_at=datetime.now(timezone.utc),
        software=gs_backup_assets.__version__,
        store=plan.which,
        system_identifier=plan.system_identifier,
        server=plan.base.server.release,
        target=str(wanted),
        chosen="random",
        achieved_lsn=str(achieved.lsn) if achieved else None,
        achieved_at=achieved.at if achieved else None,
        timeline=achieved.timeline if achieved else None,
        backups=tuple(entry.id for entry in plan.chain),
        segments=len(plan.segments),
        last_before=_boundary(boundaries.before[-1:]) if boundaries else None,
        first_after=_boundary(boundaries.after[:1]) if boundaries else None,
        verdict=verdict_of_checks(checks),
        checks=checks,
        rules=found.rules,
        foreign_keys=found.foreign_keys,
        stage_seconds=dict(found.seconds),
        rto_seconds=found.rto_seconds,
        rto_target_seconds=objective.total_seconds() if objective else None,
        recoverable_age_seconds=None,
        window_start=None,
        window_end=None,
    )


def _boundary(commits: tuple[Commit, ...]) -> BoundaryRecord | None:
    return BoundaryRecord(xid=commits[0].xid, lsn=str(commits[0].lsn), at=commits[0].at) if commits else None


def _keep(vault: Vault, record: DrillRecord) -> list[StoreError]:
    """Store the record in every store; returns the refusals.

    When none has kept it, its StoreError is raised, but for the refusal to a prover that has no right but to read.
    """
    refusals = []
    for store in vault.named().values():
        try:
            put_drill(store, record)
        except StoreError as error:
            refusals.append(error)
    failures = [refusal for refusal in refusals if refusal.code != "STORE_ACCESS_DENIED"]
    if failures and len(refusals) == len(vault.named()):
        raise failures[0]
    return refusals
