"""Tests of reading WAL with pg_waldump, on the log of real servers of every major."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import PAGE_BYTES, Lsn, Segment, written_bytes
from gs_backup_assets.postgres.waldump import Commit, read_commits, read_restore_points, read_wal
from gs_backup_assets_tests.production import Production, production

POINT = "before the; migration: 2020-01-01"


@dataclass(frozen=True)
class Log:
    """Two segments of a server: a finished one, and the one it wrote to; and what was committed where."""

    toolchain: Toolchain
    folder: Path
    whole: Segment
    current: Segment
    written: Lsn
    flushed: Lsn
    xids: tuple[int, ...]
    """Of the current segment: a plain one, a prepared one, one with a savepoint, in the order of their commits."""

    def copy(self, to: Path) -> Log:
        folder = to / "wal"
        shutil.copytree(self.folder, folder)
        return Log(self.toolchain, folder, self.whole, self.current, self.written, self.flushed, self.xids)

    def path(self, segment: Segment) -> Path:
        return self.folder / segment.name

    def commits(self) -> tuple[Commit, ...]:
        return read_commits(self.toolchain, self.folder, self.current, self.current, end=self.written)


@contextmanager
def _log(major: int, folder: Path) -> Iterator[Log]:
    with production(major, settings={"max_prepared_transactions": "5"}) as server:
        server.sql("CREATE TABLE lesson (id int)")
        server.sql("SELECT pg_switch_wal()")
        server.sql("INSERT INTO lesson SELECT generate_series(1, 20000)")
        whole = _current(server)
        server.sql("SELECT pg_switch_wal()")
        xids = _transactions(server)
        current = _current(server)
        flushed = _flushed(server)
        for segment in (whole, current):
            shutil.copy(server.data / "pg_wal" / segment.name, folder / segment.name)
        written = written_bytes((folder / current.name).read_bytes(), current)
        end = Lsn(current.start.value + written)
        yield Log(server.toolchain, folder, whole, current, end, flushed, xids)


def _current(server: Production) -> Segment:
    ((name,),) = server.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    return Segment.parse(str(name), server.segment_bytes)


def _flushed(server: Production) -> Lsn:
    """Where the log ends on disk, once the server's WAL writer has written all: a restore point waits for no disk."""
    deadline = time.monotonic() + 60
    while True:
        ((inserted, flushed),) = server.sql("SELECT pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn()")
        if inserted == flushed:
            return Lsn.parse(str(flushed))
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _transactions(server: Production) -> tuple[int, ...]:
    xids = []
    with (
        connect(server.target(), settings={"search_path": "public"}) as connection,
        closing(connection.cursor()) as cursor,
    ):
        connection.autocommit = True
        scripts = (
            (["INSERT INTO lesson VALUES (1)"], "COMMIT"),
            (
                ["INSERT INTO lesson VALUES (2)", "PREPARE TRANSACTION 'x: 2020-01-01'"],
                "COMMIT PREPARED 'x: 2020-01-01'",
            ),
            (["SAVEPOINT a", "CREATE TABLE teacher (id int PRIMARY KEY)", "RELEASE a"], "COMMIT"),
            (["INSERT INTO lesson VALUES (4)"], "ROLLBACK"),
        )
        for statements, ending in scripts:
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_current_xact_id()::text::bigint % 4294967296")
            if ending != "ROLLBACK":
                xids += [int(row[0]) for row in cursor.fetchall()]
            for statement in statements:
                cursor.execute(statement)
            cursor.execute(ending)
        cursor.execute("SELECT pg_create_restore_point(%s)", [POINT])
    return tuple(xids)


@pytest.fixture(scope="module", params=[14, 15, 16, 17, 18])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    folder = tmp_path_factory.mktemp("wal")
    with _log(request.param, folder) as log:
        yield log


def test_commits_have_their_number_place_and_moment(log: Log) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    commits = log.commits()
    assert tuple(commit.xid for commit in commits) == log.xids
    assert all(a.lsn < b.lsn and a.at <= b.at for a, b in pairwise(commits))
    assert all(log.current.start < commit.lsn < log.flushed for commit in commits)
    assert all(began < commit.at <= datetime.now(UTC) for commit in commits)
    assert any(commit.at.microsecond % 1000 for commit in commits)


def test_restore_points_have_their_name_and_place(log: Log) -> None:
    (point,) = read_restore_points(log.toolchain, log.folder, log.current, log.current, end=log.written)
    assert point.name == POINT
    assert log.commits()[-1].lsn < point.lsn < log.flushed
    assert read_restore_points(log.toolchain, log.folder, log.whole, log.whole) == ()


def test_the_log_ends_where_the_server_had_written_it(log: Log) -> None:
    assert read_wal(log.toolchain, log.folder, log.whole, log.current, end=log.written).end == log.flushed
    both = read_commits(log.toolchain, log.folder, log.whole, log.current, end=log.written)
    assert both == (*read_commits(log.toolchain, log.folder, log.whole, log.whole), *log.commits())


def test_a_whole_segment_that_the_server_left_early_is_read_to_its_end(log: Log) -> None:
    assert read_wal(log.toolchain, log.folder, log.whole, log.whole).end == log.whole.end


def test_an_unfinished_segment_may_end_within_a_record(log: Log, tmp_path: Path) -> None:
    mine = log.copy(tmp_path)
    path = mine.path(mine.current)
    data = path.read_bytes()
    third = mine.commits()[2]
    cut = third.lsn.value - mine.current.start.value + 40
    path.write_bytes(data[:cut] + bytes(len(data) - cut))
    end = Lsn(mine.current.start.value + written_bytes(path.read_bytes(), mine.current))
    read = read_wal(mine.toolchain, mine.folder, mine.current, mine.current, end=end)
    assert [commit.xid for commit in read.commits] == list(mine.xids[:2])
    assert read.end in (third.lsn, end)  # the latter where the record went on in a page that is not there


def test_every_whole_page_of_an_unfinished_segment_is_a_normal_end(log: Log, tmp_path: Path) -> None:
    mine = log.copy(tmp_path)
    path = mine.path(mine.whole)
    data = path.read_bytes()
    for pages in (1, 2, 3, 17, 40):
        written = pages * PAGE_BYTES
        path.write_bytes(data[:written] + bytes(len(data) - written))
        end = Lsn(mine.whole.start.value + written)
        read = read_wal(mine.toolchain, mine.folder, mine.whole, mine.whole, end=end)
        assert mine.whole.start < read.end <= end


def test_nothing_but_a_page_header_is_no_damage(log: Log, tmp_path: Path) -> None:
    mine = log.copy(tmp_path)
    path = mine.path(mine.whole)
    path.write_bytes(path.read_bytes()[:40] + bytes(mine.whole.size - 40))
    end = Lsn(mine.whole.start.value + PAGE_BYTES)
    read = read_wal(mine.toolchain, mine.folder, mine.whole, mine.whole, end=end)
    assert read.commits == () and read.end == mine.whole.start, "where the record before it ends, for a server"


@pytest.mark.parametrize("what", ["byte", "length", "zeros"])
def test_damage_before_the_end_is_told_from_the_end(log: Log, tmp_path: Path, what: str) -> None:
    mine = log.copy(tmp_path)
    # In the last page of an unfinished segment a wrong length looks like a record that was not written whole.
    unfinished = [] if what == "length" else [(mine.current, mine.written)]
    for segment, end in [(mine.whole, None), *unfinished]:
        path = mine.path(segment)
        data = bytearray(path.read_bytes())
        commit = read_commits(mine.toolchain, mine.folder, segment, segment, end=end)[0]
        place = commit.lsn.value - segment.start.value
        if what == "byte":
            data[place + 30] ^= 1
        elif what == "length":
            data[place + 1] ^= 0x40  # a length of many pages: as a record that was not written whole has
        else:
            data[place : place + 16] = bytes(16)
        path.write_bytes(data)
        with pytest.raises(StoreError) as error:
            read_wal(mine.toolchain, mine.folder, segment, segment, end=end)
        assert error.value.code == "WAL_DAMAGED" and segment.name in error.value.message


def test_a_whole_segment_that_lost_its_end_is_damaged(log: Log, tmp_path: Path) -> None:
    mine = log.copy(tmp_path)
    path = mine.path(mine.whole)
    data = path.read_bytes()
    path.write_bytes(data[: 3 * PAGE_BYTES] + bytes(len(data) - 3 * PAGE_BYTES))
    with pytest.raises(StoreError, match="WAL_DAMAGED"):
        read_wal(mine.toolchain, mine.folder, mine.whole, mine.whole)


@dataclass(frozen=True)
class Rolled:
    """A segment that the server filled to its end and went on in the next, and where its records end, by pg_waldump."""

    toolchain: Toolchain
    segment: Segment
    data: bytes
    ends: tuple[Lsn, ...]


@pytest.fixture(scope="module", params=[14, 15, 16, 17, 18])
def rolled(request: pytest.FixtureRequest) -> Iterator[Rolled]:
    with production(request.param, segment_megabytes=1, settings={"wal_keep_size": "64MB"}) as server:
        server.sql("CREATE TABLE lesson AS SELECT g AS id, md5(g::text) AS words FROM generate_series(1, 20000) AS g")
        server.sql("SELECT pg_switch_wal()")
        server.sql("CHECKPOINT")  # so that whole pages are logged: records that are longer than a page of the log
        first = _current(server)
        server.sql("UPDATE lesson SET words = md5(words)")
        argv = [server.toolchain.program("pg_waldump"), "-p", server.data / "pg_wal", first.name, first.next.name]
        listed = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        begins = [Lsn.parse(text) for text in re.findall(r", lsn: (\S+), prev", listed)]
        assert begins[-1] > first.end, "the server went on in the next segment"
        yield Rolled(
            server.toolchain,
            first,
            (server.data / "pg_wal" / first.name).read_bytes(),
            # A record begins where the one before it ends, or behind the header of the page that begins there.
            tuple(Lsn(begin.value - _header_before(begin, first)) for begin in begins),
        )


def _header_before(begin: Lsn, segment: Segment) -> int:
    header = 40 if begin.value % segment.size == 40 else 24
    return header if (begin.value - header) % PAGE_BYTES == 0 else 0


def test_the_end_is_the_one_of_the_last_whole_record_wherever_the_bytes_end(rolled: Rolled, tmp_path: Path) -> None:
    """A server that replays them comes to there and not to the end of the bytes."""
    segment, size = rolled.segment, rolled.segment.size
    pages = range(4 * PAGE_BYTES, size, 16 * PAGE_BYTES)
    within = [random.Random(place).randrange(4 * PAGE_BYTES, size, 8) for place in range(24)]
    for cut in sorted({48, *pages, *within, size - 8, size}):
        (tmp_path / segment.name).write_bytes(rolled.data[:cut] + bytes(size - cut))
        end = Lsn(segment.start.value + cut)
        read = read_wal(rolled.toolchain, tmp_path, segment, segment, end=None if cut == size else end)
        assert read.end == max(place for place in rolled.ends if place <= end), (cut, str(end), str(read.end))
