"""The guardian: what it does when its owner is killed, when it is killed itself, and when its owner forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gs_backup_assets_tests.processes import alive, kill, processes_with, wait_until

ROOT = Path(__file__).parents[2]

# Starts a family in a session of its own and holds a workspace; says where everything is, and waits.
OWNER = """
import os, signal, sys, time
from pathlib import Path
from gs_backup_assets.system.guardian import guardian
from gs_backup_assets.system.programs import Program
from gs_backup_assets.system.workspace import workspace

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
asleep = "import time; time.sleep(600)"
child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {asleep!r}, sys.argv[1]]); {asleep}"
with workspace("spool") as folder:
    (folder / "plaintext").write_text("secret")
    with Program([sys.executable, "-c", child, str(folder)]):
        if "restart" in sys.argv:
            os.kill(guardian._process.pid, 9)
            guardian._process.wait()
            guardian.watch_folder(Path(str(folder) + ".other"))
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(600)
        print(guardian._process.pid, folder, flush=True)
        time.sleep(600)
"""


@contextmanager
def owner(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        guardian, folder = process.stdout.readline().split()
        wait_until(lambda: len(processes_with(folder)) == 2, what="child and grandchild are up")
        yield process, int(guardian), Path(folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def gone(folder: Path) -> bool:
    return not folder.exists() and processes_with(str(folder)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_nothing_outlives_a_killed_owner(tmp_path: Path, number: signal.Signals) -> None:
    with owner(tmp_path) as (process, guardian, folder):
        assert folder.is_dir()
        os.killpg(process.pid, number)
        process.wait(timeout=60)
        wait_until(lambda: gone(folder), what="children ended, folder removed")
        wait_until(lambda: not alive(guardian), what="the guardian itself is gone")


def test_a_killed_guardian_is_replaced_and_knows_everything(tmp_path: Path) -> None:
    with owner(tmp_path, "restart") as (process, _, folder):
        process.kill()
        process.wait()
        wait_until(lambda: gone(folder), what="the new guardian ended what the old one had noted")


def test_a_killed_guardian_is_no_reason_for_a_backup_to_fail(tmp_path: Path) -> None:
    source = """
import os
from gs_backup_assets.system.guardian import guardian
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.workspace import workspace
with workspace("spool") as folder:
    run(["/bin/true"])
    os.kill(guardian._process.pid, 9)
    guardian._process.wait()
    assert run(["/bin/true"]).status == 0
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_fork_does_not_keep_the_guardian_waiting(tmp_path: Path) -> None:
    """A forked child inherits the pipe: it must not look as if the owner still lived."""
    with owner(tmp_path, "fork") as (process, _, folder):
        kill(process.pid, signal.SIGKILL)  # the owner alone, not its fork
        process.wait()
        wait_until(lambda: gone(folder), what="cleaned up while the fork lives on")


def test_children_that_ignore_kind_signals_are_ended(tmp_path: Path) -> None:
    source = """
import sys, time
from gs_backup_assets.system.programs import Program
child = '''
import signal, sys, time
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("up", file=sys.stderr, flush=True)
time.sleep(600)
'''
with Program([sys.executable, "-c", child, sys.argv[1]]) as program:
    while not program.last_lines:
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(600)
"""
    marker = f"{tmp_path}/stubborn"
    process = subprocess.Popen([sys.executable, "-c", source, marker], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: processes_with(marker) == [], what="ended by force")
