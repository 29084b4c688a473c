"""Judges what a restore came to: its errors, the foreign keys in it, and the time that it took. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gs_backup_assets.catalogue.proof import ForeignKeyOutcome
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified
from gs_backup_assets.postgres.restore import Origin
from gs_backup_assets.recovery.dumps.restoring import Restored
from gs_backup_assets.words import counted, referring


def restore_clean(restored: Restored, contents: CheckResult) -> CheckResult:
    """Judge the errors of a restore.

    A foreign key that the restored rows violate is not the backup's fault if the contents equal the source's: the
    key was broken there. Then it counts for `foreign_keys_hold`, not here. Errors that only show that this server
    lacks something leave the check open; any other error fails it. Missing planner statistics are told, and no error:
    not a row is lost.
    """
    excused = (
        {e.entry for e in restored.errors if e.entry in restored.not_valid}
        if contents.status is Status.PASSED
        else set()
    )
    metrics: dict[str, float | int] = {"restore_errors": len(restored.errors)}
    findings = tuple(
        Finding(code=e.code, message=f"{e.entry}: {e.message}", hint=_restore_hint(e.code))
        for e in restored.errors[:50]
    )
    serious = [e for e in restored.errors if e.entry not in excused]
    if not serious:
        summary = "restored without an error"
        if excused:
            summary = f"restored; {_violated(len(excused))} in the source and came back as NOT VALID"
        status = Status.PASSED
    elif all(e.origin is Origin.ENVIRONMENT for e in serious):
        summary, status = "the server that it was restored on lacks something", Status.NOT_VERIFIED
    elif all(e.origin in (Origin.ENVIRONMENT, Origin.OMISSION) for e in serious):
        summary, status = "something needs what the dump left out", Status.NOT_VERIFIED
    else:
        summary, status = f"{len(serious)} errors: {', '.join(sorted({e.code for e in serious}))}", Status.FAILED
    return CheckResult(
        name="restore_clean",
        status=status,
        summary=summary,
        findings=(*findings, *not_analyzed(restored.not_analyzed)),
        metrics=metrics,
    )


def not_analyzed(refusals: Sequence[str]) -> tuple[Finding, ...]:
    """Tables without planner statistics, each with the reason, as notes beside a check."""
    hint = "The rows are there; run ANALYZE on it where what it needs can be reached."
    return tuple(
        Finding(code="NOT_ANALYZED", message=f"No planner statistics of {refusal}.", hint=hint)
        for refusal in refusals[:50]
    )


def _violated(number: int) -> str:
    return f"{counted(number, 'foreign key')} {'is' if number == 1 else 'are'} violated"


def _restore_hint(code: str) -> str:
    return {
        "PROGRAMS_OLDER_THAN_SERVER": "Programs older than the server wrote the dump: take one with newer programs.",
        "EXTENSION_MISSING": "Name a server that has it in verification.server_url_env.",
        "EXTENSION_NOT_PRELOADED": "Name a server that loads it at its start in verification.server_url_env.",
        "COLLATION_MISSING": "Name a server that has it in verification.server_url_env.",
        "FOREIGN_DATA_UNREACHABLE": "The rows can be read anew: REFRESH MATERIALIZED VIEW where they are reachable,"
        " and name a server that reaches them in verification.server_url_env.",
        "DEPENDS_ON_UNPOPULATED": "REFRESH MATERIALIZED VIEW after the one that it reads.",
        "PERMISSION_DENIED": "Name a role with more rights in verification.server_url_env.",
        "DEPENDS_ON_OMITTED": "Give the backup role the rights that it lacks: `gs-backup doctor` prints the GRANTs.",
        "FOREIGN_KEY_VIOLATED": "Correct the rows in the source; the report lists their keys.",
        "UNIQUE_VIOLATED": "The source's unique index is damaged: correct the duplicates there and REINDEX.",
    }.get(code, "Keep this backup for analysis and use another one.")


def foreign_keys_hold(outcomes: tuple[ForeignKeyOutcome, ...]) -> CheckResult:
    """Fold the anti-joins of all declared foreign keys into one check."""
    broken = [o for o in outcomes if o.status is Status.FAILED]
    unknown = [o for o in outcomes if o.status is Status.NOT_VERIFIED]
    findings = tuple(
        Finding(
            code="FOREIGN_KEY_VIOLATED",
            message=f"{o.table} {o.name}: {referring(o.orphans or 0)}.",
            hint="Correct the rows in the source; the report lists their keys.",
        )
        for o in broken[:50]
    ) + tuple(Finding(code="FOREIGN_KEY_NOT_TESTED", message=f"{o.table} {o.name}: {o.reason}") for o in unknown[:50])
    status = Status.FAILED if broken else Status.NOT_VERIFIED if unknown else Status.PASSED
    summary = f"{counted(len(outcomes), 'foreign key')} {'holds' if len(outcomes) == 1 else 'hold'}"
    if broken or unknown:
        summary = (
            f"{len(broken)} of {counted(len(outcomes), 'foreign key')} violated, {len(unknown)} could not be tested"
        )
    metrics: dict[str, float | int] = {"foreign_keys": len(outcomes), "foreign_keys_violated": len(broken)}
    return CheckResult(name="foreign_keys_hold", status=status, summary=summary, findings=findings, metrics=metrics)


def rto_met(seconds: float | None, target: float | None) -> CheckResult:
    """Compare the seconds until the database could be used with the shortest RTO of the data classes."""
    if seconds is None:
        return not_verified("rto_met", "it was not restored", code="NOT_RESTORED")
    if target is None:
        return not_verified(
            "rto_met", "no data class sets an RTO", code="NO_OBJECTIVE", hint="Add data_classes to backup.yaml."
        )
    met = seconds <= target
    summary = f"usable after {seconds:.1f} s, the target is {target:.0f} s"
    findings = (
        ()
        if met
        else (Finding(code="RTO_EXCEEDED", message=summary, hint="Give the restore more jobs or faster disks."),)
    )
    return CheckResult(
        name="rto_met",
        status=Status.PASSED if met else Status.FAILED,
        summary=summary,
        findings=findings,
        metrics={"recovery_seconds": round(seconds, 3), "rto_target_seconds": target},
    )
