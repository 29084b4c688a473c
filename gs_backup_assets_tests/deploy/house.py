"""A whole house of processes as in production: code server, webserver, daemon, with a workspace between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gs_backup_assets_tests.assets.conftest import Project
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.processes import wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
LOCATION = "gs_backup_assets.definitions"


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
        services = yaml.safe_load((ROOT / "deploy" / "compose" / "dagster.yaml").read_text(encoding="utf-8"))[
            "services"
        ]
        kind, *argv = services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        surroundings = {**self.environment, **services[service]["environment"]}
        surroundings = {key: self.environment.get(key, value) for key, value in surroundings.items()}
        for standard, ours in self.ports.items():
            argv = [word.replace(standard, ours) for word in argv]
        program = sys.executable if argv[0] == "python" else str(Path(sys.executable).with_name(argv[0]))
        done = subprocess.run([program, *argv[1:]], env=surroundings, capture_output=True, check=False, timeout=SECONDS)
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
    code, web = free_port(), free_port()
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code}, location_name: gs_backup_assets}}}}]\n",
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "GS_BACKUP_CONFIG": str(project.file),
        "NO_PROXY": "127.0.0.1,localhost",
        # Short, so that a dead daemon is noticed within a test.
        "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE": "45",
    }
    made = House(environment, {"4000": str(code), "3000": str(web)})
    services = {
        "code-server": ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code), "-m", LOCATION],
        "webserver": ["dagster-webserver", "-h", "127.0.0.1", "-p", str(web), "-w", str(workspace)],
        "daemon": ["dagster-daemon", "run", "-w", str(workspace)],
    }
    with ExitStack() as stack:
        for service, argv in services.items():
            if service == "daemon" and not daemon:
                continue
            log = stack.enter_context(open(home / f"{service}.log", "wb"))
            program = Path(sys.executable).with_name(argv[0])
            made.processes[service] = subprocess.Popen(
                [program, *argv[1:]], env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(_end, made.processes[service])
            wait_until(lambda service=service: made.check(service), what=f"{service} is healthy", seconds=SECONDS)
        yield made


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
