"""The fingerprint: equal for equal contents, and different for every small difference."""

from __future__ import annotations

import threading
import time

import psycopg2
import pytest

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.fingerprint import Fingerprint, Level, sequences_again, take_fingerprint
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets_tests.chain import execute
from gs_backup_assets_tests.conftest import fresh_database


def _fingerprint(target: Target, level: Level = Level.FULL, jobs: int = 2) -> Fingerprint:
    with connect(target) as connection:
        inventory = take_inventory(connection)
    return take_fingerprint(target, inventory, level=level, jobs=jobs)


def _contents(target: Target) -> dict[str, tuple[int, str | None]]:
    return {t.name: (t.rows, t.content) for t in _fingerprint(target).tables}


def test_a_column_named_like_the_alias_does_not_take_its_place(empty_database: Target) -> None:
    execute(
        empty_database,
        "CREATE TYPE pair AS (a integer, b integer)",
        "CREATE TABLE first (r integer, t text)",
        "CREATE TABLE second (r integer, t text)",
        "CREATE TABLE third (r pair, t text)",
        "CREATE TABLE fourth (r pair, t text)",
        "INSERT INTO first VALUES (1, 'x')",
        "INSERT INTO second VALUES (1, 'y')",
        "INSERT INTO third VALUES ((1, 2), 'x')",
        "INSERT INTO fourth VALUES ((1, 2), 'y')",
    )
    contents = _contents(empty_database)
    assert contents["first"] != contents["second"]
    assert contents["third"] != contents["fourth"]


def test_no_columns_no_rows_and_rows_of_nothing(any_server: Cluster) -> None:
    with fresh_database(any_server) as target:
        execute(
            target,
            "CREATE TABLE no_columns ()",
            "INSERT INTO no_columns SELECT FROM generate_series(1, 3)",
            "CREATE TABLE no_rows (id integer)",
            "CREATE TABLE one_null (id integer)",
            "INSERT INTO one_null VALUES (NULL)",
        )
        contents = _contents(target)
        assert contents["no_columns"][0] == 3
        assert contents["no_rows"] == (0, "0")
        assert contents["one_null"][0] == 1
        assert contents["one_null"][1] != "0"


def test_the_order_of_rows_and_of_enum_oids_does_not_count(any_server: Cluster) -> None:
    values = [f"({i}, 'v{i}', 'b')" for i in range(200)]
    with fresh_database(any_server) as one, fresh_database(any_server) as other:
        table = "CREATE TABLE t (id integer, v text, m mood)"
        execute(one, "CREATE TYPE mood AS ENUM ('a', 'b')", table, f"INSERT INTO t VALUES {', '.join(values)}")
        shuffled = ", ".join(sorted(values, key=hash))
        execute(
            other,
            "CREATE TYPE filler AS ENUM ('x', 'y', 'z')",  # so that the labels have other OIDs
            "CREATE TYPE mood AS ENUM ('b')",
            "ALTER TYPE mood ADD VALUE 'a' BEFORE 'b'",
            table,
            f"INSERT INTO t VALUES {shuffled}",
            "UPDATE t SET v = v",
        )
        assert _contents(one) == _contents(other)


def test_an_identical_pair_of_rows_does_not_cancel_out(empty_database: Target) -> None:
    execute(
        empty_database,
        "CREATE TABLE a (v text)",
        "CREATE TABLE b (v text)",
        "INSERT INTO a VALUES ('x'), ('x'), ('z')",
        "INSERT INTO b VALUES ('y'), ('y'), ('z')",  # an exclusive-or of hashes would call these equal
    )
    contents = _contents(empty_database)
    assert contents["a"] != contents["b"]


def test_a_parent_does_not_count_its_children(empty_database: Target) -> None:
    execute(
        empty_database,
        "CREATE TABLE parent (id integer)",
        "CREATE TABLE child () INHERITS (parent)",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (2), (3)",
    )
    assert {name: rows for name, (rows, _) in _contents(empty_database).items()} == {"parent": 1, "child": 2}


def test_the_default_collation_and_session_settings_do_not_count(any_server: Cluster) -> None:
    statements = (
        "CREATE TABLE t (v text, d timestamptz, f float8, b bytea, i interval, m money)",
        "INSERT INTO t VALUES ('ä', '2026-03-08 12:00+00', 0.1::float8 + 0.2, '\\x00ff', '1 mon 2 days', '12.5')",
    )
    with fresh_database(any_server) as one:
        execute(one, *statements)
        name = f"{one.database}_other"
        execute(
            any_server.target(), f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
        )
        try:
            other = any_server.target(name)
            execute(other, *statements)
            for setting in (
                "DateStyle TO 'SQL, DMY'",
                "IntervalStyle TO 'iso_8601'",
                "bytea_output TO 'escape'",
                "extra_float_digits TO -5",
                "TimeZone TO 'Asia/Kathmandu'",
            ):
                execute(any_server.target(), f"ALTER DATABASE {name} SET {setting}")
            assert _contents(one) == _contents(other)
        finally:
            execute(any_server.target(), f"DROP DATABASE {name} WITH (FORCE)")


def test_levels(empty_database: Target) -> None:
    execute(empty_database, "CREATE TABLE t (id serial)", "INSERT INTO t DEFAULT VALUES", "SELECT lo_create(1)")
    counts = _fingerprint(empty_database, Level.COUNTS)
    assert [(t.rows, t.content) for t in counts.tables] == [(1, None)]
    assert counts.large_objects is not None
    assert (counts.large_objects.count, counts.large_objects.content) == (1, None)
    assert _fingerprint(empty_database, Level.OFF) == Fingerprint(level=Level.OFF)


def test_large_objects_differ_by_contents_length_and_owner(server17: Cluster, empty_database: Target) -> None:
    """One longer than the block that is read at once, changed in its last byte and by its length."""
    execute(empty_database, "SELECT lo_put(lo_create(1), 16777215, '\\x0102')", "SELECT lo_create(2)")
    seen = [_fingerprint(empty_database).large_objects]
    for change in ("SELECT lo_put(1, 16777216, '\\x03')", "SELECT lo_put(1, 16777217, '\\x00')", "SELECT lo_unlink(2)"):
        execute(empty_database, change)
        seen.append(_fingerprint(empty_database).large_objects)
    assert len({print and print.model_dump_json() for print in seen}) == len(seen)


def test_many_sequences_are_read_in_parts(empty_database: Target) -> None:
    execute(
        empty_database,
        "DO $$BEGIN FOR i IN 1..250 LOOP EXECUTE format('CREATE SEQUENCE s%s START %s', i, i); END LOOP; END$$",
    )
    fingerprint = _fingerprint(empty_database)
    assert {s.name: s.before.last_value for s in fingerprint.sequences} == {f"s{i}": i for i in range(1, 251)}
    execute(empty_database, "SELECT nextval('s250')")
    moved = [s.name for s in sequences_again(empty_database, fingerprint).sequences if s.before != s.after]
    assert moved == ["s250"]


def test_a_listener_can_end_the_work_while_a_table_is_locked(empty_database: Target) -> None:
    execute(empty_database, "CREATE TABLE t (id integer)")
    with connect(empty_database) as connection:
        inventory = take_inventory(connection)
    stop = threading.Event()

    def advance(_size: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    with connect(empty_database, autocommit=False) as locker:
        query(locker, "LOCK TABLE public.t")
        threading.Timer(0.5, stop.set).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            take_fingerprint(empty_database, inventory, level=Level.FULL, jobs=1, advance=advance)
        assert time.monotonic() - started < 10


def test_a_table_that_waits_to_be_read_keeps_its_rows(empty_database: Target) -> None:
    """To TRUNCATE is no matter of snapshots: an emptied table is empty for every reader, also an older one."""
    execute(
        empty_database,
        "CREATE TABLE large AS SELECT n FROM generate_series(1, 9999) AS n",
        'CREATE TABLE "sma""ll" AS SELECT n FROM generate_series(1, 5) AS n',
    )
    emptied: list[bool] = []

    def advance(size: int) -> None:
        if size and not emptied:
            with connect(empty_database, settings={"lock_timeout": "100"}) as other:
                try:
                    query(other, 'TRUNCATE public."sma""ll"')
                    emptied.append(True)
                except psycopg2.errors.LockNotAvailable:
                    emptied.append(False)

    with exported_snapshot(empty_database) as snapshot:
        taken = take_fingerprint(
            empty_database, snapshot.inventory, level=Level.FULL, jobs=1, snapshot=snapshot.name, advance=advance
        )
    assert {table.name: table.rows for table in taken.tables} == {"large": 9999, 'sma"ll': 5}
    assert emptied == [False]


def test_of_more_tables_than_the_server_can_well_lock_none_is_held(empty_database: Target) -> None:
    """The room for locks is production's as well."""
    execute(
        empty_database,
        "DO $$BEGIN FOR i IN 1..1000 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT 1 AS n', i); END LOOP; END$$",
    )
    held: list[int] = []

    def advance(size: int) -> None:
        if size and not held:
            with connect(empty_database) as other:
                locks = "SELECT count(*) FROM pg_locks WHERE relation::regclass::text ~ '^(public\\.)?t[0-9]+$'"
                held.append(int(query(other, locks)[0][0]))
                raise KeyboardInterrupt

    with exported_snapshot(empty_database) as snapshot, pytest.raises(KeyboardInterrupt):
        take_fingerprint(
            empty_database, snapshot.inventory, level=Level.FULL, jobs=1, snapshot=snapshot.name, advance=advance
        )
    assert held and held[0] < 1000


def test_a_worker_that_fails_ends_the_others(empty_database: Target) -> None:
    execute(empty_database, "CREATE TABLE small (id integer)", "CREATE TABLE t (id integer)")
    with connect(empty_database) as connection:
        inventory = take_inventory(connection)
    execute(empty_database, "DROP TABLE small")
    with connect(empty_database, autocommit=False) as locker:
        query(locker, "LOCK TABLE public.t")
        with pytest.raises(psycopg2.errors.UndefinedTable):
            take_fingerprint(empty_database, inventory, level=Level.FULL, jobs=2)
