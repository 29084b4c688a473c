"""Workspaces: private, gone on every way out, swept when nobody was left to remove them, and never swept in use."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gs_backup_assets.errors import ProgramError, StoreError
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import sweep, workspace
from gs_backup_assets_tests.processes import processes_with, wait_until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_private_and_gone_on_every_way_out(tmp_path: Path, error: type[BaseException] | None) -> None:
    try:
        with workspace("spool", parent=tmp_path) as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "below").mkdir()
            (folder / "below" / "dump").write_text("rows")
            if error is not None:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import os, sys, time
from pathlib import Path
from gs_backup_assets.system.guardian import guardian
from gs_backup_assets.system.programs import Program
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
with workspace("spool", parent=Path(sys.argv[1])) as folder:
    (folder / "dump").write_text("plaintext")
    print(guardian._process.pid, folder, flush=True)
    time.sleep(600)
"""


def hold(parent: Path) -> tuple[subprocess.Popen[str], int, Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, parent], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    guardian, folder = process.stdout.readline().split()
    process.stdout.close()
    return process, int(guardian), Path(folder)


def test_swept_when_the_guardian_was_killed_too(tmp_path: Path) -> None:
    """The power goes out: nobody is left to clean up. The next workspace in the same folder does."""
    process, guardian, folder = hold(tmp_path)
    os.kill(guardian, signal.SIGKILL)
    process.kill()
    process.wait()
    assert (folder / "dump").exists(), "this test must show the sweep, not the guardian"
    with workspace("proof", parent=tmp_path) as mine:
        assert sorted(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_never_swept(tmp_path: Path) -> None:
    process, _, folder = hold(tmp_path)
    try:
        with workspace("proof", parent=tmp_path):
            assert sweep(tmp_path) == []
            assert (folder / "dump").read_text() == "plaintext"
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not folder.exists(), what="its own guardian removes it")


def test_many_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    """Several databases start their runs at the same second, in the same TMPDIR."""
    gate = threading.Barrier(8)

    def work(_: int) -> None:
        gate.wait()
        for _ in range(25):
            with workspace("spool", parent=tmp_path) as folder:
                (folder / "x").write_text("x")
                sweep(tmp_path)
                assert (folder / "x").exists()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert list(tmp_path.iterdir()) == []


def test_two_processes_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    source = """
import sys
from pathlib import Path
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
for _ in range(150):
    with workspace("spool", parent=Path(sys.argv[1])) as folder:
        (folder / "x").write_text("x")
        assert (folder / "x").exists()
"""
    running = [
        subprocess.Popen([sys.executable, "-c", source, tmp_path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in running] == [("", 0)] * 3
    assert list(tmp_path.iterdir()) == []


def test_programs_left_in_a_swept_folder_are_ended(tmp_path: Path) -> None:
    """Owner and guardian killed, and a server of theirs still at work: it must not keep running in no folder at all."""
    folder = tmp_path / "gs-backup-proof-left"
    folder.mkdir()
    (folder / ".in-use").touch()
    asleep = ["-S", "-c", "import time; time.sleep(600)", f"{folder}/data"]
    environment = {"PYTHONHOME": sys.base_prefix}
    server = subprocess.Popen(["postgres", *asleep], executable=sys.executable, env=environment)
    reader = subprocess.Popen(["less", *asleep], executable=sys.executable, env=environment)
    try:
        wait_until(lambda: len(processes_with(f"{folder}/data")) == 2, what="both are up")
        assert sweep(tmp_path) == [folder]
        assert server.wait(timeout=30) == -signal.SIGQUIT
        assert reader.poll() is None, "a person who looks into the folder is left alone"
    finally:
        for process in (server, reader):
            process.kill()
            process.wait()


def test_only_old_and_empty_folders_without_a_lock_are_removed(tmp_path: Path) -> None:
    """A maker that was killed between two system calls leaves an empty folder without a lock."""
    young, old, full = (tmp_path / f"gs-backup-spool-{name}" for name in ("young", "old", "full"))
    for folder in (young, old, full):
        folder.mkdir()
    (full / "somebody's").write_text("file")
    yesterday = time.time() - 86400
    for folder in (old, full):
        os.utime(folder, (yesterday, yesterday))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [full, young]


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), workspace("spool", parent=tmp_path):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(StoreError), workspace("spool", parent=tmp_path):
        raise StoreError("STORE_FULL", "full", "")
    # Another disk is full, not this one.
    with pytest.raises(OSError, match="No space"), workspace("spool", parent=tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands folders to another account")
def test_a_parent_that_the_owner_may_not_enter_is_told(tmp_path: Path) -> None:
    """Else initdb says something about a data directory, and nobody thinks of TMPDIR."""
    tmp_path.chmod(0o700)
    refused = pytest.raises(ProgramError, match=r"WORKSPACE_UNUSABLE.*may not enter.*TMPDIR")
    with refused, workspace("proof", parent=tmp_path, owner=server_account()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_be_used_is_an_error_with_a_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramError, match="WORKSPACE_UNUSABLE"), workspace("spool", parent=tmp_path / "file"):
        pass
