"""`gs-backup copy`, and the choice of copies: damage keeps no other copy back, and what is lost is said."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.chain import Chain, chain_in, execute
from gs_backup_assets_tests.cli.test_main import call
from gs_backup_assets_tests.conftest import fresh_database

CONFIG = """
databases: {shop: {url_env: NOT_NEEDED}}
stores: {primary: {path: backups}, offsite: {kind: local, path: elsewhere}}
encryption: {kind: raw-aes-256, key_env: TEST_KEY}
"""


@pytest.fixture
def taken(server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A project with three backups, none of them off-site yet."""
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    (tmp_path / "backup.yaml").write_text(CONFIG, encoding="utf-8")
    chain = chain_in(
        tmp_path,
        stores={"offsite": {"kind": "local", "path": "elsewhere"}},
        encryption={"kind": "raw-aes-256", "key_env": "TEST_KEY"},
    )
    with fresh_database(server17) as target:
        execute(target, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
        for _ in range(3):
            chain.take(target)
            time.sleep(1.05)  # ids name seconds
    return chain


def ids(chain: Chain, *arguments: str) -> list[str]:
    result = call("list", "--json", *arguments, cwd=chain.settings.folder)
    assert result.returncode == 0, result.stderr
    return [backup["id"] for backup in json.loads(result.stdout)["backups"]]


def test_one_damaged_backup_keeps_no_other_from_its_copy(taken: Chain) -> None:
    folder = taken.settings.folder
    newest, middle, oldest = ids(taken)
    victim = next((taken.store.root / "shop").rglob(f"{oldest}/globals.sql.enc"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    result = call("copy", "--json", cwd=folder)
    assert result.returncode == 1, result.stderr
    document = json.loads(result.stdout)
    assert {b["id"]: (b["status"], [f["code"] for f in b["findings"]]) for b in document["backups"]} == {
        oldest: ("failed", ["PRIMARY_DAMAGED"]),
        middle: ("passed", []),
        newest: ("passed", []),
    }
    assert ids(taken, "--from", "offsite") == [newest, middle]
    assert "PRIMARY_DAMAGED" in call("copy", cwd=folder).stdout
    again = call("copy", "--json", newest, "--read-back", cwd=folder)
    assert again.returncode == 0 and json.loads(again.stdout)["backups"][0]["copied_files"] == 0
    log = call("audit", "list", "--json", cwd=folder)
    assert [r["event"] for r in json.loads(log.stdout)["records"]].count("copy") == 3


def test_a_lost_primary_is_said_and_the_copies_are_named(taken: Chain) -> None:
    folder = taken.settings.folder
    kept = ids(taken)
    assert call("copy", cwd=folder).returncode == 0
    taken.store.root.rename(folder / "lost")
    listed = call("list", cwd=folder)
    assert listed.returncode == 0 and "3 copies off-site" in listed.stdout and "--from offsite" in listed.stdout
    assert ids(taken, "--from", "offsite") == kept
    refused = call("copy", "--json", cwd=folder)
    assert refused.returncode == 2 and json.loads(refused.stdout)["error"]["code"] == "NO_BACKUPS"
    verified = call("verify", "latest", "--json", cwd=folder)
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["proof"]["store"] == "offsite"
    problems = json.loads(call("status", "--json", cwd=folder).stdout)["databases"][0]["problems"]
    assert any(kept[0] in problem and "--from offsite" in problem for problem in problems)


def test_an_off_site_store_that_cannot_be_used_leaves_the_other_copy(taken: Chain) -> None:
    folder = taken.settings.folder
    (folder / "elsewhere").write_text("a file where the disk should be")
    listed = call("list", "--json", cwd=folder)
    assert listed.returncode == 0 and "What is off-site is not known" in listed.stderr
    assert {backup["offsite"] for backup in json.loads(listed.stdout)["backups"]} == {None}
    verified = call("verify", "latest", "--json", cwd=folder)
    assert verified.returncode == 4
    error = json.loads(verified.stdout)["error"]
    assert error["code"] == "STORE_UNAVAILABLE" and "--from primary" in error["hint"]
    assert call("verify", "latest", "--from", "primary", cwd=folder).returncode == 0


def test_without_an_off_site_store_there_is_nothing_to_copy_to(taken: Chain) -> None:
    folder = taken.settings.folder
    (folder / "backup.yaml").write_text("databases: {shop: {url_env: NOT_NEEDED}}\n", encoding="utf-8")
    for arguments in (("copy",), ("list", "--from", "offsite"), ("verify", "latest", "--from", "offsite")):
        refused = call(*arguments, "--json", cwd=folder)
        assert refused.returncode == 2 and json.loads(refused.stdout)["error"]["code"] == "NO_OFFSITE_STORE"
    wrong = call("list", "--from", "moon", "--json", cwd=folder)
    assert wrong.returncode == 2 and json.loads(wrong.stdout)["error"]["code"] == "FROM_INVALID"
