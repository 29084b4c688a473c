"""The copy of the write-ahead log: what it brings, that it replaces nothing, and that it spreads no damage."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.catalogue.wal_positions import Position, newest_position, put_position
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import PAGE_BYTES
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.mirroring import Mirror
from gs_backup_assets.recovery.wal.offsite import MirroredWal, compare_wal, mirror_wal
from gs_backup_assets.recovery.wal.words import Words
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.catalogue.wal import (
    SEGMENT_BYTES,
    SYSTEM,
    archive,
    log_of,
    put_history,
    put_segments,
    segment,
)
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.s3_server import S3Server

NOW = datetime(2026, 11, 22, 8, 0, 3, tzinfo=timezone.utc)
TOP = f"shop/wal/{SYSTEM}"


@pytest.fixture(params=["local", "s3"])
def offsite(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "elsewhere")
    return s3_server.store(s3_server.bucket(), prefix="prod")


@pytest.fixture
def primary(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "here")


def mirror(primary: Store, offsite: Store) -> MirroredWal:
    return mirror_wal(primary, offsite, "shop", Progress())


def compared(primary: Store, offsite: Store) -> list[str]:
    with Progress().stage("compare") as stage:
        return [finding.code for finding in compare_wal(primary, offsite, "shop", stage)]


def position(minutes: int) -> Position:
    at = NOW + timedelta(minutes=minutes)
    return Position(system_identifier=SYSTEM, timeline=1, at=at, server_lsn="0/A000000", archived_lsn="0/A000000")


def test_all_of_it_is_brought_and_the_second_time_nothing(primary: LocalStore, offsite: Store) -> None:
    without = Progress()
    assert mirror_wal(primary, offsite, "shop", without).check.status is Status.PASSED
    assert without.seconds == {}, "where there is no archive no stage speaks of one"
    put_segments(primary, range(3, 6))
    put_segments(primary, range(5, 7), timeline=2)
    put_history(primary, 2, (1, 5))
    primary.put_bytes(b"{}", f"{TOP}/points/before-the-change.json")
    archive(primary).put_partial(segment(7, 2), log_of(segment(7, 2), written=3 * PAGE_BYTES))
    put_position(primary, "shop", position(0))
    primary.put_bytes(b"x", f"{TOP}/00000001/stranger")
    done = mirror(primary, offsite)
    assert (done.findings, done.segments, done.removed) == ((), 5, 0) and done.check.status is Status.PASSED
    assert set(keys(offsite, "shop")) == set(keys(primary, "shop")) - {f"{TOP}/00000001/stranger"}
    assert compared(primary, offsite) == []
    again = mirror(primary, offsite)
    assert (again.brought, again.copied_bytes, again.segments, again.removed) == (0, 0, 5, 0)
    for number in range(3, 6):
        found = archive(offsite).find(segment(number))
        assert found is not None and archive(offsite).read(found) == log_of(segment(number))


def test_only_the_newest_part_and_position_are_there(primary: LocalStore, offsite: Store) -> None:
    """What is brought first, and what it replaces goes after it: a part is always there."""
    for pages in (2, 5):
        archive(primary).put_partial(segment(3), log_of(segment(3), written=pages * PAGE_BYTES))
        put_position(primary, "shop", position(pages))
        mirror(primary, offsite)
    (part,) = archive(offsite).segments(1)
    (mine,) = archive(primary).segments(1)
    assert part.written == mine.written and (part.written or 0) > 2 * PAGE_BYTES
    assert len(list(keys(offsite, f"{TOP}/00000001/partial"))) == 1
    newest = newest_position(offsite, "shop", SYSTEM)
    assert newest is not None and newest.at == position(5).at
    assert len(list(keys(offsite, f"{TOP}/positions"))) == 1
    put_segments(primary, [3])
    done = mirror(primary, offsite)
    assert done.removed == 1, "the whole segment has replaced its part"
    assert list(keys(offsite, f"{TOP}/00000001/partial")) == []


def test_the_last_part_of_a_timeline_that_was_left_stays(primary: LocalStore, offsite: Store) -> None:
    archive(primary).put_partial(segment(5), log_of(segment(5), written=2 * PAGE_BYTES))
    archive(primary).put_partial(segment(6, 2), log_of(segment(6, 2), written=PAGE_BYTES))
    mirror(primary, offsite)
    parts = [[(a.segment, a.written) for t in (1, 2) for a in archive(s).segments(t)] for s in (primary, offsite)]
    assert parts[0] == parts[1] and [found for found, _ in parts[1]] == [segment(5), segment(6, 2)]


def test_a_part_stays_until_the_whole_segment_is_there(primary: LocalStore, offsite: Store) -> None:
    """The next segment was begun while the whole one before it is still on its way: no hole meanwhile."""
    archive(primary).put_partial(segment(5), log_of(segment(5), written=2 * PAGE_BYTES))
    mirror(primary, offsite)
    archive(primary).put_partial(segment(6), log_of(segment(6), written=PAGE_BYTES))
    assert mirror(primary, offsite).removed == 0
    assert [a.segment for a in archive(offsite).segments(1) if a.partial] == [segment(5), segment(6)]
    put_segments(primary, [5])
    mirror(primary, offsite)
    assert [(a.segment, a.partial) for a in archive(offsite).segments(1)] == [(segment(5), False), (segment(6), True)]


def test_a_later_copy_looks_only_at_what_is_newer(primary: LocalStore, offsite: Store) -> None:
    """Months of log are not listed again every minute: at the end of each timeline, and at all that follows."""
    numbers = [number for number in range(100, 180) if number not in (105, 172)]
    put_segments(primary, numbers)
    put_segments(primary, range(300, 303), timeline=2)
    archive(primary).put_partial(segment(105), log_of(segment(105), written=PAGE_BYTES))
    newest = mirror(primary, offsite).newest
    looked_at = [found.key for place in newest for found in offsite.objects(place.folder, after=place.after)]
    assert len(looked_at) == 64 + 1 + 3 and min(looked_at) > f"{TOP}/00000001/{segment(110).name}"
    put_segments(primary, [105, 172])
    put_segments(primary, [303], timeline=2)
    put_segments(primary, [303], timeline=3)
    put_history(primary, 3, (2, 303))
    put_segments(primary, [5], system="77")
    archive(primary).put_partial(segment(304, 2), log_of(segment(304, 2), written=PAGE_BYTES))
    primary.put_bytes(b"{}", f"{TOP}/points/before-the-change.json")
    put_position(primary, "shop", position(0))
    done = mirror_wal(primary, offsite, "shop", Progress(), places=newest)
    assert (done.brought, done.removed, done.findings) == (8, 0, ()) and archive(offsite).find(segment(172)) is not None
    assert set(keys(primary, "shop")) - set(keys(offsite, "shop")) == {f"{TOP}/00000001/{segment(105).name}.zst"}
    assert mirror_wal(primary, offsite, "shop", Progress(), places=newest).brought == 0
    assert (mirror(primary, offsite).brought, mirror(primary, offsite).brought) == (1, 0)


def test_the_stream_compares_everything_at_its_start_and_now_and_then(primary: LocalStore, tmp_path: Path) -> None:
    offsite = LocalStore(tmp_path / "elsewhere")
    put_segments(primary, [number for number in range(100) if number != 3])
    told: list[str] = []
    copies, words = Mirror(primary, offsite, "shop", 60.0), Words(told.append)

    def copied(now: float) -> set[int]:
        copies.step(now, words)
        wait_until(lambda: copies.idle, what="a copy")
        copies.collect(words)
        return {archived.segment.number for archived in archive(offsite).segments(1)}

    assert copied(0.0) == set(range(100)) - {3}
    put_segments(primary, [3, 100])
    assert copied(30.0) == set(range(100)) - {3}, "it is not time yet"
    assert copied(60.0) == set(range(101)) - {3}
    assert copied(6 * 3600.0) == set(range(101)) and told == []


def test_what_is_there_is_never_replaced(primary: LocalStore, offsite: Store) -> None:
    put_segments(primary, [3, 4])
    other = log_of(segment(3), fill=7)
    archive(offsite).put(segment(3), other)
    done = mirror(primary, offsite)
    assert {finding.code for finding in done.findings} <= {"WAL_CONFLICT"}
    assert compared(primary, offsite) == ["WAL_CONFLICT"]
    found = archive(offsite).find(segment(3))
    assert found is not None and archive(offsite).read(found) == other
    assert archive(offsite).find(segment(4)) is not None, "the others are brought"


def test_one_of_another_size_is_found_without_reading(primary: LocalStore, offsite: Store) -> None:
    put_segments(primary, [3])
    offsite.put_bytes(b"short", f"{TOP}/00000001/{segment(3).name}.zst")
    done = mirror(primary, offsite)
    assert [finding.code for finding in done.findings] == ["WAL_CONFLICT"] and done.check.status is Status.FAILED


def test_the_same_size_with_other_bytes_is_found_by_comparing(primary: LocalStore, offsite: Store) -> None:
    put_segments(primary, [3])
    (key,) = keys(primary, f"{TOP}/00000001")
    with primary.open(key) as stream:
        data = stream.read()
    offsite.put_bytes(data[:-1] + bytes([data[-1] ^ 1]), key)
    assert mirror(primary, offsite).findings == ()
    assert compared(primary, offsite) == ["WAL_CONFLICT"]


@pytest.mark.parametrize("damage", ["a byte", "cut", "another segment", "another cluster"])
def test_damage_in_the_primary_archive_is_not_spread(primary: LocalStore, offsite: Store, damage: str) -> None:
    put_segments(primary, [3, 4, 5])
    victim, other = (primary.root / f"{TOP}/00000001/{segment(n).name}.zst" for n in (4, 5))
    data = victim.read_bytes()
    if damage == "a byte":
        data = data[:-1] + bytes([data[-1] ^ 1])
    elif damage == "cut":
        data = data[:-3]
    elif damage == "another segment":
        data = other.read_bytes()
    else:
        elsewhere = LocalStore(primary.root / "elsewhere")
        put_segments(elsewhere, [4], system="77")
        data = (elsewhere.root / f"shop/wal/77/00000001/{segment(4).name}.zst").read_bytes()
    victim.write_bytes(data)
    done = mirror(primary, offsite)
    assert [finding.code for finding in done.findings] == ["PRIMARY_DAMAGED"]
    assert [a.segment.number for a in archive(offsite).segments(1)] == [3, 5]


def test_an_encrypted_archive_can_be_read_off_site(
    tmp_path: Path, primary: LocalStore, offsite: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    settings = settings_in(tmp_path, encryption={"kind": "raw-aes-256", "key_env": "TEST_KEY"})
    for store in (primary, offsite):
        opened = open_archive(settings, store, SYSTEM, writing=store is primary, segment_bytes=SEGMENT_BYTES)
        if store is primary:
            opened.put(segment(3), log_of(segment(3)))
            mirror(primary, offsite)
        found = opened.find(segment(3))
        assert found is not None and found.key.endswith(".zst.enc")
        assert opened.read(found) == log_of(segment(3))


def test_broken_off_it_goes_on(primary: LocalStore, tmp_path: Path) -> None:
    """The line goes dead after each object in turn: what is there is whole, and in the end everything is there."""
    put_segments(primary, range(3, 8))
    put_history(primary, 2, (1, 7))
    archive(primary).put_partial(segment(8), log_of(segment(8), written=PAGE_BYTES))
    offsite = LocalStore(tmp_path / "elsewhere")
    for _ in range(7):
        with pytest.raises(StoreError, match="STORE_UNAVAILABLE"):
            mirror(primary, OneMore(offsite))
        for found in archive(offsite).segments(1):
            archive(offsite).read(found)
    assert mirror(primary, OneMore(offsite)).brought == 0
    assert set(keys(offsite, "shop")) == set(keys(primary, "shop"))


class OneMore:
    """A store on the other end of a line that goes dead after one object has gone over it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._left = 1

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put_bytes(self, data: bytes, key: str, *, locked: bool = True) -> object:
        self._left -= 1
        if self._left == 0:
            self._store.put_bytes(data, key, locked=locked)
        raise StoreError("STORE_UNAVAILABLE", "The line is dead.", "Wait.")


def test_thousands_of_segments_cost_two_listings(primary: LocalStore, tmp_path: Path) -> None:
    folder = primary.root / TOP / "00000001"
    folder.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere" / TOP / "00000001"
    elsewhere.mkdir(parents=True)
    for number in range(10_000):
        path = folder / f"{segment(number).name}.zst"
        path.write_bytes(b"x")
        os.link(path, elsewhere / path.name)
    put_segments(primary, [10_000])
    began = time.monotonic()
    done = mirror(primary, LocalStore(tmp_path / "elsewhere"))
    seconds = time.monotonic() - began
    assert (done.brought, done.segments) == (1, 10_001) and done.findings == ()
    assert seconds < 20, f"{seconds:.1f} s"
