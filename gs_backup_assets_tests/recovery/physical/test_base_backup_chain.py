"""Incremental backups: chains that are combined again, and everything that breaks one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import StoreError
from gs_backup_assets.progress import Progress, Silent
from gs_backup_assets.recovery.physical.unpacking import unpack_chain, verify_unpacked
from gs_backup_assets.system.account import server_account
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.processes import open_folder, wait_until
from gs_backup_assets_tests.production import Production, new_folder, production
from gs_backup_assets_tests.recovery.physical.base_backups import Shelf, pgbench_balances, shelf_in, started

_SETTINGS = {"summarize_wal": "on", "allow_in_place_tablespaces": "on"}


@pytest.fixture
def server() -> Iterator[Production]:
    with production(17, settings=_SETTINGS) as made:
        made.bench("-i", "-s", "1", "-q")
        yield made


def _rewrite(shelf: Shelf, key: str, data: bytes) -> None:
    shelf.store.delete(key)
    shelf.store.put_bytes(data, key)


def _read(shelf: Shelf, key: str) -> bytes:
    with shelf.store.open(key) as stream:
        return stream.read()


@pytest.mark.parametrize("major", [17, 18])
def test_a_chain_is_combined(tmp_path: Path, major: int) -> None:
    shelf = shelf_in(tmp_path, physical={"chain_length": 3})
    with production(major, settings=_SETTINGS) as server:
        server.bench("-i", "-s", "2", "-q")
        server.sql(f"CREATE TABLESPACE elsewhere LOCATION '{new_folder(server)}'")
        server.sql("CREATE TABLESPACE inside LOCATION ''")
        server.sql("CREATE TABLE far TABLESPACE elsewhere AS SELECT generate_series(1, 50000) AS n")
        server.sql("CREATE TABLE near TABLESPACE inside AS SELECT generate_series(1, 50000) AS n")
        taken = []
        for number in range(4):
            server.sql(f"UPDATE far SET n = n WHERE n = {number}")
            with server.load(60):
                taken.append(shelf.take(server))
    assert [manifest.base for manifest in taken] == [None, taken[0].id, taken[1].id, None], "three at most"
    assert all(manifest.warnings == () for manifest in taken)
    full, second, third, _ = taken
    assert second.unpacked_bytes < 0.8 * full.unpacked_bytes and second.cluster_bytes > 0.8 * full.cluster_bytes
    assert [entry.id for entry in shelf.chain(third.id)] == [full.id, second.id, third.id]
    with shelf.unpacked(third.id) as unpacked:
        assert sorted(path.name for path in unpacked.data.parent.iterdir() if not path.name.startswith(".")) == [
            "data",
            "tablespaces",
        ]
        checked = verify_unpacked(unpacked)
        assert checked.status is Status.PASSED, checked.findings
        with started(unpacked) as copy:
            assert len({str(balance) for balance in pgbench_balances(copy)}) == 1
            assert copy.sql("SELECT count(*) FROM far") == copy.sql("SELECT count(*) FROM near") == [(50000,)]


def test_full_is_full(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    first = shelf.take(server)
    assert shelf.take(server, full=True).base is None
    assert shelf.take(server).base not in (None, first.id)
    never = shelf_in(tmp_path, physical={"incremental": "never"})
    assert never.take(server).base is None


def test_the_middle_is_missing(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    first, middle, last = (shelf.take(server) for _ in range(3))
    shelf.store.delete_tree(middle.folder)
    with pytest.raises(StoreError, match=f"CHAIN_BROKEN.*{middle.id}"):
        shelf.chain(last.id)
    assert shelf.take(server).base == first.id, "what is sound still is something to add to"


def test_an_exchanged_backup_manifest(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    first, second = shelf.take(server), shelf.take(server)
    name = "base/backup_manifest"
    _rewrite(shelf, f"{second.folder}/{name}", _read(shelf, f"{first.folder}/{name}"))
    with pytest.raises(StoreError, match=f"FILE_DIFFERS.*{second.id}"), shelf.unpacked(second.id):
        pass
    third = shelf.take(server)  # to add to it would be to add to something unknown
    assert third.base is None
    assert [f"Nothing can be added to {second.id}" in warning for warning in third.warnings] == [True]


def test_the_key_of_the_base_is_not_given(tmp_path: Path, server: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    encryption = {"encryption": {"kind": "raw-aes-256", "key_env": "TEST_KEY"}}
    shelf = shelf_in(tmp_path, **encryption)
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    shelf.take(server)
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    manifest = shelf.take(server)
    assert manifest.base is None and ["Nothing can be added" in warning for warning in manifest.warnings] == [True]


def test_an_interrupt_leaves_nothing_unpacked(tmp_path: Path, server: Production) -> None:
    class Interrupting(Silent):
        def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
            raise KeyboardInterrupt

    shelf = shelf_in(tmp_path)
    shelf.take(server)
    chain = shelf.chain(shelf.take(server).id)
    account = server_account()
    with open_folder() as into:
        with pytest.raises(KeyboardInterrupt):
            unpack_chain(shelf.settings, shelf.store, chain, into, Progress(Interrupting()), account=account)
        assert list(into.iterdir()) == []


def test_a_damaged_file(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    manifest = shelf.take(server)
    key = f"{manifest.folder}/base/base.tar.zst"
    data = _read(shelf, key)
    at = len(data) // 2
    for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data + b"x"):
        _rewrite(shelf, key, damaged)
        with pytest.raises(StoreError, match="FILE_DIFFERS"), shelf.unpacked(manifest.id):
            pass
    shelf.store.delete(key)
    with pytest.raises(StoreError, match="OBJECT_MISSING"), shelf.unpacked(manifest.id):
        pass


def test_a_file_changed_on_disk_is_found_by_postgresql(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    manifest = shelf.take(server)
    with shelf.unpacked(manifest.id) as unpacked:
        victim = unpacked.data / "global" / "pg_filenode.map"
        data = victim.read_bytes()
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        checked = verify_unpacked(unpacked)
    assert checked.status is Status.FAILED
    assert any("global/pg_filenode.map" in finding.message for finding in checked.findings)


def test_without_summaries_a_full_one_is_taken(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    shelf.take(server)
    server.sql("ALTER SYSTEM SET summarize_wal = off")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: server.sql("SHOW summarize_wal") == [("off",)], what="the setting is in force")
    manifest = shelf.take(server)
    assert manifest.base is None
    assert ["summarize_wal is off" in warning for warning in manifest.warnings] == [True]


def test_with_missing_summaries_a_full_one_is_taken(tmp_path: Path, server: Production) -> None:
    shelf = shelf_in(tmp_path)
    first = shelf.take(server)
    server.bench("-t", "100", "-n")
    server.sql("CHECKPOINT")
    wait_until(
        lambda: server.sql(
            f"SELECT 1 FROM pg_available_wal_summaries() WHERE end_lsn > '{first.stop_lsn}'", database="postgres"
        ),
        what="the WAL behind the backup is summarized",
    )
    for summary in (server.data / "pg_wal" / "summaries").glob("*.summary"):
        summary.unlink()
    manifest = shelf.take(server)
    assert manifest.base is None
    (warning,) = manifest.warnings
    assert warning.startswith("No incremental backup is possible: ") and warning.endswith(
        "A full one was taken instead."
    )
    assert "|" not in warning and "\n" not in warning and "pg_basebackup" not in warning and len(warning) < 300, warning
    with shelf.unpacked(manifest.id) as unpacked:
        assert verify_unpacked(unpacked).status is Status.PASSED


def test_an_increment_across_a_promotion(tmp_path: Path, server: Production) -> None:
    """Another timeline than the base's needs no full backup."""
    shelf = shelf_in(tmp_path)
    with server.standby() as standby:
        first = shelf.take(server)
        server.bench("-t", "100", "-n")
        ((position,),) = server.sql("SELECT pg_current_wal_lsn()")
        wait_until(lambda: standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") == [(True,)], what="replay")
        server.stop()
        standby.promote()
        manifest = shelf.take(standby)
    assert (manifest.base, manifest.timeline) == (first.id, 2), manifest.warnings
    with shelf.unpacked(manifest.id) as unpacked:
        assert verify_unpacked(unpacked).status is Status.PASSED
        (unpacked.data / "standby.signal").unlink(missing_ok=True)
        with started(unpacked) as copy:
            assert len({str(balance) for balance in pgbench_balances(copy)}) == 1
