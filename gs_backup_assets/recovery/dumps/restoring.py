"""Restores fetched files into a database, in stages, and says what went wrong; shared by proofs and real restores."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.errors import NotVerifiable
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.restore import (
    RestoreError,
    add_not_valid,
    apply_globals,
    restore_sections,
    trace_causes,
    without_data,
)
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.critical_first import split_dump
from gs_backup_assets.recovery.dumps.servers import RestoreServer, create_restored, existing_roles
from gs_backup_assets.recovery.dumps.take import DUMP_FOLDER, GLOBALS_FILE

SECTIONS = ("pre-data", "data", "post-data")
# What libpq and the server say when the server has ended in the middle of the work.
_LOST = re.compile(r"server closed the connection|terminating connection|the database system is|connection to server")


@dataclass(frozen=True)
class Restored:
    """A restored database: the errors on the way, and the foreign keys that could only be added as NOT VALID.

    `roles_before` are the roles that the server had already: they were left as they are. `not_analyzed` says which
    tables have no planner statistics, and why.
    """

    target: Target
    errors: tuple[RestoreError, ...]
    not_valid: tuple[str, ...]
    roles_before: frozenset[str] = frozenset()
    not_analyzed: tuple[str, ...] = ()


def restore_fetched(
    server: RestoreServer,
    manifest: Manifest,
    fetched: Path,
    database: str,
    *,
    jobs: int,
    progress: Progress,
    critical: Sequence[str] = (),
    core_done: Callable[[], None] = lambda: None,
) -> Restored:
    """Create `database` on the server and restore everything into it: roles, schema, data, indexes and constraints.

    With `critical` (quoted, qualified tables) those are loaded, indexed and analysed before the others; `core_done`
    is called when they can be used. The caller drops the database. Errors of the restore itself are in the result, but
    for those that only say that the server could not do its work: NotVerifiable (`CREATE_REFUSED`, `NO_SPACE`,
    `SERVER_LOST`).
    """
    with progress.stage("restore"):
        target = _create(server, database, manifest)
        environment = target.write_service_file(fetched)
        errors: list[RestoreError] = []
        roles = existing_roles(server)
        if server.owners:
            globals_sql = fetched / GLOBALS_FILE
            errors += apply_globals(server.toolchain, environment, globals_sql, fetched, existing_roles=roles)
        restore = partial(
            restore_sections, server.toolchain, environment, fetched / DUMP_FOLDER, jobs=jobs, owners=server.owners
        )
        if critical:
            split = split_dump(server.toolchain, fetched / DUMP_FOLDER, critical)
            errors += restore(sections=["pre-data"])
            errors += restore(sections=["data"], use_list=split.write(split.core_data, fetched / "list"))
            errors += restore(sections=["post-data"], use_list=split.write(split.core_rest, fetched / "list"))
            analyze(target, critical)
            core_done()
            errors += restore(sections=["data"], use_list=split.write(split.other_data, fetched / "list"))
            errors += restore(sections=["post-data"], use_list=split.write(split.other_rest, fetched / "list"))
        else:
            errors += restore(sections=SECTIONS)
        errors = [error for error in errors if not _only_too_new(error, server)]
        _require_a_sound_server(errors, server)
        errors = list(trace_causes(errors, [o.name for o in manifest.omissions if o.loses_data]))
        with connect(target, settings={"session_replication_role": "replica"} if server.owners else {}) as connection:
            not_valid = add_not_valid(connection, errors)
    with progress.stage("analyze"):
        not_analyzed = analyze(target)
    return Restored(target, tuple(errors), not_valid, roles, not_analyzed)


def _create(server: RestoreServer, database: str, manifest: Manifest) -> Target:
    import psycopg2

    try:
        return create_restored(server, database, manifest)
    except psycopg2.Error as error:
        raise NotVerifiable(
            "CREATE_REFUSED",
            f"The {server.label} does not create a database: {str(error).splitlines()[0]}.",
            "Give the role CREATEDB, or the server what the message says is missing.",
        ) from error


def _require_a_sound_server(errors: Sequence[RestoreError], server: RestoreServer) -> None:
    """What is missing because a disk was full, or a server crashed, must not be held against the backup."""
    for error in errors:
        if error.code == "NO_SPACE":
            raise NotVerifiable(
                "NO_SPACE",
                f"The disk of the {server.label} is full: {error.message}",
                "Free space there; for a throwaway server, set TMPDIR to a disk with room for the whole database.",
            )
        if _LOST.search(error.message):
            raise NotVerifiable(
                "SERVER_LOST",
                f"The {server.label} went away: {error.message}",
                "Look for a full disk or a lack of memory, and for a restart; then try again.",
            )


def _only_too_new(error: RestoreError, server: RestoreServer) -> bool:
    """Whether newer programs only tried to switch off a timeout that an older server does not have."""
    return server.release.major < server.toolchain.release.major and error.command == "SET transaction_timeout = 0;"


_ANALYZABLE = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' ORDER BY c.oid
"""


def analyze(target: Target, tables: Sequence[str] = ()) -> tuple[str, ...]:
    """Planner statistics: without them the application times out after a restore. `tables` are quoted names.

    A table of which the server refuses them costs no other its own: a partition on a foreign server that cannot be
    reached, a function that fails. Returns each with the server's reason. psycopg2.Error when the server is gone.
    """
    with connect(target) as connection:
        if not _refusal(connection, "ANALYZE " + ", ".join(tables)):
            return ()
        refused = []
        for table in tables or [name for (name,) in query(connection, _ANALYZABLE)]:
            if reason := _refusal(connection, f"ANALYZE {table}"):
                refused.append(f"{table}: {reason}")
        return tuple(refused)


def _refusal(connection: Connection, statement: str) -> str:
    """Why the server refuses, without anything out of a row; empty when it does not."""
    import psycopg2

    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.Error as error:
        if connection.closed:
            raise
        return without_data("RESTORE_ERROR", "", error.diag.message_primary or "no reason given")
    return ""
