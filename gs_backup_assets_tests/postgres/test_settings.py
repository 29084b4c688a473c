"""`ALTER DATABASE ... SET` of a database, read from one and stored for another, by us and by psql."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.settings import (
    Assignment,
    Setting,
    apply_settings,
    list_elements,
    parse_script,
    read_settings,
    reset_settings,
    settings_script,
)
from gs_backup_assets.system.programs import run
from gs_backup_assets_tests.chain import execute
from gs_backup_assets_tests.conftest import fresh_database

_SETTINGS = (
    """SET search_path TO "$user", 'Mixed Case', 'we%ird', 'a,b', 'q"uote', public""",
    "SET temp_tablespaces TO ''",
    "SET work_mem TO '9MB'",
    """SET "my.setting" TO '50%%, it''s {} \\ "x"'""",
    "SET DateStyle TO 'German, DMY'",
    "SET default_transaction_read_only TO on",
    """SET "my.lines" TO E'one\\n\\\\two; :x :''y'' :"database" -- "three"'""",
)


def assignments(settings: tuple[Setting, ...]) -> list[Assignment]:
    return [setting.assignment for setting in settings]


def test_settings_come_back_as_they_were(any_server: Cluster) -> None:
    with fresh_database(any_server) as source, fresh_database(any_server) as copy:
        execute(any_server.target(), *(f"ALTER DATABASE {source.database} {setting}" for setting in _SETTINGS))
        with connect(source) as connection:
            settings = read_settings(connection)
        assert len(settings) == len(_SETTINGS)
        with connect(any_server.target()) as connection:
            assert apply_settings(connection, copy.database, assignments(settings)) == ()
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
                assert apply_settings(connection, copy.database, assignments(settings)) == ()
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
            (refusal,) = apply_settings(connection, copy.database, assignments((bad, good)))
            assert "no_such_setting" in refusal and "no such parameter" in refusal
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


def test_psql_stores_them_by_the_script(any_server: Cluster, tmp_path: Path) -> None:
    """For a database of another name, whatever is in that name or in the values."""
    name = 'other "na\'me" of :it'
    role = 'set % "up"'
    admin = any_server.target()
    with fresh_database(any_server) as source:
        database, copy, quoted = source.database, f'"{name.replace(chr(34), chr(34) * 2)}"', '"set % ""up"""'
        execute(admin, f"CREATE ROLE {quoted}", f"CREATE DATABASE {copy}")
        try:
            execute(admin, *(f"ALTER DATABASE {database} {setting}" for setting in _SETTINGS))
            execute(admin, f"ALTER ROLE {quoted} IN DATABASE {database} SET search_path TO 'x y', public")
            with connect(admin) as connection:
                settings = read_settings(connection, database)
            script = tmp_path / "settings.sql"
            script.write_text(settings_script(assignments(settings)), encoding="utf-8")
            psql: list[str | Path] = [any_server.toolchain.program("psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
            environment = admin.write_service_file(tmp_path)
            done = run([*psql, "--quiet", f"--set=database={name}", f"--file={script}"], environment=environment)
            assert (done.status, done.stderr) == (0, ())
            with connect(admin) as connection:
                assert read_settings(connection, name) == settings
            assert {setting.role for setting in settings} == {"", role}
        finally:
            execute(admin, f"DROP DATABASE {copy}", f"ALTER ROLE {quoted} IN DATABASE {database} RESET ALL")
            execute(admin, f"DROP ROLE {quoted}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("work_mem", "hunter2"),
        ("DateStyle", "hunter2"),
        ("no_such_setting", "hunter2"),
        ("enable_sort", "hunter2"),
        ("session_replication_role", "hunter2"),
    ],
)
def test_a_refusal_does_not_tell_the_value(empty_database: Target, name: str, value: str) -> None:
    with connect(empty_database) as connection:
        (refusal,) = apply_settings(connection, empty_database.database, [Assignment("", name, (value,))])
    assert name in refusal and value not in refusal


def test_nothing_shows_a_value_by_accident() -> None:
    assert "hunter2" not in repr(Assignment("", "app.secret", ("hunter2",)))
    assert "hunter2" not in repr(Setting(role="", name="app.secret", value="hunter2"))
    with pytest.raises(ValueError, match="not a script") as caught:
        parse_script(settings_script([Assignment("", "app.secret", ("hunter2",))]) + "x")
    assert "hunter2" not in str(caught.value)


_words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
_values = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=3)


@given(st.lists(st.builds(Assignment, st.just("") | _words, _words, _values.map(tuple)), max_size=4))
@example([Assignment("", "a", ("E'", "\\", "'\\''", "\\\\", "', '", "';\n"))])
def test_a_script_is_read_as_it_was_written(settings: list[Assignment]) -> None:
    assert parse_script(settings_script(settings)) == tuple(settings)


@pytest.mark.parametrize(
    "change",
    [
        ("SET client_encoding", "\\! true\nSET client_encoding"),
        ("ALTER DATABASE", "DROP DATABASE x; ALTER DATABASE"),
        (':"database"', "postgres"),
        ("'9MB'", "'9MB'; DROP ROLE x"),
        ("'9MB'", "'9MB\\'"),
        ("'9MB'", "current_user"),
        ("'9MB';\n", "'9MB';"),
        ("'9MB';\n", "'9MB';\n\n"),
    ],
)
def test_any_other_script_is_refused(change: tuple[str, str]) -> None:
    script = settings_script([Assignment("", "work_mem", ("9MB",))])
    assert script.count(change[0]) == 1
    with pytest.raises(ValueError, match="not a script of settings"):
        parse_script(script.replace(*change))
