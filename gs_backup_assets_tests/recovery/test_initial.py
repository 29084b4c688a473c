"""Tests of the first configuration: what `init` reads from real servers and writes."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.config import load_config
from gs_backup_assets.config_backups import Retention
from gs_backup_assets.config_stores import LocalStoreConfig
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.recovery.initial import (
    FirstSettings,
    ask_server,
    classes_for,
    identifier,
    known_zone,
    packaged_classes,
    render,
    write_first_config,
)
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets_tests.conftest import fresh_database

_VARIABLE = "TEST_INIT_URL"


def name_in_environment(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = " ".join(f"{key}='{value}'" for key, value in target.parameters.items())
    monkeypatch.setenv(_VARIABLE, f"{parameters} password='hunter2'")


def settings_called(name: str) -> FirstSettings:
    return FirstSettings(name, "DATABASE_URL", "UTC", "2026-11-23", "zstd:1", "none", {}, ())


def test_any_server_gives_a_file_that_loads(
    any_server: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database(any_server) as target:
        with connect(target) as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE \"{target.database}\" SET timezone = 'America/Chicago'")
        name_in_environment(target, monkeypatch)
        settings = ask_server(_VARIABLE)
    write_first_config(tmp_path / "backup.yaml", settings)
    config = load_config(tmp_path / "backup.yaml")
    database = config.database()
    assert (database.name, database.url_env) == (target.database, _VARIABLE)
    assert database.timezone == "America/Chicago"
    today = datetime.now(timezone.utc).astimezone(ZoneInfo("America/Chicago")).date()
    assert config.first_partition == today.isoformat()
    assert database.rules == "none"
    assert database.data_classes["important"].rto == timedelta(hours=4)
    major = any_server.toolchain.release.major
    assert database.logical.compression == ("zstd:1" if major >= 16 else "gzip:1")
    assert (database.stores.primary, database.folder) == (LocalStoreConfig(), tmp_path)
    assert database.retention == Retention(daily=30, weekly=8, monthly=12, keep_proven=2)
    text = (tmp_path / "backup.yaml").read_text()
    assert "hunter2" not in text and "password" not in text.lower() and target.host not in text
    assert settings.notes == ()


def test_the_application_is_known_by_its_tables(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=0.02)
        tables = [n for (n,) in query(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        references = query(
            connection,
            "SELECT f.relname, t.relname FROM pg_constraint c JOIN pg_class f ON f.oid = c.conrelid"
            " JOIN pg_class t ON t.oid = c.confrelid WHERE c.contype = 'f'",
        )
    name_in_environment(empty_database, monkeypatch)
    settings = ask_server(_VARIABLE, "guitar_strategies")
    write_first_config(tmp_path / "backup.yaml", settings)
    database = load_config(tmp_path / "backup.yaml").database("guitar_strategies")
    assert database.rules == "guitar_strategies"
    assert settings.notes == ()
    objectives = {name: (c.rpo, c.rto) for name, c in database.data_classes.items()}
    hour = timedelta(hours=1)
    assert objectives == {
        "critical": (hour / 4, hour),
        "important": (hour, 4 * hour),
        "non_critical": (24 * hour, 4 * hour),
    }
    classes = database.class_tables()
    named = Counter(table for names in classes.values() for alternatives in names for table in alternatives)
    assert max(named.values()) == 1, "no table is in two classes"
    assert {table for table in tables if table not in named} == set(), "every table of the application is in one"
    critical = {table for alternatives in classes["critical"] for table in alternatives}
    outside = [(one, other) for one, other in references if one in critical and other not in critical]
    assert outside == [], "what is critical can be restored first: it refers to nothing else"


def test_the_strategy_documents_names_count_as_well() -> None:
    notes: list[str] = []
    found = classes_for({"users", "lessons", "invoices", "StudentProfile", "TeacherProfile", "other"}, notes)
    assert [names[-1] for names in found["critical"].tables] == [
        "User",
        "StudentProfile",
        "TeacherProfile",
        "Lesson",
        "Invoice",
    ]
    assert "Session" in notes[0] and "StudentProfile" not in notes[0]
    assert classes_for({"users", "lessons", "invoices", "StudentProfile", "LibraryItem"}, []) == {}


def test_packaged_classes_hold_the_strategy_documents_objectives() -> None:
    classes = packaged_classes()
    assert {name: (c.rpo, c.rto, len(c.tables)) for name, c in classes.items()} == {
        "critical": ("15m", "1h", 18),
        "important": ("1h", "4h", 12),
        "non_critical": ("24h", "4h", 1),
    }


def test_a_time_zone_that_is_none_of_the_tz_databases_becomes_utc(
    empty_database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(empty_database) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE \"{empty_database.database}\" SET timezone = '<+0330>-03:30'")
    name_in_environment(empty_database, monkeypatch)
    settings = ask_server(_VARIABLE)
    assert settings.timezone == "UTC"
    assert "+0330" in settings.notes[0]
    assert known_zone("Asia/Kathmandu") == "Asia/Kathmandu"
    assert known_zone("localtime") == known_zone("Mars/Base") == "UTC"


@given(st.text(max_size=40))
def test_every_database_name_becomes_a_key_that_loads(name: str) -> None:
    key = identifier(name)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key)
    assert identifier(key) == key


@pytest.mark.parametrize("name", ["on", "null", "True", "no", "y", "shop", "_"])
def test_keys_that_yaml_would_misread_are_quoted(name: str, tmp_path: Path) -> None:
    write_first_config(tmp_path / "backup.yaml", settings_called(name))
    assert load_config(tmp_path / "backup.yaml").names() == (name,)


def test_an_existing_file_is_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError) as caught:
        write_first_config(path, settings_called("shop"))
    assert caught.value.code == "CONFIG_EXISTS"
    assert path.read_text() == "mine"
    write_first_config(path, settings_called("shop"), force=True)
    assert load_config(path).names() == ("shop",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["backup.yaml"], "nothing is left aside"


def test_a_folder_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_first_config(tmp_path / "missing" / "backup.yaml", settings_called("shop"))
    assert caught.value.code == "CONFIG_UNWRITABLE"


def test_every_key_of_the_file_is_explained() -> None:
    lines = render(settings_called("shop")).splitlines()
    for number, line in enumerate(lines):
        if re.match(r"^[a-z_]+:", line):
            assert lines[number - 1].startswith("#"), line


@pytest.mark.parametrize(
    ("variable", "name", "code"),
    [
        ("postgresql://user:hunter2@host/db", None, "URL_ENV_INVALID"),
        ("NOT_SET_ANYWHERE", None, "URL_MISSING"),
        ("NOT_SET_ANYWHERE", "my-shop", "NAME_INVALID"),
    ],
)
def test_wrong_usage_is_told_apart(variable: str, name: str | None, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask_server(variable, name)
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value)
