"""The map of the strategy document leads to what there is: verbs, assets, checks, files and pages."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest
import typer

from gs_backup_assets.cli import main as cli
from gs_backup_assets.config import load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets_tests.docs.ground import ROOT, write_config

DOCS = ROOT / "docs"
PAGE = (DOCS / "strategy-map.md").read_text(encoding="utf-8")
STRATEGY = """daily backup|wal archiving|replica|vercel|railway|rds|verification|monthly restore|complete loss|
partial corruption|backup-status|health check|staging|cost|lifecycle|compression|deduplication|cleanup|at rest|
in transit|access control|key management|audit|anonymi|retention policy|recovery documentation|test documentation|
incident|standards"""
# Backticked words of the page that are neither assets nor checks.
_KEYS = {"data_classes", "stores", "encryption", "users", "archive_command", "checkpoint_segments", "trigger_file"}


def _verbs() -> set[str]:
    if not cli.app.registered_commands:
        cli._register()
    group = typer.main.get_command(cli.app)
    found = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found.add(name)
        found.update(f"{name} {inner}" for inner in getattr(command, "commands", {}))
    return found


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Names of all assets and of all checks when everything is configured."""
    folder = tmp_path_factory.mktemp("everything")
    write_config(
        folder,
        replicas={"spare": {"url_env": "SPARE_URL"}},
        staging={"url_env": "STAGING_URL"},
        disaster_recovery={"into": "/srv/recovered"},
    )
    graph = build_definitions(load_config(folder / "backup.yaml")).resolve_asset_graph()
    assets = {key.path[-1] for key in graph.get_all_asset_keys()}
    return assets, {key.name for key in graph.asset_check_keys}


def test_every_verb_is_there() -> None:
    named = set(re.findall(r"`gs-backup ([a-z-]+(?: [a-z-]+)?)`", PAGE))
    assert len(named) > 20 and named - _verbs() == set()


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) > 30 and [link for link in links if not (DOCS / link).is_file()] == []


def test_every_asset_and_every_check_is_there(graph: tuple[set[str], set[str]]) -> None:
    assets, checks = graph
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE)) - _KEYS
    assert named - assets - checks - {"disaster_recovery", "pg_promote"} == set()
    assert assets - {"source_database"} - set(re.findall(r"`(\w+)`", PAGE)) == set(), (
        "an asset that the map does not name"
    )


def test_the_job_for_a_complete_loss_is_there(tmp_path: Path) -> None:
    write_config(tmp_path, disaster_recovery={"into": "/srv/recovered"})
    definitions: dg.Definitions = build_definitions(load_config(tmp_path / "backup.yaml"))
    assert definitions.resolve_job_def("studio_disaster_recovery")


@pytest.mark.parametrize("item", [item.strip() for item in STRATEGY.replace("\n", "").split("|")])
def test_every_item_of_the_strategy_has_its_row(item: str) -> None:
    rows = [line for line in PAGE.lower().splitlines() if line.startswith("| ")]
    wanted = {"daily backup": "daily dump", "verification": "automated verification"}.get(item, item)
    assert any(wanted in row.replace("backups", "backup") for row in rows), item


def test_the_checklist_has_all_twenty_items() -> None:
    assert len(re.findall(r"^\| [1-4] \|", PAGE, re.MULTILINE)) == 20
