"""Recovers a plan on a throwaway server and collects what is found; proofs of the base backups come out of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import gs_backup_assets
from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.catalogue import PhysicalEntry
from gs_backup_assets.catalogue.drills import DECISIVE_CHECKS
from gs_backup_assets.catalogue.proof import Blame, ForeignKeyOutcome, ProofRecord, RuleOutcome
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict, not_verified, verdict_of
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ProgramError, ProofFailed, StoreError
from gs_backup_assets.integrity.recovery_report import render_recovery
from gs_backup_assets.integrity.rules import load_rules
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.recording import keep_record, log_proof
from gs_backup_assets.recovery.physical.unpacking import CHECK as MANIFEST
from gs_backup_assets.recovery.physical.unpacking import Unpacked, verify_unpacked
from gs_backup_assets.recovery.point_in_time.recover import Achieved, Recovered, recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan
from gs_backup_assets.recovery.point_in_time.recovered_checks import (
    CHECKSUMS_OFF,
    look_inside,
    open_rules,
    page_checksums_valid,
)
from gs_backup_assets.recovery.stored.stored_bytes import CHECK as STORED
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes
from gs_backup_assets.recovery.wal.log_end import DAMAGE
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Vault

# Of a base backup on its own: what comes from the archived log says nothing of it.
CONSISTENT = "recovery_consistent"
OF_THE_BASE = (STORED, MANIFEST, CONSISTENT, "page_checksums_valid", "amcheck_clean")
_INSIDE = ("page_checksums_valid", "amcheck_clean", "foreign_keys_hold")
_OF_THE_BYTES = frozenset(
    {
        "FILE_DIFFERS",
        "OBJECT_MISSING",
        "ARCHIVE_INVALID",
        "COMPRESSED_DAMAGED",
        "ENVELOPE_DAMAGED",
        "ENVELOPE_MISPLACED",
    }
)


class Findings:
    """What a proof has found so far. `expected` are the checks that must have an outcome at its end."""

    def __init__(self, expected: tuple[str, ...]) -> None:
        self.expected = (STORED, MANIFEST, *expected, CONSISTENT, *_INSIDE)
        self.checks: dict[str, CheckResult] = {}
        self.rules: tuple[RuleOutcome, ...] = ()
        self.foreign_keys: tuple[ForeignKeyOutcome, ...] = ()
        self.achieved: Achieved | None = None
        self.programs: Release | None = None
        self.rto_seconds: float | None = None
        self.seconds: dict[str, float] = {}
        self.bad_bytes: dict[str, CheckResult] = {}

    def add(self, *results: CheckResult) -> None:
        """What was found first stays: what comes later only follows from it."""
        for result in results:
            self.checks.setdefault(result.name, result)

    def fail(self, name: str, error: BackupError) -> None:
        """A check that an error has decided."""
        finding = Finding(code=error.code, message=error.message, hint=error.hint)
        self.add(CheckResult(name=name, status=Status.FAILED, summary=error.message.rstrip("."), findings=(finding,)))

    def leave_open(self, error: BackupError, *names: str) -> None:
        """Checks that could not run."""
        self.add(*(not_verified(name, error.message, code=error.code, hint=error.hint) for name in names))

    @property
    def ordered(self) -> tuple[CheckResult, ...]:
        """Every check, those that decide first."""
        decisive = [self.checks[name] for name in DECISIVE_CHECKS if name in self.checks]
        return (*decisive, *(check for name, check in self.checks.items() if name not in DECISIVE_CHECKS))


def verdict_of_checks(checks: tuple[CheckResult, ...]) -> Verdict:
    """The verdict of those that decide. A cluster without page checksums has none that could be wrong."""
    return verdict_of(
        c for c in checks if (c.name in DECISIVE_CHECKS or c.name in OF_THE_BASE) and not _no_checksums(c)
    )


def _no_checksums(check: CheckResult) -> bool:
    return any(finding.code == CHECKSUMS_OFF for finding in check.findings)


def prove_recovered(
    settings: DatabaseSettings,
    vault: Vault,
    plan: RecoveryPlan,
    progress: Progress,
    found: Findings,
    *,
    look: Callable[[Recovered], None] = lambda _recovered: None,
    docs: Path | None = None,
) -> None:
    """Carry a plan out in a private folder, look at the running server with `look` first, then inside of it.

    What the backups or the log can be blamed for becomes a failed check, what could not run leaves checks open.
    Raises what says nothing of them: a store that is away, a key that is not here, a full disk.
    """
    import psycopg2

    unpacked: list[Unpacked] = []

    def inspect(made: Unpacked) -> None:
        unpacked.append(made)
        found.programs = made.toolchain.release
        found.add(_passed(STORED, "every file that was fetched has the size and SHA-256 that its manifest gives"))
        with progress.stage("verify"):
            found.add(verify_unpacked(made))

    account = server_account()
    with workspace("drill", owner=account) as folder:
        try:
            with recovered(
                plan, settings, vault, folder / "cluster", progress, durable=False, inspect=inspect
            ) as running:
                found.achieved = running.achieved
                found.rto_seconds = sum(running.seconds.values())
                found.add(_passed(CONSISTENT, "the server came up from the backup and ended its recovery"))
                look(running)
                inside = look_inside(settings, running, progress, docs=docs)
                found.add(*inside.checks)
                found.foreign_keys, found.rules = inside.foreign_keys, inside.rules
            with progress.stage("checksums"):
                found.add(page_checksums_valid(unpacked[0]))
        except psycopg2.Error as error:
            words = (error.diag.message_primary or "the connection was lost").strip()
            hint = "Look for a lack of memory or space on this machine, and run it again."
            _close(
                settings, found, ProgramError("SERVER_FAILED", f"The recovered server ended the work: {words}.", hint)
            )
        except (ProofFailed, StoreError, ProgramError) as error:
            _blame(vault, plan, progress, found, error, unpacked=bool(unpacked))
            _close(settings, found, error)
    found.seconds = dict(progress.seconds)
    missing = ProgramError("NOT_RUN", "An earlier check was in the way.", "See the other checks.")
    _close(settings, found, missing)


def _blame(
    vault: Vault, plan: RecoveryPlan, progress: Progress, found: Findings, error: BackupError, *, unpacked: bool
) -> None:
    """Which check an error has decided; what is about neither backups nor log is raised."""
    if isinstance(error, StoreError) and not unpacked and error.code in _OF_THE_BYTES:
        found.fail(STORED, error)
        with progress.stage("stored bytes") as stage:
            checked = {entry.id: check_stored_bytes(vault.store(plan.which), entry, stage) for entry in plan.chain}
        found.bad_bytes = {name: check for name, check in checked.items() if check.status is Status.FAILED}
    elif error.code == "COMBINE_FAILED":
        found.fail(MANIFEST, error)
    elif isinstance(error, ProofFailed) or (isinstance(error, StoreError) and error.code in DAMAGE):
        # Without archived log there is only the backup's own.
        found.fail("target_reached" if plan.segments else CONSISTENT, error)
    elif not (isinstance(error, ProgramError) and unpacked and error.code != "NO_SPACE"):
        raise error


def _close(settings: DatabaseSettings, found: Findings, error: BackupError) -> None:
    """Every check that has no outcome yet could not run."""
    found.leave_open(error, *found.expected)
    if not found.rules:
        found.rules = open_rules(load_rules(settings.rules, settings.folder), error.message)


def _passed(name: str, summary: str) -> CheckResult:
    return CheckResult(name=name, status=Status.PASSED, summary=summary)


def keep_proofs(
    settings: DatabaseSettings,
    vault: Vault,
    plan: RecoveryPlan,
    found: Findings,
    *,
    began: datetime,
    by: Author,
    but: str | None = None,
) -> list[StoreError]:
    """Store a proof beside every base backup that was used, in every store that has it; returns the refusals.

    Each has its record in the audit log.

    Where the log, and not the backups, is to blame for a failure, or something could not run, none is stored: it says
    nothing of them. Of a chain whose bytes differ only those backups get one whose own do; `but` has one already.
    """
    refusals: list[StoreError] = []
    for entry in plan.chain:
        record = proof_of(settings, plan, entry, found, began=began)
        if record.verdict is not Verdict.NOT_VERIFIED and entry.id != but:
            refusals += keep_record(vault, entry, record, render_report(plan, entry, record)).refusals
            refusal = log_proof(vault, entry, record, by)
            refusals += [refusal] if refusal is not None else []
    return refusals


def render_report(plan: RecoveryPlan, entry: PhysicalEntry, record: ProofRecord) -> bytes:
    """The page of a proof of a base backup."""
    facts = {
        "Recovered to": str(plan.target) if plan.segments else "the end of the backup itself",
        "Chain": ", ".join(link.id for link in plan.chain),
        "Archived segments replayed": str(len(plan.segments)),
    }
    return render_recovery(record, entry.require_manifest(), facts)


def proof_of(
    settings: DatabaseSettings, plan: RecoveryPlan, entry: PhysicalEntry, found: Findings, *, began: datetime
) -> ProofRecord:
    """What was found, as it concerns one backup of the chain. NOT_VERIFIED where it says nothing of the backup."""
    of_the_base = [found.checks[name] for name in OF_THE_BASE]
    if found.checks[STORED].status is Status.FAILED:
        own = found.bad_bytes.get(entry.id)
        reason = "other backups of the chain differ"
        of_the_base[0] = own or not_verified(STORED, reason, code="CHAIN_BROKEN")
    elif entry is not plan.chain[-1] and found.checks[MANIFEST].status is Status.FAILED:
        # What was compared is what the whole chain came to: only its last backup has a manifest of that.
        of_the_base[1] = not_verified(MANIFEST, "the chain as a whole differs", code="CHAIN_BROKEN")
    target = settings.rto_target
    beside = [found.checks[name] for name in ("foreign_keys_hold", "rto_met") if name in found.checks]
    return ProofRecord(
        backup_id=entry.id,
        database=entry.database,
        partition=entry.partition,
        manifest_sha256=entry.manifest_sha256,
        started_at=began,
        finished_at=datetime.now(timezone.utc),
        software=gs_backup_assets.__version__,
        programs=str(found.programs) if found.programs else None,
        server=f"throwaway PostgreSQL {found.programs}" if found.programs else None,
        store=plan.which,
        verdict=verdict_of_checks(tuple(of_the_base)),
        checks=(*of_the_base, *beside),
        rules=found.rules,
        foreign_keys=found.foreign_keys,
        tables=(),
        blame=Blame.UNKNOWN,
        stage_seconds=dict(found.seconds),
        rto_seconds=found.rto_seconds,
        rto_target_seconds=target.total_seconds() if target else None,
    )
