"""Where a recovery is made: folders that cannot be used, a disk that is full, and docs/recover.md done by hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.errors import BackupError, ConfigError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.point_in_time.recover import recovered
from gs_backup_assets.recovery.point_in_time.recover_folder import MARK, finish_folder, unfinished_folder
from gs_backup_assets.recovery.wal.checks import survey_and_judge
from gs_backup_assets.system.account import current_account, server_account
from gs_backup_assets.vault.compression import decompress
from gs_backup_assets_tests.processes import open_folder, processes_with
from gs_backup_assets_tests.production import Production
from gs_backup_assets_tests.recovery.dumps.test_disk_full import small_disk
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, ids, site

PAGE = Path(__file__).parents[3] / "docs" / "recover.md"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("one"), 17) as found:
        found.base_backup()
        found.server.sql("INSERT INTO t SELECT generate_series(1, 40000)")
        found.archive()
        yield found


def code_of(caught: pytest.ExceptionInfo[BackupError]) -> str:
    return caught.value.code


def test_segments_of_64_megabytes(tmp_path: Path) -> None:
    """A server with them does not start on the default of min_wal_size."""
    with site(tmp_path, 17, settings={"min_wal_size": "128MB"}, segment_megabytes=64) as large:
        large.archive()
        # Without a base backup only a segment itself says how long it is.
        looked = survey_and_judge(large.settings, large.vault.primary, now=datetime.now(timezone.utc))
        assert looked.survey is not None and looked.survey.end == large.lsn()
        assert [finding.code for finding in looked.checks[0].findings] == ["NO_BASE_BACKUP"]
        large.base_backup()
        large.server.sql("INSERT INTO t VALUES (1)")
        large.switch()
        large.server.sql("INSERT INTO t VALUES (2)")
        large.archive()
        with large.recovered("latest") as found:
            assert ids(found) == [1, 2]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ConfigError) as caught, unfinished_folder(tmp_path, "latest", current_account()):
        pytest.fail("a folder that is not empty was taken")
    assert code_of(caught) == "INTO_NOT_EMPTY"
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / MARK).exists()


def test_a_folder_that_another_recovery_works_in_is_left_alone(tmp_path: Path) -> None:
    with unfinished_folder(tmp_path / "into", "latest", current_account()):
        (tmp_path / "into" / "data").mkdir()
        with pytest.raises(ConfigError) as caught, unfinished_folder(tmp_path / "into", "latest", current_account()):
            pytest.fail("two recoveries work in one folder")
        assert code_of(caught) == "INTO_BUSY"
        assert (tmp_path / "into" / "data").is_dir()


def test_what_a_broken_off_recovery_left_is_removed_by_the_next_and_a_finished_one_stays(tmp_path: Path) -> None:
    into = tmp_path / "into"
    with unfinished_folder(into, "latest", current_account()):
        (into / "data").mkdir()
        (into / "link").symlink_to(tmp_path)
    assert (into / MARK).exists()
    with unfinished_folder(into, "latest", current_account()):
        assert os.listdir(into) == [MARK]
        (into / "data").mkdir()
        finish_folder(into)
    assert tmp_path.is_dir()
    with pytest.raises(ConfigError) as caught, unfinished_folder(into, "latest", current_account()):
        pytest.fail("a finished recovery was taken for an unfinished one")
    assert code_of(caught) == "INTO_NOT_EMPTY"


def test_a_server_that_still_runs_in_the_folder_keeps_its_files(tmp_path: Path) -> None:
    """As after a kill: the next recovery waits until the server is gone."""
    into = tmp_path / "into"
    with unfinished_folder(into, "latest", current_account()):
        (into / "data").mkdir()
    program = "import sys, time; time.sleep(2)"
    with subprocess.Popen([sys.executable, "-c", program, str(into / "data")]) as server:
        (into / "data" / "postmaster.pid").write_text(f"{server.pid}\n{into / 'data'}\n")
        # Nobody waits for a child of ours before the end of the block: it is reaped in a thread.
        reaper = threading.Thread(target=server.wait)
        reaper.start()
        with unfinished_folder(into, "latest", current_account()):
            assert server.returncode == 0
            assert os.listdir(into) == [MARK]
        reaper.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="servers run as this account")
def test_a_folder_that_the_servers_account_cannot_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(ConfigError) as caught, unfinished_folder(tmp_path / "closed" / "a", "latest", server_account()):
        pytest.fail("no server can run there")
    assert code_of(caught) == "INTO_UNUSABLE"


@pytest.mark.parametrize("size", ["24m", "118m"], ids=["too small for the base", "full while it replays"])
def test_a_full_disk_is_told_and_no_server_is_left(one: Site, size: str) -> None:
    if size == "118m":  # the base backup has room, but not what the log adds to it
        one.server.sql("CREATE TABLE wide (filler text)")
        one.server.sql("ALTER TABLE wide ALTER filler SET STORAGE PLAIN")
        one.server.sql("INSERT INTO wide SELECT repeat('x', 7000) FROM generate_series(1, 13000)")
        one.archive()
    with open_folder() as folder, small_disk(folder / "disk", size) as disk:
        into = disk / "into"
        with (
            pytest.raises(BackupError) as caught,
            recovered(one.plan("latest"), one.settings, one.vault, into, Progress(), durable=False),
        ):
            pytest.fail("a cluster was recovered on a disk that is too small for it")
        assert code_of(caught) == "NO_SPACE", caught.value
        assert not processes_with(str(into))
        assert not list(into.glob("gs-backup-*"))


def test_by_hand_with_stock_programs_as_the_page_says(one: Site) -> None:
    """What the page calls for: tar, zstd's format, pg_verifybackup, postgres, and a restore_command of one line."""
    plan = one.plan("latest")
    page = PAGE.read_text(encoding="utf-8")
    block = re.search(r"\n((?:    \S.* = .*\n|    # .*\n)+)", page)
    assert block is not None
    store, account = Path(one.vault.primary.describe()), server_account()
    toolchain = plan.chain[-1].require_manifest().release
    with open_folder() as folder:
        data, wal, socket = folder / "data", folder / "wal", folder / "s"
        for made in (data, data / "pg_wal", wal, socket):
            made.mkdir(mode=0o700)
        base = store / plan.base.folder / "base"
        for name, into in (("base.tar.zst", data), ("pg_wal.tar.zst", data / "pg_wal")):
            tar = decompress((base / name).read_bytes(), name)
            subprocess.run(["tar", "-xf", "-", "-C", into], input=tar, check=True)
        shutil.copy(base / "backup_manifest", data)
        for archived in plan.segments:
            data_of = decompress((store / archived.key).read_bytes(), archived.key)
            (wal / archived.segment.name).write_bytes(data_of)
        (data / "postgresql.auto.conf").rename(folder / "auto.conf.kept")
        (data / "postgresql.auto.conf").touch()
        (data / "recovery.signal").touch()
        lines = [line.strip() for line in block[1].splitlines()]
        lines = [line for line in lines if not line.startswith(("restore_command", "recovery_target_time"))]
        lines += [f"restore_command = 'cp {wal}/%f %p'", f"unix_socket_directories = '{socket}'"]
        (folder / "conf").write_text("\n".join(lines) + "\n")
        (folder / "hba").write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid)
        server = Production(one.server.toolchain, folder)
        assert server.toolchain.release.major == toolchain.major
        server.arguments = [f"--config_file={folder / 'conf'}", f"--hba_file={folder / 'hba'}"]
        server.start()
        try:
            assert server.sql("SELECT count(*), pg_is_in_recovery() FROM t") == [(40000, False)]
            assert server.sql("SHOW archive_mode") == [("off",)]
        finally:
            server.stop()
