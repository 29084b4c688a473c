"""How to reach a database: a connection target that keeps its password out of argv, logs and exceptions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gs_backup_assets.errors import ConfigError, SourceError
from gs_backup_assets.postgres.release import Release

if TYPE_CHECKING:
    import psycopg2.extensions

Connection: TypeAlias = "psycopg2.extensions.connection"

# Parameters that Prisma reads from the URL and libpq refuses (Prisma's manual, "PostgreSQL: connection URL").
_PRISMA_ONLY = frozenset(
    {
        "schema",
        "connection_limit",
        "pool_timeout",
        "pgbouncer",
        "statement_cache_size",
        "socket_timeout",
        "sslidentity",
        "sslpassword",
        "sslaccept",
        "single_use_connections",
    }
)

# Text forms that depend on session settings are fixed, so that the same row has the same text on every server.
TEXT_SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "quote_all_identifiers": "off",
    "search_path": "pg_catalog",
}


@dataclass(frozen=True, repr=False)
class Target:
    """A database to connect to. `parameters` are libpq's, without the password; `repr` shows neither."""

    parameters: Mapping[str, str]
    password: str | None = None
    pooled: bool = False

    def __repr__(self) -> str:
        return f"Target({self.redacted()!r})"

    @property
    def database(self) -> str:
        return self.parameters.get("dbname", "")

    @property
    def host(self) -> str:
        return self.parameters.get("host", "")

    def with_database(self, name: str) -> Target:
        """The same server, another database."""
        return replace(self, parameters={**self.parameters, "dbname": name})

    def redacted(self) -> str:
        """`user@host:port/database`, for people and logs; never a password."""
        p = self.parameters
        return f"{p.get('user', '?')}@{p.get('host', 'local socket')}:{p.get('port', '5432')}/{p.get('dbname', '?')}"

    def write_service_file(self, folder: Path) -> dict[str, str]:
        """Write a 0600 service file into `folder` and return the environment that makes PostgreSQL's programs use it.

        A service file (PostgreSQL manual, "The Connection Service File") carries every parameter, so that nothing of
        it shows in argv or in the environment of a child. The password is in a password file of its own: a service
        file cuts blanks off the end of a line, and has a limit to its length.
        """
        path, secret = folder / "pg_service.conf", folder / "pgpass"
        parameters = dict(self.parameters)
        if self.password is not None:
            parameters["passfile"] = str(secret)
            escaped = self.password.replace("\\", "\\\\").replace(":", "\\:")
            _write_private(secret, f"*:*:*:*:{escaped}\n")
        lines = ["[gs_backup]", *(f"{key}={value}" for key, value in sorted(parameters.items()))]
        _write_private(path, "\n".join(lines) + "\n")
        return {"PGSERVICEFILE": str(path), "PGSERVICE": "gs_backup"}


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def target_from_url(url: str, *, name: str = "the database URL") -> Target:
    """Parse a PostgreSQL URL or a libpq key=value string. Prisma's own parameters are taken out.

    Raises ConfigError (`URL_INVALID`) without repeating any part of the URL, since it holds a password.
    """
    import psycopg2.extensions

    pooled = False
    if "://" in url:
        # SQLAlchemy's `postgresql+driver://` is understood; what is left of another scheme is refused by the parser.
        url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url, count=1)
    try:
        if "://" in url:
            base, mark, query = url.partition("?")
            # As they stand: libpq takes a `+` for a plus sign, a parser of forms would make it a blank.
            pairs = query.split("&")
            pooled = "pgbouncer=true" in pairs
            url = base + mark + "&".join(pair for pair in pairs if pair.partition("=")[0] not in _PRISMA_ONLY)
        parameters = dict(psycopg2.extensions.parse_dsn(url))
    except Exception:
        raise ConfigError(
            "URL_INVALID",
            f"{name} is not a PostgreSQL URL.",
            "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE and percent-encode special characters.",
        ) from None
    password = parameters.pop("password", None)
    if any("\n" in value for value in (*parameters.values(), password or "")):
        raise ConfigError("URL_INVALID", f"{name} holds a line break.", "Take it out.")
    parameters.setdefault("dbname", parameters.get("user", "postgres"))
    return Target(parameters, password, pooled)


def target_from_environment(variable: str) -> Target:
    """The target named by an environment variable; ConfigError (`URL_MISSING`) when it is not set."""
    url = os.environ.get(variable)
    if not url:
        raise ConfigError(
            "URL_MISSING",
            f"The environment variable {variable} is not set.",
            f"Set {variable}=postgresql://USER:PASSWORD@HOST:PORT/DATABASE.",
        )
    return target_from_url(url, name=variable)


@contextmanager
def connect(
    target: Target,
    *,
    application: str = "gs_backup",
    settings: Mapping[str, str] | None = None,
    autocommit: bool = True,
) -> Iterator[Connection]:
    """Open a connection with the text settings fixed and no timeouts, and close it at the end.

    Raises SourceError (`SERVER_UNREACHABLE`) with the server's own words and no secret.
    """
    import psycopg2

    keywords: dict[str, Any] = {
        "connect_timeout": "10",
        "client_encoding": "UTF8",
        **target.parameters,
        "application_name": application,
    }
    try:
        connection = psycopg2.connect(**keywords, password=target.password)
    except psycopg2.OperationalError as error:
        raise SourceError(
            "SERVER_UNREACHABLE",
            f"No connection to {target.redacted()}: {' '.join(str(error).split())}",
            "Check the address, the network, TLS and the password; `gs-backup doctor` looks at each of them.",
        ) from None
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_catalog.set_config(name, v, false) FROM pg_catalog.pg_settings"
                " JOIN unnest(%s::text[], %s::text[]) AS s(n, v)"
                " ON pg_catalog.lower(name) = pg_catalog.lower(n)",
                _setting_lists({**TEXT_SETTINGS, **_NO_TIMEOUTS, **(settings or {})}),
            )
        connection.autocommit = autocommit
        yield connection
    finally:
        connection.close()


# A backup may take hours; a limit that a role or database carries for its application must not end it half-way.
_NO_TIMEOUTS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
}


def _setting_lists(settings: Mapping[str, str]) -> tuple[list[str], list[str]]:
    return list(settings), list(settings.values())


def query(connection: Connection, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Run one statement and return all its rows; SourceError (`NAME_UNREADABLE`) when a text in them is no UTF-8.

    A name may be so in a database in SQL_ASCII, and a role's that was made in a database of another encoding.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        try:
            return list(cursor.fetchall()) if cursor.description else []
        except UnicodeDecodeError:  # which shows the text, and that may be out of a row
            raise SourceError(
                "NAME_UNREADABLE",
                f"A name that {connection.info.dbname} knows is not in UTF-8.",
                "Look for roles and objects with other letters than ASCII's, and rename what was made in a database of"
                " another encoding from there.",
            ) from None


@dataclass(frozen=True)
class ServerFacts:
    """What a server says about itself."""

    release: Release
    system_identifier: str | None
    in_recovery: bool
    database_bytes: int
    lsn: str | None


def server_facts(connection: Connection) -> ServerFacts:
    """Version, system identifier (None where the role may not read it), recovery state, size and LSN."""
    import psycopg2

    (version,) = query(connection, "SELECT current_setting('server_version')")[0]
    try:
        identifier: str | None = str(query(connection, "SELECT system_identifier FROM pg_control_system()")[0][0])
    except psycopg2.errors.InsufficientPrivilege:
        identifier = None
    recovering, size = query(connection, "SELECT pg_is_in_recovery(), pg_database_size(current_database())")[0]
    position = "pg_last_wal_replay_lsn()" if recovering else "pg_current_wal_lsn()"
    (lsn,) = query(connection, f"SELECT {position}::text")[0]
    return ServerFacts(Release.parse(version), identifier, recovering, int(size), lsn)
