"""Base backups that break off: servers and runs killed, stores and disks full, rights and connections that lack."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gs_backup_assets.errors import BackupError, ProgramError, SourceError, StoreError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.unpacking import unpack_chain
from gs_backup_assets.system.account import server_account
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.faults import NEVER_ARRIVES, Proxy
from gs_backup_assets_tests.processes import open_folder, processes_with, wait_until
from gs_backup_assets_tests.production import SUPERUSER, Production, production
from gs_backup_assets_tests.recovery.dumps.test_disk_full import small_disk
from gs_backup_assets_tests.recovery.physical.base_backups import shelf_in
from gs_backup_assets_tests.s3_server import S3Server

ROOT = Path(__file__).parents[3]
# About 45 MB at this rate take longer than any test waits for its moment.
SLOW = {"max_rate": "2M", "compression": "none"}


@pytest.fixture(scope="module")
def server() -> Iterator[Production]:
    with production(17) as made:
        made.bench("-i", "-s", "1", "-q")
        yield made


def _partial_objects(folder: Path) -> list[Path]:
    """What a local store has of objects that are not whole yet, once it has something."""
    return [path for path in (folder / "backups").rglob(".partial-*") if path.stat().st_size > 0]


def _walsenders(server: Production) -> list[tuple[object, ...]]:
    return server.sql("SELECT pid FROM pg_stat_replication UNION ALL SELECT 0 FROM pg_replication_slots")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, "SERVER_LOST"), (signal.SIGINT, "SERVER_LOST")])
def test_the_server_ends_in_the_middle(tmp_path: Path, number: signal.Signals, code: str) -> None:
    shelf = shelf_in(tmp_path, physical=SLOW)
    with production(15) as own, ThreadPoolExecutor(1) as pool:
        own.bench("-i", "-s", "1", "-q")
        taking = pool.submit(shelf.take, own)
        wait_until(lambda: _partial_objects(tmp_path), what="the backup is being stored")
        if number == signal.SIGKILL:
            own.kill()
        else:
            own.stop()
        with pytest.raises(SourceError, match=code):
            taking.result()
    assert shelf.leftovers == [] and shelf.entries == []
    assert not list((tmp_path / "backups").rglob("*.tar"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_the_run_is_killed_in_the_middle(server: Production, number: signal.Signals) -> None:
    with open_folder() as folder:
        temporary = folder / "tmp"
        temporary.mkdir()
        run = subprocess.Popen(
            [sys.executable, "-m", "gs_backup_assets_tests.recovery.physical.base_backups", folder, "2M"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary), "TEST_DATABASE_URL": server.url},
            start_new_session=True,
        )
        wait_until(lambda: _partial_objects(folder), what="the backup is being stored")
        os.killpg(run.pid, number)
        assert run.wait(timeout=60) != 0
        wait_until(lambda: not processes_with(str(temporary)), what="no program of the run is left")
        wait_until(lambda: list(temporary.iterdir()) == [], what="no spool is left")
        wait_until(lambda: not _walsenders(server), what="no connection and no slot is left on the server")
        shelf = shelf_in(folder)
        assert shelf.entries == [] and shelf.leftovers == []


def test_the_store_is_full_in_the_middle(server: Production) -> None:
    with open_folder() as folder, small_disk(folder / "backups", "12m") as disk:
        shelf = shelf_in(folder, physical={"compression": "none"})
        with pytest.raises(StoreError, match="STORE_FULL"):
            shelf.take(server)
        assert [path for path in disk.rglob("*") if path.is_file()] == []
    wait_until(lambda: not _walsenders(server), what="no connection is left on the server")


def test_the_store_fails_in_the_middle(
    tmp_path: Path, server: Production, s3_server: S3Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    bucket = s3_server.bucket()
    primary = s3_server.config(bucket, endpoint=proxy.endpoint).model_dump(exclude_unset=True)
    encryption = {"kind": "raw-aes-256", "key_env": "TEST_KEY"}
    shelf = shelf_in(tmp_path, physical={"compression": "none"}, stores={"primary": primary}, encryption=encryption)
    shelf.store.pauses = (0.01,)  # type: ignore[attr-defined]
    proxy.on("PUT", r"base\.tar\.enc.*partNumber=3", NEVER_ARRIVES, times=None)
    with pytest.raises(StoreError, match="STORE_UNAVAILABLE"):
        shelf.take(server)
    proxy.heal()
    assert shelf.leftovers == []
    wait_until(lambda: not _walsenders(server), what="no connection is left on the server")


def test_the_spool_is_full_in_the_middle(server: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder, small_disk(folder / "tmp", "12m") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        shelf = shelf_in(tmp_path, physical={"compression": "none"})
        with pytest.raises(ProgramError, match="NO_SPACE"):
            shelf.take(server)
        assert list(disk.iterdir()) == []
    assert shelf.leftovers == []


def test_no_space_to_unpack(server: Production, tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    manifest = shelf.take(server)
    account = server_account()
    with open_folder() as folder, small_disk(folder / "small", "50m") as disk:
        with pytest.raises(ProgramError, match=r"NO_SPACE.*GB free; the backup needs"):
            unpack_chain(shelf.settings, shelf.store, shelf.chain(manifest.id), disk, Progress(), account=account)
        assert list(disk.iterdir()) == []
        (disk / "data").mkdir()
        with pytest.raises(ProgramError, match="TARGET_NOT_EMPTY"):
            unpack_chain(shelf.settings, shelf.store, shelf.chain(manifest.id), disk, Progress(), account=account)
        assert (disk / "data").is_dir(), "what was there before is not ours"


def _refused(shelf_folder: Path, target: Target) -> BackupError:
    shelf = shelf_in(shelf_folder)
    with pytest.raises(BackupError) as caught:
        shelf.take(target)
    assert shelf.leftovers == []
    return caught.value


def test_without_rights(server: Production, tmp_path: Path) -> None:
    server.sql("CREATE ROLE reader LOGIN")
    server.sql("CREATE ROLE copier LOGIN REPLICATION")
    parameters = {**server.target().parameters, "user": "reader"}
    assert _refused(tmp_path, Target(parameters)).code == "REPLICATION_RIGHT_MISSING"
    manifest = shelf_in(tmp_path).take(Target({**parameters, "user": "copier"}))
    told = " ".join(manifest.warnings)
    assert "pg_read_all_settings" in told and "pg_hba_file_rules" in told, "least rights leave things out, and say so"
    hba = server.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("\n".join(line for line in before.splitlines() if "replication" not in line) + "\n")
    server.sql("SELECT pg_reload_conf()")
    try:
        wait_until(
            lambda: _refused(tmp_path / "other", server.target()).code == "NO_HBA_ENTRY", what="the rules are in force"
        )
    finally:
        hba.write_text(before)
        server.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"wal_level": "minimal", "max_wal_senders": "0"}, "WAL_SENDERS_FULL"),
        ({"max_wal_senders": "1"}, "WAL_SENDERS_FULL"),
        ({"max_replication_slots": "0"}, "SLOTS_FULL|SLOT_FAILED"),
    ],
    ids=["minimal", "one sender", "no slot"],
)
def test_a_server_without_room(tmp_path: Path, settings: Mapping[str, str], code: str) -> None:
    with production(15, settings=settings) as own:
        assert re.fullmatch(code, _refused(tmp_path, own.target()).code)


def test_pages_that_are_damaged_in_production(tmp_path: Path) -> None:
    with production(17, settings={"autovacuum": "off"}) as own:
        own.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        own.sql("CHECKPOINT")
        ((path,),) = own.sql("SELECT pg_relation_filepath('t')")
        with open(own.data / str(path), "r+b") as stream:
            stream.seek(5000)
            stream.write(b"damage")
        assert _refused(tmp_path, own.target()).code == "SOURCE_PAGES_DAMAGED"


def test_nobody_there(tmp_path: Path) -> None:
    target = Target({"host": "127.0.0.1", "port": "1", "user": SUPERUSER, "dbname": "postgres"})
    assert _refused(tmp_path, target).code == "SERVER_UNREACHABLE"
