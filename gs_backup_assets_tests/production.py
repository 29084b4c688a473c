"""A production server for the tests of physical backups: it can be loaded, crashed, restarted, promoted and copied."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.toolchain import Toolchain, reachable
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import Finished, Program, run
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets_tests.conftest import free_port, toolchain_of

SUPERUSER = "studio_owner"
DATABASE = "studio"
_SETTINGS = {
    "fsync": "off",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "max_wal_size": "256MB",
    "wal_keep_size": "0",
}


class Production:
    """A server whose data directory outlives its processes. It listens on a private socket, and on 127.0.0.1."""

    def __init__(self, toolchain: Toolchain, folder: Path) -> None:
        self.toolchain = toolchain
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.segment_bytes = 16 << 20
        self.superuser = SUPERUSER
        self.arguments: list[str] = []
        self._account = server_account()
        self._environment = {"TZ": "UTC", "HOME": str(folder)}
        self._program: Program | None = None

    def make(self, *, checksums: bool, settings: Mapping[str, str], segment_megabytes: int = 16) -> None:
        """initdb, and the settings of a production server."""
        self.segment_bytes = segment_megabytes << 20
        argv: list[str | Path] = [self.toolchain.program("initdb"), "-D", self.data, "-U", SUPERUSER, "--auth=trust"]
        argv += ["--encoding=UTF8", "--locale=C", "--no-sync", f"--wal-segsize={segment_megabytes}"]
        if checksums and self.toolchain.release.major < 18:
            argv.append("--data-checksums")
        if not checksums and self.toolchain.release.major >= 18:
            argv.append("--no-data-checksums")
        run(argv, environment=self._environment, account=self._account, timeout=120).require_success()
        self.configure(**{**_SETTINGS, **settings})

    def configure(self, **settings: str) -> None:
        """Append to postgresql.conf; takes effect with the next start, or `reload`."""
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Start the server and wait until it answers."""
        socket = self.folder / "s"
        if not socket.is_dir():
            socket.mkdir(mode=0o700)
            os.chown(socket, self._account.uid, self._account.gid)
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(socket)}
        self._program = Program(
            [
                self.toolchain.program("postgres"),
                "-D",
                self.data,
                *self.arguments,
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            environment=self._environment,
            account=self._account,
            stop_signal=signal.SIGINT,
        ).__enter__()
        deadline = time.monotonic() + 60
        while True:
            try:
                with connect(self.target("postgres")):
                    return
            except SourceError:
                assert self._program.running, self._program.last_lines
                assert time.monotonic() < deadline, self._program.last_lines
                time.sleep(0.05)

    def stop(self) -> None:
        """A fast shutdown."""
        if self._program is not None:
            self._program.__exit__()
            self._program = None

    def kill(self) -> None:
        """As if the machine lost power: all processes at once, no checkpoint."""
        assert self._program is not None
        os.killpg(self._program.pid, signal.SIGKILL)
        self.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def target(self, database: str = DATABASE) -> Target:
        """A superuser's target, over TCP."""
        return Target({"host": "127.0.0.1", "port": str(self.port), "user": self.superuser, "dbname": database})

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{DATABASE}"

    def sql(self, statement: str, *, database: str = DATABASE) -> list[tuple[object, ...]]:
        """Run one statement in a transaction of its own."""
        with connect(self.target(database), settings={"search_path": "public"}) as connection:
            return query(connection, statement)

    def bench(self, *arguments: str) -> Finished:
        """Run pgbench to its end, for example `bench("-i", "-s", "2")` or `bench("-T", "5", "-c", "4", "-n")`."""
        return run(self._bench(arguments), environment=self._environment, account=self._account, timeout=300)

    @contextmanager
    def load(self, seconds: int = 120, *arguments: str) -> Iterator[Program]:
        """pgbench writing in the background; it ends by itself after so many seconds."""
        with Program(
            self._bench(["-T", str(seconds), "-n", *(arguments or ("-c", "2"))]),
            environment=self._environment,
            account=self._account,
        ) as program:
            yield program

    def promote(self) -> None:
        """End a standby's recovery: it goes on on a new timeline."""
        self.sql("SELECT pg_promote(true, 60)", database="postgres")

    @contextmanager
    def standby(self, *, settings: Mapping[str, str] | None = None) -> Iterator[Production]:
        """A streaming standby of this server, made with pg_basebackup; it runs until the end of the block."""
        with workspace("standby", owner=self._account) as folder:
            copy = Production(self.toolchain, folder)
            copy.segment_bytes = self.segment_bytes
            argv = [self.toolchain.program("pg_basebackup"), "-D", copy.data, "-R", "-X", "stream", "-c", "fast"]
            argv += ["-d", f"host=127.0.0.1 port={self.port} user={SUPERUSER}"]
            run(argv, environment=self._environment, account=self._account, timeout=120).require_success()
            copy.configure(**(settings or {}))
            copy.start()
            try:
                yield copy
            finally:
                copy.stop()

    def _bench(self, arguments: tuple[str, ...] | list[str]) -> list[str | Path]:
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER]
        return [self.toolchain.program("pgbench"), *where, *arguments, DATABASE]


@contextmanager
def production(
    major: int = 17,
    *,
    checksums: bool = True,
    settings: Mapping[str, str] | None = None,
    segment_megabytes: int = 16,
) -> Iterator[Production]:
    """A new production server with an empty database `studio`; gone at the end."""
    account = server_account()
    with workspace("production", owner=account) as folder:
        server = Production(reachable(toolchain_of(major), account), folder)
        server.make(checksums=checksums, settings=settings or {}, segment_megabytes=segment_megabytes)
        server.start()
        try:
            server.sql(f"CREATE DATABASE {DATABASE}", database="postgres")
            yield server
        finally:
            server.stop()


def new_folder(server: Production, name: str = "") -> Path:
    """A folder that the server's account may write to, for tablespaces and copies."""
    folder = server.folder / (name or f"extra-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    shutil.chown(folder, server_account().uid, server_account().gid)
    return folder
