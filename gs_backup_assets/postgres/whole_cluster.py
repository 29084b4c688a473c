"""What a cluster says of itself before and after a base backup, and what it takes to start it again elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePath

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.release import Release

# Settings of one session, or that initdb fixed: a new server has values of its own.
_NOT_KEPT = ("client", "session", "override", "default", "environment variable")


@dataclass(frozen=True)
class DatabaseCollation:
    """A database's collation: provider (`c` libc, `i` ICU, `b` builtin), its name, and the version in use."""

    database: str
    provider: str
    locale: str
    version: str | None


@dataclass(frozen=True)
class ClusterFacts:
    """A running cluster. Sizes in bytes; `tablespaces` are those beside the built-in ones: OID -> location."""

    release: Release
    in_recovery: bool
    now: datetime
    lsn: str | None
    size: int
    tablespaces: dict[int, str]
    wal_segment_bytes: int
    data_checksums: bool
    summarizes_wal: bool
    collations: tuple[DatabaseCollation, ...]


def read_cluster(connection: Connection) -> ClusterFacts:
    """Ask a server; any role may. The size counts what the role may see."""
    version, recovering, now, segment, checksums, summarizes = query(
        connection,
        "SELECT current_setting('server_version'), pg_is_in_recovery(), clock_timestamp(),"
        " pg_size_bytes(current_setting('wal_segment_size')), current_setting('data_checksums') = 'on',"
        " coalesce(current_setting('summarize_wal', true) = 'on', false)",
    )[0]
    position = "pg_last_wal_replay_lsn()" if recovering else "pg_current_wal_lsn()"
    (lsn,) = query(connection, f"SELECT {position}::text")[0]
    (size,) = query(
        connection,
        "SELECT sum(pg_database_size(oid)) FROM pg_database"
        " WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')",
    )[0]
    release = Release.parse(version)
    return ClusterFacts(
        release=release,
        in_recovery=recovering,
        now=now.astimezone(timezone.utc),
        lsn=lsn,
        size=int(size),
        tablespaces=read_tablespaces(connection),
        wal_segment_bytes=int(segment),
        data_checksums=checksums,
        summarizes_wal=summarizes,
        collations=_collations(connection, release),
    )


def read_clock(connection: Connection) -> datetime:
    """The server's clock, in UTC."""
    moment: datetime = query(connection, "SELECT clock_timestamp()")[0][0]
    return moment.astimezone(timezone.utc)


def read_tablespaces(connection: Connection) -> dict[int, str]:
    """OID -> location; one inside the data directory (`allow_in_place_tablespaces`) has a relative location."""
    found = query(
        connection,
        "SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace"
        " WHERE spcname NOT IN ('pg_default', 'pg_global')",
    )
    return {int(oid): location for oid, location in found}


def _collations(connection: Connection, release: Release) -> tuple[DatabaseCollation, ...]:
    # Since 15 the version that a database was made with is recorded, and its current one can be asked for.
    version = "pg_database_collation_actual_version(oid)" if release.major >= 15 else "NULL"
    provider = "datlocprovider::text" if release.major >= 15 else "'c'"
    locale = {15: "coalesce(daticulocale, datcollate)", 16: "coalesce(daticulocale, datcollate)"}.get(
        release.major, "coalesce(datlocale, datcollate)" if release.major >= 17 else "datcollate"
    )
    found = query(
        connection,
        f"SELECT datname, {provider}, {locale}, {version} FROM pg_database WHERE datallowconn ORDER BY datname",
    )
    return tuple(DatabaseCollation(*row) for row in found)


@dataclass(frozen=True)
class SettingsScript:
    """Settings and rules of access as text, and what could not be read of them."""

    text: str
    warnings: tuple[str, ...]


def settings_script(connection: Connection) -> SettingsScript:
    """The settings that differ from the defaults, as lines of a postgresql.conf, and pg_hba's rules as comments.

    They can hold secrets. Distributions keep these files outside of the data directory, where no base backup looks.
    """
    import psycopg2

    warnings = []
    lines = ["# Settings of the server that differ from the defaults, as they were in force."]
    found = query(
        connection,
        "SELECT name, current_setting(name) FROM pg_settings WHERE NOT (source = ANY(%s)) AND context <> 'internal'"
        " ORDER BY name",
        (list(_NOT_KEPT),),
    )
    lines += [f"{name} = {_quoted(value)}" for name, value in found]
    (all_settings,) = query(
        connection,
        "SELECT pg_has_role('pg_read_all_settings', 'USAGE') OR current_setting('is_superuser') = 'on'",
    )[0]
    if all_settings:
        outside = _files_outside(connection)
        if outside:
            warnings.append(
                f"{', '.join(outside)}: outside of the data directory, so not in the backup; what they set is in"
                " base/server_settings.conf."
            )
    else:
        warnings.append(
            "The role is no member of pg_read_all_settings: settings that only superusers see are not in"
            " base/server_settings.conf."
        )
    lines += ["", "# Rules of access (pg_hba.conf): type, databases, users, address, mask, method, options."]
    try:
        rules = query(
            connection,
            "SELECT type, array_to_string(database, ','), array_to_string(user_name, ','), address, netmask,"
            " auth_method, array_to_string(options, ' ') FROM pg_hba_file_rules WHERE error IS NULL"
            " ORDER BY line_number",
        )
        lines += ["# " + "  ".join(_one_line(part) for part in rule if part) for rule in rules]
    except psycopg2.errors.InsufficientPrivilege:
        warnings.append("The role may not read pg_hba_file_rules: the rules of access are not in the backup.")
    return SettingsScript("\n".join(lines) + "\n", tuple(warnings))


def _files_outside(connection: Connection) -> list[str]:
    rows = query(
        connection,
        "SELECT current_setting('data_directory'), current_setting('config_file'), current_setting('hba_file'),"
        " current_setting('ident_file')",
    )[0]
    return [file for file in rows[1:] if not PurePath(file).is_relative_to(rows[0])]


def _quoted(value: str) -> str:
    """A value as postgresql.conf has it (PostgreSQL manual, "Parameter Names and Values")."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def _one_line(text: str) -> str:
    return " ".join(str(text).split())
