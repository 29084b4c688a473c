"""Looks at a recovered database before anybody is let in: planner statistics, foreign keys, data rules."""

from __future__ import annotations

from pathlib import Path

from gs_backup_assets.catalogue.proof import ForeignKeyOutcome, RuleOutcome
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.integrity.foreign_keys import check_foreign_keys
from gs_backup_assets.integrity.rules import load_rules
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.judgement import foreign_keys_hold, not_analyzed
from gs_backup_assets.recovery.dumps.restoring import analyze
from gs_backup_assets.words import counted


def databases_of(server: Target, wanted: str | None) -> tuple[str, ...]:
    """The databases of a server: the wanted one first; `postgres` only where it is the wanted one."""
    with connect(server) as connection:
        rows = query(connection, "SELECT datname FROM pg_database WHERE NOT datistemplate AND datallowconn ORDER BY 1")
    names = [name for (name,) in rows if name in (wanted,) or name != "postgres"]
    return tuple(sorted(names, key=lambda name: name != wanted))


def check_databases(
    server: Target, names: tuple[str, ...], rules: str, folder: Path, progress: Progress
) -> tuple[CheckResult, ...]:
    """ANALYZE and foreign keys of every database, the data rules of the first one.

    A broken rule or key stops nothing: most likely it was broken in production. The report tells.
    """
    keys: list[ForeignKeyOutcome] = []
    refused: list[str] = []
    with progress.stage("analyze"):
        for name in names:
            refused += [f"{name}: {refusal}" for refusal in analyze(server.with_database(name))]
    with progress.stage("foreign keys"):
        for name in names:
            with connect(server.with_database(name)) as connection:
                keys += check_foreign_keys(connection)
    hold = foreign_keys_hold(tuple(keys))
    checks = [hold.model_copy(update={"findings": (*hold.findings, *not_analyzed(refused))})]
    rule_set = load_rules(rules, folder)
    if rule_set.rules and names:
        with progress.stage("rules"):
            from gs_backup_assets.integrity.suite import evaluate  # Great Expectations takes seconds to import

            checks.append(_rules_hold(evaluate(rule_set, server.with_database(names[0]), docs=None)))
    return tuple(checks)


def _rules_hold(outcomes: tuple[RuleOutcome, ...]) -> CheckResult:
    broken = [o for o in outcomes if o.status is Status.FAILED]
    unknown = [o for o in outcomes if o.status is Status.NOT_VERIFIED]
    findings = tuple(
        Finding(code="RULE_BROKEN", message=f"{o.title}: {counted(o.unexpected or 0, 'row')}.") for o in broken[:50]
    ) + tuple(Finding(code="RULE_NOT_EVALUATED", message=f"{o.title}: {o.reason}") for o in unknown[:50])
    summary = f"{counted(len(outcomes), 'data rule')} hold"
    if broken or unknown:
        summary = f"{len(broken)} of {counted(len(outcomes), 'data rule')} are broken, {len(unknown)} not evaluated"
    status = Status.FAILED if broken else Status.NOT_VERIFIED if unknown else Status.PASSED
    return CheckResult(
        name="rules_hold",
        status=status,
        summary=summary,
        findings=findings,
        metrics={"rules": len(outcomes), "rules_broken": len(broken)},
    )
