"""A real restore: into a new database, or beside an existing one that it replaces once it is proved equal."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS, class_of
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict, not_verified, verdict_of
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, ProofFailed, SourceError
from gs_backup_assets.postgres.cluster import drop_database
from gs_backup_assets.postgres.connection import Target, connect, query, server_facts
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import choose
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.equality import everything_included
from gs_backup_assets.recovery.dumps.judgement import restore_clean
from gs_backup_assets.recovery.dumps.naming import (
    exchange,
    half_restored,
    name_beside,
    rename,
    take_after,
    working_name,
)
from gs_backup_assets.recovery.dumps.prove import compare_restored
from gs_backup_assets.recovery.dumps.restoring import Restored, restore_fetched
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import jobs_of
from gs_backup_assets.recovery.stored.stored_bytes import fetch
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.store import Store

_STOPPED = "Look in the server's log for what stopped it, a lack of memory for example, and then try again."
_MAINTENANCE_DATABASES = ("postgres", "template1")


class RestoreOutcome(BaseModel):
    """What a restore came to. Seconds count from the start of the command; `core_seconds` with critical tables first.

    `database` is where the data is now, `replaced` the name under which the old database was kept. `half_restored` are
    databases of earlier restores that were killed, or of one that is at work at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    database: str
    replaced: str | None
    half_restored: tuple[str, ...] = ()
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

    The work is done under another name. Only what was compared gets the wanted name, in one step: a restore that is
    killed at any moment leaves nothing under it. A database that does not come out equal is kept for inspection as
    `<name>_restored_<time>`; `replace` exchanges names for a PROVEN one only. What an interrupted one made is dropped,
    and what is whole and could not be compared is kept: NOT_VERIFIED.

    Raises ConfigError: `DATABASE_EXISTS` (unless `replace`), `SERVER_TOO_OLD`, `NO_CRITICAL_TABLES`; ProofFailed
    (`MANIFEST_DAMAGED`, or what the stored bytes show); SourceError, ProgramError, StoreError.
    """
    import psycopg2

    started = time.monotonic()
    manifest = _sound_manifest(entry)
    server, exists = server_of(into, manifest)
    if exists and not replace:
        raise ConfigError(
            "DATABASE_EXISTS",
            f"The database {into.database} exists already.",
            "Name a new one, or use --replace: it restores beside, proves, and then swaps the names.",
        )
    critical = _critical(settings, manifest) if critical_first else ()
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    working = working_name(into.database, stamp, secrets.token_hex(3))
    jobs = jobs_of(settings.verification.jobs)
    core: float | None = None

    def core_done() -> None:
        nonlocal core
        core = time.monotonic() - started

    with connect(server.admin) as connection:
        others = half_restored(connection, into.database)
    with workspace("spool") as spool:
        fetch_sound(settings, store, entry, spool, progress)
        try:
            restored = restore_fetched(
                server,
                manifest,
                spool,
                working,
                jobs=jobs,
                progress=progress,
                critical=critical,
                core_done=core_done,
            )
            full = time.monotonic() - started
            checks = _compared(manifest, restored, server, spool, jobs=jobs, progress=progress)
        except BaseException as error:
            with suppress(SourceError), connect(server.admin) as connection:
                drop_database(connection, working)
            if isinstance(error, NotVerifiable):  # the server could not do its work: nothing is there to verify
                raise SourceError(error.code, error.message, error.hint) from error
            if isinstance(error, psycopg2.Error):
                words = error.diag.message_primary or "the connection was lost"
                raise SourceError("RESTORE_STOPPED", f"The server ended the restore: {words}.", _STOPPED) from error
            raise
    verdict = verdict_of(checks)
    with progress.stage("name"):
        name, replaced = _give_name(server, working, into.database, stamp, verdict, exists=exists)
    return RestoreOutcome(
        backup_id=entry.id,
        database=name,
        replaced=replaced,
        half_restored=others,
        verdict=verdict,
        checks=checks,
        owners=server.owners,
        core_seconds=core,
        full_seconds=full,
        stage_seconds=dict(progress.seconds),
    )


def _compared(
    manifest: Manifest, restored: Restored, server: RestoreServer, spool: Path, *, jobs: int, progress: Progress
) -> tuple[CheckResult, ...]:
    """The comparisons; left open where they cannot be made, because the data is there by now and must not be lost."""
    import psycopg2

    try:
        return compare_restored(manifest, restored, server, spool, jobs=jobs, progress=progress).checks
    except BackupError as error:
        code, reason, hint = error.code, error.message, error.hint
    except psycopg2.Error as error:
        code, hint = "SERVER_FAILED", _STOPPED
        reason = f"the server ended the comparison: {error.diag.message_primary or 'the connection was lost'}"
    rows, contents, schema, sequences = (
        not_verified(name, reason, code=code, hint=hint)
        for name in ("rows_equal", "contents_equal", "schema_equal", "sequences_equal")
    )
    clean = restore_clean(restored, contents)
    return everything_included(manifest.omissions), clean, rows, contents, schema, sequences


def _sound_manifest(entry: Entry) -> Manifest:
    if entry.manifest is None:
        damage = entry.require_damage()
        raise ProofFailed(damage.code, damage.message, damage.hint)
    return entry.manifest


def _give_name(
    server: RestoreServer, working: str, wanted: str, stamp: str, verdict: Verdict, *, exists: bool
) -> tuple[str, str | None]:
    """The name that the data is under now, and the one under which the old database is kept."""
    finished = name_beside(wanted, f"restored_{stamp}")
    with connect(server.admin) as connection:
        if not exists and verdict is not Verdict.FAILED:
            rename(connection, working, wanted)
            return wanted, None
        rename(connection, working, finished)
        if not exists or verdict is not Verdict.PROVEN:
            return finished, None
        kept_as = name_beside(wanted, f"replaced_{stamp}")
        if server.owners:
            take_after(connection, finished, wanted)
        exchange(connection, wanted, finished, kept_as)
        return wanted, kept_as


def server_of(into: Target, manifest: Manifest) -> tuple[RestoreServer, bool]:
    """The server of the target, and whether the database exists there; SourceError, ConfigError (`SERVER_TOO_OLD`)."""
    admin = admin_of(into)
    with connect(admin) as connection:
        facts = server_facts(connection)
        exists = bool(query(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (into.database,)))
        owners = query(connection, "SELECT current_setting('is_superuser') = 'on'")[0][0]
    if facts.release.major < Release.parse(manifest.server.release).major:
        raise ConfigError(
            "SERVER_TOO_OLD",
            f"The backup is of PostgreSQL {manifest.server.release}, the server is {facts.release}.",
            "Restore to a server of the same major or a newer one.",
        )
    toolchain = choose(manifest.dump.release)
    return RestoreServer(toolchain, admin, facts.release, owners, f"PostgreSQL {facts.release}"), exists


def admin_of(into: Target) -> Target:
    """A database of the target's server from which orders about the target can be given; SourceError."""
    refusals = []
    for name in (name for name in _MAINTENANCE_DATABASES if name != into.database):
        try:
            with connect(into.with_database(name)):
                return into.with_database(name)
        except SourceError as error:
            refusals.append(error)
    raise refusals[0]


def fetch_sound(settings: DatabaseSettings, store: Store, entry: Entry, spool: Path, progress: Progress) -> None:
    """Fetch a backup's files into `spool`; ProofFailed when the stored bytes are not those that were backed up."""
    with progress.stage("fetch") as stage:
        stored = fetch(store, entry, stage, spool, settings)
    if stored.status is not Status.PASSED:
        finding = stored.findings[0]
        raise ProofFailed(finding.code, finding.message, finding.hint)


def _critical(settings: DatabaseSettings, manifest: Manifest) -> tuple[str, ...]:
    classes = settings.class_tables()
    tables = tuple(t.qualified for t in manifest.fingerprint.tables if class_of(t.name, classes) == CRITICAL_CLASS)
    if not tables:
        raise ConfigError(
            "NO_CRITICAL_TABLES",
            "No table of this backup is in the data class `critical`.",
            "Name them under data_classes.critical.tables in backup.yaml, or leave out --critical-first.",
        )
    return tables
