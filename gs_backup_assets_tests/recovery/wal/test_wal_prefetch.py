"""The restore_command and the threads behind it: what is planned comes, in any order and again; trouble is told."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.postgres.wal import PAGE_BYTES
from gs_backup_assets.recovery.wal.prefetch import Prefetcher
from gs_backup_assets.system.account import current_account
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.wal import archive, log_of, segment
from gs_backup_assets_tests.processes import wait_until

SEGMENTS = 600  # 1 MiB each: more than are read ahead


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> WalArchive:
    found = archive(LocalStore(tmp_path_factory.mktemp("store")))
    for number in range(SEGMENTS):
        found.put(segment(number), log_of(segment(number)))
    found.put_history(2, b"1\t0/1000000\tno recovery target specified\n")
    return found


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "queue"
    folder.mkdir()
    yield folder


def serve(stored: WalArchive, folder: Path, *, has_target: bool = False) -> Prefetcher:
    return Prefetcher(stored, stored.segments(1), [2], folder, current_account(), has_target=has_target)


def ask(prefetcher: Prefetcher, name: str, into: Path) -> int:
    # As the server does it (src/common/percentrepl.c).
    values = {"%": "%", "f": name, "p": str(into)}
    command = re.sub("%(.)", lambda match: values[match[1]], prefetcher.command)
    return subprocess.run(["/bin/sh", "-c", command], timeout=60, check=False, capture_output=True).returncode


def test_segments_come_in_order_out_of_order_and_again(stored: WalArchive, queue: Path, tmp_path: Path) -> None:
    with serve(stored, queue) as prefetcher:
        for number in (1, 0, 0, 1, 2, 3, 2, SEGMENTS - 1):
            assert ask(prefetcher, segment(number).name, tmp_path / "wal") == 0
            assert (tmp_path / "wal").read_bytes() == log_of(segment(number))
            (tmp_path / "wal").unlink()
        assert prefetcher.error is None


def test_a_folder_may_have_any_name(stored: WalArchive, tmp_path: Path) -> None:
    folder = tmp_path / "bob's 100%free $HOME"
    folder.mkdir()
    with serve(stored, folder) as prefetcher:
        assert ask(prefetcher, segment(0).name, tmp_path / "wal") == 0


def test_a_part_that_more_replaced_since_the_plan_comes_as_it_was(queue: Path, tmp_path: Path) -> None:
    """A recovery, or a drill, beside a stream that goes on: it brings a longer part and removes the planned one."""
    found = archive(LocalStore(tmp_path / "store"))
    found.put(segment(0), log_of(segment(0)))
    part = log_of(segment(1), fill=7, written=5 * PAGE_BYTES)
    found.put_partial(segment(1), part)
    with serve(found, queue) as prefetcher:
        assert ask(prefetcher, segment(1).name, tmp_path / "wal") == 0
        found.put_partial(segment(1), log_of(segment(1), fill=7, written=9 * PAGE_BYTES))
        (tmp_path / "wal").unlink()
        assert ask(prefetcher, segment(1).name, tmp_path / "wal") == 0
        assert (tmp_path / "wal").read_bytes() == part
        found.put(segment(1), log_of(segment(1), fill=7))
        found.drop_partials(segment(1))
        assert ask(prefetcher, segment(1).name, tmp_path / "again") == 0
        assert (tmp_path / "again").read_bytes() == part
        assert prefetcher.error is None


def test_no_more_than_so_many_bytes_are_read_ahead(stored: WalArchive, queue: Path, tmp_path: Path) -> None:
    with serve(stored, queue) as prefetcher:
        wait_until(lambda: len(list((queue / "ready").iterdir())) >= 250, what="segments are read ahead")
        assert ask(prefetcher, segment(0).name, tmp_path / "wal") == 0
        wait_until(lambda: prefetcher.served == 1, what="the segment counts as served")
        assert len(list((queue / "ready").iterdir())) <= 258  # 256 MiB, a history, and one that is being brought


def test_what_is_not_planned_fails_at_once_as_the_end_of_the_log(
    stored: WalArchive, queue: Path, tmp_path: Path
) -> None:
    with serve(stored, queue) as prefetcher:
        assert ask(prefetcher, segment(SEGMENTS).name, tmp_path / "wal") == 1
        assert ask(prefetcher, "00000003.history", tmp_path / "wal") == 1
        assert ask(prefetcher, "00000002.history", tmp_path / "history") == 0
        assert ask(prefetcher, "00000002.history", tmp_path / "history") == 0
        assert (tmp_path / "history").read_bytes().startswith(b"1\t0/1000000")


@pytest.mark.parametrize(("has_target", "status"), [(False, 200), (True, 1)], ids=["to the end", "to a target"])
def test_a_bad_segment_ends_the_recovery_when_it_is_asked_for_and_not_before(
    tmp_path: Path, queue: Path, has_target: bool, status: int
) -> None:
    store = LocalStore(tmp_path / "store")
    found = archive(store)
    for number in range(3):
        found.put(segment(number), log_of(segment(number)))
    path = store.root / found.segments(1)[1].key
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-10])
    with serve(found, queue, has_target=has_target) as prefetcher:
        wait_until((queue / "ready" / segment(2).name).exists, what="the others are there")
        assert prefetcher.error is None
        assert ask(prefetcher, segment(0).name, tmp_path / "wal") == 0
        assert ask(prefetcher, segment(1).name, tmp_path / "wal") == status
        assert prefetcher.error is not None and prefetcher.error.code == "COMPRESSED_DAMAGED"


def test_a_command_whose_prefetcher_is_gone_makes_the_server_give_up(
    stored: WalArchive, queue: Path, tmp_path: Path
) -> None:
    with serve(stored, queue) as prefetcher:
        (queue / "ready").rename(tmp_path / "gone")
        assert ask(prefetcher, segment(5).name, tmp_path / "wal") == 200
        (tmp_path / "gone").rename(queue / "ready")
