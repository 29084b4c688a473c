"""Full disks, with real small file systems: a clear error, nothing half-made, and the last good backup untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import ProgramError, StoreError
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.proving import prove_and_record
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes
from gs_backup_assets.vault.opening import Vault, open_store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.chain import Chain, chain_in, execute
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.processes import open_folder, processes_with, wait_until

ROOT = Path(__file__).parents[3]
BY = Author("tester", "verify")
CLI = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no right to mount a file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def source(server17: Cluster) -> Iterator[Target]:
    """Some megabytes that cannot be compressed."""
    with fresh_database(server17) as target:
        execute(
            target,
            "CREATE TABLE noise (id int PRIMARY KEY, bytes text)",
            "INSERT INTO noise SELECT i, (SELECT string_agg(md5(random()::text || i || j), '')"
            " FROM generate_series(1, 30) j) FROM generate_series(1, 5000) i",
            "CREATE TABLE small (id int PRIMARY KEY)",
            "INSERT INTO small SELECT generate_series(1, 10)",
        )
        yield target


@pytest.fixture
def little(server17: Cluster) -> Iterator[Target]:
    """A database of which a small disk can hold a backup."""
    with fresh_database(server17) as target:
        execute(target, "CREATE TABLE small (id int PRIMARY KEY)", "INSERT INTO small SELECT generate_series(1, 10)")
        yield target


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_a_full_store_fails_clearly_and_harms_nothing(folder: Path, source: Target, little: Target) -> None:
    with small_disk(folder / "disk", "2m") as disk:
        chain = chain_in(folder, stores={"primary": {"path": str(disk / "store")}})
        good = chain.take(little)
        before = free_bytes(disk)
        wait_until(lambda: backup_id(datetime.now(timezone.utc)) > good.id, what="a second has gone: ids name seconds")
        with pytest.raises(StoreError, match="STORE_FULL") as caught:
            chain.take(source)
        assert caught.value.exit_status == 4
        assert str(disk) in caught.value.message
        assert chain.store.folders(f"shop/logical/{good.partition}") == [good.id], "the half attempt is removed"
        assert free_bytes(disk) >= before - 64 * 1024, "and so are its bytes"
        entry = chain.entry
        assert entry.id == good.id
        with Progress().stage("checksum") as stage:
            assert check_stored_bytes(chain.store, entry, stage).status is Status.PASSED
        assert chain.prove().verdict.value == "PROVEN"
        with pytest.raises(StoreError, match="STORE_FULL"):
            chain.take(source)  # and it can be tried as often as one likes


def test_the_command_line_says_so_with_its_status(folder: Path, source: Target) -> None:
    """`gs-backup run`: exit status 4, the code, and what to do; never the status of a failed proof."""
    with small_disk(folder / "disk", "2m") as disk:
        (folder / "backup.yaml").write_text(
            f"databases: {{shop: {{url_env: TEST_DATABASE_URL}}}}\nstores: {{primary: {{path: {disk}/store}}}}\n"
        )
        environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
        environment["TEST_DATABASE_URL"] = " ".join(f"{key}={value}" for key, value in source.parameters.items())
        result = subprocess.run(
            [*CLI, "run", "--json", "--config", str(folder / "backup.yaml")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=200,
            check=False,
        )
        assert result.returncode == 4, result.stderr
        document = json.loads(result.stdout)
        assert document["error"]["code"] == "STORE_FULL"
        assert document["error"]["hint"]
        assert document["backup"] is None


@contextmanager
def spool_on(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let private folders be made on the small disk."""
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(disk))
        patch.setenv("TMPDIR", str(disk))
        yield


def test_a_full_spool_fails_clearly_and_leaves_nothing(
    folder: Path, source: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = chain_in(folder)
    with small_disk(folder / "disk", "2m") as disk:
        with spool_on(disk, monkeypatch), pytest.raises(ProgramError, match=r"NO_SPACE.*TMPDIR") as caught:
            chain.take(source)
        assert caught.value.exit_status == 4
        assert list(disk.iterdir()) == []
        assert processes_with(str(disk)) == []
    assert Catalogue(chain.store, "shop").entries() == []
    assert list(keys(chain.store, "shop")) == []
    chain.take(source)
    assert chain.entry.manifest is not None


def test_a_disk_without_room_for_the_first_byte(folder: Path, little: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = chain_in(folder)
    with small_disk(folder / "disk", "64k") as disk:
        (disk / "filler").write_bytes(b"x" * free_bytes(disk))
        with spool_on(disk, monkeypatch), pytest.raises(ProgramError, match="NO_SPACE"):
            chain.take(little)
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("size", ["2m", "30m", "60m"], ids=["fetch", "cluster", "restore"])
def test_a_proof_without_space_blames_nobody(
    folder: Path, source: Target, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    """Too little space to prove a backup says nothing about the backup: it is never FAILED for that."""
    chain: Chain = chain_in(folder)
    chain.take(source)
    with small_disk(folder / "disk", size) as disk:
        disk.chmod(0o755)
        with spool_on(disk, monkeypatch):
            try:
                record = prove_and_record(
                    chain.settings, Vault(chain.store, None), chain.entry, Progress(), by=BY
                ).record
            except ProgramError as error:
                assert error.code == "NO_SPACE"
            else:
                assert record.verdict.value == "NOT_VERIFIED", record.checks
                found = {finding.code for check in record.checks for finding in check.findings}
                assert found & ({"CLUSTER_FAILED"} if size == "30m" else {"NO_SPACE", "SERVER_LOST"}), found
        assert list(disk.iterdir()) == []
        assert processes_with(str(disk)) == []
    assert chain.entry.verdict.value == "NOT_VERIFIED"
    record = prove_and_record(chain.settings, Vault(chain.store, None), chain.entry, Progress(), by=BY).record
    assert record.verdict.value == "PROVEN"


def test_take_backup_is_what_the_assets_call(folder: Path, little: Target) -> None:
    """The same function and the same store as in the asset; so what is shown here holds there."""
    chain = chain_in(folder)
    manifest = take_backup(chain.settings, little, open_store(chain.settings), chain.today, Progress())
    assert chain.entry.id == manifest.id
