"""Base backup and recovery of a cluster side by side with pgBackRest: the same server, machine and compression.

Both take a full backup with two workers and zstd:1 into a local folder while nothing else runs, and both bring it back
into an empty folder, start the server on it, and replay the archived log to its end. In turns; the best round counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.floors import Floor, show, write
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.system.account import Account, server_account
from gs_backup_assets.system.programs import run
from gs_backup_assets_tests.production import DATABASE, SUPERUSER, Production, new_folder, production

# Debian's pgBackRest 2.45 knows servers up to 15.
MAJOR = 15
URL_VARIABLE = "GS_BACKUP_BENCH_URL"
# A production server as the manual's chapter on tuning would have it on a machine of this size, and durable.
_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "fsync": "on", "archive_mode": "on"}
_STANZA = "studio"


def main() -> int:
    """Measure, print, write the results as JSON; 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=72.0, help="72 is a little more than 2 GB")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    arguments = parser.parse_args()
    if shutil.which("pgbackrest") is None:
        print("pgbackrest is not on this machine: apt-get install pgbackrest")
        return 1
    with production(MAJOR, settings=_SETTINGS) as server:
        rest, ours = PgBackRest(server), Ours(server)
        server.configure(archive_command=rest.archive_command)
        server.restart()
        with connect(server.target()) as connection:
            load_sample(connection, scale=arguments.scale)
            query(connection, "VACUUM ANALYZE")
        size = int(str(server.sql("SELECT sum(pg_database_size(oid)) FROM pg_database")[0][0]))
        print(f"PostgreSQL {server.toolchain.release}, cluster of {size / 1e9:.2f} GB, {os.cpu_count()} processors")
        seconds: dict[str, list[float]] = {}
        rest.prepare()
        for _ in range(arguments.rounds):
            for name, work in _work(server, rest, ours):
                seconds.setdefault(name, []).append(_timed(server, work))
        stored = {"pgBackRest": rest.stored_bytes(), "ours": ours.stored_bytes()}
    best = {name: min(rounds) for name, rounds in seconds.items()}
    floors = (
        Floor("base backup / pgBackRest's", best["our backup"] / best["their backup"], 0.9),
        Floor("recovery / pgBackRest's", best["our recovery"] / best["their recovery"], 0.9),
    )
    for name, rounds in seconds.items():
        print(f"{name:<18}{'  '.join(f'{value:7.1f} s' for value in rounds)}")
    print("stored             " + "  ".join(f"{name} {value / 1e6:.0f} MB" for name, value in stored.items()))
    show(floors)
    document = {"cluster_bytes": size, "seconds": seconds, "stored_bytes": stored}
    write(arguments.results, "physical", document, floors)
    return 0 if all(floor.kept for floor in floors) else 1


def _work(server: Production, rest: PgBackRest, ours: Ours) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "their backup", rest.backup
    yield "our backup", ours.backup
    with _empty(server) as data:
        yield "their recovery", lambda: rest.recover(data)
    with _empty(server) as data:
        yield "our recovery", lambda: ours.recover(data)


def _timed(server: Production, work: Callable[[], None]) -> float:
    server.sql("CHECKPOINT")
    os.sync()
    started = time.monotonic()
    work()
    return time.monotonic() - started


@contextmanager
def _empty(server: Production) -> Iterator[Path]:
    """A folder that is not there yet, for a data directory."""
    parent = new_folder(server)
    yield parent / "data"
    shutil.rmtree(parent)


class PgBackRest:
    """pgBackRest as its guide sets it up: two processes, zst at level 1, archive-push, and a local repository."""

    def __init__(self, server: Production) -> None:
        self._server = server
        self._account: Account = server_account()
        self._home = new_folder(server, "pgbackrest")
        self._config = self._home / "pgbackrest.conf"
        self._config.write_text(
            f"[global]\nrepo1-path={self._home}/repository\nlog-path={self._home}\nlock-path={self._home}/lock\n"
            f"spool-path={self._home}/spool\nprocess-max=2\ncompress-type=zst\ncompress-level=1\nstart-fast=y\n"
            f"log-level-console=warn\nlog-level-file=off\n[{_STANZA}]\npg1-path={server.data}\n"
            f"pg1-socket-path={server.folder / 's'}\npg1-port={server.port}\npg1-user={SUPERUSER}\n"
            f"pg1-database={DATABASE}\n",
            encoding="utf-8",
        )
        self._config.chmod(0o644)

    @property
    def archive_command(self) -> str:
        return f"pgbackrest --config={self._config} --stanza={_STANZA} archive-push %p"

    def prepare(self) -> None:
        self._run("stanza-create")

    def backup(self) -> None:
        self._run("backup", "--type=full", "--repo1-retention-full=99")

    def recover(self, data: Path) -> None:
        """Restore, start on a socket of its own, and wait until the server has replayed everything."""
        self._run("restore", f"--pg1-path={data}", "--type=default")
        argv = [self._server.toolchain.program("pg_ctl"), "-D", data, "-w", "-t", "600", "-l", self._home / "log"]
        options = f"-c listen_addresses= -c archive_mode=off -c unix_socket_directories={self._home} -c port=5433"
        run([*argv, "-o", options, "start"], account=self._account).require_success()
        where = ["-h", str(self._home), "-p", "5433", "-U", SUPERUSER, "-d", DATABASE, "-Atc"]
        question = [*where, "SELECT pg_is_in_recovery()"]
        while (
            run(
                [self._server.toolchain.program("psql"), *question], account=self._account, capture_stdout=True
            ).stdout.strip()
            != "f"
        ):
            time.sleep(0.05)
        run([*argv, "-m", "fast", "stop"], account=self._account).require_success()

    def stored_bytes(self) -> int:
        """Of the newest backup."""
        latest = self._home / "repository" / "backup" / _STANZA / "latest"
        return sum(path.stat().st_size for path in latest.resolve().rglob("*") if path.is_file())

    def _run(self, *arguments: str) -> None:
        argv = ["pgbackrest", f"--config={self._config}", f"--stanza={_STANZA}", *arguments]
        run(argv, account=self._account, environment={"HOME": str(self._home)}).require_success()


class Ours:
    """`gs-backup base-backup` and `gs-backup recover`, as a person would type them."""

    def __init__(self, server: Production) -> None:
        self._home = server.folder / "project"
        self._home.mkdir()
        self._config = self._home / "backup.yaml"
        self._config.write_text(
            f"databases: {{{DATABASE}: {{url_env: {URL_VARIABLE}}}}}\nphysical: {{compression: 'zstd:1'}}\n"
            "stores: {primary: {path: store}}\nrules: none\n",
            encoding="utf-8",
        )
        os.environ[URL_VARIABLE] = server.url

    def backup(self) -> None:
        self._run("base-backup", "--full")

    def recover(self, data: Path) -> None:
        self._run("recover", "--to", "latest", "--into", str(data))

    def stored_bytes(self) -> int:
        newest = max(self._home.glob("store/*/physical/*/*"), key=lambda folder: folder.name)
        return sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())

    def _run(self, *arguments: str) -> None:
        program = Path(sys.executable).with_name("gs-backup")
        subprocess.run([program, *arguments, "--config", self._config], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
