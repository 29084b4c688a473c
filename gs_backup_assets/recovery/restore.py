"""A real restore: into a new database, or beside an existing one that it replaces once it is proved equal."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS, tables_of
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict, verdict_of
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, ProofFailed, SourceError
from gs_backup_assets.postgres.cluster import drop_database
from gs_backup_assets.postgres.connection import Connection, Target, connect, query, server_facts
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import choose
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.prove import compare_restored
from gs_backup_assets.recovery.restoring import restore_fetched
from gs_backup_assets.recovery.servers import RestoreServer
from gs_backup_assets.recovery.stored_bytes import check_stored_bytes
from gs_backup_assets.recovery.take import jobs_of
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.store import Store

_MAINTENANCE_DATABASES = ("postgres", "template1")


class RestoreOutcome(BaseModel):
    """What a restore came to. Seconds count from the start of the command; `core_seconds` with critical tables first.

    `database` is where the data is now, `replaced` the name under which the old database was kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    database: str
    replaced: str | None
    verdict: Verdict
    checks: tuple[CheckResult, ...]
    owners: bool
    core_seconds: float | None
    full_seconds: float
    stage_seconds: dict[str, float]


def restore_backup(
    settings: DatabaseSettings,
    store: Store,
    entry: Entry,
    into: Target,
    progress: Progress,
    *,
    replace: bool = False,
    critical_first: bool = False,
) -> RestoreOutcome:
    """Restore a backup into the database that `into` names, and compare it with the manifest.

    Raises ConfigError: `DATABASE_EXISTS` (unless `replace`), `SERVER_TOO_OLD`; ProofFailed (`BYTES_DIFFER`); SourceError,
    ProgramError, StoreError. A database that does not come out equal is kept for inspection, and nothing is replaced.
    """
    started = time.monotonic()
    server, exists = _server(into, entry.require_manifest())
    if exists and not replace:
        raise ConfigError(
            "DATABASE_EXISTS",
            f"The database {into.database} exists already.",
            "Name a new one, or use --replace: it restores beside, proves, and then swaps the names.",
        )
    manifest = entry.require_manifest()
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = f"{into.database}_restored_{stamp}" if exists else into.database
    jobs = jobs_of(settings.verification.jobs)
    core: float | None = None

    def core_done() -> None:
        nonlocal core
        core = time.monotonic() - started

    with workspace("spool") as spool:
        _fetch(store, entry, spool, progress)
        try:
            restored = restore_fetched(
                server,
                manifest,
                spool,
                name,
                jobs=jobs,
                progress=progress,
                critical=_critical(settings, manifest) if critical_first else (),
                core_done=core_done,
            )
            full = time.monotonic() - started
            checks = compare_restored(manifest, restored, server, spool, jobs=jobs, progress=progress).checks
        except BaseException:
            with connect(server.admin) as connection:
                drop_database(connection, name)
            raise
    verdict = verdict_of(checks)
    replaced = None
    if exists and verdict is Verdict.PROVEN:
        replaced = f"{into.database}_replaced_{stamp}"
        with progress.stage("swap"), connect(server.admin) as connection:
            _swap(connection, into.database, name, replaced)
        name = into.database
    return RestoreOutcome(
        backup_id=entry.id,
        database=name,
        replaced=replaced,
        verdict=verdict,
        checks=checks,
        owners=server.owners,
        core_seconds=core,
        full_seconds=full,
        stage_seconds=dict(progress.seconds),
    )


def _server(into: Target, manifest: Manifest) -> tuple[RestoreServer, bool]:
    admin, connection_error = None, None
    for name in _MAINTENANCE_DATABASES:
        try:
            with connect(into.with_database(name)) as connection:
                admin = into.with_database(name)
                facts = server_facts(connection)
                exists = bool(query(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (into.database,)))
                owners = query(connection, "SELECT current_setting('is_superuser') = 'on'")[0][0]
                break
        except SourceError as error:
            connection_error = error
    if admin is None:
        assert connection_error is not None
        raise connection_error
    if facts.release.major < Release.parse(manifest.server.release).major:
        raise ConfigError(
            "SERVER_TOO_OLD",
            f"The backup is of PostgreSQL {manifest.server.release}, the server is {facts.release}.",
            "Restore to a server of the same major or a newer one.",
        )
    toolchain = choose(manifest.dump.release)
    return RestoreServer(toolchain, admin, facts.release, owners, f"PostgreSQL {facts.release}"), exists


def _fetch(store: Store, entry: Entry, spool: Path, progress: Progress) -> None:
    with progress.stage("fetch") as stage:
        stored = check_stored_bytes(store, entry, stage, fetch_into=spool)
    if stored.status is not Status.PASSED:
        finding = stored.findings[0]
        raise ProofFailed(finding.code, finding.message, finding.hint)


def _critical(settings: DatabaseSettings, manifest: Manifest) -> tuple[str, ...]:
    tables = {table.name: table.qualified for table in manifest.fingerprint.tables}
    names = tables_of(CRITICAL_CLASS, tuple(tables), settings.class_tables())
    if not names:
        raise ConfigError(
            "NO_CRITICAL_TABLES",
            "No table of this backup is in the data class `critical`.",
            "Name them under data_classes.critical.tables in backup.yaml, or leave out --critical-first.",
        )
    return tuple(tables[name] for name in names)


def _swap(connection: Connection, current: str, restored: str, kept_as: str) -> None:
    """Exchange the names in one transaction. Sessions of the old database are ended first, new ones kept out."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {quote(current)} ALLOW_CONNECTIONS false")
        try:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                (current,),
            )
            _wait_until_unused(connection, current)
            cursor.execute("BEGIN")
            cursor.execute(f"ALTER DATABASE {quote(current)} RENAME TO {quote(kept_as)}")
            cursor.execute(f"ALTER DATABASE {quote(restored)} RENAME TO {quote(current)}")
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            cursor.execute(f"ALTER DATABASE {quote(current)} ALLOW_CONNECTIONS true")
            raise
        cursor.execute(f"ALTER DATABASE {quote(kept_as)} ALLOW_CONNECTIONS true")


def _wait_until_unused(connection: Connection, database: str) -> None:
    deadline = time.monotonic() + 30
    while query(connection, "SELECT 1 FROM pg_stat_activity WHERE datname = %s", (database,)):
        if time.monotonic() > deadline:
            raise SourceError(
                "DATABASE_IN_USE", f"Sessions of {database} do not end.", "Stop the application, then run the restore again."
            )
        time.sleep(0.1)
