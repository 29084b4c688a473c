"""Recovery across a promotion: before, at and behind the switch, and the old timeline's tail; and several clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.coverage import windows
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.postgres.wal import Lsn, Segment, history_name
from gs_backup_assets.recovery.point_in_time.coverage_survey import survey, windows_with_times
from gs_backup_assets.recovery.point_in_time.uncovered import explain_uncovered
from gs_backup_assets.recovery.wal.survey import WalSurvey, survey_archive
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, ids, site


@dataclass(frozen=True)
class Branched:
    """Rows 1 to 3 before the switch, 4 behind it on timeline 2, and 100 on the abandoned timeline 1.

    `early` are the rows of a recovery to the newest point while of timeline 2 nothing was archived but its history,
    `early_survey` a look at the archive at that time.
    """

    site: Site
    before: Lsn
    switch: Lsn
    tail_at: datetime
    early: list[int]
    early_survey: WalSurvey


@pytest.fixture(scope="module", params=[15, 17], ids=lambda major: f"pg{major}")
def branched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branched]:
    with site(tmp_path_factory.mktemp("branched"), request.param) as one:
        primary = one.server
        primary.sql("INSERT INTO t VALUES (1)")
        one.base_backup()
        primary.sql("INSERT INTO t VALUES (2)")
        one.switch()
        with primary.standby() as standby:
            primary.sql("INSERT INTO t VALUES (3)")
            before = one.lsn()
            wait_until(
                lambda: standby.sql("SELECT count(*) FROM t") == [(3,)], what="the standby has replayed what there is"
            )
            standby.promote()
            standby.sql("INSERT INTO t VALUES (4)")
            tail_at = primary.sql("INSERT INTO t VALUES (100) RETURNING at")[0][0]
            assert isinstance(tail_at, datetime)
            one.archive()
            archive = one.open_archive()
            archive.put_history(2, (standby.data / "pg_wal" / history_name(2)).read_bytes())
            with one.recovered("latest") as found:
                early = ids(found)
            now = datetime.now(timezone.utc)
            looked = survey_archive(one.settings, one.vault.primary, one.system_identifier(), now=now)
            one.archive(standby)
            (history,) = archive.history(2)
        yield Branched(one, before, history.at, tail_at, early, looked)


def test_the_newest_timeline_is_followed(branched: Branched) -> None:
    with branched.site.recovered("latest") as found:
        assert ids(found) == [1, 2, 3, 4]
        assert found.achieved.timeline == 3


def test_until_its_log_arrives_the_newest_timeline_ends_at_the_switch(branched: Branched) -> None:
    """A server that is given the old timeline's segment goes on in it, to what was never on the new one."""
    looked = branched.early_survey
    assert branched.early == [1, 2, 3]
    assert (looked.timeline, looked.end) == (2, branched.switch)
    assert looked.commit is not None and looked.commit.lsn < branched.switch


def test_a_position_before_the_switch(branched: Branched) -> None:
    with branched.site.recovered(str(branched.before)) as found:
        assert ids(found) == [1, 2, 3]


def test_the_position_of_the_switch(branched: Branched) -> None:
    with branched.site.recovered(str(branched.switch)) as found:
        assert ids(found) == [1, 2, 3]
        assert found.achieved.lsn == branched.switch


def test_the_old_timelines_tail_is_reached_by_its_number_and_the_new_number_is_one_that_nobody_has(
    branched: Branched,
) -> None:
    with branched.site.recovered("latest", timeline=1) as found:
        assert ids(found) == [1, 2, 3, 100]
        assert found.achieved.timeline == 3


def test_the_tail_is_a_window_of_its_own(branched: Branched) -> None:
    (surveyed,) = survey(branched.site.settings, branched.site.vault.primary)
    tail, newest = windows_with_times(surveyed)
    assert (tail.timeline, tail.left_at, newest.timeline, newest.left_at) == (1, branched.switch, 2, None)
    assert tail.ends_at is not None and tail.ends_at >= branched.tail_at


def test_the_newest_point_of_a_timeline_that_no_base_backup_leads_to_is_refused(branched: Branched) -> None:
    """As when the base backups from before a promotion were pruned."""
    (surveyed,) = survey(branched.site.settings, branched.site.vault.primary)
    bases = tuple(replace(base, timeline=2, stop=branched.switch) for base in surveyed.cluster.bases)
    pruned = replace(surveyed, cluster=replace(surveyed.cluster, bases=bases))
    error = explain_uncovered([pruned], RecoveryTarget.parse("latest", timeline=1))
    assert (error.code, "leads to timeline 1" in error.message) == ("TARGET_NOT_COVERED", True)
    assert error.hint.startswith("Timelines that can be recovered to: 2.")


def test_two_clusters_in_one_store_are_told_apart(branched: Branched, tmp_path: Path) -> None:
    """The one that is in use comes first; a time that only the older one has is found there."""
    older = branched.site.plan("latest")
    with site(tmp_path, 17) as second:
        other = Site(second.server, branched.site.settings, branched.site.vault, branched.site.folder)
        second.server.sql("INSERT INTO t VALUES (1000)")
        other.base_backup()
        other.archive()
        try:
            newest = other.plan("latest")
            assert newest.system_identifier == other.system_identifier() != older.system_identifier
            assert older.last_commit is not None
            back = other.plan(older.last_commit.at.isoformat())
            assert back.system_identifier == older.system_identifier
            with other.recovered("latest") as found:
                assert ids(found) == [1000]
        finally:
            other.vault.primary.delete_tree(newest.base.folder)
            other.vault.primary.delete_tree(other.open_archive().folder)


def test_segments_of_one_megabyte_make_switches_in_the_middle(branched: Branched) -> None:
    """The fixture shows what it is to show: the switch lies inside of a segment that both timelines have."""
    archive = branched.site.open_archive()
    holding = Segment.at(branched.switch, 1, branched.site.server.segment_bytes)
    assert branched.switch not in (holding.start, holding.end)
    assert all(archive.find(holding.on(timeline)) for timeline in (1, 2))
    (surveyed,) = survey(branched.site.settings, branched.site.vault.primary)
    assert len(windows(surveyed.cluster)) == 2
