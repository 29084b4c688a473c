"""The doctor: checks everything that a backup and its proof need, and says what to do about what is not there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from gs_backup_assets.catalogue.objectives import unknown_tables
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, SourceError
from gs_backup_assets.postgres import grants
from gs_backup_assets.postgres.connection import (
    Connection,
    ServerFacts,
    Target,
    connect,
    query,
    server_facts,
    target_from_environment,
)
from gs_backup_assets.postgres.database import DatabaseFacts, database_facts
from gs_backup_assets.postgres.inventory import Inventory, take_inventory
from gs_backup_assets.postgres.release import NEWEST_SUPPORTED_MAJOR, OLDEST_SUPPORTED_MAJOR
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.recovery.doctor import machine, network
from gs_backup_assets.recovery.doctor.bucket import examine_bucket
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, listed, not_verified, passed
from gs_backup_assets.recovery.doctor.key import encryption_key
from gs_backup_assets.recovery.doctor.physical import examine_physical
from gs_backup_assets.recovery.doctor.staging import masking_key, staging_server
from gs_backup_assets.recovery.doctor.wal import examine_wal
from gs_backup_assets.words import counted

__all__ = ["Diagnosis", "examine"]

_SERVER_CHECKS = (
    "version",
    "pooler",
    "rights",
    "row_security",
    "roles",
    "omissions",
    "data_classes",
    "snapshot",
    "lock",
)


_READ_ALL_SINCE = 14


@dataclass(frozen=True)
class _Source:
    """What one session learned about the source."""

    server: ServerFacts
    database: DatabaseFacts
    inventory: Inventory
    role: grants.Role
    owners: tuple[tuple[str, str], ...]
    row_secured: tuple[str, ...]


def examine(settings: DatabaseSettings, *, thorough: bool = False) -> tuple[Diagnosis, ...]:
    """Check what a backup of the database needs; for a configuration always the same checks in the same order.

    A check that cannot run because an earlier one failed is NOT_VERIFIED with that reason. With `thorough` a throwaway
    server is really started. Nothing is changed: the stores' probe objects are removed again. Raises ConfigError
    (`URL_MISSING`, `URL_INVALID`).
    """
    target = target_from_environment(settings.url_env)
    with ExitStack() as stack:
        connection: Connection | None = None
        error: SourceError | None = None
        try:
            connection = stack.enter_context(connect(target, application="gs_backup doctor"))
        except SourceError as refused:
            error = refused
        reached = network.address(target, connection)
        diagnoses = [
            reached,
            network.login(target, error, reached),
            _guarded("tls", lambda: network.tls(target, connection, error)),
        ]
        source, reason = _ask(connection)
        if connection is None or source is None:
            diagnoses += [not_verified(name, reason) for name in _SERVER_CHECKS]
        else:
            diagnoses += _server_checks(settings, target, connection, source)
        encrypted = connection is not None and network.is_encrypted(connection)
    release = source.server.release if source else None
    size = source.database.total_bytes if source else None
    facts = source.database if source else None
    diagnoses += [
        _guarded("programs", lambda: machine.programs(release, settings, encrypted=encrypted)),
        _guarded("throwaway", lambda: machine.throwaway(release, facts, settings, thorough=thorough)),
        _guarded("spool", lambda: machine.spool(size)),
        machine.reports(settings),
        _guarded("store", lambda: machine.store(settings, "primary", size)),
        *examine_bucket(settings, "primary"),
    ]
    if settings.stores.offsite is not None:
        diagnoses.append(_guarded("offsite_store", lambda: machine.store(settings, "offsite", size)))
        diagnoses += examine_bucket(settings, "offsite")
    if settings.physical is not None:
        diagnoses += examine_physical(settings, settings.physical, _guarded)
    if settings.wal is not None:
        diagnoses += examine_wal(settings, settings.wal, _guarded)
    if (staging := settings.staging) is not None:
        diagnoses.append(_guarded("staging", lambda: staging_server(staging)))
    if settings.anonymise is not None:
        diagnoses.append(masking_key(settings.anonymise))
    diagnoses.append(_guarded("encryption_key", lambda: encryption_key(settings)))
    return tuple(diagnoses)


def _ask(connection: Connection | None) -> tuple[_Source | None, str]:
    """What the checks of the server are made from; or None and the reason."""
    import psycopg2

    if connection is None:
        return None, "There is no session with the server."
    try:
        inventory = take_inventory(connection)
        schemas = sorted({relation.schema for relation in (*inventory.tables, *inventory.unreadable)})
        source = _Source(
            server=server_facts(connection),
            database=database_facts(connection),
            inventory=inventory,
            role=grants.session_role(connection),
            owners=grants.owners_of_tables(connection, schemas),
            row_secured=grants.row_secured(connection),
        )
    except psycopg2.Error as error:
        return None, f"The server did not answer what was asked: {str(error).splitlines()[0]}"
    return source, ""


def _guarded(name: str, check: Callable[[], Diagnosis]) -> Diagnosis:
    """A check that breaks is not verified, and never the end of the others."""
    import psycopg2

    try:
        return check()
    except psycopg2.Error as error:
        return not_verified(name, f"The check could not run: {str(error).splitlines()[0]}")
    except BackupError as error:
        return not_verified(name, f"{error.code}: {error.message}", hint=error.hint)
    except OSError as error:
        return not_verified(name, f"The check could not run: {error.strerror or error}")


def _server_checks(
    settings: DatabaseSettings, target: Target, connection: Connection, source: _Source
) -> list[Diagnosis]:
    pooler = _guarded("pooler", lambda: network.pooler(target, connection))
    return [
        _version(source.server),
        pooler,
        _rights(source),
        _row_security(source),
        _roles(source.role),
        _omissions(source.inventory),
        _data_classes(settings, source.inventory),
        *_snapshot(target, pooler),
    ]


def _version(server: ServerFacts) -> Diagnosis:
    release = server.release
    supported = f"PostgreSQL {OLDEST_SUPPORTED_MAJOR} to {NEWEST_SUPPORTED_MAJOR}"
    details = ["it is a standby: rows of unlogged tables are not there"] if server.in_recovery else []
    if server.system_identifier is None:
        details.append("the role may not read the system identifier; backups do not need it")
    if release.major < OLDEST_SUPPORTED_MAJOR:
        return failed(
            "version", f"The server is PostgreSQL {release}.", details, f"Upgrade it: supported are {supported}."
        )
    if release.major > NEWEST_SUPPORTED_MAJOR:
        return not_verified("version", f"The server is PostgreSQL {release}; this software knows {supported}.", details)
    return passed("version", f"The server is PostgreSQL {release}.", details)


def _rights(source: _Source) -> Diagnosis:
    role, inventory = source.role, source.inventory
    hidden = grants.hidden(inventory)
    schemas = sorted({relation.schema for relation in hidden})
    names = [relation.qualified for relation in hidden]
    if not inventory.large_objects_readable:
        names.append("large objects")
    if not names:
        count = f"{counted(len(inventory.tables), 'table')} and {counted(len(inventory.sequences), 'sequence')}"
        return passed("rights", f"The role {role.name} may read all {count}.")
    statements: tuple[str, ...] = ()
    narrower: tuple[str, ...] = ()
    hint = "Have the owner or a superuser run the statements."
    if hidden:
        by_schema = grants.schema_grants(role.name, schemas, source.owners)
        if source.server.release.major >= _READ_ALL_SINCE:
            statements, narrower = grants.reading_grants(role.name), by_schema
        else:
            statements = by_schema
    if not inventory.large_objects_readable:
        again = grants.large_object_grants(role.name)
        statements, narrower = (*statements, *again), (*narrower, *again) if narrower else ()
        hint += " Large objects that are made later need theirs again."
    missing = failed(
        "rights",
        f"The role {role.name} may not read {len(names)} objects; a backup would leave them out.",
        listed(names),
        hint,
        statements,
    )
    return missing.model_copy(update={"narrower_sql": narrower})


def _row_security(source: _Source) -> Diagnosis:
    if source.role.bypasses:
        return passed("row_security", "Row security does not hold for the role.")
    names = source.row_secured
    if not names:
        return passed("row_security", "No table has row security that would hide rows from the role.")
    return failed(
        "row_security",
        f"Row security would hide rows of {len(names)} tables from the role; a backup leaves them out.",
        listed(names),
        "Have a superuser run the statement; where there is none, back up as the owner of the tables.",
        grants.row_security_grants(source.role.name),
    )


def _roles(role: grants.Role) -> Diagnosis:
    if role.superuser:
        return passed("roles", "Roles are backed up with their passwords: the role is a superuser.")
    return passed("roles", "Roles are backed up without their passwords: only a superuser may read those.")


def _omissions(inventory: Inventory) -> Diagnosis:
    """What a dump leaves out although the role may read it."""
    told_elsewhere = ("unreadable_", "row_security")
    others = [omission for omission in inventory.omissions if not omission.kind.startswith(told_elsewhere)]
    details = listed([f"{omission.kind} {omission.name}: {omission.reason}" for omission in others])
    losing = [omission for omission in others if omission.loses_data]
    if losing:
        hint = "Back up from the primary server."
        return failed("omissions", f"A backup would be without the rows of {len(losing)} objects.", details, hint)
    if others:
        return passed("omissions", f"A backup is complete; {len(others)} objects are particular.", details)
    return passed("omissions", "A dump leaves nothing out.")


def _data_classes(settings: DatabaseSettings, inventory: Inventory) -> Diagnosis:
    classes = settings.class_tables()
    named = sum(len(tables) for tables in classes.values())
    present = [relation.name for relation in (*inventory.tables, *inventory.unreadable)]
    unknown = unknown_tables(present, classes)
    if unknown:
        summary = f"{len(unknown)} of the {named} tables in data_classes do not exist: no objective holds for them."
        return not_verified("data_classes", summary, listed(unknown), "Correct the names in data_classes.")
    if not named:
        return passed("data_classes", "No table is in a class of its own.")
    return passed("data_classes", f"All {named} tables that data_classes names exist.")


def _snapshot(target: Target, pooler: Diagnosis) -> tuple[Diagnosis, Diagnosis]:
    """Export a snapshot and enter it from a second session, as pg_dump does; the advisory lock on the way."""
    import psycopg2

    if pooler.status is pooler.status.FAILED:
        reason = "A pooler stands in the way."
        return not_verified("snapshot", reason), not_verified("lock", reason)
    free = passed("lock", "No other backup of this database is running.")
    try:
        with exported_snapshot(target) as snapshot, connect(target, application="gs_backup doctor") as second:
            with second.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot.name,))
            query(second, "SELECT 1")
    except SourceError as error:
        if error.code == "BACKUP_RUNNING":
            held = not_verified("lock", f"{error.code}: {error.message}", hint=error.hint)
            return not_verified("snapshot", "Another backup holds the lock."), held
        return failed("snapshot", f"{error.code}: {error.message}", hint=error.hint), free
    except psycopg2.Error as error:
        words = str(error).splitlines()[0]
        hint = "Give one server's direct address: sessions must not be spread over replicas."
        return failed("snapshot", f"A second session cannot enter the snapshot: {words}", hint=hint), free
    return passed("snapshot", "A second session sees the exported snapshot."), free
