"""`gs-backup prune`, `hold` and `release`: what they show, what they do in every store, and their documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, mirror
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.manifests import made_up
from gs_backup_assets_tests.cli.test_main import call
from gs_backup_assets_tests.recovery.retention.shelves import fill, finished, id_of, shelve, taken

CONFIG = """
databases: {shop: {url_env: NO_SUCH_URL}}
stores: {primary: {path: backups}, offsite: {path: offsite}}
"""
TWO_DAYS = "retention: {daily: 2, weekly: 0, monthly: 0}\n"


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, LocalStore]:
    """Two stores: the off-site one has a backup more, and lacks the newest."""
    (tmp_path / "backup.yaml").write_text(CONFIG + TWO_DAYS, encoding="utf-8")
    made = {"primary": LocalStore(tmp_path / "backups"), "offsite": LocalStore(tmp_path / "offsite")}
    fill(made["primary"], (0, 1, 2))
    fill(made["offsite"], (1, 2, 3))
    return made


def document(folder: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The JSON document that a verb prints."""
    done = call(*arguments, "--json", cwd=folder)
    assert done.returncode == status, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def test_the_plan_of_every_store_is_shown_and_nothing_is_deleted(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    shelve(stores["primary"], 1.5, Verdict.FAILED)
    told = document(tmp_path, "prune")
    assert told["database"] == "shop"
    primary, offsite = told["stores"]
    assert (primary["store"], primary["keep"], primary["delete"], primary["applied"]) == ("primary", 2, 2, False)
    assert (offsite["store"], offsite["keep"], offsite["delete"], offsite["freed_bytes"]) == ("offsite", 2, 1, 15)
    assert [(b["id"], b["keep"]) for b in primary["backups"]] == [
        (id_of(0), True),
        (id_of(1), True),
        (id_of(1.5), False),
        (id_of(2), False),
    ]
    assert primary["backups"][2] == {
        "id": id_of(1.5),
        "partition": made_up(taken(1.5)).partition,
        "verdict": "FAILED",
        "keep": False,
        "reasons": [f"replaced by {id_of(1)} (proven)"],
        "stored_bytes": 15,
    }
    assert finished(stores["primary"]) == {id_of(age) for age in (0, 1, 1.5, 2)}
    words = call("prune", cwd=tmp_path, COLUMNS="200").stdout
    assert f"newest proven of {made_up(taken(0)).partition}; one of the 2 newest proven" in words
    assert "2 stay, 2 go, which frees 30 B: --apply deletes." in words
    assert "2 stay, 1 goes, which frees 15 B: --apply deletes." in words
    assert finished(stores["offsite"]) == {id_of(age) for age in (1, 2, 3)}


def test_apply_deletes_in_every_store_or_in_one(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    (only,) = document(tmp_path, "prune", "--apply", "--from", "offsite")["stores"]
    assert (only["store"], only["applied"], only["deleted"]) == ("offsite", True, [id_of(3)])
    assert finished(stores["primary"]) == {id_of(0), id_of(1), id_of(2)}
    primary, offsite = document(tmp_path, "prune", "--apply")["stores"]
    assert (primary["deleted"], primary["freed_bytes"], offsite["deleted"]) == ([id_of(2)], 15, [])
    assert finished(stores["primary"]) == {id_of(0), id_of(1)}
    assert finished(stores["offsite"]) == {id_of(1), id_of(2)}
    fill(stores["primary"], (2,))
    words = call("prune", "--apply", cwd=tmp_path, GS_BACKUP_ACTOR="anna").stdout
    assert "2 stay, 1 deleted: 15 B freed." in words and "2 stay, 0 deleted: 0 B freed." in words
    record = AuditLog(stores["primary"], "shop").records()[-1]
    assert (record.actor, record.command, record.event, record.result) == ("anna", "prune", "prune", "done")


def test_an_empty_store_has_nothing_to_prune(tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text(CONFIG + TWO_DAYS, encoding="utf-8")
    words = call("prune", cwd=tmp_path).stdout
    assert "There is no backup of shop." in words and "0 stay, 0 go." in words


def test_without_a_policy_it_is_told_what_to_write(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text(CONFIG, encoding="utf-8")
    error = document(tmp_path, "prune", "--apply", status=2)["error"]
    assert error["code"] == "NO_RETENTION" and "retention: {daily: 30" in error["hint"]
    assert finished(stores["primary"]) == {id_of(0), id_of(1), id_of(2)}


def test_one_store_that_cannot_be_read_spares_the_other(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    (stores["offsite"].root / "shop" / "logical").rename(tmp_path / "away")
    (stores["offsite"].root / "shop" / "logical").symlink_to(tmp_path / "away")
    error = document(tmp_path, "prune", "--apply", status=4)["error"]
    assert error["code"] == "KEY_INVALID"
    assert finished(stores["primary"]) == {id_of(0), id_of(1), id_of(2)}


def test_what_is_relied_on_and_lost_is_status_1(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    (stores["primary"].root / made_up(taken(0)).folder / "globals.sql").unlink()
    error = document(tmp_path, "prune", "--apply", status=1)["error"]
    assert error["code"] == "RETENTION_UNSAFE" and "lacks globals.sql" in error["message"]
    assert finished(stores["offsite"]) == {id_of(1), id_of(2), id_of(3)}


def test_a_hold_is_placed_in_every_store_that_has_the_backup(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    told = document(tmp_path, "hold", id_of(2), "--reason", "law suit [1]")
    assert told["id"] == id_of(2) and set(told["holds"]) == {"primary", "offsite"}
    assert told["holds"]["primary"]["reason"] == "law suit [1]"
    shown = document(tmp_path, "show", id_of(2))
    assert shown["held"] and shown["hold"]["reason"] == "law suit [1]"
    listed = {backup["id"]: backup for backup in document(tmp_path, "list")["backups"]}
    assert listed[id_of(2)]["hold"] == shown["hold"] and listed[id_of(1)]["hold"] is None
    words = call("list", cwd=tmp_path).stdout
    assert f"{id_of(2)}: held by {shown['hold']['by']} since " in words and ": law suit [1]" in words
    assert ": law suit [1]" in call("show", id_of(2), cwd=tmp_path).stdout
    plans = document(tmp_path, "prune")["stores"]
    assert [plan["delete"] for plan in plans] == [0, 1]
    again = document(tmp_path, "hold", id_of(2), "--reason", "other")
    assert again["holds"] == told["holds"], "the first hold stands"
    only = document(tmp_path, "hold", id_of(3), "--reason", "law suit")
    assert set(only["holds"]) == {"offsite"}
    mirror(stores["primary"], stores["offsite"], "shop")
    assert check_audit(stores["primary"], "shop", other=stores["offsite"]).status is Status.PASSED


def test_a_release_lets_retention_decide_again(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    placed = document(tmp_path, "hold", id_of(2), "--reason", "law suit")
    told = document(tmp_path, "release", id_of(2))
    assert told["holds"] == placed["holds"], "what was taken away is told"
    assert document(tmp_path, "release", id_of(2))["holds"] == {"primary": None, "offsite": None}
    assert not document(tmp_path, "show", id_of(2))["held"]
    primary, _ = document(tmp_path, "prune")["stores"]
    assert primary["delete"] == 1
    events = [(r.event, r.result, r.ids["backup"]) for r in AuditLog(stores["primary"], "shop").records()]
    assert events == [("hold", "held", id_of(2)), ("release", "released", id_of(2)), ("release", "released", id_of(2))]


def test_a_hold_whose_words_are_lost_still_shows(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    stores["primary"].put_bytes(b"?", f"{made_up(taken(2)).folder}/hold.json")
    assert "held; by whom and why cannot be read" in call("list", cwd=tmp_path).stdout
    error = document(tmp_path, "hold", id_of(2), "--reason", "law suit", status=4)["error"]
    assert error["code"] == "HOLD_DAMAGED"
    document(tmp_path, "release", id_of(2))
    assert document(tmp_path, "hold", id_of(2), "--reason", "law suit")["holds"]["primary"]["reason"] == "law suit"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["hold", "20200101T000000Z", "--reason", "x"], "BACKUP_NOT_FOUND"),
        (["release", "20200101T000000Z"], "BACKUP_NOT_FOUND"),
        (["hold", "latest", "--reason", " "], "REASON_MISSING"),
        (["hold", "latest"], "USAGE"),
        (["prune", "--from", "elsewhere"], "FROM_INVALID"),
    ],
)
def test_wrong_usage(stores: dict[str, LocalStore], tmp_path: Path, arguments: list[str], code: str) -> None:
    assert document(tmp_path, *arguments, status=2)["error"]["code"] == code


def test_latest_is_the_same_backup_in_every_store(stores: dict[str, LocalStore], tmp_path: Path) -> None:
    """The off-site store's own newest is another one, and stays as it is."""
    told = document(tmp_path, "hold", "latest", "--reason", "law suit")
    assert (told["id"], set(told["holds"])) == (id_of(0), {"primary"})
    assert not document(tmp_path, "show", id_of(1), "--from", "offsite")["held"]


def test_a_store_that_refuses_a_hold_is_told_with_where_it_stands(
    stores: dict[str, LocalStore], tmp_path: Path
) -> None:
    folder = stores["offsite"].root / made_up(taken(2)).folder
    (folder / "hold.json").mkdir()
    error = document(tmp_path, "hold", id_of(2), "--reason", "law suit", status=4)["error"]
    assert "It was done in the primary store." in error["message"]
    assert document(tmp_path, "show", id_of(2))["held"]
