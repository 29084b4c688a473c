"""What deploy/ has for containers: it parses, and every command line in it is one that our programs know."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets_tests.deploy.pieces import DEPLOY, ROOT, compose, program, require_known


def cron_job() -> dict[str, Any]:
    """The CronJob's pod."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "watch-cronjob.yaml").read_text(encoding="utf-8"))
    job = next(document for document in documents if document["kind"] == "CronJob")
    pod: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("service", ["storage", "code-server", "webserver", "daemon", "status"])
def test_the_services_commands_are_known(service: str) -> None:
    require_known(compose("docker-compose.yaml")["services"][service]["command"])


@pytest.mark.parametrize("service", ["code-server", "daemon"])
def test_dagsters_own_health_checks_are_known(service: str) -> None:
    kind, *argv = compose("docker-compose.yaml")["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    require_known(argv)


def test_every_service_has_a_health_check_and_no_secret() -> None:
    for name, service in compose("docker-compose.yaml")["services"].items():
        assert (
            name == "storage"
            or {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()
        ), name
        assert not [key for key in service["environment"] if re.search("URL|KEY|TOKEN|PASSWORD", key)], name


def test_what_the_processes_write_is_on_a_volume() -> None:
    """Also the reports, whose folder is beside backup.yaml unless that names another one."""
    document = compose("docker-compose.yaml")
    for name, service in document["services"].items():
        mounts = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
        file = Path(service["environment"]["GS_BACKUP_CONFIG"])
        reports = DatabaseSettings(name="shop", url_env="SHOP_URL", timezone="UTC", folder=file.parent).reports_path
        for folder in (str(reports), service["environment"]["DAGSTER_HOME"], "/var/backups/postgres"):
            assert mounts.get(folder) in document["volumes"], (name, folder)


def test_the_storage_is_made_before_anything_opens_it(tmp_path: Path) -> None:
    """Webserver and daemon that make the tables of an empty DAGSTER_HOME at once get in each other's way."""
    services = compose("docker-compose.yaml")["services"]
    assert services["storage"]["restart"] == "no"
    assert services["code-server"]["depends_on"]["storage"] == {"condition": "service_completed_successfully"}
    for name in ("webserver", "daemon"):
        assert services[name]["depends_on"]["code-server"] == {"condition": "service_healthy"}, name
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    subprocess.run(program(services["storage"]["command"]), env=environment, check=True, timeout=120)
    made = {path.name for path in tmp_path.rglob("*.db")}
    assert made == {"runs.db", "index.db", "schedules.db"}


def test_the_cron_job_runs_a_known_command_and_keeps_its_memory() -> None:
    pod = cron_job()
    (container,) = pod["containers"]
    argv = container["command"]
    assert argv[:2] == ["gs-backup", "watch"]
    require_known(argv)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    state = Path(argv[argv.index("--state") + 1])
    assert "persistentVolumeClaim" in volumes[mounts[str(state.parent)]], "an empty folder would forget"


def test_the_stream_ends_kindly_and_its_spool_outlives_it() -> None:
    document = compose("wal.yaml")
    stream = document["services"]["gs-backup-wal"]
    require_known(stream["command"])
    assert stream["restart"] == "always" and stream["stop_signal"] == "SIGTERM"
    named = {volume.partition(":")[0] for volume in stream["volumes"] if not volume.startswith(".")}
    assert named == set(document["volumes"])


def test_the_processes_find_each_other() -> None:
    server = yaml.safe_load((DEPLOY / "compose" / "workspace.yaml").read_text(encoding="utf-8"))["load_from"][0]
    services = compose("docker-compose.yaml")["services"]
    code = services["code-server"]["command"]
    assert (
        server["grpc_server"]["host"] in services and str(server["grpc_server"]["port"]) == code[code.index("-p") + 1]
    )


def test_the_image_has_what_it_is_built_of_and_the_account_that_the_pod_runs_as() -> None:
    """An engine for containers is nothing that a test may ask for: the image itself is not built here."""
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert all((ROOT / name[1:]).exists() for name in kept if name.startswith("!"))
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert f"--uid {cron_job()['securityContext']['runAsUser']} " in text and "USER gs-backup\n" in text
    for folder in ("/var/lib/dagster", "/var/backups/postgres", "/etc/gs-backup/reports"):
        assert folder in next(line for line in text.splitlines() if "install -d" in line), folder
