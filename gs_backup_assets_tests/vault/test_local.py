"""The store in a folder: whole or not there, never replaced, private, and never left by a key."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.local import LocalStore, _Reader
from gs_backup_assets.vault.pipeline import Hashing
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.processes import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def read(store: LocalStore, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def code_of(action: object) -> str:
    """The code of the StoreError that calling `action` raises."""
    with pytest.raises(StoreError) as caught:
        action()  # type: ignore[operator]
    assert caught.value.exit_status == 4
    return caught.value.code


def test_what_is_put_is_there_with_size_and_digest(store: LocalStore, tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / "source").write_bytes(data)
    moved: list[int] = []
    with open(tmp_path / "source", "rb") as source:
        stored = store.put(Hashing(source, moved.append), "shop/dump/1.dat", size=len(data))
    assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sum(moved) == len(data)
    assert read(store, "shop/dump/1.dat") == data
    assert store.exists("shop/dump/1.dat")
    assert not store.exists("shop/dump"), "a folder is no object"


def test_objects_are_never_replaced(store: LocalStore) -> None:
    store.put_bytes(b"first", "shop/manifest.json")
    assert code_of(lambda: store.put_bytes(b"second", "shop/manifest.json")) == "OBJECT_EXISTS"
    assert read(store, "shop/manifest.json") == b"first"
    assert [path.name for path in (store.root / "shop").iterdir()] == ["manifest.json"]


def test_of_many_writers_of_one_key_one_wins(store: LocalStore) -> None:
    gate = threading.Barrier(8)

    def put(number: int) -> bool:
        gate.wait()
        try:
            store.put_bytes(bytes([number]) * 100_000, "shop/manifest.json")
        except StoreError as error:
            assert error.code == "OBJECT_EXISTS"
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(put, range(8)))
    assert won.count(True) == 1
    assert read(store, "shop/manifest.json") == bytes([won.index(True)]) * 100_000


def test_files_and_folders_are_private(store: LocalStore) -> None:
    before = os.umask(0)
    try:
        store.put_bytes(b"x", "shop/logical/2026-11-22/id/dump/1.dat")
    finally:
        os.umask(before)
    for path in (store.root, *store.root.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_killed_writer_leaves_only_what_readers_ignore(store: LocalStore, tmp_path: Path) -> None:
    """The writer reads from a pipe that never ends, and is killed in the middle."""
    source = """
import sys
from pathlib import Path
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.pipeline import Hashing
source = Hashing(sys.stdin.buffer, lambda n: print(n, flush=True))
LocalStore(Path(sys.argv[1])).put(source, "shop/dump/1.dat", size=0)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", source, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdin is not None and writer.stdout is not None
    writer.stdin.write(b"x" * 3_000_000)
    writer.stdin.flush()
    assert writer.stdout.readline()
    writer.kill()
    writer.wait()
    writer.stdout.close()
    writer.stdin.close()
    left = [path.name for path in (store.root / "shop/dump").iterdir()]
    assert len(left) == 1 and left[0].startswith(".partial-"), left
    assert list(keys(store, "shop")) == []
    assert not store.exists("shop/dump/1.dat")
    store.put_bytes(b"again", "shop/dump/1.dat")
    assert read(store, "shop/dump/1.dat") == b"again"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_writer_leaves_nothing(store: LocalStore, tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)

    def interrupt(_: int) -> None:
        raise error

    with pytest.raises(error), open(tmp_path / "source", "rb") as source:
        store.put(Hashing(source, interrupt), "shop/1.dat", size=0)
    assert list((store.root / "shop").iterdir()) == []


ESCAPES = ["../x", "shop/../../x", "/etc/passwd", "..", "shop/..", "a\0b"]


@pytest.mark.parametrize("key", ESCAPES)
def test_keys_that_lead_out_are_refused(store: LocalStore, key: str) -> None:
    store.put_bytes(b"x", "shop/x")
    for action in (
        lambda: store.put_bytes(b"x", key),
        lambda: store.open(key),
        lambda: store.folders(key),
        lambda: list(keys(store, key)),
        lambda: store.delete_tree(key),
    ):
        assert code_of(action) == "KEY_INVALID"
    assert not store.exists(key)
    assert read(store, "shop/x") == b"x"


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "link"]), max_size=6).map("/".join))
def test_no_key_reaches_outside(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    base = tmp_path_factory.mktemp("keys")
    outside = base / "outside"
    outside.mkdir()
    (base / "store" / "a").mkdir(parents=True)
    (base / "store" / "link").symlink_to(outside)
    try:
        LocalStore(base / "store").put_bytes(b"x", key)
    except StoreError:
        pass
    except OSError:
        pytest.fail("an error without a code")
    assert list(outside.iterdir()) == []
    assert {path.name for path in base.iterdir()} == {"outside", "store"}
    shutil.rmtree(base)


def test_links_inside_the_store_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    """A link could show a file of another place as a backup, or make deletion reach out of the store."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("not ours")
    store.put_bytes(b"x", "shop/real/manifest.json")
    (store.root / "shop" / "link").symlink_to(outside)
    (store.root / "shop" / "real" / "alias").symlink_to(outside / "manifest.json")
    (store.root / "shop" / "real" / "loop").symlink_to("loop")
    assert store.folders("shop") == ["real"]
    assert list(keys(store, "shop")) == ["shop/real/manifest.json"]
    assert not store.exists("shop/link/manifest.json")
    assert not store.exists("shop/real/alias")
    for action in (
        lambda: store.open("shop/link/manifest.json"),
        lambda: store.open("shop/real/alias"),
        lambda: store.put_bytes(b"x", "shop/link/new"),
        lambda: store.delete_tree("shop/link"),
    ):
        assert code_of(action) == "KEY_INVALID"
    assert code_of(lambda: store.open("shop/real/loop")) == "STORE_UNAVAILABLE"
    store.delete_tree("shop")
    assert (outside / "manifest.json").read_text() == "not ours"


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "link")
    store.put_bytes(b"x", "shop/x")
    assert read(store, "shop/x") == b"x"
    assert list(keys(store, "shop")) == ["shop/x"]


def test_a_missing_object_says_so(store: LocalStore) -> None:
    assert code_of(lambda: store.open("shop/none")) == "OBJECT_MISSING"
    store.put_bytes(b"x", "shop/x")
    assert code_of(lambda: store.open("shop/none")) == "OBJECT_MISSING"


def test_an_absent_prefix_is_empty(store: LocalStore) -> None:
    assert store.folders("shop/logical") == []
    assert list(keys(store, "shop/logical")) == []
    store.delete_tree("shop/logical")
    store.put_bytes(b"x", "shop/x")
    assert store.folders("shop") == []
    assert list(keys(store, "none")) == []


def test_folders_and_keys_are_sorted(store: LocalStore) -> None:
    for key in ("s/b/2", "s/a/1", "s/c/3", "s/a/0", "s/file"):
        store.put_bytes(b"x", key)
    assert store.folders("s") == ["a", "b", "c"]
    assert list(keys(store, "s")) == ["s/a/0", "s/a/1", "s/b/2", "s/c/3", "s/file"]


UNREADABLE = """
import os, sys
from pathlib import Path
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import keys
if os.geteuid() == 0:
    os.setgid(65534)
    os.setgroups([])
    os.setuid(65534)
store = LocalStore(Path(sys.argv[1]))
for action in (
    lambda: store.open("shop/id/manifest.json"),
    lambda: store.exists("shop/id/manifest.json"),
    lambda: store.folders("shop/id"),
    lambda: list(keys(store, "shop")),
    lambda: store.put_bytes(b"x", "shop/id/x"),
    lambda: store.delete_tree("shop/id"),
):
    try:
        print(action())
    except StoreError as error:
        print(error.code)
"""


def test_what_cannot_be_read_is_an_error_and_not_an_empty_list(store: LocalStore) -> None:
    """Root may read everything, so another account asks."""
    store.put_bytes(b"x", "shop/id/manifest.json")
    for folder in (store.root, *store.root.parents):
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(Path(store.root).parents[2]):
            folder.chmod(0o755)
    (store.root / "shop").chmod(0o755)
    (store.root / "shop" / "id").chmod(0o000)
    try:
        result = subprocess.run(
            [sys.executable, "-c", UNREADABLE, store.root], cwd=ROOT, capture_output=True, text=True, check=False
        )
    finally:
        (store.root / "shop" / "id").chmod(0o700)
    assert (result.stdout.split(), result.stderr) == (["STORE_UNAVAILABLE"] * 6, "")


def test_a_disk_that_fails_while_reading_is_the_stores_fault(store: LocalStore) -> None:
    with (
        pytest.raises(StoreError, match="STORE_UNAVAILABLE"),
        _Reader(Path("/proc/self/mem"), store._unavailable) as broken,
    ):
        broken.readinto(bytearray(10))  # address 0 cannot be read: EIO
    with (
        pytest.raises(StoreError, match="STORE_UNAVAILABLE"),
        _Reader(Path("/proc/self/mem"), store._unavailable) as broken,
    ):
        broken.readall()


def test_a_file_in_the_place_of_a_folder(store: LocalStore) -> None:
    store.put_bytes(b"x", "shop")
    assert code_of(lambda: store.put_bytes(b"x", "shop/logical/x")) == "STORE_UNAVAILABLE"
    assert not store.exists("shop/logical/x")
    store.root.rename(store.root.with_name("old"))
    store.root.write_text("a file")
    assert code_of(lambda: store.put_bytes(b"x", "shop/x")) == "STORE_UNAVAILABLE"


def test_full_disks_and_quotas_have_their_own_code(store: LocalStore) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert store._unavailable(OSError(number, "full")).code == "STORE_FULL"


DELETER = """
import os, shutil, sys
from pathlib import Path
from gs_backup_assets.vault import local

def slow(folder, *_):
    print("manifest gone:", not (Path(folder) / "manifest.json").exists(), flush=True)
    sys.stdin.read()

local.shutil.rmtree = slow
local.LocalStore(Path(sys.argv[1])).delete_tree("shop/id")
"""


def test_an_interrupted_deletion_leaves_no_backup(store: LocalStore) -> None:
    """The manifest goes first: killed right after that, what is left is an unfinished attempt."""
    for name in ("dump/1.dat", "dump/2.dat", "manifest.json"):
        store.put_bytes(b"x", f"shop/id/{name}")
    deleter = subprocess.Popen(
        [sys.executable, "-c", DELETER, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert deleter.stdin is not None and deleter.stdout is not None
    assert deleter.stdout.readline() == "manifest gone: True\n"
    deleter.kill()
    deleter.wait()
    deleter.stdin.close()
    deleter.stdout.close()
    assert list(keys(store, "shop")) == ["shop/id/dump/1.dat", "shop/id/dump/2.dat"]
    store.delete_tree("shop/id")
    wait_until(lambda: store.folders("shop") == [], what="the second try removes the rest")
