"""Makes a masked copy of a backup for developers: restored on a server of its own, masked, proved, then handed out."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.errors import ConfigError, NotVerifiable, ProofFailed, StoreError
from gs_backup_assets.postgres.cluster import drop_database
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.naming import name_beside, rename
from gs_backup_assets.recovery.dumps.prove import compare_restored
from gs_backup_assets.recovery.dumps.restore import fetch_sound, server_of
from gs_backup_assets.recovery.dumps.restoring import analyze, restore_fetched
from gs_backup_assets.recovery.dumps.servers import RestoreServer, create_restored, proof_server
from gs_backup_assets.recovery.dumps.take import jobs_of
from gs_backup_assets.recovery.staging.masking import drop_proof, mask_database, masking_secret
from gs_backup_assets.recovery.staging.masking_proof import prove_masked
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Vault, Which

_DUMP_HINT = "`gs-backup doctor` checks programs and space."


@dataclass(frozen=True)
class Anonymised:
    """A masked copy that was handed out. `into` is a file or the name of a database, `check` the proof of the masking.

    `stored_bytes` is the size of the file; None for a database.
    """

    backup_id: str
    into: str
    check: CheckResult
    stored_bytes: int | None
    stage_seconds: dict[str, float]
    not_logged: StoreError | None


def anonymise_backup(
    settings: DatabaseSettings,
    vault: Vault,
    entry: Entry,
    into: Path | Target,
    progress: Progress,
    *,
    which: Which,
    by: Author,
) -> Anonymised:
    """Hand out a masked copy of a backup as a dump (pg_restore's custom format, mode 0600), or as a new database.

    Until the masking is proved nothing of it leaves the throwaway server, which is removed whatever happens. Raises
    ConfigError (`NO_ANONYMISE`, `FILE_EXISTS`, `FOLDER_MISSING`, `DATABASE_EXISTS`, `MASKING_REFUSED`), ProofFailed
    (`MASKING_...`, or what is wrong with the backup), NotVerifiable, SourceError, ProgramError, StoreError.
    """
    rules = settings.anonymise
    if rules is None:
        raise ConfigError("NO_ANONYMISE", "backup.yaml has no anonymise.", "docs/anonymise.md shows how to add it.")
    secret = masking_secret(rules)
    manifest = entry.require_manifest()
    goal = _database_goal(into, manifest) if isinstance(into, Target) else _require_new(into)
    name = into.database if isinstance(into, Target) else str(into)
    ids = {"backup": entry.id, "partition": entry.partition, "into": name}
    noted = failure_noted(vault.primary, settings.name, by, "anonymise", ids=ids, otherwise=vault.offsite)
    with noted, workspace("spool") as spool:
        fetch_sound(settings, vault.store(which), entry, spool, progress)
        with _masked(settings, rules, manifest, spool, secret=secret, progress=progress) as (server, copy, check):
            if isinstance(goal, RestoreServer):
                assert isinstance(into, Target)
                dump = spool / "masked.dump"
                _dump(server.toolchain, copy, spool, dump, progress)
                _restore(goal, into, manifest, dump, progress)
            else:
                _dump_aside(server.toolchain, copy, spool, goal, progress)
    size = None if isinstance(goal, RestoreServer) else goal.stat().st_size
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "anonymise",
        ids=ids,
        result="done",
        details={"store": which, "columns": int(check.metrics["masked_columns"])},
        otherwise=vault.offsite,
    )
    return Anonymised(entry.id, name, check, size, dict(progress.seconds), not_logged)


@contextmanager
def _masked(
    settings: DatabaseSettings,
    rules: Anonymise,
    manifest: Manifest,
    spool: Path,
    *,
    secret: bytes,
    progress: Progress,
) -> Iterator[tuple[RestoreServer, Target, CheckResult]]:
    """A restored, masked and proved copy; it is gone afterwards."""
    jobs = jobs_of(settings.verification.jobs)
    database = f"gs_backup_masking_{secrets.token_hex(4)}"
    with proof_server(manifest, settings) as server:
        try:
            restored = restore_fetched(server, manifest, spool, database, jobs=jobs, progress=progress)
            compared = compare_restored(
                manifest, restored, server, spool, jobs=jobs, progress=progress, keep_settings=False
            )
            for check in compared.checks:
                _require_passed(check, manifest.id)
            masked = mask_database(restored.target, rules, secret, progress)
            proved = prove_masked(restored.target, masked, progress)
            _require_passed(proved, manifest.id)
            drop_proof(restored.target)
            yield server, restored.target, proved
        finally:
            with connect(server.admin) as connection:
                drop_database(connection, database)


def _require_passed(check: CheckResult, backup_id: str) -> None:
    if check.status is Status.PASSED:
        return
    kind = ProofFailed if check.status is Status.FAILED else NotVerifiable
    code = check.findings[0].code if check.findings else check.name.upper()
    words = check.findings[0].message if check.findings else check.summary
    raise kind(code, f"{check.name}: {words}", f"Nothing was handed out. Use another backup than {backup_id}?")


def _require_new(path: Path) -> Path:
    if path.exists():
        raise ConfigError("FILE_EXISTS", f"{path} is there already.", "Name a new file, or remove it.")
    if not path.absolute().parent.is_dir():
        raise ConfigError("FOLDER_MISSING", f"There is no folder {path.absolute().parent}.", "Make it first.")
    return path.absolute()


def _database_goal(into: Target, manifest: Manifest) -> RestoreServer:
    server, exists = server_of(into, manifest)
    if exists:
        raise ConfigError("DATABASE_EXISTS", f"The database {into.database} exists already.", "Name a new one.")
    return server


def _dump(toolchain: Toolchain, copy: Target, spool: Path, path: Path, progress: Progress) -> None:
    """Subscriptions hold the passwords of other servers, so they stay out."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    argv: list[str | Path] = [
        toolchain.program("pg_dump"),
        "--format=custom",
        f"--file={path}",
        "--no-password",
        "--no-subscriptions",
        "--no-publications",
    ]
    with progress.stage("dump"):
        run(argv, environment=copy.write_service_file(spool)).require_success(_DUMP_HINT)


def _dump_aside(toolchain: Toolchain, copy: Target, spool: Path, path: Path, progress: Progress) -> None:
    """Under another name until it is whole."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _dump(toolchain, copy, spool, aside, progress)
        os.link(aside, path)  # unlike a rename it does not replace what came there meanwhile
    except FileExistsError:
        raise ConfigError("FILE_EXISTS", f"{path} is there already.", "Name a new file, or remove it.") from None
    finally:
        aside.unlink(missing_ok=True)


def _restore(server: RestoreServer, into: Target, manifest: Manifest, dump: Path, progress: Progress) -> None:
    """A new database, under another name until it is whole."""
    working = name_beside(into.database, f"masked_{secrets.token_hex(4)}")
    argv: list[str | Path] = [
        server.toolchain.program("pg_restore"),
        "--dbname=",
        "--no-owner",
        "--no-privileges",
        "--no-password",
        "--exit-on-error",
        dump,
    ]
    try:
        with progress.stage("hand over"):
            target = create_restored(server, working, manifest)
            environment = target.write_service_file(dump.parent)
            run(argv, environment=environment).require_success("Put right what it says, or write a file.")
            analyze(target)
            with connect(server.admin) as connection:
                rename(connection, working, into.database)
    except BaseException:
        with connect(server.admin) as connection:
            drop_database(connection, working)
        raise
