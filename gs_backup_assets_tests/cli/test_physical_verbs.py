"""The verbs of the vault on base backups and write-ahead log: list, show, hold, release, copy, prune, cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.cli.copy import copy
from gs_backup_assets.cli.cost import cost
from gs_backup_assets.cli.hold import hold, release
from gs_backup_assets.cli.listing import list_backups, show, show_entry
from gs_backup_assets.cli.prune import prune
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.physical import made_up_base, shelve_base
from gs_backup_assets_tests.catalogue.wal import archive, log_of, put_segments, segment
from gs_backup_assets_tests.recovery.retention.shelves import fill, id_of, taken

app = typer.Typer()
for verb in (copy, cost, hold, release, show, prune):
    app.command(verb.__name__)(verb)
app.command("list")(list_backups)


class Place:
    """A folder with a configuration, and two stores: dumps, a chain of base backups, and log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.primary, self.offsite = LocalStore(folder / "backups"), LocalStore(folder / "elsewhere")
        self.config = folder / "backup.yaml"
        document = {
            "databases": {"shop": {"url_env": "UNUSED"}},
            "stores": {"primary": {"path": "backups"}, "offsite": {"kind": "local", "path": "elsewhere"}},
            "retention": {"daily": 2, "weekly": 0, "monthly": 0},
        }
        self.config.write_text(yaml.safe_dump(document))
        self.old = self.base(9, start=10)
        self.full = self.base(2, start=20)
        self.newest = self.base(0.5, start=30, base=self.full)
        put_segments(self.primary, range(10, 40))

    def base(self, age: float, *, start: int, base: str | None = None) -> str:
        return shelve_base(self.primary, made_up_base(taken(age), start=start, base=base)).id

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [arguments[0], "--config", str(self.config), *arguments[1:]])

    def json(self, *arguments: str) -> Mapping[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_base_backups_are_listed_by_themselves(place: Place) -> None:
    fill(place.primary, (1,))
    listed = place.json("list")
    assert [one["id"] for one in listed["backups"]] == [id_of(1)]
    assert [(one["id"], one["kind"], one["base"]) for one in listed["base_backups"]] == [
        (place.newest, "physical", place.full),
        (place.full, "physical", None),
        (place.old, "physical", None),
    ]
    text = place.run("list").stdout
    assert "Base backups" in text and text.index(id_of(1)) < text.index("Base backups") < text.index(place.newest)


def test_a_store_with_base_backups_alone_is_not_empty_also_by_its_address(place: Place) -> None:
    listed = place.run("list").stdout
    assert "holds no backup" not in listed and place.full in listed
    done = CliRunner().invoke(app, ["list", "--store", str(place.primary.root), "--json"])
    assert done.exit_code == 0 and len(json.loads(done.stdout)["base_backups"]) == 3


def test_one_is_shown_with_what_it_adds_to(place: Place) -> None:
    shown = place.json("show", place.newest)
    assert (shown["kind"], shown["manifest"]["base"], shown["verdict"]) == ("physical", place.full, "PROVEN")
    text = place.run("show", place.newest).stdout
    assert f"adds to {place.full}" in text and "sound in every check that decides" in text
    assert "BUT" not in text
    assert place.json("show", "latest")["id"] == place.newest, "there is no dump"


def test_what_did_not_pass_is_named_beside_the_verdict(place: Place) -> None:
    entry = PhysicalCatalogue(place.primary, "shop").find(place.newest)
    assert entry.proof is not None
    late = CheckResult(name="rto_met", status=Status.FAILED, summary="usable after 9 s, the target is 1 s")
    proof = entry.proof.model_copy(update={"checks": (*entry.proof.checks, late)})
    console = Console(file=StringIO(), width=200)
    show_entry(console, replace(entry, proof=proof))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "PROVEN" in text and "BUT not passed, beside the verdict: rto_met" in text


def test_one_is_held_and_released(place: Place) -> None:
    place.run("copy")
    held = place.json("hold", place.old, "--reason", "an inquiry")
    assert set(held["holds"]) == {"primary", "offsite"}
    assert [one["hold"]["reason"] for one in place.json("list")["base_backups"] if one["hold"]] == ["an inquiry"]
    assert place.json("prune")["stores"][0]["base_backups"]["delete"] == 0
    place.json("release", place.old)
    assert place.json("prune")["stores"][0]["base_backups"]["delete"] == 1


def test_a_copy_brings_all_that_is_missing(place: Place) -> None:
    done = place.json("copy")
    assert [one["id"] for one in done["backups"]] == [place.old, place.full, place.newest]
    assert (done["wal"]["segments"], done["wal"]["status"], done["wal"]["copied_objects"]) == (30, "passed", 30)
    assert len(PhysicalCatalogue(place.offsite, "shop").entries()) == 3
    again = place.json("copy", "--read-back")
    assert again["backups"] == [] and again["wal"]["copied_objects"] == 0


def test_a_chain_is_copied_from_its_beginning(place: Place) -> None:
    done = place.json("copy", place.newest)
    assert [one["id"] for one in done["backups"]] == [place.newest]
    assert {entry.id for entry in PhysicalCatalogue(place.offsite, "shop").entries()} == {place.full, place.newest}


def test_log_that_differs_off_site_fails_the_copy(place: Place) -> None:
    archive(place.offsite).put(segment(12), log_of(segment(12), fill=3))
    done = place.run("copy", "--read-back")
    assert done.exit_code == 1 and "WAL_CONFLICT" in done.stdout


def test_the_plan_has_a_section_for_each_kind_and_is_carried_out(place: Place) -> None:
    place.run("copy")
    text = place.run("prune").stdout
    assert "Base backups" in text and "Write-ahead log" in text
    (primary, offsite) = place.json("prune")["stores"]
    assert primary["backups"] == [] and primary["base_backups"]["delete"] == 1
    assert [(one["segments"], one["keep"]) for one in primary["wal"]["ranges"]] == [(10, False), (20, True)]
    assert offsite["wal"]["ranges"] == primary["wal"]["ranges"]
    done = place.json("prune", "--apply")["stores"]
    assert [one["base_backups"]["deleted"] for one in done] == [[place.old]] * 2
    assert [one["wal"]["deleted"] for one in done] == [10, 10]
    assert [found.segment.number for found in archive(place.offsite).segments(1)] == list(range(20, 40))
    again = place.json("copy")
    assert (again["backups"], again["wal"]["copied_objects"]) == ([], 0), "what was deleted does not come back"


def test_what_each_kind_takes_up_is_told(place: Place) -> None:
    (primary, _) = place.json("cost")["stores"]
    kinds = {kind["kind"]: kind["objects"] for kind in primary["kinds"]}
    assert (kinds["base backup files"], kinds["write-ahead log"]) == (9, 30) and "other" not in kinds
    assert (primary["backups"], primary["base_backups"]) == (0, 3)
    text = place.run("cost").stdout
    assert "base backup files" in text and "write-ahead log" in text and "3 base backups" in text
