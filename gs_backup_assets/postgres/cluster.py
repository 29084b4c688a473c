"""Private PostgreSQL servers on a socket in a 0700 folder: throwaway clusters, and the demo's production server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.errors import ProgramError, SourceError
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.toolchain import Toolchain, reachable
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import Program, run
from gs_backup_assets.system.workspace import workspace

SUPERUSER = "gs_backup_superuser"
_PORT = "5432"
_START_SECONDS = 60.0

# Nothing here survives a crash, and nothing needs to: the cluster lives for one proof (PostgreSQL manual,
# "Non-Durable Settings" and "Populating a Database").
THROWAWAY_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "archive_mode": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "160MB",
    "maintenance_work_mem": "192MB",
    "work_mem": "32MB",
    "max_connections": "40",
    "max_locks_per_transaction": "1024",
    "jit": "off",
}


@dataclass(frozen=True)
class Cluster:
    """A running server that this process owns."""

    toolchain: Toolchain
    folder: Path
    superuser: str
    port: int | None = None

    def target(self, database: str = "postgres") -> Target:
        """A superuser's target for one of its databases, over the private socket."""
        socket = str(self.folder / "s")
        return Target({"host": socket, "port": str(self.port or _PORT), "user": self.superuser, "dbname": database})


@contextmanager
def running_cluster(
    toolchain: Toolchain,
    *,
    purpose: str,
    settings: Mapping[str, str] = THROWAWAY_SETTINGS,
    superuser: str = SUPERUSER,
    port: int | None = None,
    initdb: Sequence[str] = (),
) -> Iterator[Cluster]:
    """initdb, start, hand out, stop, remove. With `port` the server also listens on 127.0.0.1.

    `initdb` are more arguments for initdb.

    `superuser` is the bootstrap role: a proof gives it the name that it has in the source, because grants in a dump of
    roles name their grantor, and only the bootstrap role may grant everything (PostgreSQL manual, GRANT).
    As root, the server runs as another account (see `system.account`). Raises ProgramError (`CLUSTER_FAILED`).
    """
    account = server_account()
    programs = reachable(toolchain, account)
    with workspace(purpose, owner=account) as folder:
        data, socket = folder / "data", folder / "s"
        environment = {"TZ": "UTC", "HOME": str(folder)}
        argv: list[str | Path] = [
            programs.program("initdb"),
            "-D",
            data,
            "-U",
            superuser,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        if programs.release.major >= 18:
            argv.append("--no-data-checksums")
        argv += initdb
        made = run(argv, environment=environment, account=account, timeout=120)
        if made.status != 0:
            raise _failed("initdb", made.stderr)
        socket.mkdir(mode=0o700)
        os.chown(socket, account.uid, account.gid)
        options = {
            "listen_addresses": "127.0.0.1" if port else "",
            "port": str(port or _PORT),
            "unix_socket_directories": str(socket),
            "unix_socket_permissions": "0700",
            "lc_messages": "C",
            "log_min_messages": "warning",
            **settings,
        }
        with open(data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in options.items())
        with Program(
            [programs.program("postgres"), "-D", data],
            environment=environment,
            account=account,
            stop_signal=signal.SIGQUIT,  # immediate: its files are removed next, a checkpoint would be wasted
        ) as server:
            cluster = Cluster(programs, folder, superuser, port)
            _wait_until_ready(cluster, server)
            yield cluster


def _wait_until_ready(cluster: Cluster, server: Program) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with connect(cluster.target()):
                return
        except SourceError:
            if not server.running:
                server.stop()
                raise _failed("postgres", server.last_lines) from None
            if time.monotonic() > deadline:
                raise _failed("postgres", ("not ready in time", *server.last_lines)) from None
            time.sleep(0.02)


def _failed(program: str, words: tuple[str, ...]) -> ProgramError:
    return ProgramError(
        "CLUSTER_FAILED",
        f"{program} did not come up: {' | '.join(words[-4:]) or 'no output'}",
        "Check the free space and the shared memory of this machine; `gs-backup doctor` tries the same.",
    )


def create_database(
    connection: Connection, name: str, *, encoding: str = "UTF8", locale: Mapping[str, str] | None = None
) -> None:
    """CREATE DATABASE from template0 with the given encoding and locale options (names as in the SQL command)."""
    from psycopg2 import sql

    options = [sql.SQL("TEMPLATE template0 ENCODING {}").format(sql.Literal(encoding))]
    options += [sql.SQL(f"{key} {{}}").format(sql.Literal(value)) for key, value in (locale or {}).items()]
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {} ").format(sql.Identifier(name)) + sql.SQL(" ").join(options))


def drop_database(connection: Connection, name: str) -> None:
    """DROP DATABASE IF EXISTS ... WITH (FORCE), and before it the subscriptions in it that are switched off.

    A restored subscription is switched off, and its slot is the source's own: no publisher is asked (PostgreSQL manual,
    "DROP SUBSCRIPTION"). One that is at work keeps its database, as prepared transactions and slots do: ObjectInUse.
    """
    import psycopg2
    from psycopg2 import sql

    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except psycopg2.errors.ObjectInUse:
            if not _drop_idle_subscriptions(connection, name):
                raise
            cursor.execute(statement)


def _drop_idle_subscriptions(connection: Connection, database: str) -> bool:
    """Whether there was one; a database is dropped from another one, and a subscription from its own."""
    from psycopg2 import sql

    names = query(
        connection,
        "SELECT subname FROM pg_catalog.pg_subscription AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid"
        " WHERE d.datname = %s AND NOT s.subenabled",
        (database,),
    )
    if not names:
        return False
    inside = Target({**connection.info.dsn_parameters, "dbname": database}, connection.info.password or None)
    with connect(inside, settings={"default_transaction_read_only": "off"}) as own, own.cursor() as cursor:
        for (name,) in names:
            cursor.execute(sql.SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(sql.Identifier(name)))
            cursor.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
    return True
