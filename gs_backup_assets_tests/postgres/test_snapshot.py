"""The exported snapshot: one view of the database for all who import it, and one backup at a time."""

from __future__ import annotations

import time

import pytest

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets_tests.chain import execute


def test_who_imports_it_sees_what_was_there(empty_database: Target) -> None:
    execute(empty_database, "CREATE TABLE t (id integer)", "INSERT INTO t VALUES (1)")
    with exported_snapshot(empty_database) as snapshot:
        execute(empty_database, "INSERT INTO t VALUES (2)", "CREATE TABLE later (id integer)")
        assert [table.name for table in snapshot.inventory.tables] == ["t"]
        with connect(empty_database, autocommit=False) as other:
            query(other, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            query(other, "SET TRANSACTION SNAPSHOT %s", (snapshot.name,))
            assert query(other, "SELECT count(*) FROM public.t") == [(1,)]
    assert snapshot.taken_at.utcoffset() is not None


def test_a_second_backup_of_the_database_is_refused_and_the_lock_is_freed(empty_database: Target) -> None:
    with exported_snapshot(empty_database):
        with pytest.raises(SourceError) as caught, exported_snapshot(empty_database):
            pass
        assert caught.value.code == "BACKUP_RUNNING"
        with exported_snapshot(empty_database.with_database("postgres")):
            pass  # another database of the same server is no competitor
    with exported_snapshot(empty_database):
        pass


def test_the_lock_is_freed_when_a_backup_fails(empty_database: Target) -> None:
    with pytest.raises(RuntimeError), exported_snapshot(empty_database):
        raise RuntimeError
    with exported_snapshot(empty_database):
        pass


def test_a_locked_table_ends_the_wait(empty_database: Target) -> None:
    execute(empty_database, "CREATE TABLE t (id integer)")
    with connect(empty_database, autocommit=False) as locker:
        query(locker, "LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(SourceError) as caught, exported_snapshot(empty_database, lock_wait=0.3):
            pass
        assert caught.value.code == "LOCK_TIMEOUT"
        assert time.monotonic() - started < 10
    with exported_snapshot(empty_database, lock_wait=0.3):
        pass
