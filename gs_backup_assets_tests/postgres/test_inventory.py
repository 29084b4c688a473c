"""What a role can read of a database, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.inventory import Inventory, quote, take_inventory
from gs_backup_assets_tests.chain import execute


@pytest.fixture
def reader(server17: Cluster, empty_database: Target) -> Iterator[Target]:
    """A role without any right but to connect."""
    execute(server17.target(), "CREATE ROLE plain_reader LOGIN")
    yield Target({**empty_database.parameters, "user": "plain_reader"})
    execute(empty_database, "DROP OWNED BY plain_reader")
    execute(server17.target(), "DROP ROLE plain_reader")


def _inventory(target: Target) -> Inventory:
    with connect(target) as connection:
        return take_inventory(connection)


def _omitted(inventory: Inventory) -> set[tuple[str, str, bool]]:
    return {(o.kind, o.name, o.loses_data) for o in inventory.omissions}


def test_a_superuser_sees_everything(empty_database: Target) -> None:
    execute(
        empty_database,
        'CREATE SCHEMA "s.1"',
        'CREATE TABLE "s.1"."t""x" (id serial)',
        "CREATE TABLE top (id integer) PARTITION BY LIST (id)",
        "CREATE TABLE part PARTITION OF top FOR VALUES IN (1)",
        "ALTER TABLE part ENABLE ROW LEVEL SECURITY",
        "CREATE TEMP TABLE gone (id serial)",
        "CREATE UNLOGGED TABLE scratch (id integer)",
        "CREATE MATERIALIZED VIEW empty AS SELECT 1 AS one WITH NO DATA",
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE FOREIGN TABLE far (id integer) SERVER elsewhere",
        "SELECT lo_create(1)",
    )
    inventory = _inventory(empty_database)
    assert [t.qualified for t in inventory.tables] == ['"public"."part"', '"public"."scratch"', '"s.1"."t""x"']
    assert [s.qualified for s in inventory.sequences] == ['"s.1"."t""x_id_seq"']
    assert _omitted(inventory) == {
        ("foreign_table", '"public"."far"', False),
        ("unlogged_table", '"public"."scratch"', False),
        ("unpopulated_materialized_view", '"public"."empty"', False),
    }
    assert inventory.large_objects_readable


def test_what_a_role_may_not_read_is_listed(empty_database: Target, reader: Target) -> None:
    execute(
        empty_database,
        "CREATE SCHEMA hidden",
        "CREATE TABLE hidden.t (id integer)",
        "GRANT SELECT ON hidden.t TO plain_reader",  # without USAGE on the schema it is of no use
        "CREATE TABLE granted (id serial)",
        "GRANT SELECT ON granted TO plain_reader",
        "CREATE TABLE column_only (id integer, t text)",
        "GRANT SELECT (id) ON column_only TO plain_reader",
        "CREATE TABLE secured (id integer)",
        "ALTER TABLE secured ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON secured USING (id > 1)",
        "GRANT SELECT ON secured TO plain_reader",
        "CREATE TABLE top (id integer) PARTITION BY LIST (id)",
        "ALTER TABLE top ENABLE ROW LEVEL SECURITY",  # it has no rows of its own to hide
        "GRANT SELECT ON top TO plain_reader",
        "SELECT lo_create(1)",
        "SELECT lo_create(2)",
        "GRANT SELECT ON LARGE OBJECT 2 TO plain_reader",
    )
    inventory = _inventory(reader)
    assert [t.name for t in inventory.tables] == ["granted"]
    assert _omitted(inventory) == {
        ("unreadable_table", '"hidden"."t"', True),
        ("unreadable_sequence", '"public"."granted_id_seq"', True),
        ("unreadable_table", '"public"."column_only"', True),
        ("row_security", '"public"."secured"', True),
        ("unreadable_large_objects", "large objects", True),
    }
    assert not inventory.large_objects_readable


def test_an_owner_reads_past_row_security_unless_it_is_forced(empty_database: Target, reader: Target) -> None:
    execute(
        empty_database,
        "CREATE TABLE mine (id integer)",
        "ALTER TABLE mine ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE mine OWNER TO plain_reader",
    )
    assert _inventory(reader).omissions == ()
    execute(empty_database, "ALTER TABLE mine FORCE ROW LEVEL SECURITY")
    assert _omitted(_inventory(reader)) == {("row_security", '"public"."mine"', True)}
    execute(empty_database, "ALTER ROLE plain_reader BYPASSRLS")
    assert _inventory(reader).omissions == ()


def test_subscriptions_are_dumped_for_superusers_only(empty_database: Target, reader: Target) -> None:
    execute(
        empty_database,
        "CREATE SUBSCRIPTION sub CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)",
    )
    assert _inventory(empty_database).omissions == ()
    assert _omitted(_inventory(reader)) == {("subscription", '"sub"', False)}
    execute(empty_database, "DROP SUBSCRIPTION sub")


def test_quote() -> None:
    assert quote('a"b') == '"a""b"'
