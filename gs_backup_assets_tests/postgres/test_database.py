"""Encoding, locale and `ALTER DATABASE ... SET` of a database, read from one and made in another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.database import (
    Extension,
    apply_settings,
    database_facts,
    list_elements,
    missing_extensions,
    read_settings,
    reset_settings,
)
from gs_backup_assets_tests.chain import execute
from gs_backup_assets_tests.conftest import fresh_database

_SETTINGS = (
    """SET search_path TO "$user", 'Mixed Case', 'we%ird', 'a,b', 'q"uote', public""",
    "SET temp_tablespaces TO ''",
    "SET work_mem TO '9MB'",
    """SET "my.setting" TO '50%%, it''s {} \\ "x"'""",
    "SET DateStyle TO 'German, DMY'",
    "SET default_transaction_read_only TO on",
)


def test_settings_come_back_as_they_were(any_server: Cluster) -> None:
    with fresh_database(any_server) as source, fresh_database(any_server) as copy:
        execute(any_server.target(), *(f"ALTER DATABASE {source.database} {setting}" for setting in _SETTINGS))
        with connect(source) as connection:
            settings = read_settings(connection)
        assert len(settings) == len(_SETTINGS)
        with connect(any_server.target()) as connection:
            assert apply_settings(connection, copy.database, settings) == ()
            assert read_settings(connection, copy.database) == settings
            reset_settings(connection, copy.database, ())
            assert read_settings(connection, copy.database) == ()


def test_settings_of_single_roles(server17: Cluster, empty_database: Target) -> None:
    admin = server17.target()
    role, quoted = 'set % "up"', '"set % ""up"""'
    execute(admin, f"CREATE ROLE {quoted}")
    try:
        execute(admin, f"ALTER ROLE {quoted} IN DATABASE {empty_database.database} SET search_path TO ''")
        with connect(admin) as connection:
            settings = read_settings(connection, empty_database.database)
            assert [(s.role, s.name) for s in settings] == [(role, "search_path")]
            with fresh_database(server17) as copy:
                assert apply_settings(connection, copy.database, settings) == ()
                assert read_settings(connection, copy.database) == settings
                reset_settings(connection, copy.database, {role})
                assert read_settings(connection, copy.database) == ()
    finally:
        execute(
            admin,
            f"ALTER ROLE {quoted} IN DATABASE {empty_database.database} RESET ALL",
            f"DROP ROLE {quoted}",
        )


def test_a_refused_setting_is_named_and_the_others_are_made(server17: Cluster, empty_database: Target) -> None:
    with connect(server17.target()) as connection:
        execute(server17.target(), f"ALTER DATABASE {empty_database.database} SET work_mem TO '9MB'")
        (good,) = read_settings(connection, empty_database.database)
        bad = good.model_copy(update={"name": "no_such_setting"})
        with fresh_database(server17) as copy:
            (refusal,) = apply_settings(connection, copy.database, (bad, good))
            assert "no_such_setting" in refusal
            assert read_settings(connection, copy.database) == (good,)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6))
def test_lists_are_split_as_they_were_quoted(elements: list[str]) -> None:
    stored = ", ".join('"' + element.replace('"', '""') + '"' for element in elements)
    assert list_elements(stored) == tuple(elements)


@pytest.mark.parametrize(
    ("stored", "elements"),
    [("", ("",)), ('""', ("",)), ('"$user", public', ("$user", "public")), ('"a,""b",c', ('a,"b', "c"))],
)
def test_lists_as_the_server_stores_them(stored: str, elements: tuple[str, ...]) -> None:
    assert list_elements(stored) == elements


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
