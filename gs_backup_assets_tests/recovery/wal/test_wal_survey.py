"""Tests of what the archive of the log comes to, on the log of real servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.catalogue.wal_positions import put_position
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.recovery.wal import tail as wal_tail
from gs_backup_assets.recovery.wal.checks import survey_and_judge
from gs_backup_assets.recovery.wal.survey import WalSurvey, current_cluster, needs_new_base, survey_archive
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.archived import Site, site


@pytest.fixture(params=[15, 17])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with site(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def place17(tmp_path: Path) -> Iterator[Site]:
    with site(17, tmp_path) as made:
        yield made


def _look(place: Site, now: datetime | None = None) -> tuple[WalSurvey, dict[str, CheckResult]]:
    surveyed = survey_and_judge(place.settings, place.store, now=now or place.now())
    assert surveyed.survey is not None
    return surveyed.survey, {check.name: check for check in surveyed.checks}


def _codes(check: CheckResult) -> set[str]:
    return {finding.code for finding in check.findings}


def test_the_last_recoverable_commit_is_the_last_one_in_the_archived_bytes(place: Site) -> None:
    place.commit(0)
    base = place.base_backup()
    for number in range(1, 4):
        place.switch()
        committed = place.commit(number)
    end = place.archive_all()
    place.heartbeat(place.now())
    place.commit(99)  # it is not archived
    survey, checks = _look(place)
    assert survey.base is not None and survey.base.id == base.id
    assert survey.end == end and survey.gaps == () and survey.segments >= 3
    assert survey.commit is not None
    assert timedelta(0) <= committed - survey.commit.at < timedelta(seconds=5)
    assert {check.status for check in checks.values()} == {Status.PASSED}
    assert checks["wal_continuous"].metrics["archived_bytes"] == survey.stored_bytes > 0
    assert needs_new_base(survey) is None


def test_an_idle_server_loses_nothing_as_long_as_the_stream_looks(place17: Site) -> None:
    place17.base_backup()
    committed = place17.commit(1)
    end = place17.archive_all()
    later = committed + timedelta(hours=3)
    survey, checks = _look(place17, later)
    assert checks["rpo_met"].status is Status.NOT_VERIFIED and _codes(checks["rpo_met"]) == {"RPO_UNKNOWN"}
    assert _codes(checks["wal_lag"]) == {"NO_POSITION"}
    place17.heartbeat(later - timedelta(seconds=30), server=end)
    survey, checks = _look(place17, later)
    assert survey.recoverable_until == later - timedelta(seconds=30)
    assert survey.commit is not None and survey.commit.at <= committed
    assert checks["rpo_met"].status is checks["wal_lag"].status is Status.PASSED
    assert checks["rpo_met"].metrics["recoverable_age_seconds"] == 30.0
    quick = survey_archive(place17.settings, place17.store, survey.system_identifier, now=later, reading=False)
    assert quick.recoverable_until == survey.recoverable_until and quick.end == survey.end
    # What the stream saw and the archive does not have counts for nothing; what it saw before that does.
    place17.heartbeat(later - timedelta(seconds=10), server=Lsn(end.value + 8))
    survey, checks = _look(place17, later)
    assert survey.lag_bytes == 8 and survey.recoverable_until == later - timedelta(seconds=30)
    assert not survey.complete and checks["rpo_met"].status is checks["wal_lag"].status is Status.PASSED
    for seconds in (6, 4, 2):
        place17.heartbeat(later - timedelta(seconds=seconds), server=Lsn(end.value + 8))
    survey, checks = _look(place17, later)
    assert survey.commit is not None
    assert survey.lag_bytes == 8 and survey.recoverable_until == survey.commit.at
    assert _codes(checks["rpo_met"]) == {"RPO_EXCEEDED"} and _codes(checks["wal_lag"]) == {"WAL_LAGS"}


def test_a_position_on_another_timeline_shows_nothing(place17: Site) -> None:
    """After a promotion that the archive knows nothing of, positions are those of another history."""
    place17.base_backup()
    place17.commit(1)
    end = place17.archive_all()
    later = place17.now() + timedelta(hours=1)
    position = place17.heartbeat(later - timedelta(seconds=20), server=end)
    assert _look(place17, later)[0].recoverable_until == position.at
    promoted = position.model_copy(update={"timeline": 2, "at": later - timedelta(seconds=10)})
    put_position(place17.store, "studio", promoted)
    survey, checks = _look(place17, later)
    assert survey.lag_bytes == 0 and not survey.complete
    assert survey.commit is not None and survey.recoverable_until == survey.commit.at
    assert _codes(checks["wal_lag"]) == {"WAL_LAGS"} and checks["rpo_met"].status is Status.FAILED


def test_each_class_has_its_own_objective(place17: Site) -> None:
    place17.base_backup()
    end = place17.archive_all()
    moment = place17.now()
    place17.heartbeat(moment, server=end)
    _, checks = _look(place17, moment + timedelta(minutes=30))
    rpo = checks["rpo_met"]
    assert rpo.status is Status.FAILED and [f.message.split(":")[0] for f in rpo.findings] == ["critical"]
    assert rpo.metrics["rpo_seconds_critical"] == 900 and rpo.metrics["rpo_seconds_important"] == 3600
    assert checks["wal_lag"].status is Status.FAILED and _codes(checks["wal_lag"]) == {"WAL_STREAM_SILENT"}
    assert checks["wal_continuous"].status is Status.PASSED


def test_a_gap_behind_the_base_backup_asks_for_a_new_one_though_the_server_thinks_all_is_well(place: Site) -> None:
    place.base_backup()
    before = place.commit(1)
    for number in range(2, 6):
        place.switch()
        place.commit(number)
    place.archive_all()
    place.heartbeat(place.now())
    ((failed,),) = place.server.sql("SELECT failed_count FROM pg_stat_archiver")
    assert failed == 0
    whole = [key for key in place.stored() if "/partial/" not in key]
    lost = whole[-3]
    place.store.delete(lost)
    survey, checks = _look(place)
    name = lost.rpartition("/")[2].split(".")[0]
    assert survey.gap_after_base is not None and survey.gap_after_base.missing == name
    assert survey.end == Segment.parse(name).start and survey.gap_segments == 1
    continuous = checks["wal_continuous"]
    assert (
        continuous.status is Status.FAILED
        and _codes(continuous) == {"WAL_GAP"}
        and name in continuous.findings[0].message
    )
    assert continuous.metrics["gap_segments"] == 1
    assert "gap" in (needs_new_base(survey) or "")
    assert survey.recoverable_until is not None and before - timedelta(seconds=5) <= survey.recoverable_until
    # A new base backup heals it: the gap is history then, and still counted.
    place.base_backup(full=True)
    place.commit(7)
    place.archive_all()
    place.store.delete(lost)  # the server still had it
    survey, checks = _look(place)
    assert checks["wal_continuous"].status is Status.PASSED and needs_new_base(survey) is None
    assert survey.gap_segments == 1 and survey.gap_after_base is None


def test_damage_and_foreign_segments_end_what_can_be_recovered(place17: Site, tmp_path: Path) -> None:
    place17.base_backup()
    place17.commit(1)
    place17.switch()
    place17.commit(2)
    place17.switch()
    place17.commit(3)
    place17.archive_all(partial=False)
    store = place17.store
    assert isinstance(store, LocalStore)
    newest = place17.stored()[-1]
    path = store.root / newest
    good = path.read_bytes()
    name = newest.rpartition("/")[2].split(".")[0]
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 0xFF
    path.write_bytes(damaged)
    survey, checks = _look(place17)
    assert checks["wal_continuous"].status is Status.FAILED
    assert _codes(checks["wal_continuous"]) == {"COMPRESSED_DAMAGED"}
    assert survey.end == Segment.parse(name).start and survey.commit is not None
    assert survey.commit.lsn < Segment.parse(name).start
    assert "damaged" in (needs_new_base(survey) or "")
    other = tmp_path / "other"
    other.mkdir()
    with site(17, other) as foreign:
        foreign.base_backup()
        foreign.switch()
        foreign.archive_all(partial=False)
        found = [key for key in foreign.stored() if key.endswith(f"{name}.zst")] or foreign.stored()
        theirs = foreign.store
        assert isinstance(theirs, LocalStore)
        path.write_bytes((theirs.root / found[0]).read_bytes())
    _, checks = _look(place17)
    assert _codes(checks["wal_continuous"]) == {"WAL_FOREIGN"}
    path.write_bytes(good)  # mended under the same key: nothing of the damage is remembered
    survey, checks = _look(place17)
    assert checks["wal_continuous"].status is Status.PASSED and survey.end == Segment.parse(name).end


def test_a_promotion_goes_on_on_the_new_timeline(place: Site) -> None:
    place.base_backup()
    place.commit(1)
    place.archive_all()
    with place.server.standby(settings={"wal_keep_size": "1GB"}) as standby:
        place.commit(2)
        place.archive_all()
        ((position,),) = place.server.sql("SELECT pg_current_wal_flush_lsn()::text")
        place.server.stop()
        standby.promote()
        there = Site(standby, place.settings)
        committed = there.commit(3)
        end = there.archive_all()
        there.heartbeat(there.now())
        survey, checks = _look(there)
        place.server.start()
    assert [timeline.timeline for timeline in survey.timelines] == [1, 2]
    assert survey.gaps == () and survey.end == end > Lsn.parse(str(position))
    assert survey.commit is not None and timedelta(0) <= committed - survey.commit.at < timedelta(seconds=5)
    assert checks["wal_continuous"].status is Status.PASSED and checks["rpo_met"].status is Status.PASSED


def test_without_a_base_backup_log_alone_recovers_nothing(place17: Site) -> None:
    place17.commit(1)
    end = place17.archive_all()
    place17.heartbeat(place17.now(), server=end)
    survey, checks = _look(place17)
    assert survey.end == end and survey.commit is not None and survey.recoverable_until is None
    assert checks["rpo_met"].status is Status.FAILED and _codes(checks["rpo_met"]) == {"NO_BASE_BACKUP"}
    assert checks["wal_continuous"].status is Status.NOT_VERIFIED
    assert needs_new_base(survey) == "there is no base backup of the cluster"


def test_nothing_archived_is_not_verified(place17: Site) -> None:
    surveyed = survey_and_judge(place17.settings, place17.store, now=place17.now())
    assert surveyed.survey is None
    assert {check.status for check in surveyed.checks} == {Status.NOT_VERIFIED}
    assert current_cluster(place17.settings, place17.store) is None


def test_bytes_that_were_read_are_not_read_again(
    place17: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GS_BACKUP_CACHE", str(tmp_path / "cache"))
    place17.base_backup()
    place17.commit(1)
    place17.archive_all()
    now = datetime.now(timezone.utc)
    first = survey_archive(place17.settings, place17.store, place17.cluster, now=now)
    newest = place17.stored()[-1]
    store = place17.store
    assert isinstance(store, LocalStore)
    path, status = store.root / newest, (store.root / newest).stat()
    path.write_bytes(bytes(status.st_size))  # unreadable, and the same object by its tag
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = survey_archive(place17.settings, place17.store, place17.cluster, now=now)
    assert (again.end, again.commit) == (first.end, first.commit) and again.commit is not None
    os.utime(path)
    assert survey_archive(place17.settings, place17.store, place17.cluster, now=now).damage is not None


def test_a_log_without_commits_is_looked_at_only_so_far_back(place17: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_tail, "MOST_SEGMENTS", 2)
    place17.commit(1)
    base = place17.base_backup()
    place17.commit(2)
    for _ in range(4):
        place17.server.sql("CHECKPOINT", database="postgres")
        place17.switch()
    place17.archive_all(partial=False)
    survey, _ = _look(place17)
    assert survey.commit is None
    assert survey.recoverable_until == base.require_manifest().consistent_at
