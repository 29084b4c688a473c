"""Records of the stream's position: the newest few are kept, and a damaged one is never believed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.wal_positions import KEPT, Position, newest_position, positions_folder, put_position
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import keys

AT = datetime(2026, 11, 24, 18, 0, tzinfo=timezone.utc)
SYSTEM = "7400000000000000001"


def position(seconds: int = 0, *, system: str = SYSTEM) -> Position:
    return Position(
        system_identifier=system,
        timeline=1,
        at=AT + timedelta(seconds=seconds),
        server_lsn=f"0/{0x3000000 + seconds:X}",
        archived_lsn="0/3000000",
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_the_newest_record_is_found_and_few_are_kept(store: LocalStore) -> None:
    assert newest_position(store, "shop", SYSTEM) is None
    for seconds in range(6):
        put_position(store, "shop", position(seconds))
    found = newest_position(store, "shop", SYSTEM)
    assert found == position(5)
    assert found is not None and found.lag_bytes == 5
    assert len(list(keys(store, positions_folder("shop", SYSTEM)))) == KEPT
    assert newest_position(store, "shop", "1") is None


def test_the_same_moment_twice_is_no_error(store: LocalStore) -> None:
    put_position(store, "shop", position())
    put_position(store, "shop", position())
    assert newest_position(store, "shop", SYSTEM) == position()


def test_a_damaged_record_gives_way_to_the_one_before(store: LocalStore) -> None:
    for seconds in range(2):
        put_position(store, "shop", position(seconds))
    older, newest = (store.root / key for key in keys(store, positions_folder("shop", SYSTEM)))
    newest.write_bytes(newest.read_bytes().replace(b"0/3000001", b"0/3000009"))
    assert newest_position(store, "shop", SYSTEM) == position(0)
    older.write_bytes(b"{}")
    with pytest.raises(StoreError, match="POSITION_DAMAGED"):
        newest_position(store, "shop", SYSTEM)


def test_a_record_of_another_cluster_is_not_believed(store: LocalStore) -> None:
    put_position(store, "shop", position(system="1"))
    (key,) = keys(store, positions_folder("shop", "1"))
    (store.root / positions_folder("shop", SYSTEM)).mkdir(parents=True)
    (store.root / key).rename(store.root / key.replace("/1/", f"/{SYSTEM}/"))
    with pytest.raises(StoreError, match="POSITION_DAMAGED"):
        newest_position(store, "shop", SYSTEM)


def test_times_are_utc_and_positions_are_checked() -> None:
    local = datetime(2026, 11, 24, 12, 0, tzinfo=timezone(timedelta(hours=-6)))
    assert position().model_copy(update={"at": local}).at == AT
    read = Position.model_validate({**position().model_dump(), "at": local, "server_lsn": "0/00003000000"[:10]})
    assert read.at.tzinfo is timezone.utc and read.at == AT
    with pytest.raises(ValueError, match="no position"):
        Position.model_validate({**position().model_dump(), "server_lsn": "3000000"})
