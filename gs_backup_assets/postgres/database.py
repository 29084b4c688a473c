"""Facts of a database that a dump does not restore by itself: encoding, locale, settings, extensions, properties."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.properties import DatabaseProperties, read_properties

# Settings whose stored value is a list with quotes where an element needs them (PostgreSQL's GUC_LIST_QUOTE).
_LIST_SETTINGS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


_LIST_ELEMENT = re.compile(r'"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^,\s]+)')


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Extension(_Record):
    """An extension of the source, with its version there."""

    name: str
    version: str


class Setting(_Record):
    """One `ALTER DATABASE ... SET` of the source; `role` is empty where it holds for every role."""

    role: str
    name: str
    value: str

    @property
    def label(self) -> str:
        return f"{self.name} (role {self.role})" if self.role else self.name


class DatabaseFacts(_Record):
    """What must be known to create a database like the source. `provider` is as in pg_database.datlocprovider."""

    name: str
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    icu_rules: str | None = None
    collation_version: str | None
    total_bytes: int
    bootstrap_role: str
    extensions: tuple[Extension, ...]
    settings: tuple[Setting, ...]
    properties: DatabaseProperties | None = None

    def locale_options(self, major: int) -> dict[str, str]:
        """Options of CREATE DATABASE on a server of the given major version."""
        options = {"LC_COLLATE": self.collate, "LC_CTYPE": self.ctype}
        if major >= 15:
            options["LOCALE_PROVIDER"] = {"c": "libc", "i": "icu", "b": "builtin"}[self.provider]
        if self.provider == "i" and self.locale:
            options["ICU_LOCALE"] = self.locale
            if self.icu_rules:
                options["ICU_RULES"] = self.icu_rules
        if self.provider == "b" and self.locale:
            options["BUILTIN_LOCALE"] = self.locale
        return options


def database_facts(connection: Connection) -> DatabaseFacts:
    """Read the facts of the connected database."""
    (version,) = query(connection, "SELECT current_setting('server_version_num')::int / 10000")[0]
    provider = "datlocprovider::text, datcollversion" if version >= 15 else "'c', NULL"
    locale = "datlocale" if version >= 17 else "daticulocale" if version >= 15 else "NULL"
    rules = "daticurules" if version >= 16 else "NULL"
    name, encoding, collate, ctype, kind, collation_version, icu, icu_rules, size = query(
        connection,
        "SELECT datname, pg_encoding_to_char(encoding), datcollate, datctype,"
        f" {provider}, {locale}, {rules}, pg_database_size(oid)"
        " FROM pg_database WHERE datname = current_database()",
    )[0]
    (bootstrap,) = query(connection, "SELECT rolname FROM pg_roles WHERE oid = 10")[0]
    extensions = query(connection, "SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1")
    return DatabaseFacts(
        name=name,
        encoding=encoding,
        collate=collate,
        ctype=ctype,
        provider=kind,
        locale=icu,
        icu_rules=icu_rules,
        collation_version=collation_version,
        total_bytes=size,
        bootstrap_role=bootstrap,
        extensions=tuple(Extension(name=n, version=v) for n, v in extensions),
        settings=read_settings(connection),
        properties=read_properties(connection),
    )


def read_settings(connection: Connection, database: str | None = None) -> tuple[Setting, ...]:
    """The settings that are stored for `database` (the connected one), for all roles and for single ones."""
    rows = query(
        connection,
        "SELECT coalesce(r.rolname, ''), split_part(item, '=', 1), substr(item, strpos(item, '=') + 1)"
        " FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        " AND d.datname = coalesce(%s, current_database())"
        " LEFT JOIN pg_roles r ON r.oid = s.setrole CROSS JOIN unnest(s.setconfig) AS item"
        " WHERE s.setrole = 0 OR r.rolname IS NOT NULL ORDER BY 1, 2",
        (database,),
    )
    return tuple(Setting(role=role, name=name, value=value) for role, name, value in rows)


def apply_settings(connection: Connection, database: str, settings: Sequence[Setting]) -> tuple[str, ...]:
    """Store the settings for `database`; returns what the server refused, as text."""
    import psycopg2
    from psycopg2 import sql

    refused = []
    for setting in settings:
        whom: sql.Composable = sql.SQL("DATABASE")
        if setting.role:
            whom = sql.SQL("ROLE {} IN DATABASE").format(sql.Identifier(setting.role))
        values = list_elements(setting.value) if setting.name.lower() in _LIST_SETTINGS else (setting.value,)
        value = sql.SQL(", ").join(map(sql.Literal, values))
        try:
            with connection.cursor() as cursor:
                parts = (whom, sql.Identifier(database), sql.Identifier(setting.name), value)
                cursor.execute(sql.SQL("ALTER {} {} SET {} TO {}").format(*parts))
        except psycopg2.Error as error:
            refused.append(f"{setting.label}: {str(error).splitlines()[0]}")
    return tuple(refused)


def list_elements(value: str) -> tuple[str, ...]:
    """The elements of a stored list setting, without their quotes; an empty list is one empty element, as in SET."""
    found = tuple(
        m["bare"] if m["quoted"] is None else m["quoted"].replace('""', '"') for m in _LIST_ELEMENT.finditer(value)
    )
    return found or ("",)


def reset_settings(connection: Connection, database: str, roles: Collection[str]) -> None:
    """Take back all that is stored for `database`, for every role and for the given ones."""
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(database)))
        for role in roles:
            whom = sql.Identifier(role), sql.Identifier(database)
            cursor.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(*whom))


def missing_extensions(connection: Connection, extensions: Sequence[Extension]) -> tuple[str, ...]:
    """Extensions that the connected server cannot install."""
    available = {name for (name,) in query(connection, "SELECT name FROM pg_available_extensions")}
    return tuple(extension.name for extension in extensions if extension.name not in available)
