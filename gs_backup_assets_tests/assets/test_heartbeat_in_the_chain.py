"""The heartbeat where it belongs: in the daily job's proof and in `gs-backup verify`, after proven backups only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import Project

VARIABLE = "GS_BACKUP_TEST_HEARTBEAT"
ALERTS = f"{{heartbeat_url_env: {VARIABLE}}}"


def verify(project: Project) -> subprocess.CompletedProcess[str]:
    argv = [Path(sys.executable).with_name("gs-backup"), "verify", "latest", "--config", project.file]
    return subprocess.run(argv, env={**os.environ}, capture_output=True, text=True, check=False, timeout=200)


def test_a_proven_backup_is_heard_and_a_silent_listener_fails_no_backup(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    project.configure(alerts=ALERTS)
    with Receiver() as receiver:
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{receiver.port}/ping/secret-7f")
        assert project.run(instance).success
        assert receiver.paths == ["/ping/secret-7f"]
        done = verify(project)
        assert done.returncode == 0, done.stdout + done.stderr
        assert receiver.visits == 2
        receiver.behaviour = "refuse"
        done = verify(project)
        assert done.returncode == 0 and "HEARTBEAT_NOT_ACCEPTED" in done.stderr
        result = project.run(instance)
    assert result.success, "the backup is good, whoever hears of it"
    told = [entry.user_message for entry in instance.all_logs(result.run_id) if "HEARTBEAT" in entry.user_message]
    assert len(told) == 1 and "secret-7f" not in told[0] + done.stderr + done.stdout


def test_a_backup_that_could_not_be_proven_is_not_heard(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    project.configure(alerts=ALERTS, logical="{fingerprint: counts}")
    with Receiver() as receiver:
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{receiver.port}/ping")
        assert not project.run(instance).success
    assert receiver.paths == []
