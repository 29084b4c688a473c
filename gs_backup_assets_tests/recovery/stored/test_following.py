"""Files that are stored while they are written: whole, in the order of the program, given up when it fails."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.manifest import StoredFile
from gs_backup_assets.errors import StoreError
from gs_backup_assets.recovery.stored.following import Follower
from gs_backup_assets.recovery.stored.storing import FILES_AT_A_TIME, store_source
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import Source, keys
from gs_backup_assets_tests.processes import wait_until


class _Program:
    """Writes files one after the other, in small pieces, as pg_basebackup does."""

    def __init__(self, folder: Path, contents: dict[str, bytes], pause: float) -> None:
        self._thread = threading.Thread(target=self._write, args=(folder, contents, pause), daemon=True)
        self._thread.start()

    def _write(self, folder: Path, contents: dict[str, bytes], pause: float) -> None:
        for name, data in contents.items():
            with open(folder / name, "wb", buffering=0) as stream:
                for at in range(0, len(data), 700):
                    stream.write(data[at : at + 700])
                    time.sleep(pause)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()


def contents_of(count: int, size: int) -> dict[str, bytes]:
    return {f"{number:02}.tar": bytes([number]) * (size + number) for number in range(count)}


@pytest.mark.parametrize(
    ("count", "size", "pause"), [(1, 100_000, 0.001), (12, 3_000, 0.0), (12, 0, 0.0), (5, 7_000, 0.002)]
)
def test_what_is_written_is_what_is_stored(tmp_path: Path, count: int, size: int, pause: float) -> None:
    spool, store = tmp_path / "spool", LocalStore(tmp_path / "store")
    spool.mkdir()
    contents = contents_of(count, size)

    def put(source: Source, name: str) -> StoredFile:
        return store_source(store, source, name, size=size, folder="b", cipher=None)

    with Follower(put) as follower:
        program = _Program(spool, contents, pause)
        while program.running:
            follower.look(sorted(spool.iterdir()))
            time.sleep(0.005)
        stored = follower.finish(sorted(spool.iterdir()))
    assert [file.path for file in stored] == list(contents)
    for name, data in contents.items():
        with store.open(f"b/{name}") as stream:
            assert stream.read() == data


def test_more_files_at_once_than_threads(tmp_path: Path) -> None:
    """Those that are complete already make room for the others."""
    contents = contents_of(3 * FILES_AT_A_TIME, 10)
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)

    def put(source: Source, name: str) -> StoredFile:
        data = source.read(1000)
        return StoredFile(path=name, size=len(data), sha256="0" * 64)

    with Follower(put) as follower:
        follower.look(sorted(tmp_path.iterdir()))
        (tmp_path / "last.tar").write_bytes(b"x")
        follower.look(sorted(tmp_path.iterdir()))
        assert len(follower.finish(sorted(tmp_path.iterdir()))) == len(contents) + 1


def test_reads_are_full_but_for_the_last(tmp_path: Path) -> None:
    """Encryption takes a short read for the end."""
    sizes: list[int] = []

    def put(source: Source, name: str) -> StoredFile:
        while data := source.read(4096):
            sizes.append(len(data))
        return StoredFile(path=name, size=sum(sizes), sha256="0" * 64)

    program = _Program(tmp_path, {"f": b"x" * 50_000}, 0.001)
    wait_until((tmp_path / "f").exists, what="the file is begun")
    with Follower(put) as follower:
        while program.running:
            follower.look([tmp_path / "f"])
            time.sleep(0.005)
        follower.finish([tmp_path / "f"])
    assert set(sizes[:-1]) == {4096} and sum(sizes) == 50_000


def test_when_the_program_fails_nothing_is_stored(tmp_path: Path) -> None:
    spool, store = tmp_path / "spool", LocalStore(tmp_path / "store")
    spool.mkdir()
    (spool / "f").write_bytes(b"x" * 100_000)

    def put(source: Source, name: str) -> StoredFile:
        return store_source(store, source, name, size=0, folder="b", cipher=None)

    with pytest.raises(RuntimeError, match="the program failed"), Follower(put) as follower:
        follower.look([spool / "f"])
        raise RuntimeError("the program failed")
    assert list(keys(store, "")) == [] and not list(store.root.rglob(".partial*"))


def test_when_storing_fails_it_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")

    def put(source: Source, name: str) -> StoredFile:
        raise StoreError("STORE_FULL", "It is full.", "Free space.")

    def look(follower: Follower) -> bool:
        follower.look([tmp_path / "f"])
        return False

    with pytest.raises(StoreError, match="STORE_FULL"), Follower(put) as follower:
        wait_until(partial(look, follower), what="the error is told")
