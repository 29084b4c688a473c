"""Base backups of real servers under load: taken, unpacked, verified by PostgreSQL and started again."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import ConfigError, SourceError
from gs_backup_assets.postgres.basebackup import WalRange, read_manifest
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.physical.unpacking import verify_unpacked
from gs_backup_assets.recovery.stored.checked_reading import CheckedReading
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.production import new_folder, production
from gs_backup_assets_tests.recovery.physical.base_backups import pgbench_balances, shelf_in, started
from gs_backup_assets_tests.s3_server import S3Server


@pytest.mark.parametrize(
    ("major", "encrypted"), [(14, False), (15, True), (16, False), (17, False), (18, True)], ids=str
)
def test_a_backup_under_load_starts_again(
    tmp_path: Path, major: int, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    encryption = {"encryption": {"kind": "raw-aes-256", "key_env": "TEST_KEY"}} if encrypted else {}
    shelf = shelf_in(tmp_path, **encryption)
    with production(major) as server:
        server.bench("-i", "-s", "1", "-q")
        outside = new_folder(server, "a folder with blanks")
        server.sql(f"CREATE TABLESPACE elsewhere LOCATION '{outside}'")
        server.sql("CREATE TABLE far TABLESPACE elsewhere AS SELECT generate_series(1, 1000) AS n")
        ((system_identifier,),) = server.sql("SELECT system_identifier::text FROM pg_control_system()")
        with server.load(60):
            before = datetime.now(timezone.utc)
            manifest = shelf.take(server)
            after = datetime.now(timezone.utc)
        settings = "base/server_settings.conf"
        shelf_reading = CheckedReading.of(shelf.settings, shelf.store, manifest)
        shelf_reading.copy_out(settings, tmp_path / "settings")
        ((hba,),) = server.sql("SELECT count(*) FROM pg_hba_file_rules")
    assert manifest.system_identifier == system_identifier
    assert before <= manifest.started_at <= manifest.consistent_at <= after
    assert Lsn.parse(manifest.start_lsn) < Lsn.parse(manifest.stop_lsn) and manifest.timeline == 1
    assert manifest.base is None and manifest.data_checksums and manifest.wal_segment_bytes == 16 << 20
    assert [space.location for space in manifest.tablespaces] == [str(outside)]
    assert manifest.compression == ("1" if major == 14 else "server-zstd:level=1,workers=2")
    assert manifest.warnings == ()
    assert manifest.stored_bytes < manifest.unpacked_bytes == manifest.cluster_bytes
    assert {c.database for c in manifest.collations} >= {"studio", "postgres"}
    text = (tmp_path / "settings").read_text()
    assert "max_connections = '60'" in text and text.count("# local") + text.count("# host") == hba
    (entry,) = shelf.entries
    with Progress().stage("checksum") as stage:
        assert check_stored_bytes(shelf.store, entry, stage).status is Status.PASSED
    with shelf.unpacked(manifest.id) as unpacked:
        checked = verify_unpacked(unpacked)
        assert checked.status is Status.PASSED, checked.findings
        with started(unpacked) as copy:
            assert len({str(balance) for balance in pgbench_balances(copy)}) == 1, "no transaction is half there"
            assert copy.sql("SELECT count(*), sum(n) FROM far") == [(1000, 500500)]
            ((where,),) = copy.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'elsewhere'")
            assert where == str(unpacked.tablespaces[manifest.tablespaces[0].oid]) != str(outside)
            assert copy.sql("SELECT system_identifier::text FROM pg_control_system()") == [(system_identifier,)]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_bucket_as_the_store(
    tmp_path: Path, s3_server: S3Server, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    encryption = {"encryption": {"kind": "raw-aes-256", "key_env": "TEST_KEY"}} if encrypted else {}
    primary = s3_server.config(s3_server.bucket(), prefix="prod").model_dump(exclude_unset=True)
    shelf = shelf_in(tmp_path, physical={"compression": "none"}, stores={"primary": primary}, **encryption)
    with production(17) as server:
        server.bench("-i", "-s", "1", "-q")
        manifest = shelf.take(server)
    assert {file.path for file in manifest.files} >= {"base/base.tar", "base/pg_wal.tar"}
    assert max(file.size for file in manifest.files) > 20_000_000, "several parts"
    with shelf.unpacked(manifest.id) as unpacked, started(unpacked) as copy:
        assert copy.sql("SELECT count(*) FROM pgbench_accounts") == [(100_000,)]


@pytest.mark.parametrize("compression", ["gzip:1", "none"])
def test_other_compressions(tmp_path: Path, compression: str) -> None:
    shelf = shelf_in(tmp_path, physical={"compression": compression})
    with production(15) as server:
        manifest = shelf.take(server)
    wanted = {"gzip:1": ["base/base.tar.gz", "base/pg_wal.tar.zst"], "none": ["base/base.tar", "base/pg_wal.tar"]}
    assert [file.path for file in manifest.files if ".tar" in file.path] == wanted[compression]
    with shelf.unpacked(manifest.id) as unpacked:
        assert verify_unpacked(unpacked).status is Status.PASSED
        with started(unpacked) as copy:
            assert copy.sql("SELECT 1") == [(1,)]


@pytest.mark.parametrize("major", [15, 17])
def test_from_a_standby(tmp_path: Path, major: int) -> None:
    shelf = shelf_in(tmp_path)
    with production(major) as server:
        server.bench("-i", "-s", "1", "-q")
        with server.standby() as standby, server.load(60):
            manifest = shelf.take(standby)
    assert manifest.server.in_recovery
    with shelf.unpacked(manifest.id) as unpacked:
        assert verify_unpacked(unpacked).status is Status.PASSED
        (unpacked.data / "standby.signal").unlink()  # as recovery does: the standby's own configuration comes along
        with started(unpacked) as copy:
            assert len({str(balance) for balance in pgbench_balances(copy)}) == 1


def test_a_standby_that_follows_a_promotion_meanwhile_is_consistent_on_the_newer_timeline(tmp_path: Path) -> None:
    """What PostgreSQL wrote then: on the older timeline the backup's end was never."""
    ranges = [
        {"Timeline": 1, "Start-LSN": "0/4E4E3A0", "End-LSN": "0/4E4E470"},
        {"Timeline": 2, "Start-LSN": "0/4E4E470", "End-LSN": "0/4E53C38"},
    ]
    path = tmp_path / "backup_manifest"
    for written in (ranges, ranges[::-1]):
        path.write_text(json.dumps({"Files": [], "WAL-Ranges": written}))
        wal = WalRange(2, Lsn.parse("0/4E4E3A0"), Lsn.parse("0/4E53C38"))
        assert read_manifest(path).wal == wal


def test_tablespaces_inside_of_the_data_directory(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    for major in (15, 17):
        with production(major, settings={"allow_in_place_tablespaces": "on"}) as server:
            server.sql("CREATE TABLESPACE inside LOCATION ''")
            server.sql("CREATE TABLE near TABLESPACE inside AS SELECT generate_series(1, 1000) AS n")
            if major == 15:  # it leaves them out, and says nothing
                with pytest.raises(SourceError, match="TABLESPACE_LEFT_OUT"):
                    shelf.take(server)
                assert shelf.leftovers == []
                continue
            manifest = shelf.take(server)
    with shelf.unpacked(manifest.id) as unpacked:
        assert verify_unpacked(unpacked).status is Status.PASSED
        with started(unpacked) as copy:
            assert copy.sql("SELECT sum(n) FROM near") == [(500500,)]


def test_the_rate_is_limited(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path, physical={"max_rate": "16M", "compression": "none"})
    with production(17) as server:
        server.bench("-i", "-s", "1", "-q")
        manifest = shelf.take(server)
    assert manifest.stage_seconds["base backup"] > 0.8 * manifest.unpacked_bytes / (16 << 20)


def test_weeks_begin_on_sunday_in_the_zone() -> None:
    chicago = ZoneInfo("America/Chicago")
    sunday = datetime(2026, 11, 22, 1, tzinfo=chicago)
    assert WEEK.of(sunday, chicago) == "2026-11-22"
    assert WEEK.of(sunday - timedelta(hours=2), chicago) == "2026-11-15"
    assert WEEK.of(datetime(2026, 11, 22, 5, tzinfo=timezone.utc), chicago) == "2026-11-15", "Saturday night there"
    assert WEEK.of(sunday + timedelta(days=6, hours=22), chicago) == "2026-11-22"
    WEEK.require_current("2026-11-22", sunday, chicago)
    for partition, code in (
        ("2026-11-15", "PARTITION_NOT_THIS_WEEK"),
        ("2026-11-29", "PARTITION_NOT_THIS_WEEK"),
        ("2026-11-23", "PARTITION_INVALID"),
        ("Sunday", "PARTITION_INVALID"),
    ):
        with pytest.raises(ConfigError, match=code):
            WEEK.require_current(partition, sunday, chicago)


def test_a_backup_for_another_week_is_refused(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    with production(17) as server, pytest.raises(ConfigError, match="PARTITION_NOT_THIS_WEEK"):
        take_base_backup(shelf.settings, server.target(), shelf.store, "2026-11-01", Progress())
    assert shelf.leftovers == []
