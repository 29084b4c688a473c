"""Hooks and the health address, after a recovery from complete loss: what fails is told and gone on with."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.config_recovery import Health
from gs_backup_assets.errors import ConfigError, ProgramError, ProofFailed
from gs_backup_assets.recovery.application.health import wait_until_healthy
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.processes import processes_with
from gs_backup_assets_tests.recovery.disaster.disaster_site import TEN, application, disaster, hook


def test_a_failing_hook_is_told_and_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, sys, pathlib; here = pathlib.Path(sys.argv[1]);"
        "here.open('a').write('x');"
        "sys.exit('not yet' if len(here.read_text()) < 2 else 0)"
    )
    with disaster() as lost:
        counted, first = lost.folder / "counted", lost.folder / "first"
        failing = hook("restart", script)
        failing["command"].append(str(counted))
        other = hook("repoint", "import sys; open(sys.argv[1], 'a').write('x')")
        other["command"].append(str(first))
        lost.configure(hooks=[other, failing])
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        with pytest.raises(ProgramError, match="not yet") as failure:
            lost.recover()
        assert failure.value.code == "HOOK_FAILED" and "'restart'" in failure.value.message
        (record,) = [r for r in AuditLog(lost.site.vault.primary, "shop").records() if r.event == "disaster_recovery"]
        assert record.result == "HOOK_FAILED"
        told: list[str] = []
        done = lost.recover(told)
        assert any("goes on after recover, check, start, hook repoint" in line for line in told)
        assert (first.read_text(), counted.read_text()) == ("x", "xx")  # what is done is not done again
        assert done.report.steps[-1].name == "hook restart"
        assert any("HOOK_FAILED" in line.words for line in done.report.log)
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN


def test_a_hook_that_takes_too_long_or_lacks_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        slow = hook("slow", "import time; time.sleep(300)", timeout="1s")
        lost.configure(hooks=[slow])
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        with pytest.raises(ProgramError, match="took longer than 1 s"):
            lost.recover()
        assert not processes_with("time.sleep(300)")
        lost.configure(hooks=[hook("slow", "pass", environment=["TOKEN_OF_DNS"])])
        with pytest.raises(ConfigError, match="TOKEN_OF_DNS"):
            lost.recover()
        monkeypatch.setenv("TOKEN_OF_DNS", "word")
        assert lost.recover().report.steps[-1].name == "hook slow"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 503}, "its status is 503, not 200"),
        ({"text": "database: down"}, "does not hold 'database: up'"),
        ({"seconds": 30.0}, "does not answer in time"),
    ],
    ids=["status", "text", "slow"],
)
def test_a_health_address_that_is_wrong_or_slow(answer: dict[str, Any], told: str) -> None:
    with application() as app:
        app.text = "database: up"
        for name, value in answer.items():
            setattr(app, name, value)
        health = Health(url=app.url, expect="database: up", deadline="2s")  # type: ignore[arg-type]
        started = time.monotonic()
        with pytest.raises(ProofFailed, match=told):
            wait_until_healthy(health)
        assert 1.5 < time.monotonic() - started < 15


def test_a_health_address_that_becomes_right(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost, application() as app:
        lost.configure(health={"url": app.url, "expect": "ok", "deadline": "1s"})
        app.status = 500
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        with pytest.raises(ProofFailed, match="HEALTH_NOT_REACHED"):
            lost.recover()
        app.status = 200
        assert lost.recover().report.steps[-1].name == "health"


def test_nobody_listens_at_the_health_address() -> None:
    health = Health(url=f"http://127.0.0.1:{free_port()}/", deadline="1s")  # type: ignore[arg-type]
    with pytest.raises(ProofFailed, match="refused"):
        wait_until_healthy(health)
