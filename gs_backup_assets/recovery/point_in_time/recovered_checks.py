"""What is looked at in a recovered cluster: pages, heaps and indexes, foreign keys, data rules, a restore point."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gs_backup_assets.catalogue.proof import ForeignKeyOutcome, RuleOutcome
from gs_backup_assets.catalogue.restore_points import RestorePointRecord
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProgramError
from gs_backup_assets.integrity.foreign_keys import check_foreign_keys
from gs_backup_assets.integrity.rules import RuleSet, load_rules
from gs_backup_assets.postgres.amcheck import run_amcheck
from gs_backup_assets.postgres.connection import connect, query, target_from_url
from gs_backup_assets.postgres.fingerprint import Fingerprint, SequencePrint, SequenceState, take_fingerprint
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.restore import NO_TRIGGERS
from gs_backup_assets.postgres.schema import read_schema
from gs_backup_assets.postgres.toolchain import Toolchain, choose
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps import equality
from gs_backup_assets.recovery.dumps.judgement import foreign_keys_hold
from gs_backup_assets.recovery.dumps.take import jobs_of
from gs_backup_assets.recovery.physical.unpacking import Unpacked
from gs_backup_assets.recovery.point_in_time.recover import Recovered
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.workspace import workspace

CHECKSUMS_OFF = "CHECKSUMS_OFF"
_MOST_FINDINGS = 20
_DAMAGED = "The page came out of the backup like this: look at the same file of the source, and use another backup."
# PostgreSQL writes a sequence's state to the log 32 values ahead (commands/sequence.c, SEQ_LOG_VALS).
_SEQUENCE_AHEAD = 32


@dataclass(frozen=True)
class Inside:
    """What was found in the recovered databases."""

    checks: tuple[CheckResult, ...]
    foreign_keys: tuple[ForeignKeyOutcome, ...]
    rules: tuple[RuleOutcome, ...]


def look_inside(
    settings: DatabaseSettings, recovered: Recovered, progress: Progress, *, docs: Path | None = None
) -> Inside:
    """Foreign keys and heaps and indexes of every database, data rules in the configured one.

    Changes the cluster: amcheck is installed. Raises psycopg2.Error when the server ends the work.
    """
    with connect(recovered.server) as connection:
        sql = "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0' ORDER BY datname"
        databases = [str(name) for (name,) in query(connection, sql)]
    keys: list[ForeignKeyOutcome] = []
    with progress.stage("foreign keys"):
        for database in databases:
            with connect(recovered.target(database)) as connection:
                keys += check_foreign_keys(connection)
    with progress.stage("rules"):
        rules = _rules(settings, recovered, databases, docs)
    with progress.stage("amcheck"):
        damage = _amcheck(settings, recovered, databases)
    return Inside((foreign_keys_hold(tuple(keys)), damage), tuple(keys), rules)


def configured_database(settings: DatabaseSettings, databases: Sequence[str]) -> str | None:
    """Which of a cluster's databases is the configured one: by its address, its name, or as there is no other.

    None where that cannot be told: a cluster has many databases, and the address is not always there.
    """
    url = os.environ.get(settings.url_env)
    wanted = [target_from_url(url, name=settings.url_env).database] if url else []
    others = [name for name in databases if name not in ("postgres", "template1")]
    for name in (*wanted, settings.name):
        if name in databases:
            return name
    return others[0] if len(others) == 1 else None


def _rules(
    settings: DatabaseSettings, recovered: Recovered, databases: Sequence[str], docs: Path | None
) -> tuple[RuleOutcome, ...]:
    rules = load_rules(settings.rules, settings.folder)
    if not rules.rules:
        return ()
    database = configured_database(settings, databases)
    if database is None:
        variable = settings.url_env
        return open_rules(rules, f"which of {', '.join(databases)} is meant is not known: {variable} is not set")
    from gs_backup_assets.integrity.suite import evaluate  # Great Expectations takes seconds to import

    return evaluate(rules, recovered.target(database), docs=docs)


def open_rules(rules: RuleSet, reason: str) -> tuple[RuleOutcome, ...]:
    """Rules that could not be applied."""
    return tuple(
        RuleOutcome(
            id=rule.id, title=rule.title, severity=rule.severity, table=None, status=Status.NOT_VERIFIED, reason=reason
        )
        for rule in rules.rules
    )


def _amcheck(settings: DatabaseSettings, recovered: Recovered, databases: Sequence[str]) -> CheckResult:
    jobs = jobs_of(settings.verification.jobs)
    damage: list[str] = []
    with workspace("amcheck") as folder:
        for database in databases:
            target = recovered.target(database)
            # Event triggers may forbid to install the extension.
            options = f"{target.parameters.get('options', '')} {NO_TRIGGERS}"
            target = replace(target, parameters={**target.parameters, "options": options})
            environment = target.write_service_file(folder)
            try:
                damage += run_amcheck(recovered.toolchain, environment, database, jobs=jobs)
            except ProgramError as error:
                return not_verified("amcheck_clean", error.message, code="AMCHECK_NOT_RUN", hint=error.hint)
    findings = tuple(Finding(code="CORRUPTION", message=line, hint=_DAMAGED) for line in damage[:_MOST_FINDINGS])
    summary = (
        f"{len(damage)} reports of damage" if damage else f"heaps and indexes of {len(databases)} databases are sound"
    )
    status = Status.FAILED if damage else Status.PASSED
    metrics: dict[str, float | int] = {"amcheck_reports": len(damage), "amcheck_databases": len(databases)}
    return CheckResult(name="amcheck_clean", status=status, summary=summary, findings=findings, metrics=metrics)


def page_checksums_valid(unpacked: Unpacked) -> CheckResult:
    """Compare every page of a cluster that was shut down with its checksum (pg_checksums --check)."""
    name = "page_checksums_valid"
    try:
        program = unpacked.toolchain.program("pg_checksums")
    except ProgramError as error:
        return not_verified(name, error.message, code=error.code, hint=error.hint)
    done = run([program, "--check", "-D", unpacked.data], account=unpacked.account, capture_stdout=True)
    words = "\n".join(done.stderr)
    if "data checksums are not enabled" in words:
        hint = "pg_checksums --enable switches them on for a server that is shut down; initdb --data-checksums."
        return not_verified(name, "the cluster has no page checksums", code=CHECKSUMS_OFF, hint=hint)
    bad = [line for line in done.stderr if "checksum verification failed" in line]
    counts = {label: int(n) for label, n in re.findall(r"(Blocks scanned|Bad checksums): +(\d+)", done.stdout)}
    metrics: dict[str, float | int] = {
        "pages_checked": counts.get("Blocks scanned", 0),
        "pages_damaged": counts.get("Bad checksums", len(bad)),
    }
    if done.status == 0:
        summary = f"{metrics['pages_checked']} pages agree with their checksums"
        return CheckResult(name=name, status=Status.PASSED, summary=summary, metrics=metrics)
    if not bad:
        return not_verified(name, f"pg_checksums could not run: {words[-300:]}", code="CHECKSUMS_NOT_RUN")
    findings = tuple(
        Finding(code="PAGE_DAMAGED", message=line.partition("error: ")[2] or line, hint=_DAMAGED)
        for line in bad[:_MOST_FINDINGS]
    )
    summary = f"{metrics['pages_damaged']} pages do not agree with their checksums"
    return CheckResult(name=name, status=Status.FAILED, summary=summary, findings=findings, metrics=metrics)


def compare_with_point(
    settings: DatabaseSettings, recovered: Recovered, point: RestorePointRecord, progress: Progress
) -> tuple[CheckResult, ...]:
    """Equality, as for dumps, with what a restore point recorded. Ask before anything changes the database."""
    names = ("rows_equal", "contents_equal", "schema_equal", "sequences_equal")
    source = point.fingerprint
    if source is None:
        reason = f"the restore point has no fingerprint: {point.reason}"
        return tuple(not_verified(name, reason, code="NO_FINGERPRINT") for name in names)
    target = recovered.target(point.source_database)
    with progress.stage("equality"):
        with connect(target) as connection:
            inventory = take_inventory(connection)
        found = take_fingerprint(target, inventory, level=source.level, jobs=jobs_of(settings.verification.jobs))
        tables = equality.compare_tables(source, found)
        checks = (
            equality.rows_equal(source, tables),
            equality.contents_equal(source, found, tables),
            equality.sequences_equal(_ahead(source), found),
        )
    with progress.stage("schema"):
        return (*checks, _schema(recovered, point))


def _schema(recovered: Recovered, point: RestorePointRecord) -> CheckResult:
    try:
        toolchain: Toolchain = choose(Release.parse(point.server))
    except ProgramError as error:
        return not_verified("schema_equal", error.message, code=error.code, hint=error.hint)
    if point.programs is None or Release.parse(point.programs).major != toolchain.release.major:
        reason = f"the schema was read with pg_dump {point.programs}, here is {toolchain.release}"
        return not_verified("schema_equal", reason, code="PROGRAMS_DIFFER")
    with workspace("schema") as folder:
        environment = recovered.target(point.source_database).write_service_file(folder)
        objects = read_schema(toolchain, environment)
    return equality.schema_equal(point.schema_objects, objects, (), (), owners=True)


def _ahead(source: Fingerprint) -> Fingerprint:
    """The fingerprint with room for what the log has of sequences beyond their state."""
    return source.model_copy(update={"sequences": tuple(_one_ahead(sequence) for sequence in source.sequences)})


def _one_ahead(sequence: SequencePrint) -> SequencePrint:
    last = sequence.after.last_value + (_SEQUENCE_AHEAD + 1) * sequence.increment
    return sequence.model_copy(update={"after": SequenceState(last_value=last, is_called=True)})
