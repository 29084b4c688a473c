"""The whole as it runs in production: a daemon whose schedule ticks, a run, its proof, a message to people."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.postgres.cluster import Cluster, create_database, drop_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.assets.conftest import ALERTS_VARIABLE, Project
from gs_backup_assets_tests.conftest import free_port, toolchain_of

ROOT = Path(__file__).parents[2]
WORKSPACE = (
    "load_from: [{python_module: {module_name: gs_backup_assets.definitions, location_name: gs_backup_assets}}]\n"
)


def wait_for(what: str, met: Callable[[], bool], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.5)


def environment_of(project: Project, home: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "GS_BACKUP_CONFIG": str(project.file),
        "NO_PROXY": "127.0.0.1",
        **more,
    }


@contextmanager
def daemon(project: Project, home: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A `dagster-daemon` process; everything that it started ends with it."""
    (home / "workspace.yaml").write_text(WORKSPACE, encoding="utf-8")
    argv = [Path(sys.executable).with_name("dagster-daemon"), "run", "-w", home / "workspace.yaml"]
    log = open(home / "daemon.log", "wb")
    process = subprocess.Popen(
        argv, env=environment, cwd=project.folder, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


@pytest.mark.timeout(400)
def test_a_daemon_takes_proves_and_tells(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks every minute: that there is no backup is told, then a proven backup appears, then the recovery is told."""
    project.configure(logical='{schedule: "* * * * *"}')
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with Receiver() as receiver:
        environment = environment_of(project, home, **{ALERTS_VARIABLE: receiver.url()})
        with daemon(project, home, environment):
            wait_for("the alarm", lambda: any("there is no backup" in str(post) for post in receiver.received))
            wait_for("a proven backup", lambda: project.catalogue.last_proven() is not None)
            wait_for("the recovery", lambda: any("ecovered" in title for title in receiver.titles))
    entry = project.catalogue.last_proven()
    assert entry is not None and entry.verdict is Verdict.PROVEN and entry.partition == project.today
    kinds = [title for title in receiver.titles if "failed" in title.lower()]
    assert kinds == []


@pytest.fixture
def storage_server() -> Iterator[tuple[Cluster, int]]:
    """A server for the Dagster instance, on TCP as in production, apart from the one that is backed up."""
    port = free_port()
    settings = {"fsync": "off", "max_connections": "100"}
    with running_cluster(toolchain_of(17), purpose="storage", settings=settings, port=port) as cluster:
        with connect(cluster.target()) as connection:
            create_database(connection, "dagster")
        yield cluster, port
        with connect(cluster.target()) as connection:
            drop_database(connection, "dagster")


def test_runs_are_recorded_in_postgres_storage(
    project: Project, tmp_path: Path, storage_server: tuple[Cluster, int]
) -> None:
    cluster, port = storage_server
    home = tmp_path / "home"
    home.mkdir()
    text = (ROOT / "dagster.postgres.yaml").read_text(encoding="utf-8")
    (home / "dagster.yaml").write_text(text, encoding="utf-8")
    environment = environment_of(
        project,
        home,
        DAGSTER_PG_HOST="127.0.0.1",
        DAGSTER_PG_PORT=str(port),
        DAGSTER_PG_DB="dagster",
        DAGSTER_PG_USER=cluster.superuser,
        DAGSTER_PG_PASSWORD="not-asked-for",
    )
    argv = [Path(sys.executable).with_name("gs-backup"), "run", "--json", "--config", project.file]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    with connect(cluster.target("dagster")) as connection:
        (status,) = query(connection, "SELECT status FROM public.runs")[0]
        partitions = query(connection, "SELECT DISTINCT partition FROM public.event_logs WHERE partition IS NOT NULL")
    assert status == "SUCCESS" and partitions == [(project.today,)]
    assert not list(home.glob("history/**/*.db"))


def test_the_two_instances_differ_in_storage_alone() -> None:
    plain, postgres = (
        yaml.safe_load((ROOT / name).read_text(encoding="utf-8")) for name in ("dagster.yaml", "dagster.postgres.yaml")
    )
    assert postgres.pop("storage")["postgres"]["postgres_db"]["scheme"] == "postgresql+psycopg2"
    assert plain == postgres
