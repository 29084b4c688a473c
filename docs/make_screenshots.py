"""Makes the screenshots in docs/images: runs the demo with the Dagster UI and looks at it with a real browser.

Needs Chromium (Debian: `apt-get install chromium`; CHROMIUM names another one) and the development requirements.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from playwright.sync_api import FloatRect, Page, sync_playwright

from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.config import load_config
from gs_backup_assets.postgres.cluster import create_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.toolchain import embedded_server
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.system.programs import Program
from gs_backup_assets.vault.keys import new_raw_key

IMAGES = Path(__file__).parent / "images"
UI = "http://127.0.0.1:3000"
LOCATION = "gs_backup_assets"
GROUP = "guitar_strategies"
SERVER = {"wal_level": "replica", "summarize_wal": "on", "timezone": "America/Chicago", "shared_buffers": "64MB"}
CONFIG = """\
databases: {guitar_strategies: {url_env: DATABASE_URL}}
timezone: America/Chicago
first_partition: "{first}"
stores: {primary: {kind: local, path: backups}, offsite: {kind: local, path: elsewhere}}
encryption: {kind: raw-aes-256, key_env: GS_BACKUP_KEY}
retention: {}
physical: {}
wal: {partial_every: 1s, offsite_every: 2s}
rules: guitar_strategies
data_classes:
  critical: {rpo: 15m, rto: 1h, tables: [User, Lesson, Invoice, StudentProfile, TeacherProfile]}
  important: {rpo: 1h, rto: 4h}
"""
DAGSTER = """\
telemetry: {enabled: false}
nux: {enabled: false} # a welcome dialog would cover the pages
"""
WORKSPACE = """\
load_from:
  - python_module: {module_name: gs_backup_assets.definitions, location_name: gs_backup_assets}
"""
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Make a project in which everything is configured and has run, take the pictures, stop everything."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium found: install it, or name it in CHROMIUM")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with _project() as (folder, environment), _ui(folder, environment), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        _dagster(page)
        _report(page, next(folder.glob("reports/*/*/report.html")))
        _status(page, folder / "backup.yaml", environment)
        browser.close()


@contextmanager
def _project() -> Iterator[tuple[Path, dict[str, str]]]:
    """A server with the sample, a backup.yaml with all of it, a backup of each kind, the log and a drill."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="screenshots-")))
        folder.chmod(0o755)  # servers run as another account when this one is root
        cluster = stack.enter_context(
            running_cluster(embedded_server(), purpose="screenshots", settings=SERVER, superuser="postgres")
        )
        with connect(cluster.target()) as connection:
            create_database(connection, GROUP)
        with connect(cluster.target(GROUP)) as connection:
            load_sample(connection, scale=0.5)
        first = (datetime.now(timezone.utc) - timedelta(days=13)).date()  # two weeks of partitions
        (folder / "backup.yaml").write_text(CONFIG.replace("{first}", str(first)), encoding="utf-8")
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text(DAGSTER, encoding="utf-8")
        (folder / "workspace.yaml").write_text(WORKSPACE, encoding="utf-8")
        target = cluster.target(GROUP)
        address = f"postgresql://postgres@/{GROUP}?host={target.host}&port={target.parameters['port']}"
        environment = {
            **{key: value for key, value in os.environ.items() if key != "GS_BACKUP_API_TOKEN"},
            "DATABASE_URL": address,
            "GS_BACKUP_KEY": new_raw_key(),
            "GS_BACKUP_CONFIG": str(folder / "backup.yaml"),
            "DAGSTER_HOME": str(folder / "home"),
        }

        def do(program: str, *arguments: str) -> None:
            argv = [Path(sys.executable).with_name(program), *arguments]
            subprocess.run(argv, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        do("gs-backup", "run")
        stream = subprocess.Popen(
            [Path(sys.executable).with_name("gs-backup"), "wal", "stream"],
            env=environment,
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(stream.wait)
        stack.callback(stream.terminate)
        week = WEEK.of(datetime.now(timezone.utc), load_config(folder / "backup.yaml").database().zone)
        module = ("-m", "gs_backup_assets.definitions", "--partition", week)
        do("dagster", "asset", "materialize", "--select", f"{GROUP}/base_backup,{GROUP}/verified_recovery", *module)
        for number in range(30):  # something to recover to
            with connect(target, settings={"search_path": "public"}) as connection:
                query(connection, f"CREATE TABLE moment_{number} (n int)")
                query(connection, f"DROP TABLE moment_{number}")
            time.sleep(0.5)
        time.sleep(5)
        do("gs-backup", "copy")
        do("dagster", "asset", "materialize", "--select", f"{GROUP}/pitr_drill", *module)
        yield folder, environment


@contextmanager
def _ui(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """The Dagster UI and its daemon."""
    argv = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-h",
        "127.0.0.1",
        "-p",
        "3000",
        "-w",
        str(folder / "workspace.yaml"),
    ]
    # A shell starts background jobs with SIGINT ignored, and children inherit that: this ends them nevertheless.
    with Program(argv, environment=environment, cwd=folder, stop_signal=signal.SIGINT) as dagster:
        _wait_for_ui(dagster)
        time.sleep(60)  # sensors report the log
        yield


def _wait_for_ui(dagster: Program) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and dagster.running:
        try:
            urllib.request.urlopen(f"{UI}/server_info", timeout=2)
            return
        except OSError:
            time.sleep(1)
    sys.exit("the Dagster UI did not come up")


def _dagster(page: Page) -> None:
    group = GROUP
    page.set_viewport_size({"width": 2300, "height": 1500})  # the whole chain, with partitions and checks on its nodes
    page.goto(f"{UI}/locations/{LOCATION}/asset-groups/{group}/lineage")
    page.get_by_text("verified_restore").first.wait_for(timeout=60_000)
    page.wait_for_timeout(4000)  # the graph is laid out and zoomed with an animation
    page.mouse.move(1250, 780)  # the middle of the graph stays where it is
    for _ in range(4):  # near enough for the nodes to show partitions and checks
        page.mouse.wheel(0, -110)
        page.wait_for_timeout(500)
    page.mouse.move(2200, 1490)  # away from the nodes: no tooltip
    page.wait_for_timeout(1000)
    nodes = (
        "source_database",
        "objectives",
        "retention",
        "offsite_copy",
        "pitr_drill",
        "verified_recovery",
        "base_backup",
    )
    boxes = [box for name in nodes if (box := page.get_by_text(name).last.bounding_box()) is not None]
    left, right = min(box["x"] for box in boxes) - 40, max(box["x"] for box in boxes) + 300
    top, bottom = min(box["y"] for box in boxes) - 110, max(box["y"] for box in boxes) + 175
    left, top = max(0.0, left), max(0.0, top)
    clip: FloatRect = {"x": left, "y": top, "width": min(right, 2240) - left, "height": min(bottom, 1480) - top}
    page.screenshot(path=IMAGES / "lineage.png", clip=clip)
    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(f"{UI}/assets/{group}/integrity_report?view=checks")
    page.get_by_text("foreign_keys_hold").first.wait_for(timeout=60_000)
    page.wait_for_timeout(2000)
    page.screenshot(path=IMAGES / "checks.png")
    page.goto(f"{UI}/assets/{group}/verified_restore?view=partitions")
    page.wait_for_timeout(4000)
    page.screenshot(path=IMAGES / "partitions.png")
    page.goto(f"{UI}/assets/{group}/pitr_drill?view=checks&checkDetail=commits_after_absent")
    page.get_by_text("commits_before_present").first.wait_for(timeout=60_000)
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "drill.png")


def _report(page: Page, report: Path) -> None:
    page.set_viewport_size({"width": 1180, "height": 1300})
    page.goto(report.as_uri())
    page.screenshot(path=IMAGES / "report.png")


def _status(page: Page, config: Path, environment: dict[str, str]) -> None:
    """The status page as a phone shows it, from a server of its own on the demo's stores."""
    argv = [Path(sys.executable).with_name("gs-backup"), "serve", "--port", "0", "--json", "--config", config]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        try:
            document = b""
            while not document.endswith(b"}\n"):
                document += server.stdout.readline()
            page.set_viewport_size({"width": 390, "height": 844})
            page.goto(json.loads(document)["url"])
            page.locator(".card").first.wait_for()
            page.screenshot(path=IMAGES / "status.png", full_page=True)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
