"""`gs-backup wal stream` when another server answers: a promoted standby, here or there, or a stranger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.wal_archive import archived_clusters
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.production import production
from gs_backup_assets_tests.recovery.wal.wal_site import (
    NAME,
    Site,
    write,
)


@pytest.mark.parametrize("major", [15, 17], ids=lambda major: f"pg{major}")
def test_it_follows_a_standby_that_is_promoted(folder: Path, major: int) -> None:
    with production(major) as server:
        server.bench("-i", "-s", "1")
        with server.standby() as standby:
            site = Site(folder, standby)
            with site.streaming() as stream:
                stream.wait_said("WAL_STREAMING")
                write(server, 20)
                wait_until(lambda: len(site.archived()) > 1, what="segments of the standby")
                server.kill()
                standby.promote()
                write(standby, 40)
                stream.wait_said("WAL_TIMELINE")
                site.wait_for(site.flushed(), 2)
                wait_until(lambda: site.archive.history_bytes(2) is not None, what="the history")
                (switch,) = site.archive.history(2)
                assert switch.timeline == 1
                covered(site, switch.at)
                standby.restart()
                write(standby, 20)
                site.wait_for(site.flushed(), 2)
                covered(site, switch.at)
                assert "WAL_GAP" not in stream.codes()
                assert stream.end() == 0


def test_the_address_leads_to_a_promoted_standby(folder: Path) -> None:
    """Failover while the stream does not run, and the old primary had written more than the standby got."""
    with production(17) as server:
        server.bench("-i", "-s", "1")
        with server.standby() as standby:
            site = Site(folder, server)
            with site.streaming() as stream:
                stream.wait_said("WAL_STREAMING")
                standby.stop()
                write(server, 40)
                site.wait_for(site.flushed())
                server.stop()
                standby.start()
                standby.promote()
                stream.kill()
            failed_over = Site(folder, standby)
            server_state = json.loads(failed_over.run("wal", "status", "--json", check=None).stdout)["server"]
            assert server_state["lag_bytes"] < 1 << 24, "what is archived of the old timeline counts up to the switch"
            with failed_over.streaming() as again:
                again.wait_said("WAL_STREAMING")
                write(standby, 40)
                failed_over.wait_for(failed_over.flushed(), 2)
                (switch,) = failed_over.archive.history(2)
                assert failed_over.archived_end(1) > switch.at, "the lost branch is kept too"
                covered(failed_over, switch.at)
                assert "WAL_GAP" not in again.codes()


def covered(site: Site, switch: Lsn) -> None:
    """From the first segment over the switch to the newest there is no hole, whichever timeline has it."""
    old = {s.number for s in site.archived(1) if s.start < switch}
    new = {a.segment.number for a in site.archive.segments(2)}
    branch = switch.value // (16 << 20)
    assert min(new) == branch
    first = min(old, default=branch)
    assert set(range(first, branch)) <= old
    assert new == set(range(branch, max(new) + 1))


def test_another_cluster_at_the_address_is_refused(folder: Path) -> None:
    with production(17) as server, Site(folder, server).streaming() as stream:
        stream.wait_said("WAL_STREAMING")
        assert stream.end() == 0
    with production(17) as other:
        site = Site(folder, other)
        refused = site.run("wal", "stream", check=4)
        assert "SYSTEM_IDENTIFIER_DIFFERS" in refused.stderr and "--new-cluster" in refused.stderr
        with site.streaming("--new-cluster") as stream:
            stream.wait_said("WAL_CLUSTER")
            write(other, 5)
            site.wait_for(site.flushed())
            assert len(archived_clusters(site.store, NAME)) == 2
            stream.kill()
        with site.streaming() as stream:  # known from now on
            stream.wait_said("WAL_STREAMING")
