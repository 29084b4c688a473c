"""The entry point: quick, and every way to end has its status and its words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gs_backup_assets_tests.processes import wait_until

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]
HEAVY = {"dagster", "great_expectations", "boto3", "pandas", "apprise", "psycopg2", "yaml", "jinja2"}
# The verb runs, then the modules that it has imported are told on standard error.
TELLING = """
import sys
from gs_backup_assets.cli.main import main
try:
    main()
finally:
    print("MODULES", *(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


def call(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["restore", "--help"], ["verify", "--help"]])
def test_help_is_quick_and_imports_nothing_heavy(arguments: list[str]) -> None:
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", TELLING, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert result.returncode == 0
    assert "Usage" in result.stdout
    (modules,) = (line.split()[1:] for line in result.stderr.splitlines() if line.startswith("MODULES"))
    assert not HEAVY & set(modules)
    # Far above what it takes, and far below the seconds that importing Dagster takes on a machine that is busy.
    assert time.monotonic() - started < 30


def test_help_lists_every_verb() -> None:
    words = call("--help").stdout
    verbs = [
        "cost",
        "demo",
        "doctor",
        "hold",
        "init",
        "list",
        "prune",
        "release",
        "restore",
        "run",
        "selftest",
        "show",
        "status",
        "toolchain",
        "verify",
    ]
    assert [verb for verb in verbs if f" {verb} " not in words] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-verb"],
        ["list", "--no-such-option"],
        ["restore", "latest"],  # without --into
        ["show"],
        ["list", "--config"],
        [],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_wrong_usage_with_json_is_a_document_too() -> None:
    result = call("list", "--json", "--no-such-option")
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["code"] == "USAGE"
    assert "--no-such-option" in result.stderr


def test_an_error_is_told_as_code_words_and_what_to_do(tmp_path: Path) -> None:
    result = call("list", "--config", str(tmp_path / "none.yaml"))
    assert result.returncode == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("CONFIG_NOT_FOUND: ") and "none.yaml" in first
    assert "gs-backup init" in second


def test_an_error_with_json_is_one_document(tmp_path: Path) -> None:
    result = call("list", "--json", "--config", str(tmp_path / "none.yaml"))
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "CONFIG_NOT_FOUND"
    assert error["message"] and error["hint"]


def test_errors_have_the_status_of_their_kind(tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text("databases: {shop: {url_env: NO_SUCH_URL}}\n")
    assert call("show", "latest", cwd=tmp_path).returncode == 2
    (tmp_path / "backups").write_text("a file where the store should be")
    result = call("list", "--json", cwd=tmp_path)
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["code"] == "STORE_UNAVAILABLE"


def test_an_empty_store_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text("databases: {shop: {url_env: NO_SUCH_URL}}\n")
    result = call("list", "--json", cwd=tmp_path)
    assert result.returncode == 0
    wanted = {"database": "shop", "store": str(tmp_path / "backups"), "backups": [], "base_backups": []}
    assert json.loads(result.stdout) == wanted


# A verb that does as it is told, in place of `list`.
ACTING = """
import os, signal, sys, time
from gs_backup_assets.cli import listing, main

def acting():
    {action}

listing.list_backups = acting
main.main()
"""


def act(action: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ACTING.format(action=action), "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


WAITING = "print('up', flush=True); time.sleep(600)"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruptions_have_the_usual_status(number: signal.Signals, status: int) -> None:
    """Ctrl-C is a SIGINT to the whole process group of the terminal."""
    process = act(WAITING)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, number)
    _, words = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in words
    if number == signal.SIGINT:
        assert "Interrupted" in words


def test_sigterm_lets_everything_clean_up(tmp_path: Path) -> None:
    action = f"""
    from pathlib import Path
    from gs_backup_assets.system.workspace import workspace
    with workspace("spool", parent=Path({str(tmp_path)!r})):
        print("up", flush=True)
        time.sleep(600)
"""
    process = act(action)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    process.communicate(timeout=60)
    wait_until(lambda: list(tmp_path.iterdir()) == [], what="the workspace is gone")


def test_a_fault_of_ours_is_not_taken_for_a_failed_proof() -> None:
    """Status 1 says that a proof failed; an exception that nobody expected says nothing about any backup."""
    process = act("raise ZeroDivisionError('oh')")
    _, words = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "Traceback" in words and "ZeroDivisionError" in words
