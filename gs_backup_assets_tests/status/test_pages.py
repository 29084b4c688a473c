"""The pages on status and watch: links lead somewhere, examples are valid, options are ones that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gs_backup_assets.config import load_config

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("status.md", "watch.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (DOCS / name).read_text(encoding="utf-8"))
    assert links and [link for link in links if "://" not in link and not (DOCS / link).is_file()] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_example_parses(name: str, tmp_path: Path) -> None:
    """Those that are sections of backup.yaml are valid there; the others are Prometheus' own."""
    examples = re.findall(r"```yaml\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        document = yaml.safe_load(example)
        if "databases" in document:
            (tmp_path / "backup.yaml").write_text(example, encoding="utf-8")
            assert (
                load_config(tmp_path / "backup.yaml").database("studio").alerts.heartbeat_url_env.startswith("STUDIO")
            )
        else:
            assert document.keys() <= {"scrape_configs", "groups"}


@pytest.mark.parametrize(("name", "verb"), [("status.md", "serve"), ("watch.md", "watch")])
def test_every_option_is_one_that_there_is(name: str, verb: str) -> None:
    program = Path(sys.executable).with_name("gs-backup")
    told = subprocess.run([program, verb, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    page = (DOCS / name).read_text(encoding="utf-8")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) - {"--now", "--failed"}
    assert options and [option for option in options if option not in told] == []
