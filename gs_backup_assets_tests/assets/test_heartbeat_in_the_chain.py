"""The heartbeat where it belongs: in the daily job's proof and in `gs-backup verify`, after proven backups only; and
what is told by both verbs when nobody hears it."""

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


def call(project: Project, *verb: str) -> subprocess.CompletedProcess[str]:
    argv = [Path(sys.executable).with_name("gs-backup"), *verb, "--config", project.file]
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
        done = call(project, "verify", "latest")
        assert done.returncode == 0, done.stdout + done.stderr
        assert receiver.visits == 2
        assert (report := project.folder / "reports" / "studio" / project.today / "report.html").is_file()
        assert f"Report: {report}" in done.stdout
        receiver.behaviour = "refuse"
        # Nor does it need a folder for the reports: the proof lies beside the manifest.
        project.configure(alerts=ALERTS, reports="/proc/nonesuch/reports")
        for verb in (["verify", "latest"], ["run"]):
            done = call(project, *verb)
            assert done.returncode == 0, "the backup is good, whoever hears of it"
            assert "PROVEN" in done.stdout and "Report:" not in done.stdout
            *_, not_kept, silence = done.stderr.splitlines()
            assert not_kept.startswith("REPORT_NOT_KEPT: ") and "/proc/nonesuch/reports" in not_kept
            assert silence.startswith("HEARTBEAT_NOT_ACCEPTED: ")
            stages = done.stderr.splitlines()[:-2]
            assert all(line.startswith("  ok  ") for line in stages), "and nothing of Dagster's"
            assert "secret-7f" not in done.stderr + done.stdout
    entry = project.catalogue.entries()[0]
    assert entry.proof is not None and entry.proof.verdict.value == "PROVEN"


def test_a_backup_that_could_not_be_proven_is_not_heard(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    project.configure(alerts=ALERTS, logical="{fingerprint: counts}")
    with Receiver() as receiver:
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{receiver.port}/ping")
        assert not project.run(instance).success
    assert receiver.paths == []
