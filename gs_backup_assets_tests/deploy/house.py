"""A whole house of processes as in production, by the units of systemd: code server, webserver, daemon."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gs_backup_assets_tests.assets.conftest import Project
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.deploy.pieces import ROOT, SYSTEMD, command, compose, program
from gs_backup_assets_tests.processes import wait_until

SECONDS = 120.0


@dataclass
class House:
    """The processes by service, their environment, and their ports."""

    environment: dict[str, str]
    ports: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The webserver's address."""
        return f"http://127.0.0.1:{self.ports['3000']}"

    def check(self, service: str) -> bool:
        """Whether a service is healthy by its check in deploy/compose/dagster.yaml, with the ports of this house."""
        services = compose("docker-compose.yaml")["services"]
        kind, *argv = services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        surroundings = {**self.environment, **services[service]["environment"]}
        surroundings = {key: self.environment.get(key, value) for key, value in surroundings.items()}
        asked = program([_with(self.ports, word) for word in argv])
        done = subprocess.run(asked, env=surroundings, capture_output=True, check=False, timeout=SECONDS)
        return done.returncode == 0

    def stop(self, service: str) -> None:
        """End a service's process, hard: a crash."""
        process = self.processes[service]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@contextmanager
def house(project: Project, home: Path, *, daemon: bool = True) -> Iterator[House]:
    """Start everything, wait until each is healthy by its own check; everything ends with the block."""
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    ports = {"4000": str(free_port()), "3000": str(free_port())}
    workspace = home / "workspace.yaml"
    workspace.write_text(_with(ports, (SYSTEMD / workspace.name).read_text(encoding="utf-8")), encoding="utf-8")
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "GS_BACKUP_CONFIG": str(project.file),
        "NO_PROXY": "127.0.0.1,localhost",
        # Short, so that a dead daemon is noticed within a test.
        "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE": "45",
    }
    made = House(environment, ports)

    def argv(service: str) -> list[str]:
        words = command(SYSTEMD / f"gs-backup-{service}.service")
        return program([_with(ports, word).replace("/etc/gs-backup/workspace.yaml", str(workspace)) for word in words])

    subprocess.run(argv("storage"), env=environment, cwd=home, check=True, capture_output=True, timeout=SECONDS)
    with ExitStack() as stack:
        for service in ("code-server", "webserver", *(["daemon"] if daemon else [])):
            log = stack.enter_context(open(home / f"{service}.log", "wb"))
            made.processes[service] = subprocess.Popen(
                argv(service), env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(_end, made.processes[service])
            wait_until(lambda service=service: made.check(service), what=f"{service} is healthy", seconds=SECONDS)
        yield made


def _with(ports: dict[str, str], text: str) -> str:
    for standard, ours in ports.items():
        text = text.replace(standard, ours)
    return text


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
