"""Programs: what is kept of them, that they end with whoever started them, and what they are allowed to see."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import Program, group_alive, run
from gs_backup_assets_tests.processes import alive, processes_with, wait_until

PYTHON = sys.executable


def python(source: str) -> list[str | Path]:
    return [PYTHON, "-c", source]


def test_exit_status_and_last_words_are_kept() -> None:
    finished = run(
        python("import sys; sys.stderr.write('one\\ntwo\\n'); print('out'); sys.exit(3)"), capture_stdout=True
    )
    assert (finished.status, finished.stderr, finished.stdout) == (3, ("one", "two"), "out\n")
    with pytest.raises(ProgramError, match=r"PROGRAM_FAILED.*status 3: one \| two") as caught:
        finished.require_success()
    assert caught.value.exit_status == 4


def test_a_program_killed_by_a_signal_is_no_success() -> None:
    finished = run(python("import os; os.kill(os.getpid(), 9)"))
    assert finished.status == -9
    with pytest.raises(ProgramError):
        finished.require_success()


def test_stderr_is_a_ring_that_keeps_the_end() -> None:
    finished = run(python("import sys\nfor i in range(30_000): sys.stderr.write(f'line {i}\\n')"))
    assert finished.stderr[-1] == "line 29999"
    assert 4000 < len(finished.stderr) <= 10_000


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    finished = run(python("import sys; sys.stderr.write('x' * 3_000_000)"))
    assert max(map(len, finished.stderr)) <= 64 * 1024
    assert sum(map(len, finished.stderr)) == 3_000_000


def test_much_output_on_both_streams_does_not_deadlock() -> None:
    source = """
import sys
for _ in range(200):
    sys.stdout.write('o' * 50_000)
    sys.stderr.write('e' * 49_999 + '\\n')
"""
    finished = run(python(source), capture_stdout=True, timeout=60)
    assert finished.status == 0
    assert len(finished.stdout) == 10_000_000
    assert len(finished.stderr) == 200


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    marker = f"{tmp_path}/marker"
    with pytest.raises(ProgramError, match="PROGRAM_TIMEOUT"):
        run([*python("import time; time.sleep(600)"), marker], timeout=0.3)
    assert processes_with(marker) == []


def test_a_missing_program_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="PROGRAM_UNUSABLE"):
        run([tmp_path / "pg_dump"])


def test_the_environment_holds_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "PGHOST", "PGSERVICEFILE", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "GS_BACKUP_KEY"):
        monkeypatch.setenv(name, "s3cret")
    finished = run(["/usr/bin/env"], capture_stdout=True, environment={"PGSERVICE": "gs_backup"})
    assert "s3cret" not in finished.stdout
    lines = finished.stdout.splitlines()
    assert "PGSERVICE=gs_backup" in lines
    assert "LC_ALL=C" in lines


FAMILY = """
import subprocess, sys, time
plain = "import time; time.sleep(600)"
ignoring = '''
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", file=sys.stderr, flush=True)
time.sleep(600)
'''
children = [subprocess.Popen([sys.executable, "-c", code, sys.argv[1]]) for code in (plain, ignoring)]
time.sleep(600)
"""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_leaving_ends_the_whole_family(tmp_path: Path, error: type[BaseException]) -> None:
    """Grandchildren as well, and also those that ignore the kind signal."""
    marker = f"{tmp_path}/{error.__name__}"
    with pytest.raises(error), Program([*python(FAMILY), marker]) as program:
        wait_until(lambda: "ready" in program.last_lines, what="the family is up")
        assert len(processes_with(marker)) == 3
        # The patience for those that ignore the signal is the caller's; here it need not be long.
        monkey = program.stop
        program.stop = lambda patience=0.5: monkey(patience)  # type: ignore[method-assign]
        raise error
    assert processes_with(marker) == []


def test_a_second_interrupt_while_stopping_still_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C, and Ctrl-C again because it takes too long."""
    marker = f"{tmp_path}/twice"
    again = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])  # while it waits for the one that ignores
    with pytest.raises(KeyboardInterrupt), Program([*python(FAMILY), marker]) as program:
        wait_until(lambda: "ready" in program.last_lines, what="the family is up")
        started = time.monotonic()
        again.start()
        raise KeyboardInterrupt
    again.cancel()
    assert time.monotonic() - started < 10, "the second one was to end the patience"
    assert processes_with(marker) == []


def test_grandchildren_that_outlive_a_good_program_are_ended(tmp_path: Path) -> None:
    marker = f"{tmp_path}/orphan"
    source = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', sys.argv[1]])"
    )
    with Program([*python(source), marker]) as program:
        wait_until(lambda: not program.running, what="the parent has ended")
        assert processes_with(marker)
    assert processes_with(marker) == []


def test_zombies_do_not_count_as_alive() -> None:
    """PID 1 of a container may never reap them; waiting for that would make every end take half a minute."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(0)
    try:
        wait_until(lambda: not alive(pid), what="the child has ended")
        os.killpg(pid, 0)  # the group is still there, as a zombie
        assert not group_alive(pid)
    finally:
        os.waitpid(pid, 0)


def test_programs_give_up_the_rights_of_root() -> None:
    account = server_account()
    finished = run(["/usr/bin/id", "-u"], account=account, capture_stdout=True)
    assert int(finished.stdout) == account.uid != 0
    groups = run(["/usr/bin/id", "-G"], account=account, capture_stdout=True).stdout.split()
    if os.geteuid() == 0:
        assert groups == [str(account.gid)], "no group of root's may be left"
