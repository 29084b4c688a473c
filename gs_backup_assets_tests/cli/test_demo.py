"""The demo as a newcomer runs it, and what the reading verbs say of its backups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GS_BACKUP = Path(sys.executable).with_name("gs-backup")


def gs_backup(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "GS_BACKUP_CONFIG", "DATABASE_URL")}
    argv = [GS_BACKUP, *arguments]
    return subprocess.run(argv, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, gs_backup("demo", "--dir", folder, "--scale", "0.1")


def verb(folder: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = gs_backup(*arguments, "--config", folder / "backup.yaml", "--json")
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_demo_proves_a_backup_and_says_what_next(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PROVEN" in done.stdout and "rows_equal" in done.stdout and "offsite store alone" in done.stdout
    report = folder / "reports" / "guitar_strategies"
    (html,) = report.glob("*/report.html")
    assert str(html.resolve()) in done.stdout and "PROVEN" in html.read_text(encoding="utf-8")
    assert (html.parent / "data_docs" / "index.html").is_file()
    assert "What to do next" in done.stderr
    assert "ok  restore" in done.stderr, "progress goes to standard error"


def test_its_run_is_recorded_for_the_ui(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    from dagster import DagsterInstance

    folder, _ = demo
    with DagsterInstance.from_config(str(folder / "dagster_home")) as instance:
        (record,) = instance.get_run_records()
    assert record.dagster_run.job_name == "guitar_strategies_daily_backup" and record.dagster_run.is_success


def test_the_reading_verbs_need_no_source(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The demo's server is gone by now."""
    folder, _ = demo
    listed = verb(folder, "list")
    assert [(b["verdict"], b["offsite"], b["encryption_key"] is not None) for b in listed["backups"]] == [
        ("PROVEN", True, True)
    ]
    shown = verb(folder, "show", "latest")
    assert shown["id"] == listed["backups"][0]["id"]
    assert shown["manifest"]["fingerprint"]["level"] == "full" and shown["proof"]["verdict"] == "PROVEN"
    assert verb(folder, "show", shown["partition"])["id"] == shown["id"]
    missing = gs_backup("show", "20200101T000000Z", "--config", folder / "backup.yaml", "--json")
    assert missing.returncode == 2 and json.loads(missing.stdout)["error"]["code"] == "BACKUP_NOT_FOUND"


def test_status_has_the_fields_of_the_strategy_document(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = demo
    status = verb(folder, "status")
    assert status["status"] == "healthy" and status["total_backups"] == 1
    latest = status["latest_backup"]
    assert {"name", "size", "created", "age"} <= set(latest) and latest == status["backups"][0]
    assert latest["size"] > 0 and 0 < latest["age"] < 3_600_000 and latest["verdict"] == "PROVEN"
    goals = {goal["name"]: goal for goal in status["databases"][0]["objectives"]}
    assert goals["critical"]["rpo_target_seconds"] == 900 and goals["critical"]["rto_met"] is True


def test_a_stale_or_empty_store_is_no_good_status(tmp_path: Path) -> None:
    config = tmp_path / "backup.yaml"
    config.write_text("databases: {studio: {url_env: NOT_SET}}\n", encoding="utf-8")
    done = gs_backup("status", "--config", config, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1 and document["status"] == "error" and document["latest_backup"] is None
    assert any("there is no backup" in problem for problem in document["databases"][0]["problems"])


def test_verify_proves_again_without_the_source(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = demo
    document = verb(folder, "verify", "latest")
    assert document["verdict"] == "PROVEN" and Path(document["report"]).is_file()


def test_a_damaged_backup_fails_verification_and_status(
    demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(demo[0], folder)
    victim = max((folder / "elsewhere").rglob("*.dat.zst.enc"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    document = verb(folder, "verify", "latest", status=1)
    assert document["verdict"] == "FAILED"
    codes = [finding["code"] for check in document["proof"]["checks"] for finding in check["findings"]]
    assert "FILE_DIFFERS" in codes
    assert verb(folder, "status", status=1)["status"] == "error"
    assert verb(folder, "verify", "latest", "--from", "primary")["verdict"] == "PROVEN", "the other copy is sound"


@pytest.mark.parametrize(
    ("kind", "rule"), [("orphaned-lesson", "lesson_orphaned_student"), ("null-email", "user_email_missing")]
)
def test_a_sabotaged_production_is_told_from_a_broken_backup(tmp_path: Path, kind: str, rule: str) -> None:
    done = gs_backup("demo", "--dir", tmp_path / "demo", "--scale", "0.1", "--sabotage", kind)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "PROVEN" in done.stdout, done.stdout
    assert rule in done.stdout and "already broken in production" in done.stdout
    (html,) = (tmp_path / "demo" / "reports").glob("*/*/report.html")
    text = html.read_text(encoding="utf-8")
    assert rule in text and "already broken in production" in text


def test_an_unknown_sabotage_is_a_usage_error(tmp_path: Path) -> None:
    done = gs_backup("demo", "--dir", tmp_path / "demo", "--scale", "0.05", "--sabotage", "nonsense")
    assert done.returncode == 2 and "UNKNOWN_SABOTAGE" in done.stderr and "orphaned-lesson" in done.stderr


def test_the_demo_leaves_no_server_behind(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    servers = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"gs-backup-demo-" in _read(p)]
    assert servers == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
