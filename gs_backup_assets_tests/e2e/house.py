"""The house as people see it: a webserver and a daemon on one instance, a receiver of messages, and a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gs_backup_assets_tests.conftest import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
WORKSPACE = (
    "load_from: [{python_module: {module_name: gs_backup_assets.definitions, location_name: gs_backup_assets}}]\n"
)
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]


def chromium() -> str:
    """The browser of this machine. A missing one fails the test: it must not look green."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("no Chromium on this machine: apt-get install chromium (.ci/run does)")
    return found


@contextmanager
def program(name: str, *arguments: str | Path, home: Path, environment: dict[str, str]) -> Iterator[None]:
    """A program of Dagster's in the background; everything that it started ends with it."""
    argv = [Path(sys.executable).with_name(name), *arguments, "-w", home / "workspace.yaml"]
    with open(home / f"{name}.log", "wb") as log:
        process = subprocess.Popen(argv, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def dagster(home: Path, environment: dict[str, str]) -> Iterator[str]:
    """A webserver and a daemon; yields the address of the UI once it answers."""
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    (home / "workspace.yaml").write_text(WORKSPACE, encoding="utf-8")
    environment = {**environment, "DAGSTER_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    webserver = program("dagster-webserver", "-h", "127.0.0.1", "-p", str(port), home=home, environment=environment)
    with webserver:
        # One after the other: two that make the tables of a new SQLite instance get in each other's way.
        deadline = time.monotonic() + 180
        while not _answers(address):
            assert time.monotonic() < deadline, (home / "dagster-webserver.log").read_text(encoding="utf-8")[-3000:]
            time.sleep(0.5)
        with program("dagster-daemon", "run", home=home, environment=environment):
            yield address


def switch_schedule(word: str, name: str, home: Path, environment: dict[str, str]) -> None:
    """`start` or `stop` a schedule, as its switch in the UI does."""
    argv = [Path(sys.executable).with_name("dagster"), "schedule", word, name, "-w", home / "workspace.yaml"]
    done = subprocess.run(
        argv, env={**environment, "DAGSTER_HOME": str(home)}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=BROWSER)
        try:
            yield made.new_page(viewport={"width": 1600, "height": 1000})
        finally:
            made.close()
