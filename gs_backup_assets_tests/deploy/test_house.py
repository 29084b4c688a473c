"""The house as in production: each health check tells the living from the dead, and HTTP starts a backup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.status.dagster_api import DagsterApi, DagsterFailed, Started, UnderWay
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import Project, project
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.deploy.house import house
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.status.served import TOKEN, serving

__all__ = ["project"]  # the fixture


@pytest.fixture
def quiet_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield


@pytest.mark.timeout(600)
def test_health_checks_and_the_start_of_a_backup(project: Project, tmp_path: Path, quiet_proxy: None) -> None:
    """One house for all: it takes long to build."""
    # The schedule never comes due during the test, so every run is one that was asked for.
    project.configure(logical='{schedule: "0 0 29 2 *"}')
    with house(project, tmp_path / "home") as made:
        link = {"GS_BACKUP_UI_URL": "https://dagster.example.org"}
        with serving(project.file, "--dagster-url", made.url, environment=link) as served:
            # As a hosted cron asks: a GET with the token in the header.
            first = served.ask("/api/backup", token=TOKEN)
            assert first.status == 202, first.text + served.log.read_text(encoding="utf-8")
            run = first.json()["run_id"]
            assert first.json()["link"] == f"https://dagster.example.org/runs/{run}"
            again = served.ask("/api/backup", "POST", token=TOKEN)
            assert again.status == 409 and again.json()["run_id"] == run, again.text
            assert served.ask("/api/backup", "HEAD", token=TOKEN).status == 405
            wait_until(lambda: project.catalogue.last_proven() is not None, what="a proven backup", seconds=240)
            api = DagsterApi(made.url)
            wait_until(
                lambda: isinstance(api.start("studio_cost_report", project.today[:7] + "-01"), (Started, UnderWay)),
                what="another job starts",
            )
            with pytest.raises(DagsterFailed) as unknown:
                api.start("no_such_job", project.today)
            assert unknown.value.code == "JOB_UNKNOWN"
        entry = project.catalogue.last_proven()
        assert entry is not None and entry.partition == project.today and entry.verdict is Verdict.PROVEN

        assert all(made.check(service) for service in ("code-server", "webserver", "daemon"))
        made.stop("code-server")
        assert not made.check("code-server") and made.check("webserver")
        made.stop("daemon")
        wait_until(lambda: not made.check("daemon"), what="the dead daemon is noticed", seconds=150)
        made.stop("webserver")
        assert not made.check("webserver")


def test_dagster_that_cannot_be_reached_is_said_clearly_and_without_its_address(
    project: Project, quiet_proxy: None
) -> None:
    port = free_port()
    with serving(project.file, "--dagster-url", f"http://127.0.0.1:{port}") as served:
        gone = served.ask("/api/backup", "POST", token=TOKEN)
    assert gone.status == 502 and gone.json()["code"] == "DAGSTER_UNREACHABLE"
    assert "Dagster's webserver cannot be asked" in gone.json()["message"] and str(port) not in gone.text
    with (
        Receiver() as something_else,
        serving(project.file, "--dagster-url", f"http://127.0.0.1:{something_else.port}") as served,
    ):
        strange = served.ask("/api/backup", "POST", token=TOKEN)
    assert strange.status == 502 and strange.json()["code"] == "DAGSTER_UNREACHABLE"
    with serving(project.file, environment={"GS_BACKUP_UI_URL": ""}) as served:
        assert served.ask("/api/backup", "POST", token=TOKEN).status == 502
