"""`gs-backup wal fetch` and `push`, as a server's restore_command and archive_command call them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.postgres.wal import Segment, is_segment
from gs_backup_assets.recovery.wal.fetching import AHEAD, WINDOW
from gs_backup_assets.system.account import server_account
from gs_backup_assets_tests.processes import open_folder, processes_with, wait_until
from gs_backup_assets_tests.production import Production, production
from gs_backup_assets_tests.recovery.wal.wal_site import ROOT, Site, switch, write

BROKEN = 200


@pytest.fixture(scope="module")
def server() -> Iterator[Production]:
    """A server with a dozen segments behind it."""
    with production(17, settings={"wal_keep_size": "400MB"}) as server:
        for _ in range(11):
            write(server, 1)
            switch(server)
        yield server


@pytest.fixture(scope="module")
def pushed(server: Production) -> Iterator[Site]:
    """A site whose archive has them all."""
    with open_folder() as folder:
        site = Site(folder, server)
        for path in finished(server):
            site.run("wal", "push", f"pg_wal/{path.name}", cwd=server.data)
        yield site


def finished(server: Production) -> list[Path]:
    flushed = server.sql("SELECT pg_walfile_name(pg_current_wal_flush_lsn())", database="postgres")[0][0]
    return sorted(p for p in (server.data / "pg_wal").iterdir() if is_segment(p.name) and p.name < str(flushed))


def test_push_is_idempotent_and_never_replaces(pushed: Site, server: Production, tmp_path: Path) -> None:
    path = finished(server)[0]
    assert "was there" in pushed.run("wal", "push", str(path)).stderr
    other = tmp_path / path.name
    data = bytearray(path.read_bytes())
    data[1 << 20] ^= 1
    other.write_bytes(bytes(data))
    refused = pushed.run("wal", "push", str(other), check=4)
    assert "WAL_CONFLICT" in refused.stderr
    assert pushed.archive.read(pushed.archive.segments(1)[0]) == path.read_bytes()


def test_push_takes_what_a_server_archives_and_nothing_else(pushed: Site, server: Production, tmp_path: Path) -> None:
    first = finished(server)[0]
    history = tmp_path / "00000002.history"
    history.write_text("1\t0/5000000\tno recovery target specified\n")
    pushed.run("wal", "push", str(history))
    pushed.run("wal", "push", str(history))
    history.write_text("1\t0/6000000\tno recovery target specified\n")
    assert "WAL_CONFLICT" in pushed.run("wal", "push", str(history), check=4).stderr
    pushed.run("wal", "push", str(tmp_path / f"{first.name}.00000028.backup"))
    assert "WAL_FILE_UNKNOWN" in pushed.run("wal", "push", str(tmp_path / "core"), check=2).stderr
    assert "WAL_FILE_UNREADABLE" in pushed.run("wal", "push", str(tmp_path / ("0" * 24)), check=2).stderr
    zeros = tmp_path / Segment(1, 900).name
    zeros.write_bytes(bytes(16 << 20))
    assert "WAL_DAMAGED" in pushed.run("wal", "push", str(zeros), check=4).stderr
    misnamed = tmp_path / Segment(1, 901).name
    shutil.copy(first, misnamed)
    assert "WAL_MISPLACED" in pushed.run("wal", "push", str(misnamed), check=4).stderr
    foreign = pushed.run("wal", "push", str(first), "--system-identifier", "42", check=4)
    assert "WAL_FOREIGN" in foreign.stderr


def test_the_end_of_an_old_timeline_is_kept_as_a_part(pushed: Site, server: Production, tmp_path: Path) -> None:
    server.sql(
        "CREATE TABLE at_the_end ()"
    )  # else the log may end where a segment ends, whose next one has no file yet
    current = Segment.at(pushed.flushed(), 1)
    refused = pushed.run("wal", "push", str(server.data / "pg_wal" / current.name), check=4)
    assert "WAL_UNFINISHED" in refused.stderr and pushed.archive.find(current) is None
    partial = tmp_path / f"{current.name}.partial"
    shutil.copy(server.data / "pg_wal" / current.name, partial)
    pushed.run("wal", "push", str(partial))
    found = pushed.archive.find(current)
    assert found is not None and found.partial and found.end >= current.start


def test_fetch_hands_out_files_and_keeps_the_next_ones_ready(pushed: Site, server: Production, tmp_path: Path) -> None:
    files = finished(server)
    target = tmp_path / "RECOVERYXLOG"
    pushed.run("wal", "fetch", files[0].name, str(target))
    assert target.read_bytes() == files[0].read_bytes()
    ahead = tmp_path / AHEAD
    wait_until(lambda: len(ready(ahead)) >= min(WINDOW, len(files) - 1), what="segments are fetched ahead")
    assert len(ready(ahead)) <= WINDOW
    for path in files[1:]:
        pushed.run("wal", "fetch", path.name, str(target))
        assert target.read_bytes() == path.read_bytes()
    wait_until(lambda: not processes_with(str(ahead)), what="the process that fetches ahead ends")
    pushed.run("wal", "fetch", "00000009.history", str(target), check=1)
    assert not ahead.exists(), "what was fetched ahead goes when the server is at the end"
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".aside")]


def ready(ahead: Path) -> list[str]:
    return [p.name for p in ahead.iterdir() if is_segment(p.name)] if ahead.is_dir() else []


def test_a_file_that_was_fetched_ahead_and_damaged_comes_from_the_store(
    pushed: Site, server: Production, tmp_path: Path
) -> None:
    path = finished(server)[3]
    (tmp_path / AHEAD).mkdir()
    (tmp_path / AHEAD / path.name).write_bytes(bytes(16 << 20))
    pushed.run("wal", "fetch", path.name, str(tmp_path / "RECOVERYXLOG"))
    assert (tmp_path / "RECOVERYXLOG").read_bytes() == path.read_bytes()


def test_only_a_file_that_is_not_there_has_status_1(pushed: Site, server: Production, tmp_path: Path) -> None:
    """PostgreSQL ends recovery as complete after a status up to 125: an error must have a greater one."""
    name, target = finished(server)[0].name, str(tmp_path / "RECOVERYXLOG")
    assert "not in the archive" in pushed.run("wal", "fetch", Segment(1, 4000).name, target, check=1).stderr
    pushed.run("wal", "fetch", "pg_control", target, check=1)
    quick = ("--patience", "0.3")
    assert (
        "NO_WAL_ARCHIVE" in pushed.run("wal", "fetch", name, target, "--system-identifier", "42", check=BROKEN).stderr
    )
    pushed.run("wal", "fetch", name, check=BROKEN)  # wrong usage
    store = pushed.folder / "backups"
    store.rename(pushed.folder / "elsewhere")
    try:
        assert "NO_WAL_ARCHIVE" in pushed.run("wal", "fetch", name, target, *quick, check=BROKEN).stderr
        store.touch()
        assert "STORE_UNAVAILABLE" in pushed.run("wal", "fetch", name, target, *quick, check=BROKEN).stderr
        store.unlink()
    finally:
        (pushed.folder / "elsewhere").rename(store)
    (pushed.folder / "backup.yaml").rename(pushed.folder / "kept.yaml")
    try:
        assert "CONFIG_NOT_FOUND" in pushed.run("wal", "fetch", name, target, check=BROKEN).stderr
    finally:
        (pushed.folder / "kept.yaml").rename(pushed.folder / "backup.yaml")
    damaged = pushed.archive.segments(1)[2]
    path = store / damaged.key
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        fetched = pushed.run("wal", "fetch", damaged.segment.name, target, check=BROKEN)
        assert "COMPRESSED_DAMAGED" in fetched.stderr
    finally:
        path.write_bytes(whole)
    assert not (tmp_path / "RECOVERYXLOG").exists()


def test_an_archive_of_two_clusters_is_ambiguous(pushed: Site, server: Production, tmp_path: Path) -> None:
    name, target = finished(server)[0].name, tmp_path / "RECOVERYXLOG"
    (pushed.folder / "backups" / "studio" / "wal" / "42").mkdir()
    try:
        refused = pushed.run("wal", "fetch", name, str(target), check=BROKEN)
        assert "WAL_CLUSTER_AMBIGUOUS" in refused.stderr
        pushed.run("wal", "fetch", name, str(target), "--system-identifier", pushed.archive.system_identifier)
        target.unlink()
        pushed.run("wal", "fetch", name, str(target), cwd=server.data)  # as the server calls it: its own cluster's
        assert target.exists()
    finally:
        (pushed.folder / "backups" / "studio" / "wal" / "42").rmdir()


def test_fetch_starts_fast(pushed: Site, server: Production, tmp_path: Path) -> None:
    """What is heavy is not imported for a local store; the seconds are told, a busy machine is no failure."""
    source = (
        "import sys\nfrom gs_backup_assets.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'boto3', 'botocore', 'dagster', 'great_expectations', 'psycopg2', 'aws_encryption_sdk', 'rich'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    for verb in (["fetch", finished(server)[0].name, "RECOVERYXLOG"], ["push", str(finished(server)[0])]):
        started = time.monotonic()
        argv = [sys.executable, "-c", source, "wal", *verb, "--config", str(pushed.folder / "backup.yaml")]
        environment = {**pushed.environment, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        print(f"{verb[0]}: {time.monotonic() - started:.2f} s")
        assert result.stdout.strip() == "[]", (result.stdout, result.stderr)


@pytest.mark.parametrize("major", [15, 18], ids=lambda major: f"pg{major}")
def test_a_standby_recovers_by_it(major: int) -> None:
    """archive_command and restore_command of real servers, the newest part included through a stream's archive."""
    with open_folder() as folder, production(major) as server:
        site = Site(folder, server)
        folder.chmod(0o777)
        push = command(site, "push %p")
        server.configure(archive_mode="on", archive_command=push)
        server.restart()
        write(server, 1)
        switch(server)
        # A standby takes an archive that nothing was ever put to for a wrong one.
        archived = "SELECT last_archived_wal IS NOT NULL FROM pg_stat_archiver"
        wait_until(lambda: server.sql(archived)[0][0] is True, what="the archive has begun")
        with server.standby(settings={"restore_command": command(site, "fetch %f %p")}) as standby:
            standby.stop()
            standby.configure(primary_conninfo="")
            write(server, 40)
            server.sql("CREATE TABLE proof AS SELECT 42 AS answer")
            switch(server)
            wait_until(
                lambda: (
                    site.server.sql("SELECT failed_count, last_archived_wal FROM pg_stat_archiver")[0][1] is not None
                    and site.archived_end() >= Segment.at(site.flushed(), 1).start
                ),
                what="it is archived",
            )
            standby.start()
            wait_until(lambda: has_proof(standby), what="the standby has it")


def command(site: Site, words: str) -> str:
    config = site.folder / "backup.yaml"
    program = f'{interpreter()} -c "from gs_backup_assets.cli.main import main; main()"'
    places = f"{ROOT}:{sysconfig.get_path('purelib')}:{sysconfig.get_path('platlib')}"
    return f"PYTHONPATH={places} {program} wal {words} --config {config}"


def interpreter() -> Path:
    """One that the account of servers may run: this one, or the system's of the same version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable), Path("/usr/bin") / version):
        if path.is_file() and server_account().can_traverse(path.resolve().parent):
            return path
    pytest.fail(f"the account that servers run as can reach no {version}: install the system's")


def has_proof(standby: Production) -> bool:
    return bool(standby.sql("SELECT to_regclass('proof') IS NOT NULL")[0][0])
