"""`gs-backup recover` and `coverage` as people call them: plan, result, refusals, and what is left after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets_tests.processes import open_folder, processes_with, wait_until
from gs_backup_assets_tests.production import Production, new_folder
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, site

ROOT = Path(__file__).parents[2]
ISO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"
CLI = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]


@dataclass
class Scene:
    """Rows 1 to 4, each in a segment of its own behind a base backup. The server is stopped: nothing here needs it.

    `first` is the position behind the commit of row 1.
    """

    site: Site
    first: Lsn

    @property
    def folder(self) -> Path:
        return self.site.folder

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        config = ["--config", str(self.folder / "backup.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder / "tmp")}
        return subprocess.Popen(
            [*CLI, *arguments, *config],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.folder,
            **options,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == status, (process.returncode, out, err)
        return out

    def json(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        document = json.loads(self.run(*arguments, "--json", status=status))
        assert isinstance(document, dict)
        return document


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with open_folder() as folder, site(folder, 17) as one:
        (folder / "tmp").mkdir(mode=0o755)
        (folder / "backup.yaml").write_text(yaml.safe_dump({"databases": {"shop": {"url_env": "TEST_DATABASE_URL"}}}))
        one.server.sql("INSERT INTO t VALUES (0)")
        one.base_backup()
        one.server.sql("INSERT INTO t VALUES (1)")
        first = one.lsn()
        for number in (2, 3, 4):
            one.switch()
            one.server.sql(f"INSERT INTO t VALUES ({number})")
        one.archive()
        one.server.stop()
        yield Scene(one, first)
        one.server.start()


def started(scene: Scene, data: Path) -> Production:
    """The recovered data directory, started by somebody else."""
    again = Production(scene.site.server.toolchain, data.parent)
    again.data = data
    again.start()
    return again


def test_the_plan_is_shown_and_nothing_is_done(scene: Scene) -> None:
    plan = scene.json("recover", "--to", str(scene.first), "--plan")
    assert plan["target"] == {"kind": "lsn", "value": str(scene.first), "timeline": 1}
    assert plan["base"]["chain"] == [plan["base"]["id"]]
    assert re.fullmatch(ISO_TIME, plan["base"]["consistent_at"]) and re.fullmatch(ISO_TIME, plan["last_commit"]["at"])
    assert plan["wal"]["segments"] >= 1 and plan["fetch_bytes"] > 100_000
    text = scene.run("recover", "--to", "latest", "--plan")
    assert "expected loss" in text and plan["base"]["id"] in text


def test_recover_leaves_a_data_directory_that_can_be_started(scene: Scene) -> None:
    into = scene.folder / "back"
    done = scene.json("recover", "--to", str(scene.first), "--into", str(into))
    assert done["achieved"]["lsn"] == str(scene.first)
    assert re.fullmatch(ISO_TIME, done["achieved"]["at"])
    assert {"plan", "fetch", "start", "replay", "promote", "checks", "finish"} <= set(done["stage_seconds"])
    assert not processes_with(str(into))
    assert sorted(path.name for path in into.iterdir()) in (["data"], ["data", "tablespaces"])
    again = started(scene, Path(done["data_directory"]))
    try:
        assert again.sql("SELECT id FROM t ORDER BY id") == [(0,), (1,)]
        assert again.sql("SHOW archive_mode") == [("off",)]
    finally:
        again.stop()
    record = AuditLog(scene.site.vault.primary, "shop").records()[-1]
    assert (record.event, record.result, record.ids["target"]) == ("recover", "recovered", str(scene.first))
    assert scene.json("recover", "--to", "latest", "--into", str(into), status=2)["error"]["code"] == "INTO_NOT_EMPTY"


def test_a_cluster_whose_configuration_lay_elsewhere_gets_one(scene: Scene) -> None:
    """As on Debian: its data directory has no postgresql.conf. It starts, and archives nothing."""
    into = scene.folder / "debian"
    (scene.folder / "elsewhere" / "tmp").mkdir(parents=True, mode=0o755)
    with site(scene.folder / "elsewhere", 15) as one:
        server, outside = one.server, one.server.folder / "etc"
        outside.mkdir(mode=0o755)
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (server.data / name).rename(outside / name)
            (outside / name).chmod(0o644)
        server.stop()
        server.arguments = [f"--{n}={outside / f}" for n, f in CONFIGURATION.items()]
        server.start()
        server.sql("ALTER SYSTEM SET work_mem = '7MB'")
        server.sql("SELECT pg_reload_conf()")
        one.base_backup()
        server.sql(f"CREATE TABLESPACE younger LOCATION '{new_folder(server, 'younger')}'")
        server.sql("CREATE TABLE young TABLESPACE younger AS SELECT 1 AS id")
        one.archive()
        (scene.folder / "elsewhere" / "backup.yaml").write_text((scene.folder / "backup.yaml").read_text())
        other = Scene(one, scene.first)
        done = other.json("recover", "--to", "latest", "--into", str(into))
    data = Path(done["data_directory"])
    written = (data / "postgresql.conf").read_text()
    assert "max_wal_senders = '10'" in written
    assert "\n# listen_addresses = '127.0.0.1'" in written
    assert [line for line in (data / "pg_hba.conf").read_text().splitlines() if not line.startswith("#")] == [
        "local  all  all  peer"
    ]
    with open(data / "pg_hba.conf", "a") as rules:  # the test is another account
        rules.write("host all all 127.0.0.1/32 trust\n")
    again = started(other, data)
    try:
        assert again.sql("SHOW work_mem") == [("7MB",)]
        assert again.sql("SHOW archive_mode") == [("off",)]
        assert again.sql("SELECT id FROM young") == [(1,)]
        # Made by the log, after the base backup: beside the data directory, as those of the base backup.
        (oid, location) = again.sql("SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace ORDER BY oid DESC")[0]
        assert location == str(into / "tablespaces" / str(oid))
    finally:
        again.stop()
    assert any("postgresql.conf was written" in text for text in done["notes"])
    assert any("younger than the base backup" in text for text in done["notes"])


CONFIGURATION = {"config_file": "postgresql.conf", "hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("--to", "2026-11-24T18:00:00"), 2, "TARGET_ZONE_MISSING"),
        (("--to", "latest", "--no-such-option"), 2, "USAGE"),
        (("--to", "latest"), 2, "INTO_MISSING"),
        (("--to", "2999-01-01T00:00:00Z", "--plan"), 2, "TARGET_IN_FUTURE"),
        (("--to", "2001-01-01T00:00:00Z", "--plan"), 1, "TARGET_BEFORE_FIRST_BACKUP"),
        (("--to", "FF/0", "--plan"), 1, "TARGET_AFTER_END"),
        (("--to", "nowhere", "--plan"), 1, "RESTORE_POINT_UNKNOWN"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_have_a_code_and_an_exit_status(
    scene: Scene, arguments: tuple[str, ...], status: int, code: str
) -> None:
    assert scene.json("recover", *arguments, status=status)["error"]["code"] == code


def test_coverage_shows_the_window_and_fails_on_a_gap(scene: Scene) -> None:
    found = scene.json("coverage")
    (cluster,) = found["clusters"]
    (window,) = cluster["windows"]
    assert (found["problem"], window["timeline"], cluster["gaps"]) == (None, 1, [])
    assert found["loss_if_recovered_now_seconds"] > 0
    assert "would be lost" in scene.run("coverage")
    path = Path(scene.site.vault.primary.describe()) / scene.site.plan("latest").segments[1].key
    aside = scene.folder / "aside"
    path.rename(aside)
    try:
        broken = scene.json("coverage", status=1)
        assert "take a new one" in broken["problem"]
        assert path.name[:24] in broken["clusters"][0]["windows"][0]["ends_because"]
    finally:
        aside.rename(path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_a_recovery_that_is_ended_in_the_middle_leaves_no_server_and_can_be_begun_again(
    scene: Scene, number: signal.Signals
) -> None:
    into = scene.folder / f"killed-{number.name}"
    process = scene.start("recover", "--to", str(scene.first), "--into", str(into), start_new_session=True)
    try:
        wait_until(
            lambda: any("/postgres -D" in line for _, line in processes_with(str(into))),
            what="the server has been started",
            seconds=120,
        )
    finally:
        os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    wait_until(lambda: not processes_with(str(into)), what="no server is left")
    wait_until(lambda: not list(into.glob("gs-backup-*")), what="no private folder is left")
    assert (into / "UNFINISHED-RECOVERY.json").exists()
    done = scene.json("recover", "--to", str(scene.first), "--into", str(into))
    assert done["achieved"]["lsn"] == str(scene.first)
    assert not (into / "UNFINISHED-RECOVERY.json").exists()
