"""The units in deploy/: they can be read, and their command lines are ones that `gs-backup` knows."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "systemd" / "gs-backup-wal.service"
COMPOSE = DEPLOY / "compose" / "wal.yaml"


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def require_known(argv: list[str], tmp_path: Path) -> None:
    """The command line reaches the configuration, which is not there: options that are unknown end before that."""
    assert Path(argv[0]).name == "gs-backup"
    arguments = [str(tmp_path / "none.yaml") if a.endswith("backup.yaml") else a for a in argv[1:]]
    source = "from gs_backup_assets.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        capture_output=True,
        text=True,
        cwd=DEPLOY.parent,
        env={**os.environ, "GS_BACKUP_CONFIG": ""},
        check=False,
    )
    assert result.returncode == 2 and "CONFIG_NOT_FOUND" in result.stderr, result.stderr


def test_the_command_lines_are_valid(tmp_path: Path) -> None:
    require_known(shlex.split(unit()["Service"]["ExecStart"]), tmp_path)
    service = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["gs-backup-wal"]
    require_known(service["command"], tmp_path)


def test_they_start_again_and_end_kindly() -> None:
    service = unit()["Service"]
    assert service["Restart"] == "always" and service["EnvironmentFile"]
    assert int(service["TimeoutStopSec"]) >= 20
    compose = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    stream = compose["services"]["gs-backup-wal"]
    assert stream["restart"] == "always" and stream["stop_signal"] == "SIGTERM"
    named = {volume.partition(":")[0] for volume in stream["volumes"] if not volume.startswith(".")}
    assert named == set(compose["volumes"]), "the spool outlives the container"


def test_the_unit_gives_no_more_than_it_needs() -> None:
    service = unit()["Service"]
    for setting in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert service[setting] == "yes"
    assert service["ProtectSystem"] == "strict" and service["UMask"] == "0077"
    assert service["CapabilityBoundingSet"] == "" and service["User"] != "root"


def test_systemd_takes_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here; the other tests read the unit")
    copy = tmp_path / UNIT.name
    copy.write_text(
        UNIT.read_text().replace("/usr/local/bin/gs-backup", "/bin/true").replace("=gs-backup\n", "=root\n")
    )
    result = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert UNIT.name not in result.stderr, result.stderr
