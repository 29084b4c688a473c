"""Where the stream goes on, the spool that it leaves behind, and how far it is behind."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.wal import Lsn, Segment, Switch
from gs_backup_assets.postgres.wal_sender import Line
from gs_backup_assets.recovery.wal.lag import forget_before, lag_of
from gs_backup_assets.recovery.wal.server import Sample
from gs_backup_assets.recovery.wal.spool import Spool, SpoolLock, clusters_in
from gs_backup_assets.recovery.wal.start import where_to_begin

SIZE = 1 << 20
LINE = Line(2, (Switch(1, Lsn(10 * SIZE + 500)),), SIZE)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc)


@given(have=st.sets(st.integers(0, 20)), slot=st.integers(0, 20))
def test_nothing_before_the_place_to_begin_is_missing_that_the_slot_keeps(have: set[int], slot: int) -> None:
    start = where_to_begin(LINE, {LINE.segment(number) for number in have}, Lsn(slot * SIZE + 100))
    assert set(range(slot, start.segment.number)) <= have
    assert start.segment.number not in have or start.segment.number <= slot
    assert start.otherwise.number >= start.segment.number
    if start.segment != start.otherwise:
        assert start.otherwise.number == slot and start.segment.number - 1 in have
        assert start.lost == (start.segment, slot - start.segment.number)


def test_segments_of_a_branch_that_was_left_do_not_count() -> None:
    left = {Segment(1, number, SIZE) for number in range(8, 14)}
    assert where_to_begin(LINE, left, Lsn(8 * SIZE)).segment == Segment(2, 10, SIZE)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "7", SIZE)
    spool.open()
    return spool


def test_the_spool_says_where_to_begin_and_keeps_what_is_not_archived(spool: Spool) -> None:
    five, six = Segment(1, 5, SIZE), Segment(1, 6, SIZE)
    (spool.receiving / five.name).write_bytes(bytes(SIZE))
    (spool.receiving / f"{six.name}.partial").write_bytes(bytes(100))  # killed while it was made
    (spool.receiving / "00000002.history").write_text("1\t0/0\tx\n")
    spool.begin_at(six)
    assert [p.name for p in spool.receiving.iterdir()] == [f"{six.name}.partial"]
    assert (spool.receiving / f"{six.name}.partial").stat().st_size == 0
    assert list(spool.whole()) == [five] and list(spool.histories()) == [2]
    (spool.receiving / f"{six.name}.partial").write_bytes(bytes(SIZE))
    spool.begin_at(six)
    assert list(spool.partials()) == [six], "what is written stays, and is written again"
    spool.begin_at(five)
    assert list(spool.partials()) == [six] and list(spool.whole()) == [five]


def test_the_lock_is_one_and_is_taken_again_when_its_file_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with SpoolLock(folder) as lock:
        (folder / "lock").unlink()
        lock.renew()
        with pytest.raises(ConfigError, match="WAL_STREAM_RUNNING"), SpoolLock(folder):
            pass
    with SpoolLock(folder):
        assert clusters_in(folder) == ()


def looks(*lsns: int) -> deque[Sample]:
    return deque(Sample(NOW + timedelta(seconds=second), 1, Lsn(lsn)) for second, lsn in enumerate(lsns))


def test_lag_is_the_time_since_which_all_is_archived() -> None:
    now = NOW + timedelta(seconds=4)
    assert lag_of(looks(10, 20, 30), Lsn(20), now).seconds == 3
    assert lag_of(looks(10, 20, 30), Lsn(20), now).bytes == 10
    assert lag_of(looks(10, 10, 10), Lsn(10), now).seconds == 2, "an idle server loses nothing"
    assert lag_of(looks(10), Lsn(5), now).seconds is None
    assert lag_of(looks(), Lsn(5), now).bytes == 0


@given(st.lists(st.integers(0, 50)).map(sorted), st.integers(0, 50))
def test_forgetting_changes_no_lag(lsns: list[int], archived: int) -> None:
    now = NOW + timedelta(minutes=5)
    kept = looks(*lsns)
    forget_before(kept, Lsn(archived))
    assert lag_of(kept, Lsn(archived), now) == lag_of(looks(*lsns), Lsn(archived), now)
