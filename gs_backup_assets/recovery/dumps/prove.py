"""Proves a stored backup without its source: fetch, restore, compare with the manifest, look inside, apply rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import gs_backup_assets
from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.proof import (
    DECISIVE_CHECKS,
    Blame,
    ForeignKeyOutcome,
    ProofRecord,
    RuleOutcome,
    TableOutcome,
)
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified, verdict_of
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import NotVerifiable, ProgramError, SourceError
from gs_backup_assets.integrity.foreign_keys import check_foreign_keys
from gs_backup_assets.integrity.rules import Rule, RuleSet, load_rules
from gs_backup_assets.postgres.amcheck import run_amcheck
from gs_backup_assets.postgres.cluster import drop_database
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.fingerprint import take_fingerprint
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.properties import apply_properties, read_properties
from gs_backup_assets.postgres.restore import NO_TRIGGERS
from gs_backup_assets.postgres.roles import read_roles
from gs_backup_assets.postgres.schema import read_schema
from gs_backup_assets.postgres.settings import apply_settings, read_settings, reset_settings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps import equality
from gs_backup_assets.recovery.dumps.judgement import foreign_keys_hold, restore_clean, rto_met
from gs_backup_assets.recovery.dumps.restoring import Restored, restore_fetched
from gs_backup_assets.recovery.dumps.servers import RestoreServer, proof_server
from gs_backup_assets.recovery.dumps.surroundings import properties_differ, roles_differ, views_differ
from gs_backup_assets.recovery.dumps.take import jobs_of
from gs_backup_assets.recovery.stored.stored_bytes import CHECK, fetch
from gs_backup_assets.recovery.stored.stored_settings import fetched_settings
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Which
from gs_backup_assets.vault.store import Store

# Until the application can use the database: everything before the comparisons, which a real restore can do afterwards.
_RECOVERY_STAGES = ("fetch", "cluster", "restore", "analyze")
_SERVER_FAILED = "Look for a lack of memory or space on this machine, and prove the backup again."


class _Collected:
    """What a proof has found so far."""

    def __init__(self) -> None:
        self.checks: dict[str, CheckResult] = {}
        self.rules: tuple[RuleOutcome, ...] = ()
        self.foreign_keys: tuple[ForeignKeyOutcome, ...] = ()
        self.tables: tuple[TableOutcome, ...] = ()
        self.server: RestoreServer | None = None

    def add(self, *results: CheckResult) -> None:
        self.checks.update({result.name: result for result in results})


def prove(
    settings: DatabaseSettings,
    store: Store,
    entry: Entry,
    progress: Progress,
    *,
    which: Which = "primary",
    server: RestoreServer | None = None,
    docs: Path | None = None,
) -> ProofRecord:
    """Put one backup to the proof and return the record; the caller stores it.

    `which` names the store in the record. `server` reuses a running server for many proofs; without it one is made and
    removed. `docs` is where Great Expectations writes its Data Docs. What a backup can be blamed for is in the record,
    and so is what could not be verified; StoreError is raised when the store cannot be read at all.
    """
    import psycopg2

    started = datetime.now(timezone.utc)
    found = _Collected()
    rules = load_rules(settings.rules, settings.folder)
    with workspace("spool") as spool:
        stored = _fetch(settings, store, entry, spool, progress)
        found.add(stored)
        if stored.status is Status.NOT_VERIFIED:
            _leave_open(found, rules, stored.summary, code=stored.findings[0].code, hint=stored.findings[0].hint)
        elif stored.status is Status.PASSED:
            manifest = entry.require_manifest()
            try:
                with _server(server, manifest, settings, progress) as running:
                    found.server = running
                    _prove_restored(
                        settings, manifest, spool, running, rules=rules, docs=docs, progress=progress, found=found
                    )
            except (NotVerifiable, SourceError, ProgramError) as error:
                _leave_open(found, rules, error.message, code=error.code, hint=error.hint)
            except psycopg2.Error as error:
                reason = f"the server ended the work: {error.diag.message_primary or 'the connection was lost'}"
                _leave_open(found, rules, reason, code="SERVER_FAILED", hint=_SERVER_FAILED)
        else:
            _leave_open(found, rules, "the stored bytes are not those that were backed up", code="BYTES_DIFFER")
    return _record(settings, entry, started, which=which, progress=progress, found=found)


def _fetch(settings: DatabaseSettings, store: Store, entry: Entry, spool: Path, progress: Progress) -> CheckResult:
    try:
        with progress.stage("fetch") as stage:
            return fetch(store, entry, stage, spool, settings)
    except NotVerifiable as error:  # the key is not here: the backup may well be good
        return not_verified(CHECK, error.message, code=error.code, hint=error.hint)


@contextmanager
def _server(
    given: RestoreServer | None, manifest: Manifest, settings: DatabaseSettings, progress: Progress
) -> Iterator[RestoreServer]:
    if given is not None:
        yield given
        return
    with ExitStack() as stack:
        with progress.stage("cluster"):
            server = stack.enter_context(proof_server(manifest, settings))
        yield server


def _prove_restored(
    settings: DatabaseSettings,
    manifest: Manifest,
    spool: Path,
    server: RestoreServer,
    *,
    rules: RuleSet,
    docs: Path | None,
    progress: Progress,
    found: _Collected,
) -> None:
    """Restore and run every check that needs the restored database; the database is dropped whatever happens."""
    jobs = jobs_of(settings.verification.jobs)
    database = f"gs_backup_proof_{manifest.id.lower()}"
    try:
        restored = restore_fetched(server, manifest, spool, database, jobs=jobs, progress=progress)
        compared = compare_restored(
            manifest, restored, server, spool, jobs=jobs, progress=progress, keep_settings=False
        )
        found.tables = compared.tables
        found.add(*compared.checks)
        with progress.stage("amcheck"):
            environment = restored.target.write_service_file(spool)
            if server.owners:
                environment["PGOPTIONS"] = NO_TRIGGERS  # to install amcheck is a change that event triggers may forbid
            found.add(_amcheck_clean(server, environment, database, jobs))
        with progress.stage("foreign keys"), connect(restored.target) as connection:
            found.foreign_keys = check_foreign_keys(connection)
            found.add(foreign_keys_hold(found.foreign_keys))
        with progress.stage("rules"):
            found.rules = _apply_rules(rules, restored, docs)
    finally:
        with connect(server.admin) as connection:
            drop_database(connection, database)


@dataclass(frozen=True)
class Compared:
    """A restored database, compared with its manifest."""

    checks: tuple[CheckResult, ...]
    tables: tuple[TableOutcome, ...]


def compare_restored(
    manifest: Manifest,
    restored: Restored,
    server: RestoreServer,
    spool: Path,
    *,
    jobs: int,
    progress: Progress,
    keep_settings: bool = True,
) -> Compared:
    """Omissions, restore errors, rows, contents, sequences and schema of a restored database against the manifest.

    The source's `ALTER DATABASE ... SET` are applied last, as they may stand in the way of the comparisons; a proof,
    which has more to look at, takes them back (`keep_settings`).
    """
    source = manifest.fingerprint
    with progress.stage("equality"):
        with connect(restored.target) as connection:
            inventory = take_inventory(connection)
        fingerprint = take_fingerprint(restored.target, inventory, level=source.level, jobs=jobs)
        tables = equality.compare_tables(source, fingerprint)
        contents = equality.contents_equal(source, fingerprint, tables, owners=server.owners)
        clean = restore_clean(restored, contents)
    with progress.stage("schema"):
        schema = _schema_equal(
            manifest,
            restored,
            server,
            spool,
            views=views_differ(manifest.omissions, inventory.omissions),
            keep_settings=keep_settings,
        )
    omitted = {omission.name for omission in manifest.omissions}
    compared = (
        equality.rows_equal(source, tables),
        contents,
        schema,
        equality.sequences_equal(source, fingerprint, omitted=omitted),
    )
    explained = tuple(equality.explained(check, clean) for check in compared)
    return Compared((equality.everything_included(manifest.omissions), clean, *explained), tables)


def _schema_equal(
    manifest: Manifest,
    restored: Restored,
    server: RestoreServer,
    spool: Path,
    *,
    views: Sequence[Finding],
    keep_settings: bool,
) -> CheckResult:
    environment = restored.target.write_service_file(spool)
    objects = read_schema(server.toolchain, environment, revalidated=restored.not_valid)
    database = restored.target.database
    settings, unsafe = fetched_settings(manifest, spool)
    with connect(server.admin) as connection:
        refused = apply_settings(connection, database, [s for s in settings if server.owners or not s.role])
        around = [*unsafe, *views]
        if server.owners:
            around += roles_differ(manifest.roles, read_roles(connection), restored.roles_before)
            if manifest.source.properties is not None:
                refused += apply_properties(connection, database, manifest.source.properties)
            around += properties_differ(manifest.source.properties, read_properties(connection, database))
        kept = read_settings(connection, database)
        if not keep_settings:
            reset_settings(connection, database, {s.role for s in kept if s.role})
    result = equality.schema_equal(
        manifest.schema_objects, objects, manifest.source.settings, kept, owners=server.owners, around=around
    )
    notes = tuple(Finding(code="SETTING_REFUSED", message=text) for text in refused)
    return result.model_copy(update={"findings": (*result.findings, *notes)})


def _amcheck_clean(server: RestoreServer, environment: dict[str, str], database: str, jobs: int) -> CheckResult:
    try:
        damage = run_amcheck(server.toolchain, environment, database, jobs=jobs)
    except ProgramError as error:
        return not_verified("amcheck_clean", error.message, code="AMCHECK_NOT_RUN", hint=error.hint)
    findings = tuple(
        Finding(code="CORRUPTION", message=line, hint="The restored database is damaged inside.")
        for line in damage[:20]
    )
    status = Status.FAILED if damage else Status.PASSED
    summary = f"{len(damage)} reports of damage" if damage else "heaps and indexes are sound"
    return CheckResult(
        name="amcheck_clean",
        status=status,
        summary=summary,
        findings=findings,
        metrics={"amcheck_reports": len(damage)},
    )


def _apply_rules(rules: RuleSet, restored: Restored, docs: Path | None) -> tuple[RuleOutcome, ...]:
    if not rules.rules:
        return ()
    from gs_backup_assets.integrity.suite import evaluate  # Great Expectations takes seconds to import

    return evaluate(rules, restored.target, docs=docs)


def _leave_open(found: _Collected, rules: RuleSet, reason: str, *, code: str, hint: str = "") -> None:
    """Every check that has no outcome yet could not run."""
    for name in (*DECISIVE_CHECKS, "foreign_keys_hold"):
        if name not in found.checks:
            found.add(not_verified(name, reason, code=code, hint=hint))
    if not found.rules:
        found.rules = tuple(_open_rule(rule, reason) for rule in rules.rules)


def _open_rule(rule: Rule, reason: str) -> RuleOutcome:
    return RuleOutcome(
        id=rule.id, title=rule.title, severity=rule.severity, table=None, status=Status.NOT_VERIFIED, reason=reason
    )


def _record(
    settings: DatabaseSettings,
    entry: Entry,
    started: datetime,
    *,
    which: Which,
    progress: Progress,
    found: _Collected,
) -> ProofRecord:
    restored = found.checks["contents_equal"].status
    blame = {Status.PASSED: Blame.PRODUCTION, Status.FAILED: Blame.BACKUP}.get(restored, Blame.UNKNOWN)
    spent = [progress.seconds[name] for name in _RECOVERY_STAGES if name in progress.seconds]
    rto = sum(spent) if "analyze" in progress.seconds else None
    target = settings.rto_target
    found.add(rto_met(rto, target.total_seconds() if target else None))
    ordered = [found.checks[name] for name in DECISIVE_CHECKS]
    others = [check for name, check in found.checks.items() if name not in DECISIVE_CHECKS]
    return ProofRecord(
        backup_id=entry.id,
        database=entry.database,
        partition=entry.partition,
        manifest_sha256=entry.manifest_sha256,
        started_at=started,
        finished_at=datetime.now(timezone.utc),
        software=gs_backup_assets.__version__,
        programs=str(found.server.toolchain.release) if found.server else None,
        server=found.server.label if found.server else None,
        store=which,
        verdict=verdict_of(ordered),
        checks=(*ordered, *others),
        rules=found.rules,
        foreign_keys=found.foreign_keys,
        tables=found.tables,
        blame=blame,
        stage_seconds=dict(progress.seconds),
        rto_seconds=rto,
        rto_target_seconds=target.total_seconds() if target else None,
    )
