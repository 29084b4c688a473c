"""`gs-backup wal stream` on real servers: whatever is killed, removed or lost, the archive has no gap."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.wal_archive import archived_clusters
from gs_backup_assets.catalogue.wal_positions import newest_position
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.processes import kill, wait_until
from gs_backup_assets_tests.production import Production, production
from gs_backup_assets_tests.recovery.dumps.test_disk_full import small_disk
from gs_backup_assets_tests.recovery.wal.wal_site import (
    NAME,
    Site,
    behind,
    drop_slot,
    everything_arrives,
    switch,
    write,
)
from gs_backup_assets_tests.s3_server import S3Server, running


@pytest.fixture(scope="module", params=[15, 17], ids=lambda major: f"pg{major}")
def server(request: pytest.FixtureRequest) -> Iterator[Production]:
    """A server with a pgbench database, for the tests that leave it whole."""
    with production(request.param) as server:
        server.bench("-i", "-s", "1")
        yield server


@pytest.fixture
def site(folder: Path, server: Production) -> Iterator[Site]:
    """A site whose slot is dropped at the end: the next one begins anew."""
    yield Site(folder, server)
    drop_slot(server)


def test_segments_parts_and_positions_arrive_and_term_ends_it(site: Site, server: Production) -> None:
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server)
        everything_arrives(site)
        server.sql("INSERT INTO noise VALUES ('a small one')")
        small = site.flushed()
        site.wait_for(small)
        server.sql("INSERT INTO noise VALUES ('another one in the same page')")
        site.wait_for(site.flushed())
        folder = site.settings.spool_path
        assert folder.stat().st_mode & 0o777 == 0o700
        system = archived_clusters(site.store, NAME)[0]
        wait_until(
            lambda: (p := newest_position(site.store, NAME, system)) and Lsn.parse(p.server_lsn) >= site.flushed(),
            what="a position",
        )
        position = newest_position(site.store, NAME, system)
        assert position is not None and position.lag_bytes == 0 and position.timeline == 1
        (slot,) = server.sql("SELECT restart_lsn::text, active FROM pg_replication_slots WHERE slot_name = 'gs_backup'")
        assert Lsn.parse(str(slot[0])) <= max(s.end for s in site.archived()), "it keeps what is not archived whole"
        server.sql("INSERT INTO noise VALUES ('just before the end')")
        last = site.flushed()
        assert stream.end() == 0
        assert site.archived_end() >= last
        assert Lsn.parse(stream.document()["archived_lsn"]) >= last
        assert not [p for p in folder.rglob("*") if p.is_file() and len(p.name) == 24], "whole ones are archived"
        assert stream.codes().count("WAL_SLOT_MADE") == 1
    parts = [a for a in site.archive.segments(1) if a.partial]
    assert len(parts) == 1, "the parts of finished segments are gone"


def test_the_log_is_brought_off_site_while_it_streams_and_fetched_from_there(folder: Path, server: Production) -> None:
    site = Site(
        folder,
        server,
        stores={"primary": {"path": "backups"}, "offsite": {"path": "elsewhere/backups"}},
        wal={"partial_every": "1s", "offsite_every": "1s"},
    )
    offsite = open_archive(site.settings, open_store(site.settings, "offsite"), site.archive.system_identifier)
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server, 5)
        switch(server)
        everything_arrives(site)
        wait_until(lambda: set(site.archived()) <= {a.segment for a in offsite.segments(1)}, what="a copy of all")
        (folder / "elsewhere").rename(folder / "away")
        (folder / "elsewhere").write_text("no folder", encoding="utf-8")
        stream.wait_said("STORE_UNAVAILABLE")
        (folder / "elsewhere").unlink()
        (folder / "away").rename(folder / "elsewhere")
        stream.wait_said("RECOVERED")
        server.sql("INSERT INTO noise VALUES ('just before the end')")
        last = site.flushed()
        assert stream.end() == 0
    assert max(a.end for a in offsite.segments(1)) >= last, "the last copy has the last commit"
    (whole, *_) = [archived for archived in offsite.segments(1) if not archived.partial]
    (folder / "backups").rename(folder / "lost")
    site.run("wal", "fetch", whole.segment.name, str(folder / "fetched"), "--from", "offsite")
    assert (folder / "fetched").read_bytes() == offsite.read(whole)
    drop_slot(server)


def test_an_interrupt_ends_it_as_term_does(site: Site) -> None:
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        assert stream.end(signal.SIGINT) == 0


def test_a_second_stream_is_refused(site: Site) -> None:
    with site.streaming() as first:
        first.wait_said("WAL_STREAMING")
        assert "WAL_STREAM_RUNNING" in site.run("wal", "stream", check=2).stderr
        assert first.process.poll() is None


def test_without_the_section_it_says_so(folder: Path, server: Production) -> None:
    site = Site(folder, server, wal=None)
    assert "WAL_NOT_CONFIGURED" in site.run("wal", "stream", check=2).stderr
    assert "WAL_NOT_CONFIGURED" in site.run("wal", "status", check=2).stderr


def test_everything_is_killed_under_load(site: Site, server: Production) -> None:
    """kill -9 of pg_receivewal, of the stream, of the server; the load goes on."""
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        with server.load(20, "-c", "2"):
            write(server, 10)
            wait_until(stream.receivers, what="pg_receivewal")
            for pid in stream.receivers():
                kill(pid, signal.SIGKILL)
            stream.wait_said("WAL_STREAMING", 2)
            write(server, 10)
            stream.kill()
            write(server, 20)
        with site.streaming() as second:
            second.wait_said("WAL_STREAMING")
            write(server, 10)
            server.kill()
            second.wait_said("WAL_RECEIVER_ENDED")
            server.start()
            second.wait_said("WAL_STREAMING", 2)
            write(server, 10)
            everything_arrives(site)
            assert "WAL_GAP" not in second.codes()
        assert "WAL_GAP" not in stream.codes()


def test_the_spool_may_go_while_it_runs_and_while_it_does_not(site: Site, server: Production) -> None:
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server, 20)
        shutil.rmtree(site.settings.spool_path)
        write(server, 20)
        stream.wait_said("WAL_STREAMING", 2)
        everything_arrives(site)
        site.run("wal", "stream", check=2)  # the lock is taken again
        stream.kill()
    write(server, 20)
    shutil.rmtree(site.settings.spool_path)
    server.sql("CHECKPOINT")
    with site.streaming() as again:
        again.wait_said("WAL_STREAMING")
        write(server, 5)
        everything_arrives(site)
        assert "WAL_GAP" not in again.codes()


def test_a_damaged_file_of_the_spool_is_received_again(site: Site, server: Production) -> None:
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server, 20)
        everything_arrives(site)
        system = archived_clusters(site.store, NAME)[0]
        damaged = Segment.at(site.flushed(), 1)
        waiting = site.settings.spool_path / system / "waiting"
        aside = site.folder / damaged.name
        aside.write_bytes(bytes(damaged.size))
        aside.rename(waiting / damaged.name)
        stream.wait_said("WAL_DAMAGED")
        stream.wait_said("WAL_STREAMING", 2)
        write(server, 20)
        everything_arrives(site)
        assert "WAL_GAP" not in stream.codes()


def test_a_damaged_segment_of_the_archive_keeps_no_other_from_it(site: Site, server: Production) -> None:
    """The stream's next start cannot compare it; what comes behind it is archived all the same."""
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server, 1)
        switch(server)
        everything_arrives(site)
    newest = [archived for archived in site.archive.segments(1) if not archived.partial][-1]
    path = site.folder / "backups" / newest.key
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    with site.streaming() as again:
        again.wait_said("COMPRESSED_DAMAGED")
        for _ in range(3):
            server.sql("SELECT pg_logical_emit_message(false, 'a', 'b')")
            switch(server)
            wait_until(lambda: not behind(site, 1), what="the segment behind it is archived")
        path.unlink()
        again.wait_said("RECOVERED")
        everything_arrives(site)
    assert path.read_bytes() == sound


def test_another_segment_under_a_name_stops_it(site: Site, server: Production) -> None:
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        write(server, 5)
        everything_arrives(site)
    archive = open_archive(site.settings, site.store, archived_clusters(site.store, NAME)[0], writing=True)
    following = Segment.at(site.flushed(), 1)
    data = bytearray((server.data / "pg_wal" / following.name).read_bytes())
    data[5 << 20] ^= 0xFF  # as a server would write that was started from a copy
    archive.put(following, bytes(data))
    with site.streaming() as again:
        again.wait_said("SERVER_BEHIND_ARCHIVE")
        write(server, 40)
        assert again.process.wait(60) == 4
        assert "WAL_CONFLICT" in again.text
    for archived in archive.segments(1):
        archive.store.delete(archived.key)  # the server of this module goes on


def test_a_slot_that_was_lost_is_a_gap_and_the_stream_goes_on(folder: Path) -> None:
    with production(17, settings={"max_slot_wal_keep_size": "32MB", "max_wal_size": "32MB"}) as server:
        site = Site(folder, server)
        server.sql("CREATE TABLE noise (bytes bytea)")
        with site.streaming() as stream:
            stream.wait_said("WAL_STREAMING")
            write(server, 20)
            everything_arrives(site)
        last = site.archived_end()
        write(server, 120)
        server.sql("CHECKPOINT")
        wait_until(lambda: slot_status(server) == "lost", what="the slot is lost")
        assert site.run("wal", "status", check=1).stdout.count("lost") == 1
        with site.streaming() as again:
            gap = again.wait_said("WAL_GAP")["message"]
            assert "base backup" in gap and str(Segment.at(last, 1).start) in gap
            write(server, 20)
            site.wait_for(site.flushed())
            assert again.end() == 0
        numbers = [s.number for s in site.archived()]
        assert numbers != list(range(numbers[0], numbers[0] + len(numbers))), "there is a hole, and it was told"
        log = site.run("audit", "list", "--json").stdout
        assert "wal_gap" in log


def slot_status(server: Production) -> object:
    return server.sql("SELECT wal_status FROM pg_replication_slots", database="postgres")[0][0]


def test_a_slot_that_is_dropped_while_it_runs_is_made_again(site: Site, server: Production) -> None:
    with site.streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        drop_slot(server)
        stream.wait_said("WAL_SLOT_MADE", 2)
        write(server, 20)
        everything_arrives(site)
        assert "WAL_GAP" not in stream.codes()


def test_encrypted_on_s3_whose_server_is_killed(folder: Path, server: Production) -> None:
    with running(S3Server) as s3:
        bucket = s3.bucket()
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(new_raw_key())
        site = Site(
            folder,
            server,
            stores={"primary": {"kind": "s3", "bucket": bucket, "prefix": "prod", "endpoint": s3.endpoint}},
            encryption={"kind": "raw-aes-256", "key_file": "key"},
        )
        with site.streaming() as stream:
            stream.wait_said("WAL_STREAMING")
            write(server, 20)
            site.wait_for(site.flushed())
            s3.kill()
            write(server, 60)
            stream.wait_said("STORE_UNAVAILABLE", seconds=120)
            assert stream.process.poll() is None
            s3.start()
            stream.wait_said("RECOVERED", seconds=120)
            everything_arrives(site)
            assert all(found.key.endswith(".enc") for found in site.archive.segments(1))
            s3.kill()
            server.sql("INSERT INTO noise VALUES ('while the store is away')")
            lost = site.flushed()
            assert stream.end() == 0
            s3.start()
        with site.streaming() as again:
            again.wait_said("WAL_STREAMING", seconds=120)
            site.wait_for(lost)
            assert "WAL_GAP" not in again.codes()
        drop_slot(server)


def test_a_full_spool_is_told_and_nothing_is_lost(folder: Path, server: Production) -> None:
    """There is room for one segment and not for the next: each waits for the one before to be archived."""
    with small_disk(folder / "disk", "24m") as disk:
        site = Site(folder, server, wal={"partial_every": "1s", "spool": str(disk / "spool")})
        with site.streaming() as stream:
            stream.wait_said("WAL_STREAMING")
            write(server, 40)
            stream.wait_said("SPOOL_FULL")
            site.wait_for(site.flushed(), seconds=150)
            site.require_no_gap()
            assert "WAL_GAP" not in stream.codes()
        drop_slot(server)


def test_what_is_left_in_the_spool_arrives_though_the_server_is_gone(folder: Path) -> None:
    with production(17) as server:
        site = Site(folder, server)
        with site.streaming() as stream:
            stream.wait_said("WAL_STREAMING")
            write(server, 5)
            site.wait_for(site.flushed())
            (folder / "backups").rename(folder / "elsewhere")
            (folder / "backups").touch()  # the store is away
            write(server, 40)
            lost = site.flushed()
            wait_until(lambda: in_spool(site, lost), what="it is in the spool")
            stream.kill()
        archive = site.archive
        server.stop()
        (folder / "backups").unlink()
        (folder / "elsewhere").rename(folder / "backups")
        with site.streaming():
            wait_until(
                lambda: max((a.end for a in archive.segments(1)), default=Lsn(0)) >= lost, what="all of it is archived"
            )


def in_spool(site: Site, lsn: Lsn) -> bool:
    from gs_backup_assets.postgres.wal_records import written_end

    segment = Segment.at(lsn, 1)
    return any(
        written_end(path.read_bytes(), segment) >= lsn
        for path in site.settings.spool_path.rglob(f"{segment.name}.partial")
        if path.stat().st_size == segment.size
    )
