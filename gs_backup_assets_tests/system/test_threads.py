"""Threads that nobody has to wait for: results, errors, limits, and an interrupt while one of them hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.system.threads import Threads, clean_up

ROOT = Path(__file__).parents[2]
LIMIT = 4


def test_results_come_in_order_and_no_more_threads_work_than_allowed() -> None:
    at_work: list[int] = []
    most = 0
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal most
        with lock:
            at_work.append(number)
            most = max(most, len(at_work))
        time.sleep(0.01)
        with lock:
            at_work.remove(number)
        return number * 2

    with Threads(LIMIT, "test") as pool:
        assert list(pool.map(work, range(40))) == [number * 2 for number in range(40)]
    assert most == LIMIT


def test_idle_threads_end() -> None:
    pool = Threads(LIMIT, "short-lived")
    assert [pool.submit(pow, 2, number).result() for number in range(10)] == [2**number for number in range(10)]
    for thread in threading.enumerate():
        if thread.name == "short-lived":
            thread.join(10)
            assert not thread.is_alive()


def test_an_error_begins_nothing_more_and_waits_for_what_was_begun() -> None:
    begun: list[int] = []
    ended: list[int] = []
    gate = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        gate.wait(10)
        ended.append(number)

    with pytest.raises(ValueError, match="first"), Threads(2, "test") as pool:
        futures = [pool.submit(work, number) for number in range(10)]
        while len(begun) < 2:
            time.sleep(0.001)
        threading.Timer(0.2, gate.set).start()
        raise ValueError("first")
    assert sorted(begun) == sorted(ended) == [0, 1]
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 8


def test_an_interrupt_leaves_behind_what_hangs() -> None:
    gate = threading.Event()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), Threads(2, "test") as pool:
            pool.submit(gate.wait, 100)
            raise KeyboardInterrupt
        with pytest.raises(SystemExit):
            clean_after(SystemExit(), gate)
    finally:
        gate.set()
    assert time.monotonic() - started < 30


def clean_after(error: BaseException, gate: threading.Event) -> None:
    try:
        raise error
    except BaseException as caught:
        clean_up(lambda: gate.wait(100), after=caught)
        raise


def test_cleaning_up_after_an_error_waits_and_tells_its_own() -> None:
    done: list[bool] = []
    clean_up(lambda: (time.sleep(0.2), done.append(True)), after=ValueError())
    assert done == [True]
    with pytest.raises(ZeroDivisionError):
        clean_up(lambda: 1 / 0, after=KeyboardInterrupt())


def test_the_first_error_ends_all_jobs_of_a_crew() -> None:
    def fail(_: GoOn) -> None:
        time.sleep(0.05)
        raise ValueError("first")

    def work(go_on: GoOn) -> None:
        while True:
            time.sleep(0.005)
            go_on()

    with pytest.raises(ValueError, match="first"):
        side_by_side([work, fail, work, work], at_a_time=3, name="test")


HANGING = """
import os, signal, sys, threading
from gs_backup_assets.system.crew import side_by_side
signal.signal(signal.SIGINT, signal.default_int_handler)

def hang(go_on):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    os.write(1, b"hanging\\n")
    threading.Event().wait()

if "elsewhere" in sys.argv:  # another thread gets the signal: nothing ends the wait of the main one
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
try:
    side_by_side([hang, hang], at_a_time=2, name="test")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("arrives", ["here", "elsewhere"])
def test_an_interrupted_process_ends_although_jobs_hang(arrives: str) -> None:
    argv = [sys.executable, "-c", HANGING, arrives]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["hanging\n"] * 2
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            assert process.wait(30) == 0
        finally:
            process.kill()
