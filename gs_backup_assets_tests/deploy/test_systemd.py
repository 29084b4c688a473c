"""The units of systemd: it takes them, what they have in common reaches each, and they run what our programs know."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gs_backup_assets_tests.deploy.pieces import COMMON, INSTALLED, SYSTEMD, command, require_known, unit

SERVICES = sorted(SYSTEMD.glob("*.service"))
LASTING = ("wal", "code-server", "webserver", "daemon", "status")


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_the_command_lines_are_known(service: Path) -> None:
    argv = command(service)
    assert Path(argv[0]).parent == INSTALLED
    require_known(argv)


def test_every_service_is_lasting_or_ends_by_itself() -> None:
    for service in SERVICES:
        settings = unit(service)["Service"]
        if service.stem.removeprefix("gs-backup-") in LASTING:
            assert (settings["Type"], settings["Restart"]) == ("exec", "always"), service.name
            assert unit(service)["Install"]["WantedBy"] == "multi-user.target"
        else:
            assert settings["Type"] == "oneshot" and "Restart" not in settings, service.name


def test_the_storage_is_made_before_anything_opens_it() -> None:
    for name in ("code-server", "webserver", "daemon"):
        section = unit(SYSTEMD / f"gs-backup-{name}.service")["Unit"]
        assert section["Requires"] == "gs-backup-storage.service" and section["Requires"] in section["After"].split()


def test_what_they_write_is_in_folders_that_systemd_makes() -> None:
    common = COMMON.read_text(encoding="utf-8")
    home = f"/var/lib/{unit(COMMON)['Service']['StateDirectory']}"
    assert f"Environment=DAGSTER_HOME={home}/dagster\n" in common
    watch = command(SYSTEMD / "gs-backup-watch.service")
    assert watch[watch.index("--state") + 1] == f"{home}/watch.json"


def test_the_processes_find_each_other() -> None:
    workspace = yaml.safe_load((SYSTEMD / "workspace.yaml").read_text(encoding="utf-8"))
    server = workspace["load_from"][0]["grpc_server"]
    code = command(SYSTEMD / "gs-backup-code-server.service")
    assert code[code.index("-p") + 1] == str(server["port"]) and code[code.index("-h") + 1] == server["host"]
    web = command(SYSTEMD / "gs-backup-webserver.service")
    address = f"http://{web[web.index('-h') + 1]}:{web[web.index('-p') + 1]}"
    status = command(SYSTEMD / "gs-backup-status.service")
    assert status[status.index("--dagster-url") + 1] == address


def test_each_timer_has_its_service() -> None:
    timers = sorted(SYSTEMD.glob("*.timer"))
    assert [timer.name for timer in timers] == ["gs-backup-run@.timer", "gs-backup-watch.timer"]
    for timer in timers:
        assert timer.with_suffix(".service") in SERVICES
        assert unit(timer)["Install"]["WantedBy"] == "timers.target"


def test_the_stream_has_the_time_to_end() -> None:
    settings = unit(SYSTEMD / "gs-backup-wal.service")["Service"]
    assert int(settings["TimeoutStopSec"]) >= 20 and settings["KillMode"] == "mixed"


def test_systemd_takes_them_and_gives_no_more_than_they_need(tmp_path: Path) -> None:
    """By systemd's own programs, which read unit and drop-in as they will be read."""
    if shutil.which("systemd-analyze") is None:
        assert "CI" not in os.environ, "the programs of systemd belong to what a change must pass"
        pytest.skip("no systemd-analyze here; the other tests read the units")
    folder = tmp_path / "units"
    shutil.copytree(SYSTEMD, folder)
    for path in [*folder.glob("*.service"), folder / COMMON.relative_to(SYSTEMD)]:
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith("ExecStart="):
                text = text.replace(line, "ExecStart=/bin/true")
        # Neither the programs nor the account are on this machine.
        path.write_text(text.replace("User=gs-backup", "User=daemon").replace("Group=gs-backup", ""), encoding="utf-8")
    names = [path.name.replace("@.", "@shop.") for path in folder.iterdir() if path.suffix in (".service", ".timer")]
    for name in names:
        if "@" in name:
            shutil.copy(folder / name.replace("@shop", "@"), folder / name)
    verified = subprocess.run(
        ["systemd-analyze", "verify", *(folder / name for name in names)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    for name in [name for name in names if name.endswith(".service")]:
        argv = ["systemd-analyze", "security", "--offline=true", "--threshold=30", folder / name]
        looked = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert looked.returncode == 0, f"{name}: {looked.stdout[-300:]}{looked.stderr}"
