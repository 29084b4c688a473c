"""`gs-backup audit`: its words, its documents, its exit statuses, and the records that verbs leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, Author, mirror
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.assets.conftest import url_of
from gs_backup_assets_tests.catalogue.audit_logs import path_of, proofs, write_lines
from gs_backup_assets_tests.chain import chain_in, execute
from gs_backup_assets_tests.cli.test_main import ROOT, TELLING
from gs_backup_assets_tests.processes import open_folder

CONFIG = "databases: {shop: {url_env: DATABASE_URL}}\ntimezone: America/Chicago\n"
TWO_STORES = f"{CONFIG}stores: {{primary: {{path: backups}}, offsite: {{path: elsewhere}}}}\n"


def call(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TELLING, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=200,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backup.yaml").write_text(TWO_STORES)
    return tmp_path


@pytest.fixture
def primary(folder: Path) -> LocalStore:
    return LocalStore(folder / "backups")


def codes(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [finding["code"] for finding in json.loads(result.stdout)["findings"]]


def test_an_intact_log_is_status_0(folder: Path, primary: LocalStore) -> None:
    write_lines(primary, proofs(5))
    mirror(primary, LocalStore(folder / "elsewhere"), "shop")
    result = call(folder, "audit", "verify")
    assert result.returncode == 0, result.stderr
    assert "audit_intact: 5 records in an unbroken chain, 5 of them also in the other store" in result.stdout
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("MODULES"))
    assert not {"dagster", "great_expectations", "boto3", "pandas", "psycopg2"} & set(line.split())
    document = json.loads(call(folder, "audit", "verify", "--json").stdout)
    assert (document["database"], document["name"], document["status"]) == ("shop", "audit_intact", "passed")
    assert document["metrics"]["audit_records"] == 5


def test_findings_are_status_1(folder: Path, primary: LocalStore) -> None:
    lines = write_lines(primary, proofs(5))
    mirror(primary, LocalStore(folder / "elsewhere"), "shop")
    path_of(primary, 2).write_bytes(lines[1].replace(b"PROVEN", b"FAILED"))
    path_of(primary, 5).unlink()
    result = call(folder, "audit", "verify", "--json")
    assert result.returncode == 1
    assert codes(result) == ["AUDIT_EDITED", "AUDIT_DIFFERS", "AUDIT_DIFFERS"]
    words = call(folder, "audit", "verify")
    assert words.returncode == 1
    assert "AUDIT_EDITED" in words.stdout
    assert "with record 5, which the log lacks" in words.stdout


def test_what_cannot_be_verified_is_status_3(folder: Path, primary: LocalStore) -> None:
    empty = call(folder, "audit", "verify", "--json")
    assert (empty.returncode, codes(empty)) == (3, ["AUDIT_EMPTY"])
    write_lines(primary, proofs(2))
    alone = call(folder, "audit", "verify", "--json")
    assert (alone.returncode, codes(alone)) == (3, ["AUDIT_NOT_COPIED"])
    (folder / "elsewhere" / "shop").mkdir(parents=True)
    (folder / "elsewhere" / "shop" / "audit-copy").symlink_to(folder)  # a link is not followed
    unreadable = call(folder, "audit", "verify", "--json")
    assert (unreadable.returncode, codes(unreadable)) == (3, ["KEY_INVALID"])


def test_the_copy_can_be_verified_and_read_where_it_lies(folder: Path, primary: LocalStore) -> None:
    """When the primary store is lost, with its configuration."""
    elsewhere = LocalStore(folder / "elsewhere")
    (elsewhere.root / "shop" / "logical" / "2026-11-22").mkdir(parents=True)
    write_lines(primary, proofs(3))
    mirror(primary, elsewhere, "shop")
    (folder / "backup.yaml").unlink()
    address = str(elsewhere.root)
    assert call(folder, "audit", "verify", "--store", address).returncode == 0
    listed = json.loads(call(folder, "audit", "list", "--store", address, "--json").stdout)
    assert [(record["store"], record["sequence"]) for record in listed["records"]] == [
        ("copy", 3),
        ("copy", 2),
        ("copy", 1),
    ]


def test_records_are_listed_newest_first(folder: Path, primary: LocalStore) -> None:
    write_lines(primary, proofs(2))
    by = Author("[bold]Zoë\x1b[2J", "restore")
    AuditLog(LocalStore(folder / "elsewhere"), "shop").append(
        by, "restore", {"backup": "b[/]"}, "PROVEN", {"seconds": 2.5}
    )
    document = json.loads(call(folder, "audit", "list", "--json").stdout)
    assert [(record["store"], record["event"]) for record in document["records"]] == [
        ("offsite", "restore"),
        ("primary", "proof"),
        ("primary", "proof"),
    ]
    assert document["records"][0]["details"] == {"seconds": 2.5}
    result = call(folder, "audit", "list")
    assert result.returncode == 0
    table = result.stdout.splitlines()
    assert "[bold]Zoë?[2J" in table[1]
    assert "backup=b[/]" in table[1]
    assert "\x1b" not in result.stdout
    assert "2026-11-22 02:00:04" in table[2]  # in the configured time zone


def test_a_log_that_cannot_be_read_is_told(folder: Path, primary: LocalStore) -> None:
    assert "no audit log of shop yet" in call(folder, "audit", "list").stdout
    write_lines(primary, proofs(2))
    (folder / "elsewhere" / "shop").mkdir(parents=True)
    (folder / "elsewhere" / "shop" / "audit").symlink_to(folder)
    partly = call(folder, "audit", "list")
    assert partly.returncode == 0
    assert "cannot be read: KEY_INVALID" in partly.stdout
    assert json.loads(call(folder, "audit", "list", "--json").stdout)["unreadable"] == "KEY_INVALID"
    path_of(primary, 1).write_bytes(b"{}\n")
    damaged = call(folder, "audit", "list")
    assert damaged.returncode == 4
    assert "AUDIT_DAMAGED" in damaged.stderr


def test_proofs_and_restores_are_on_record(server17: Cluster, empty_database: Target) -> None:
    """With who, what and the result; and so is a restore that broke off, but not one that never began."""
    execute(empty_database, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
    with open_folder() as folder:
        (folder / "backup.yaml").write_text(CONFIG)
        chain = chain_in(folder)
        manifest = chain.take(empty_database)
        into = {
            "INTO_URL": url_of(empty_database).replace(empty_database.database, "audited"),
            "GS_BACKUP_ACTOR": "ops",
        }
        assert call(folder, "verify", "latest", **into).returncode == 0
        try:
            assert call(folder, "restore", "latest", "--into", "INTO_URL", **into).returncode == 0
            assert call(folder, "restore", "latest", "--into", "INTO_URL", **into).returncode == 2  # it exists
            (chain.store.root / manifest.folder / "globals.sql").unlink()
            again = call(folder, "restore", "latest", "--into", "INTO_URL", "--replace", **into)
            assert again.returncode == 1, again.stderr
        finally:
            with connect(server17.target()) as connection:
                drop_database(connection, "audited")
        proof, restored, broken = AuditLog(chain.store, "shop").records()
        assert {record.actor for record in (proof, restored, broken)} == {"ops"}
        assert {record.ids["backup"] for record in (proof, restored, broken)} == {manifest.id}
        assert (proof.command, proof.event, proof.result) == ("verify", "proof", "PROVEN")
        assert (chain.store.root / manifest.folder / "proofs" / f"{proof.ids['proof']}.json").is_file()
        assert (restored.command, restored.event, restored.result) == ("restore", "restore", "PROVEN")
        assert restored.ids["into"] == "audited"
        assert (broken.event, broken.result) == ("restore", "FILE_MISSING")
        verified = call(folder, "audit", "verify")
        assert verified.returncode == 0, verified.stdout


def test_a_log_that_cannot_be_written_is_a_warning(empty_database: Target) -> None:
    with open_folder() as folder:
        (folder / "backup.yaml").write_text(CONFIG)
        chain = chain_in(folder)
        chain.take(empty_database)
        (chain.store.root / "shop" / "audit").write_bytes(b"")  # no folder can be made there
        result = call(folder, "verify", "latest")
        assert result.returncode == 0, result.stderr
        assert "The audit log could not be written: STORE_UNAVAILABLE" in result.stdout
