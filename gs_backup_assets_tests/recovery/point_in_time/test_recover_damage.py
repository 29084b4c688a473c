"""Segments that are missing, damaged, swapped or of another cluster: found, named, and never replayed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.wal_archive import Archived
from gs_backup_assets.errors import BackupError, StoreError
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.recovery.point_in_time.coverage_survey import survey, windows_with_times
from gs_backup_assets_tests.catalogue.wal import log_of
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, ids, site


@dataclass
class Log:
    """Whole segments of which each has one row of its own: row n is committed in segment n of `segments`."""

    site: Site
    segments: list[Archived]
    behind: list[Lsn]

    def path(self, place: int) -> Path:
        return Path(self.site.vault.primary.describe()) / self.segments[place].key

    def replace(self, place: int, data: bytes) -> None:
        self.path(place).chmod(0o600)
        self.path(place).write_bytes(data)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with site(tmp_path_factory.mktemp("log"), 17) as one:
        one.base_backup()
        first = one.lsn()
        behind = []
        for number in range(6):
            one.server.sql(f"INSERT INTO t VALUES ({number})")
            behind.append(one.lsn())
            one.switch()
        one.archive(partial=False)
        segments = [archived for archived in one.open_archive().segments(1) if archived.end > first]
        yield Log(one, segments, behind)


@pytest.fixture
def log(pristine: Log, tmp_path: Path) -> Iterator[Log]:
    """The same log; what a test does to it is undone."""
    folder = Path(pristine.site.vault.primary.describe())
    shutil.copytree(folder, tmp_path / "kept")
    yield pristine
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_missing_segment_ends_the_window_and_what_lies_behind_is_refused(log: Log) -> None:
    log.path(3).unlink()
    plan = log.site.plan("latest")
    assert plan.end == log.segments[2].end
    assert any("gap" in warning for warning in plan.warnings)
    with log.site.recovered("latest") as found:
        assert ids(found) == [0, 1, 2]
    with pytest.raises(BackupError) as caught:
        log.site.plan(str(log.behind[4]))
    assert caught.value.code == "WAL_GAP"
    assert log.segments[3].segment.name in caught.value.message
    assert str(log.segments[3].segment.start) in caught.value.hint
    (surveyed,) = survey(log.site.settings, log.site.vault.primary)
    (window,) = windows_with_times(surveyed)
    assert window.gap is not None and window.gap.end == log.segments[4].segment.start


def test_a_new_base_backup_behind_the_gap_opens_a_new_window(log: Log) -> None:
    log.path(3).unlink()
    log.site.base_backup()
    log.site.archive(partial=False)
    log.path(3).unlink(missing_ok=True)  # the server still had it
    with log.site.recovered("latest") as found:
        assert ids(found) == [0, 1, 2, 3, 4, 5]
    with log.site.recovered(str(log.behind[2])) as found:
        assert ids(found) == [0, 1, 2]
    with pytest.raises(BackupError) as caught:
        log.site.plan(str(log.behind[4]))
    assert caught.value.code == "WAL_GAP"


def _damaged(log: Log) -> None:
    log.replace(3, flip(log.path(3).read_bytes()))


def _swapped(log: Log) -> None:
    here, there = log.path(2).read_bytes(), log.path(3).read_bytes()
    log.replace(2, there)
    log.replace(3, here)


def _foreign(log: Log) -> None:
    from gs_backup_assets.vault.compression import compress

    log.replace(3, compress(log_of(log.segments[3].segment, system="7000000000000000001")))


@pytest.mark.parametrize(
    ("harm", "code"),
    [(_damaged, "COMPRESSED_DAMAGED"), (_swapped, "WAL_MISPLACED"), (_foreign, "WAL_FOREIGN")],
    ids=["damaged", "swapped", "foreign"],
)
def test_a_segment_that_is_not_what_it_should_be_is_never_replayed(
    log: Log, harm: Callable[[Log], None], code: str
) -> None:
    harm(log)
    with pytest.raises(StoreError) as caught, log.site.recovered(str(log.behind[5])):
        pytest.fail("a log with a bad segment was replayed")
    assert caught.value.code == code
    with log.site.recovered(str(log.behind[1])) as found:  # nothing that lies before it is lost
        assert ids(found) == [0, 1]
    with pytest.raises(StoreError) as caught, log.site.recovered("latest"):
        pytest.fail("a log with a bad segment was replayed")
    assert caught.value.code == code


def test_damage_at_the_end_of_the_log_shortens_what_can_be_reached_and_is_told(log: Log) -> None:
    log.replace(5, flip(log.path(5).read_bytes()))
    plan = log.site.plan("latest")
    assert plan.end == log.segments[4].end
    assert any("COMPRESSED_DAMAGED" in warning for warning in plan.warnings)
    with log.site.recovered("latest") as found:
        assert ids(found) == [0, 1, 2, 3, 4]
    with pytest.raises(BackupError) as caught:
        log.site.plan(str(log.behind[5]))
    assert caught.value.code == "TARGET_AFTER_END"
    assert log.segments[5].segment.name in caught.value.message


def test_without_a_base_backup_there_is_nothing_to_begin_with(log: Log) -> None:
    plan = log.site.plan("latest")
    log.site.vault.primary.delete_tree(plan.base.folder)
    with pytest.raises(BackupError) as caught:
        log.site.plan("latest")
    assert caught.value.code == "NO_BASE_BACKUP"


def test_a_damaged_base_backup_is_told(log: Log) -> None:
    plan = log.site.plan("latest")
    path = Path(log.site.vault.primary.describe()) / plan.base.folder / "base" / "base.tar.zst"
    path.chmod(0o600)
    path.write_bytes(flip(path.read_bytes()))
    with pytest.raises(StoreError) as caught, log.site.recovered("latest"):
        pytest.fail("a damaged base backup was started")
    assert caught.value.code == "FILE_DIFFERS"
