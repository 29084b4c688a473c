"""How long the stream waits before it begins again."""

from __future__ import annotations

from gs_backup_assets.recovery.wal.pauses import Pauses


def test_pauses_grow_to_a_limit_and_begin_anew() -> None:
    pauses = Pauses()
    assert [pauses.next() for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    pauses.steady()
    assert [pauses.next(), pauses.next()] == [0.5, 1.0]


def test_a_small_spool_that_gets_emptied_is_no_reason_to_wait_longer() -> None:
    """It is full after every segment: to wait longer each time is to stand still, with an empty spool, most of it."""
    pauses = Pauses()
    waited = []
    for archived in (0, 1, 2, 2, 2, 3):  # for a while the store takes nothing
        pauses.full(archived)
        waited.append(pauses.next())
    assert waited == [0.5, 0.5, 0.5, 1.0, 2.0, 0.5]
