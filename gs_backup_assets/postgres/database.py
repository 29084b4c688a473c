"""Facts of a database that a dump does not restore by itself: encoding, locale, settings, extensions, properties."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.properties import DatabaseProperties, read_properties
from gs_backup_assets.postgres.settings import RecordedSetting, read_settings


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Extension(_Record):
    """An extension of the source, with its version there."""

    name: str
    version: str


class DatabaseFacts(_Record):
    """What must be known to create a database like the source. `provider` is as in pg_database.datlocprovider.

    Of settings there are digests; backups from before `settings.sql` have the values.
    """

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
    settings: tuple[RecordedSetting, ...]
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
        settings=tuple(setting.print for setting in read_settings(connection)),
        properties=read_properties(connection),
    )


def missing_extensions(connection: Connection, extensions: Sequence[Extension]) -> tuple[str, ...]:
    """Extensions that the connected server cannot install."""
    available = {name for (name,) in query(connection, "SELECT name FROM pg_available_extensions")}
    return tuple(extension.name for extension in extensions if extension.name not in available)
