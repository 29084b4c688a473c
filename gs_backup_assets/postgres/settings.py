"""`ALTER DATABASE ... SET`: read, written as a script that psql runs, read back from it, and stored on a server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.inventory import quote

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

# Not the server's words, which may quote the value: people keep secrets in settings, and many people read findings.
_REFUSALS = {
    "22": "the server does not accept its value",
    "42501": "the role may not set it",
    "42704": "the server knows no such parameter, or not the role",
}

_HEADER = """\
-- Settings of the database and of roles in it. They are stored for the database NAME by
--   psql --no-psqlrc --dbname=postgres --set=database=NAME --file=settings.sql
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
"""
_IDENTIFIER = r'"(?:[^"]|"")+"'
_LITERAL = r"'(?:[^'\\]|'')*'|E'(?:[^'\\]|''|\\\\)*'"
_STATEMENT = re.compile(
    rf'ALTER (?:DATABASE|ROLE (?P<role>{_IDENTIFIER}) IN DATABASE) :"database"'
    rf" SET (?P<name>{_IDENTIFIER}) TO (?P<values>(?:{_LITERAL})(?:, (?:{_LITERAL}))*);\n"
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    name: str

    @property
    def label(self) -> str:
        """The setting's name, without its value."""
        return label_of(self.role, self.name)


class SettingPrint(_Record):
    """What a manifest says of one `ALTER DATABASE ... SET`; `sha256` is of the value, which may be a secret.

    `role` is empty where it holds for every role.
    """

    sha256: str


class Setting(_Record):
    """One `ALTER DATABASE ... SET`, with its value as the server stores it."""

    value: str = Field(repr=False)

    @property
    def sha256(self) -> str:
        return value_digest(self.value)

    @property
    def print(self) -> SettingPrint:
        return SettingPrint(role=self.role, name=self.name, sha256=self.sha256)

    @property
    def assignment(self) -> Assignment:
        listed = self.name.lower() in _LIST_SETTINGS
        return Assignment(self.role, self.name, list_elements(self.value) if listed else (self.value,))


RecordedSetting: TypeAlias = SettingPrint | Setting


@dataclass(frozen=True)
class Assignment:
    """What SET is given to store a setting: several values for a list."""

    role: str
    name: str
    values: tuple[str, ...] = field(repr=False)

    @property
    def label(self) -> str:
        return label_of(self.role, self.name)


def label_of(role: str, name: str) -> str:
    return f"{name} (role {role})" if role else name


def value_digest(value: str) -> str:
    """SHA-256 of a setting's value."""
    return hashlib.sha256(value.encode()).hexdigest()


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


def settings_script(assignments: Sequence[Assignment]) -> str:
    """The script that stores the settings for the database that psql's variable `database` names."""
    lines = []
    for one in assignments:
        whom = f"ROLE {quote(one.role)} IN DATABASE" if one.role else "DATABASE"
        values = ", ".join(map(_literal, one.values))
        lines.append(f'ALTER {whom} :"database" SET {quote(one.name)} TO {values};\n')
    return _HEADER + "".join(lines)


def parse_script(text: str) -> tuple[Assignment, ...]:
    """The settings in a script of `settings_script`; ValueError when it is anything else, which is never run."""
    if not text.startswith(_HEADER):
        raise ValueError("not a script of settings")
    position, found = len(_HEADER), []
    while position < len(text):
        match = _STATEMENT.match(text, position)
        if match is None:
            raise ValueError("not a script of settings")
        values = tuple(map(_unquoted, re.findall(_LITERAL, match["values"])))
        found.append(Assignment(_name(match["role"] or '""'), _name(match["name"]), values))
        position = match.end()
    return tuple(found)


def _name(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"')


def _literal(value: str) -> str:
    quoted = "'" + value.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in value else quoted


def _unquoted(literal: str) -> str:
    if literal.startswith("E"):
        literal = literal[1:].replace("\\\\", "\\")
    return literal[1:-1].replace("''", "'")


def apply_settings(connection: Connection, database: str, assignments: Sequence[Assignment]) -> tuple[str, ...]:
    """Store the settings for `database`; returns what the server refused, as text without values."""
    import psycopg2
    from psycopg2 import sql

    refused = []
    for one in assignments:
        whom: sql.Composable = sql.SQL("DATABASE")
        if one.role:
            whom = sql.SQL("ROLE {} IN DATABASE").format(sql.Identifier(one.role))
        value = sql.SQL(", ").join(map(sql.Literal, one.values))
        try:
            with connection.cursor() as cursor:
                parts = (whom, sql.Identifier(database), sql.Identifier(one.name), value)
                cursor.execute(sql.SQL("ALTER {} {} SET {} TO {}").format(*parts))
        except psycopg2.Error as error:
            state = error.pgcode or "no SQLSTATE"
            words = _REFUSALS.get(state) or _REFUSALS.get(state[:2]) or "the server refused it"
            refused.append(f"{one.label}: {words} ({state})")
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
