"""The page about off-site stores: its examples are valid, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gs_backup_assets.config import load_config
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.recovery.doctor.bucket import CHECKS
from gs_backup_assets_tests.iam import ROLES

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "offsite.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_example_is_a_valid_configuration(example: str, tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text(example, encoding="utf-8")
    assert isinstance(load_config(tmp_path / "backup.yaml").database().stores.offsite, S3StoreConfig)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) > 8
    assert [link for link in links if "://" not in link and not (DOCS / link).is_file()] == []


def test_every_role_and_every_check_is_explained() -> None:
    rows = re.findall(r"^\| \[?`?([a-z_-]+)`?\]?", PAGE, re.MULTILINE)
    assert set(ROLES) <= set(rows) and set(CHECKS) <= set(rows)
