"""Encoding, locale and extensions of a database, read from one and made in another."""

from __future__ import annotations

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.database import (
    Extension,
    database_facts,
    missing_extensions,
)
from gs_backup_assets_tests.chain import execute


def test_locale_and_encoding_make_an_equal_database(any_server: Cluster) -> None:
    admin, major = any_server.target(), any_server.toolchain.release.major
    variants: list[tuple[str, str]] = [
        ("UTF8", "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"),
        ("SQL_ASCII", "LOCALE 'C'"),
        ("LATIN1", "LOCALE 'C'"),
    ]
    if major >= 17:
        variants.append(("UTF8", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"))
    for encoding, options in variants:
        execute(admin, f"CREATE DATABASE localised TEMPLATE template0 ENCODING '{encoding}' {options}")
        try:
            with connect(any_server.target("localised")) as connection:
                facts = database_facts(connection)
            made = [f"{name} '{value}'" for name, value in facts.locale_options(major).items()]
            execute(admin, f"CREATE DATABASE copied TEMPLATE template0 ENCODING '{facts.encoding}' {' '.join(made)}")
            with connect(any_server.target("copied")) as connection:
                again = database_facts(connection)
            same = {"name": "", "total_bytes": 0}
            assert again.model_copy(update=same) == facts.model_copy(update=same)
            assert again.encoding == encoding
        finally:
            execute(admin, "DROP DATABASE IF EXISTS localised", "DROP DATABASE IF EXISTS copied")


def test_extensions_that_a_server_lacks(server17: Cluster) -> None:
    with connect(server17.target()) as connection:
        wanted = (Extension(name="hstore", version="1.8"), Extension(name="no_such", version="1"))
        assert missing_extensions(connection, wanted) == ("no_such",)
        assert query(connection, "SELECT 1") == [(1,)]
