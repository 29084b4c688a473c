"""The ready-made pieces in deploy/: they parse, and every command line in them is one that our programs know."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gs_backup_assets.config import DatabaseSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("gs-backup-watch.*"))


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "dagster.yaml").read_text(encoding="utf-8"))
    return document


def cron_job() -> dict[str, Any]:
    """The CronJob's pod."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "watch-cronjob.yaml").read_text(encoding="utf-8"))
    job = next(document for document in documents if document["kind"] == "CronJob")
    pod: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def unit(name: str) -> configparser.RawConfigParser:
    parser = _Unit(strict=False, comment_prefixes=("#",), interpolation=None)
    parser.read_string((SYSTEMD / name).read_text(encoding="utf-8"))
    return parser


def require_known(argv: list[str]) -> None:
    """The program says in its help that it knows each option of a command line."""
    verb = [word for word in argv[1:] if not word.startswith("-")]
    depth = 1 if argv[0] in ("gs-backup", "dagster-daemon") else 0 if argv[0] == "dagster-webserver" else 2
    program = Path(sys.executable).with_name(argv[0])
    done = subprocess.run([program, *verb[:depth], "--help"], capture_output=True, text=True, check=True, timeout=120)
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))
    for word in argv[1:]:
        if word.startswith("-"):
            assert word in known, f"{argv[0]} {' '.join(verb[:depth])} knows no {word}"


@pytest.mark.parametrize("service", ["storage", "code-server", "webserver", "daemon", "status"])
def test_the_services_commands_are_known(service: str) -> None:
    require_known(compose()["services"][service]["command"])


@pytest.mark.parametrize("service", ["code-server", "daemon"])
def test_dagsters_own_health_checks_are_known(service: str) -> None:
    kind, *argv = compose()["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    require_known(argv)


def test_every_service_has_a_health_check_and_no_secret() -> None:
    for name, service in compose()["services"].items():
        assert (
            name == "storage"
            or {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()
        ), name
        assert not [key for key in service["environment"] if re.search("URL|KEY|TOKEN|PASSWORD", key)], name


def test_what_the_processes_write_is_on_a_volume() -> None:
    """Also the reports, whose folder is beside backup.yaml unless that names another one."""
    document = compose()
    for name, service in document["services"].items():
        mounts = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
        file = Path(service["environment"]["GS_BACKUP_CONFIG"])
        reports = DatabaseSettings(name="shop", url_env="SHOP_URL", timezone="UTC", folder=file.parent).reports_path
        for folder in (str(reports), service["environment"]["DAGSTER_HOME"], "/var/backups/postgres"):
            assert mounts.get(folder) in document["volumes"], (name, folder)


def test_the_storage_is_made_before_anything_opens_it(tmp_path: Path) -> None:
    """Webserver and daemon that make the tables of an empty DAGSTER_HOME at once get in each other's way."""
    services = compose()["services"]
    assert services["storage"]["restart"] == "no"
    assert services["code-server"]["depends_on"]["storage"] == {"condition": "service_completed_successfully"}
    for name in ("webserver", "daemon"):
        assert services[name]["depends_on"]["code-server"] == {"condition": "service_healthy"}, name
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    program, *rest = services["storage"]["command"]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    subprocess.run([Path(sys.executable).with_name(program), *rest], env=environment, check=True, timeout=120)
    made = {path.name for path in tmp_path.rglob("*.db")}
    assert made == {"runs.db", "index.db", "schedules.db"}


def test_the_watch_unit_runs_a_known_command() -> None:
    service = unit("gs-backup-watch.service")
    argv = shlex.split(service["Service"]["ExecStart"])
    assert Path(argv[0]).name == "gs-backup" and argv[1] == "watch"
    require_known(["gs-backup", *argv[1:]])
    state = argv[argv.index("--state") + 1]
    assert state == f"/var/lib/{service['Service']['StateDirectory']}/watch.json", "a folder that systemd makes"


def test_the_units_belong_together() -> None:
    assert UNITS == ["gs-backup-watch.service", "gs-backup-watch.timer"]
    timer = unit("gs-backup-watch.timer")
    assert timer["Timer"]["OnCalendar"] == "*:0/15" and timer["Install"]["WantedBy"] == "timers.target"


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
