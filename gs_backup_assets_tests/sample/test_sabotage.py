"""Every sabotage breaks its own rule, and no other."""

from __future__ import annotations

import pytest

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.sample.sabotage import SABOTAGES, plant

from .content import broken_rules, hashes
from .rules_by_hand import RULES


def test_kinds_cover_every_rule() -> None:
    assert {sabotage.rule for sabotage in SABOTAGES.values()} == set(RULES)
    assert all(
        kind == sabotage.kind and kind == kind.lower() and " " not in kind for kind, sabotage in SABOTAGES.items()
    )
    assert len({sabotage.title for sabotage in SABOTAGES.values()}) == len(SABOTAGES)


def test_each_kind_breaks_its_rule_and_no_other(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=0.1)
    copy = f"{empty_database.database}_sabotaged"
    caught: dict[str, set[str]] = {}
    with connect(empty_database.with_database("postgres")) as server, server.cursor() as cursor:
        for kind in SABOTAGES:
            cursor.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{empty_database.database}"')
            try:
                with connect(empty_database.with_database(copy)) as connection:
                    assert plant(connection, kind) is SABOTAGES[kind]
                    caught[kind] = broken_rules(connection)
            finally:
                cursor.execute(f'DROP DATABASE "{copy}"')
    assert caught == {kind: {sabotage.rule, *sabotage.also} for kind, sabotage in SABOTAGES.items()}


def test_changes_one_table_and_keeps_the_session_as_it_was(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=0.1)
        before = hashes(connection)
        plant(connection, "orphaned-lesson")
        after = hashes(connection)
        assert {name for name in before if before[name] != after[name]} == {"Lesson"}
        assert before["Lesson"][0] == after["Lesson"][0]
        assert query(connection, "SHOW session_replication_role") == [("origin",)]


def test_unknown_kind_lists_the_kinds(empty_database: Target) -> None:
    with connect(empty_database) as connection, pytest.raises(ConfigError) as caught:
        plant(connection, "gremlins")
    assert caught.value.code == "UNKNOWN_SABOTAGE"
    assert all(kind in caught.value.hint for kind in SABOTAGES)


def test_says_so_when_there_is_no_row_to_spoil(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=0.1)
        with connection.cursor() as cursor:
            cursor.execute('TRUNCATE public."LibraryItem" CASCADE')
        with pytest.raises(ConfigError) as caught:
            plant(connection, "negative-file-size")
    assert caught.value.code == "SABOTAGE_NOT_PLANTED"
