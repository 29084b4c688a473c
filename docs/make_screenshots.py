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
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
UI = "http://127.0.0.1:3000"
LOCATION = "gs_backup_assets"
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Start the demo, take the pictures, stop everything."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium found: install it, or name it in CHROMIUM")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo = subprocess.Popen(
            [Path(sys.executable).with_name("gs-backup"), "demo", "--serve", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            _wait_for_ui(demo)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
                page = browser.new_page(viewport={"width": 1600, "height": 900})
                _dagster(page)
                _report(page, next(Path(folder).glob("reports/*/*/report.html")))
                _status(page, Path(folder) / "backup.yaml")
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(60)


def _wait_for_ui(demo: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and demo.poll() is None:
        try:
            urllib.request.urlopen(f"{UI}/server_info", timeout=2)
            return
        except OSError:
            time.sleep(1)
    sys.exit("the Dagster UI did not come up")


def _dagster(page: Page) -> None:
    group = "guitar_strategies"
    page.set_viewport_size({"width": 2300, "height": 900})  # the whole chain, with partitions and checks on its nodes
    page.goto(f"{UI}/locations/{LOCATION}/asset-groups/{group}/lineage")
    page.get_by_text("verified_restore").first.wait_for(timeout=60_000)
    page.wait_for_timeout(4000)  # the graph is laid out and zoomed with an animation
    page.get_by_text("offsite_copy").last.hover()  # the middle of the chain stays where it is
    for _ in range(4):  # near enough for the nodes to show partitions and checks
        page.mouse.wheel(0, -110)
        page.wait_for_timeout(500)
    page.mouse.move(1400, 880)  # away from the nodes: no tooltip
    page.wait_for_timeout(1000)
    first, row, lowest = (
        page.get_by_text(name).last.bounding_box() for name in ("source_database", "integrity_report", "cost_report")
    )
    assert first is not None and row is not None and lowest is not None
    left, top = max(0.0, first["x"] - 40), max(0.0, row["y"] - 40)
    width = (row["x"] - first["x"]) * 6 / 5 + 300  # the report is the sixth in the row, retention the seventh
    clip = {"x": left, "y": top, "width": min(width, 2240 - left), "height": lowest["y"] + 150 - top}
    page.screenshot(path=IMAGES / "lineage.png", clip=clip)
    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(f"{UI}/assets/{group}/integrity_report?view=checks")
    page.get_by_text("foreign_keys_hold").first.wait_for(timeout=60_000)
    page.wait_for_timeout(2000)
    page.screenshot(path=IMAGES / "checks.png")
    page.goto(f"{UI}/assets/{group}/verified_restore?view=partitions")
    page.wait_for_timeout(4000)
    page.screenshot(path=IMAGES / "partitions.png")


def _report(page: Page, report: Path) -> None:
    page.set_viewport_size({"width": 1180, "height": 1300})
    page.goto(report.as_uri())
    page.screenshot(path=IMAGES / "report.png")


def _status(page: Page, config: Path) -> None:
    """The status page as a phone shows it, from a server of its own on the demo's stores."""
    argv = [Path(sys.executable).with_name("gs-backup"), "serve", "--port", "0", "--json", "--config", config]
    environment = {key: value for key, value in os.environ.items() if key != "GS_BACKUP_API_TOKEN"}
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
