"""`gs-backup wal status` and the doctor's checks of the log, each also where they fail."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, not_verified
from gs_backup_assets.recovery.doctor.wal import examine_wal
from gs_backup_assets_tests.processes import open_folder
from gs_backup_assets_tests.production import Production, production
from gs_backup_assets_tests.recovery.wal.wal_site import Site, drop_slot, switch, write


@pytest.fixture(scope="module")
def server() -> Iterator[Production]:
    with production(17) as server:
        yield server


@pytest.fixture
def site(server: Production) -> Iterator[Site]:
    with open_folder() as folder:
        yield Site(folder, server, wal={"partial_every": "1s", "max_lag": "2m"}, physical={})
    drop_slot(server)


def status_of(site: Site, expected: int) -> dict[str, Any]:
    return dict(json.loads(site.run("wal", "status", "--json", check=expected).stdout))


def test_status_of_every_kind(site: Site, server: Production) -> None:
    empty = status_of(site, 1)
    assert empty["clusters"] == [] and empty["server"]["slot"]["status"] == "missing"
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server, 20)
        site.wait_for(site.flushed())
        good = status_of(site, 0)
        (timeline,) = good["clusters"][0]["timelines"]
        assert timeline["missing"] == 0 and timeline["segments"] > 1 and timeline["stored_bytes"] > 0
        assert good["server"]["lag_seconds"] is not None and good["server"]["slot"]["status"] == "reserved"
        assert "reserved" in site.run("wal", "status").stdout
        site.archive.store.delete(site.archive.segments(1)[1].key)
        base = json.loads(site.run("base-backup", "--json").stdout)
        for _ in range(4):
            switch(server)
            write(server, 1)
        site.wait_for(site.flushed())
    old = status_of(site, 0)["clusters"][0]
    assert old["timelines"][0]["missing"] == 1 and old["gap"] is None, "it lies before the base backup"
    stop = Lsn.parse(base["stop_lsn"])
    lost, *behind = [a for a in site.archive.segments(1) if a.segment.start > stop]
    path = site.folder / "backups" / lost.key
    path.rename(site.folder / "aside")
    assert status_of(site, 0)["clusters"][0]["gap"] is None, "what is behind it has just arrived: it may be on its way"
    for archived in behind:
        os.utime(site.folder / "backups" / archived.key, (time.time() - 300, time.time() - 300))
    gap = status_of(site, 1)["clusters"][0]["gap"]
    assert gap["first"] == lost.segment.name and gap["segments"] == 1
    assert "WAL_GAP" in site.run("wal", "status", check=1).stdout
    unfinished, *whole = sorted(behind, key=lambda archived: not archived.partial)
    assert unfinished.partial
    for archived in whole:
        (site.folder / "backups" / archived.key).unlink()
    (site.folder / "backups" / unfinished.key).touch()  # the stream stores it anew all the time
    for archived in site.archive.segments(1)[:-1]:
        os.utime(site.folder / "backups" / archived.key, (time.time() - 300, time.time() - 300))
    assert status_of(site, 1)["clusters"][0]["gap"]["first"] == lost.segment.name
    server.stop()
    try:
        assert status_of(site, 1)["server"] is None
        (site.folder / "aside").rename(path)
        gone = status_of(site, 3)
        assert gone["server"] is None and gone["refusal"]["code"] == "SERVER_UNREACHABLE" and gone["clusters"]
    finally:
        server.start()


def guarded(name: str, check: Any) -> Diagnosis:
    try:
        return Diagnosis.model_validate(check())
    except SourceError as error:
        return not_verified(name, error.code)


def examined(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, Diagnosis]:
    monkeypatch.setenv("TEST_DATABASE_URL", site.server.url)
    settings = site.settings
    assert settings.wal is not None and settings.wal.max_lag == timedelta(minutes=2)
    return {diagnosis.name: diagnosis for diagnosis in examine_wal(settings, settings.wal, guarded)}


def test_the_doctor_finds_what_a_stream_needs(site: Site, server: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(site, monkeypatch)
    del found["wal_spool"]  # the test's own folder may lie in memory
    assert {d.status for d in found.values()} == {Status.PASSED}, found
    assert "no slot" in found["wal_slot"].summary
    server.sql("SELECT pg_create_physical_replication_slot('gs_backup', true)")
    assert "without limit" in examined(site, monkeypatch)["wal_slot"].summary
    server.configure(max_slot_wal_keep_size="32MB", max_wal_size="32MB")
    server.sql("SELECT pg_reload_conf()")
    write(server, 20)
    assert examined(site, monkeypatch)["wal_slot"].status is Status.FAILED, "more than half is used"
    write(server, 120)
    server.sql("CHECKPOINT")
    assert "lost" in examined(site, monkeypatch)["wal_slot"].summary


@pytest.mark.parametrize(
    ("parent", "status"), [(Path("/var/tmp"), Status.PASSED), (Path("/dev/shm"), Status.NOT_VERIFIED)]
)
def test_the_doctor_wants_the_spool_on_a_disk(
    server: Production, parent: Path, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_folder(parent) as folder:
        spool = examined(Site(folder, server, wal={"max_lag": "2m"}), monkeypatch)["wal_spool"]
    assert spool.status is status and ("in memory" in spool.summary) == (status is Status.NOT_VERIFIED)


def test_the_doctor_knows_traps_of_archive_command(folder_of: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with production(15, settings={"archive_mode": "on", "archive_command": "aws s3 cp %p s3://bucket/%f"}) as server:
        site = Site(folder_of, server, wal={"max_lag": "2m"})
        found = examined(site, monkeypatch)["wal_archiver"]
        assert found.is_note and "wal push" in found.hint
        server.configure(archive_command="gs-backup wal push %p")
        server.sql("SELECT pg_reload_conf()")
        assert not examined(site, monkeypatch)["wal_archiver"].is_note
        server.configure(wal_level="minimal", max_wal_senders="0", archive_mode="off")
        server.restart()
        found_here = examined(site, monkeypatch)
        assert found_here["wal_settings"].status is Status.FAILED and found_here["wal_settings"].sql
        assert found_here["wal_stream"].status is Status.NOT_VERIFIED


@pytest.fixture
def folder_of() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder
