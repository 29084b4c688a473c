"""Recovery to a point in time on real servers: before, inside and behind the window, to the very commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.wal_archive import archive_folder
from gs_backup_assets.errors import BackupError, ConfigError, ProofFailed
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets_tests.catalogue.wal import put_segments
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, ids, rows, site

NAMED = "before the migration"


@dataclass(frozen=True)
class Story:
    """A server on which row 1 is in the base backup, and each later row is committed at a known time and position."""

    site: Site
    major: int
    before: datetime
    at: dict[int, datetime]
    behind: dict[int, Lsn]


@pytest.fixture(scope="module", params=[15, 17], ids=lambda major: f"pg{major}")
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    settings = {"track_commit_timestamp": "on", "max_prepared_transactions": "5"}
    with site(tmp_path_factory.mktemp("story"), request.param, settings=settings) as one:
        before = datetime.now(timezone.utc)
        one.server.sql("INSERT INTO t VALUES (1)")
        one.base_backup()
        at, behind = {}, {}
        for number in range(2, 8):
            one.server.sql(f"INSERT INTO t VALUES ({number})")
            query = f"SELECT pg_xact_commit_timestamp(xmin) FROM t WHERE id = {number}"
            moment = one.server.sql(query)[0][0]
            assert isinstance(moment, datetime)
            at[number], behind[number] = moment, one.lsn()
            if number in (3, 5):
                one.switch()
            if number == 4:
                one.server.sql(f"SELECT pg_create_restore_point('{NAMED}')")
        one.archive()
        yield Story(one, request.param, before, at, behind)


def refused(story: Story, to: str, **options: object) -> BackupError:
    with pytest.raises(BackupError) as caught:
        story.site.plan(to, **options)
    return caught.value


def test_latest_has_everything_up_to_the_unfinished_segment(story: Story) -> None:
    plan = story.site.plan("latest")
    assert plan.segments[-1].partial and plan.to_the_end
    assert plan.last_commit is not None and plan.last_commit.at == story.at[7]
    with story.site.recovered("latest") as found:
        assert ids(found) == [1, 2, 3, 4, 5, 6, 7]
        assert found.achieved.at == story.at[7]
        assert found.achieved.lsn == story.behind[7]
        assert found.achieved.timeline == 2
        assert set(found.seconds) >= {"fetch", "start", "replay", "promote", "checks"}


@pytest.mark.parametrize("number", [2, 5])
def test_a_time_has_the_commit_at_it_and_nothing_behind(story: Story, number: int) -> None:
    with story.site.recovered(story.at[number].isoformat()) as found:
        assert ids(found) == list(range(1, number + 1))
        assert found.achieved.at == story.at[number]


def test_a_microsecond_before_a_commit_it_is_not_there(story: Story) -> None:
    with story.site.recovered((story.at[5] - timedelta(microseconds=1)).isoformat()) as found:
        assert ids(found) == [1, 2, 3, 4]
        assert found.achieved.at == story.at[4]


def test_exclusive_leaves_the_commit_at_the_very_time_out(story: Story) -> None:
    with story.site.recovered(RecoveryTarget(at=story.at[5], inclusive=False)) as found:
        assert ids(found) == [1, 2, 3, 4]
    with story.site.recovered(RecoveryTarget(at=story.at[7], inclusive=False)) as found:
        assert ids(found) == [1, 2, 3, 4, 5, 6]


def test_the_time_of_the_last_commit_is_the_last_that_can_be_reached(story: Story) -> None:
    with story.site.recovered(story.at[7].isoformat()) as found:
        assert ids(found)[-1] == 7
    error = refused(story, (story.at[7] + timedelta(microseconds=1)).isoformat())
    assert (error.code, type(error)) == ("TARGET_AFTER_END", ProofFailed)
    assert story.at[7].isoformat().replace("+00:00", "Z") in error.hint


@pytest.mark.parametrize("number", [3, 6])
def test_a_position_has_what_was_flushed_before_it(story: Story, number: int) -> None:
    with story.site.recovered(str(story.behind[number])) as found:
        assert ids(found) == list(range(1, number + 1))
        assert found.achieved.lsn == story.behind[number]


def test_the_position_at_the_end_of_the_log_can_be_reached_and_none_behind(story: Story) -> None:
    with story.site.recovered(str(story.behind[7])) as found:
        assert (ids(found)[-1], found.achieved.lsn) == (7, story.behind[7])
    error = refused(story, str(Lsn(story.behind[7].value + 1)))
    assert error.code == "TARGET_AFTER_END"
    assert str(story.behind[7]) in error.hint


def test_the_end_of_the_base_backup_is_the_first_position(story: Story) -> None:
    stop = story.site.plan("latest").base.stop_lsn
    with story.site.recovered(stop) as found:
        assert ids(found) == [1]
    error = refused(story, str(Lsn(Lsn.parse(stop).value - 1)))
    assert error.code == "TARGET_BEFORE_FIRST_BACKUP"
    assert stop in error.hint


def test_a_restore_point(story: Story) -> None:
    with story.site.recovered(NAMED) as found:
        assert ids(found) == [1, 2, 3, 4]
    assert refused(story, "name:nobody made it").code == "RESTORE_POINT_UNKNOWN"


def test_a_time_before_the_first_base_backup_is_refused_with_the_first_point(story: Story) -> None:
    error = refused(story, story.before.isoformat())
    assert error.code == "TARGET_BEFORE_FIRST_BACKUP"
    first = story.site.plan("latest").base.consistent_at
    assert first.isoformat().replace("+00:00", "Z") in error.hint


def test_a_time_in_the_future_is_refused(story: Story) -> None:
    error = refused(story, "2999-01-01T00:00:00Z")
    assert (error.code, type(error)) == ("TARGET_IN_FUTURE", ConfigError)


def test_a_timeline_that_nobody_has_is_refused(story: Story) -> None:
    assert refused(story, "latest", timeline=7).code == "TIMELINE_UNKNOWN"


def test_the_recovered_server_is_closed_and_archives_nothing(story: Story) -> None:
    with story.site.recovered("latest") as found:
        settings = dict(rows(found.server, "SELECT name, setting FROM pg_settings"))
        assert settings["archive_mode"] == "off"
        assert settings["listen_addresses"] == ""
        assert rows(found.server, "SELECT pg_is_in_recovery()") == [(False,)]
        host = Path(found.server.parameters["host"])
        assert host.stat().st_mode & 0o777 == 0o700


def test_expected_loss_counts_from_the_last_commit(story: Story) -> None:
    now = story.at[7] + timedelta(minutes=20)
    assert story.site.plan("latest", now=now).expected_loss_seconds == 1200
    assert story.site.plan(story.at[5].isoformat(), now=story.at[5] + timedelta(hours=1)).expected_loss_seconds == 3600


def test_the_cluster_of_before_is_never_taken_for_the_newest_without_a_word(story: Story) -> None:
    """The database was made anew, its log is streamed, and nobody took a base backup."""
    assert story.site.plan("latest").warnings == ()
    store = story.site.vault.store(story.site.plan("latest").which)
    put_segments(store, [1], system="7999999999999999999", database=story.site.settings.name)
    try:
        (warning,) = story.site.plan("latest").warnings
        assert "7999999999999999999, does not lead there" in warning
    finally:
        store.delete_tree(archive_folder(story.site.settings.name, "7999999999999999999"))
