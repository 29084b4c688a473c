"""Where a proof restores to: a throwaway cluster, or the verification server where the cluster lacks something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, NotVerifiable, ProgramError, SourceError
from gs_backup_assets.postgres.cluster import SUPERUSER, create_database, drop_database, running_cluster
from gs_backup_assets.postgres.connection import Target, connect, query, server_facts, target_from_environment
from gs_backup_assets.postgres.database import missing_extensions
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import Toolchain, choose


@dataclass(frozen=True)
class RestoreServer:
    """A server to restore to, and the programs that fit the dump. `admin` is a database to give orders from.

    `owners` says whether roles may be made there, so that owners and privileges are restored and compared.
    """

    toolchain: Toolchain
    admin: Target
    release: Release
    owners: bool
    label: str


@contextmanager
def proof_server(manifest: Manifest, settings: DatabaseSettings) -> Iterator[RestoreServer]:
    """A server that can take the dump: a throwaway cluster if that has everything, else the verification server.

    Raises NotVerifiable (`EXTENSION_MISSING`, `COLLATION_MISSING`, `PROGRAMS_...`, `CLUSTER_FAILED`): the backup may
    well be good, but it cannot be proved here.
    """
    try:
        toolchain = choose(manifest.dump.release, needs_server=True)
        with throwaway_server(toolchain, manifest.source.bootstrap_role) as server:
            lacking = what_lacks(server, manifest)
            if lacking is None:
                yield server
                return
    except ProgramError as error:
        raise NotVerifiable(error.code, error.message, error.hint) from error
    variable = settings.verification.server_url_env
    if variable is None:
        raise lacking
    try:
        target = target_from_environment(variable)
    except ConfigError as error:
        raise NotVerifiable(error.code, f"{lacking.message} {error.message}", error.hint) from error
    server = verification_server(toolchain, target)
    still_lacking = what_lacks(server, manifest)
    if still_lacking is not None:
        raise still_lacking
    yield server


@contextmanager
def throwaway_server(toolchain: Toolchain, bootstrap_role: str) -> Iterator[RestoreServer]:
    """A cluster, made and removed; its bootstrap role has the source's name, so that grants can be restored."""
    superuser = SUPERUSER if bootstrap_role.startswith("pg_") else bootstrap_role
    with running_cluster(toolchain, purpose="proof", superuser=superuser) as cluster:
        label = f"throwaway PostgreSQL {toolchain.release}"
        yield RestoreServer(cluster.toolchain, cluster.target(), toolchain.release, True, label)


def verification_server(toolchain: Toolchain, admin: Target) -> RestoreServer:
    """A server of the user's, on which databases may be created and dropped, but no roles."""
    try:
        with connect(admin) as connection:
            release = server_facts(connection).release
    except SourceError as error:
        raise NotVerifiable(error.code, f"The verification server: {error.message}", error.hint) from error
    return RestoreServer(toolchain, admin, release, False, f"verification server, PostgreSQL {release}")


def what_lacks(server: RestoreServer, manifest: Manifest) -> NotVerifiable | None:
    """What the server lacks for this dump, tried on the server itself; None when it has everything."""
    import psycopg2

    advice = "Install it for the programs used here, or name a server that has it in verification.server_url_env."
    if server.release.major < Release.parse(manifest.server.release).major:
        words = f"The {server.label} is older than the source, PostgreSQL {manifest.server.release}."
        return NotVerifiable("SERVER_TOO_OLD", words, "Name one of that major or newer in verification.server_url_env.")
    with connect(server.admin) as connection:
        missing = missing_extensions(connection, manifest.source.extensions)
        if missing:
            return NotVerifiable(
                "EXTENSION_MISSING", f"The {server.label} has no extension {', '.join(missing)}.", advice
            )
        probe = f"gs_backup_probe_{manifest.id.lower()}"
        try:
            create_restored(server, probe, manifest)
        except psycopg2.Error as error:
            words = f"The {server.label} cannot create the database: {error.diag.message_primary}."
            if isinstance(error, psycopg2.errors.InsufficientPrivilege):
                return NotVerifiable("PERMISSION_DENIED", words, "Its role must be allowed to create databases.")
            return NotVerifiable("COLLATION_MISSING", words, advice)
        drop_database(connection, probe)
    return None


def create_restored(server: RestoreServer, name: str, manifest: Manifest) -> Target:
    """Create an empty database with the source's encoding and locale."""
    with connect(server.admin) as connection:
        options = manifest.source.locale_options(server.release.major)
        create_database(connection, name, encoding=manifest.source.encoding, locale=options)
    return server.admin.with_database(name)


def existing_roles(server: RestoreServer) -> frozenset[str]:
    """Roles that the server has already."""
    with connect(server.admin) as connection:
        return frozenset(name for (name,) in query(connection, "SELECT rolname FROM pg_roles"))
