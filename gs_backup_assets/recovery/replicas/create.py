"""Builds a streaming standby: its slot, its files from the primary or from the store, its settings, and its start."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gs_backup_assets.errors import ConfigError, ProgramError, SourceError
from gs_backup_assets.postgres.connection import Connection, Target, connect, query, server_facts
from gs_backup_assets.postgres.pg_ctl import start_command, start_server, stop_server, tail
from gs_backup_assets.postgres.replication import identify, refusal
from gs_backup_assets.postgres.standby_files import write_standby_files
from gs_backup_assets.postgres.toolchain import Toolchain, choose_own_major, reachable
from gs_backup_assets.progress import Progress, Stage
from gs_backup_assets.system.account import Account, current_account, server_account
from gs_backup_assets.system.guardian import guardian
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.workspace import workspace

_PROGRESS = re.compile(r"\s*(\d+)/(\d+) kB")
_STREAM_SECONDS = 60.0
# Fills a folder with the cluster's files, which belong to the account.
Fill = Callable[[Path, Account, Progress], None]


@dataclass(frozen=True)
class Created:
    """A standby that was built. `start` is the command that starts it; `warnings` are for people."""

    name: str
    slot: str
    data: Path
    toolchain: Toolchain
    account: Account
    started: bool
    start: str
    log: Path
    warnings: tuple[str, ...]


def create_replica(
    primary: Target,
    into: Path,
    name: str,
    progress: Progress,
    *,
    slot: str | None = None,
    restore_command: str | None = None,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    start: bool = False,
    fill: Fill | None = None,
) -> Created:
    """Build a standby of `primary` in the new folder `into`, which becomes its data directory.

    `fill` brings the files from elsewhere; without it pg_basebackup copies them from the primary. `port` is written
    into its settings, the primary's when none is given: on the primary's own machine it must be another one. With
    `start` it is started, and waited for until it streams; `environment` is what its restore_command needs. After an
    error the slot is dropped and everything that was made is removed.

    Raises ConfigError: `INTO_NOT_EMPTY`, `INTO_UNUSABLE`, `PORT_TAKEN`, `SLOT_EXISTS`, `NAME_INVALID`; SourceError:
    those of `identify`, `REPLICA_NOT_STREAMING`; ProgramError.
    """
    slot = slot or name
    if not re.fullmatch(r"[a-z0-9_]{1,63}", slot) or not re.fullmatch(r"[a-z0-9_]{1,63}", name):
        raise ConfigError(
            "NAME_INVALID", f"{name!r} cannot be a replica's name.", "Use small letters, digits and underscores."
        )
    account = server_account()
    with connect(primary) as connection:
        release = server_facts(connection).release
        warnings = _warnings(connection)
        port = port or int(query(connection, "SHOW port")[0][0])
        if start:
            _require_free(port, query(connection, "SHOW listen_addresses")[0][0])
    identify(primary)  # tells whether the role may stream, before anything is made
    toolchain = reachable(choose_own_major(release), account)
    beside = _Beside(into)
    with ExitStack() as undo:
        _make_folder(into, beside, account)
        undo.callback(_remove, into, beside)
        _make_slot(primary, slot)
        undo.callback(_give_up_slot, primary, slot)
        if fill is None:
            with progress.stage("base backup") as stage:
                _copy(primary, into, beside, toolchain=toolchain, account=account, stage=stage)
        else:
            fill(into, account, progress)
        with connect(primary) as connection:
            made = write_standby_files(
                connection,
                primary,
                into,
                beside.passfile,
                application=name,
                slot=slot,
                restore_command=restore_command,
                port=port,
            )
        _give(account, into, beside.passfile, *made.files)
        if start:
            with progress.stage("start"):
                undo.callback(stop_server, toolchain, into, account)
                start_server(toolchain, into, beside.log, account, environment=environment)
                _wait_until_it_streams(primary, slot, beside.log)
        undo.pop_all()  # nothing went wrong: all of it stays
    _forget(into, beside)
    return Created(
        name=name,
        slot=slot,
        data=into,
        toolchain=toolchain,
        account=account,
        started=start,
        start=start_command(toolchain, into, beside.log),
        log=beside.log,
        warnings=(*warnings, *made.warnings),
    )


class _Beside:
    """What lies beside a data directory, as nothing of ours may lie in it: base backups of it would hold a password."""

    def __init__(self, data: Path) -> None:
        self.passfile = data.with_name(f"{data.name}.pgpass")
        self.log = data.with_name(f"{data.name}.log")
        self.tablespaces = data.with_name(f"{data.name}.tablespaces")

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.passfile, self.log, self.tablespaces

    def remove(self) -> None:
        self.passfile.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        shutil.rmtree(self.tablespaces, ignore_errors=True)


def _make_folder(into: Path, beside: _Beside, account: Account) -> None:
    """An empty folder that belongs to the account; the guardian removes it when this process is killed."""
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ConfigError("INTO_NOT_EMPTY", f"{into} is there already.", "Name a folder that is new, or empty.")
    for path in beside.paths:
        if path.exists():
            raise ConfigError(
                "INTO_NOT_EMPTY", f"{path} is there already: it is another replica's.", "Choose another --into."
            )
    there = into.is_dir()
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (into, *beside.paths):
            guardian.watch_folder(path)
        os.chown(into, account.uid, account.gid)
        into.chmod(0o700)
        if account != current_account() and not account.can_traverse(into.parent):
            raise PermissionError(13, f"the account {account.name} may not enter {into.parent}")
        beside.log.touch(mode=0o600)
        os.chown(beside.log, account.uid, account.gid)
    except OSError as error:
        if not there:
            shutil.rmtree(into, ignore_errors=True)
        beside.remove()
        _forget(into, beside)
        raise ConfigError(
            "INTO_UNUSABLE", f"{into} cannot be made: {error.strerror or error}.", "Choose another folder."
        ) from error


def _remove(into: Path, beside: _Beside) -> None:
    shutil.rmtree(into, ignore_errors=True)
    beside.remove()
    _forget(into, beside)


def _forget(into: Path, beside: _Beside) -> None:
    for path in (into, *beside.paths):
        guardian.forget_folder(path)


def _require_free(port: int, addresses: str) -> None:
    """Look whether a server can listen on this machine where the primary listens on its own. ConfigError."""
    for host in filter(None, map(str.strip, addresses.split(","))):
        try:
            places = socket.getaddrinfo(
                None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except socket.gaierror:  # a name that only the primary's machine knows
            continue
        for family, _, _, _, place in places:
            if _is_taken(family, place):
                raise ConfigError(
                    "PORT_TAKEN",
                    f"Port {port} of {place[0]} is in use on this machine: the replica could not start there.",
                    "Add --port with one that is free; without it the replica has the primary's.",
                )


def _is_taken(family: int, place: tuple[Any, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed one may linger
            probe.bind(place)
    except OSError as error:  # anything else is said by the server: an address of another machine is none of ours
        return error.errno == errno.EADDRINUSE
    return False


def _make_slot(primary: Target, slot: str) -> None:
    """A physical replication slot that holds the log from now on."""
    import psycopg2

    with connect(primary) as connection:
        if found := query(connection, "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (slot,)):
            use = "which is in use" if found[0][0] else "which is not in use now"
            raise ConfigError(
                "SLOT_EXISTS",
                f"The primary has a slot {slot} already, {use}: another replica may need it.",
                f"Choose another --name; or, if nobody needs it: SELECT pg_drop_replication_slot('{slot}').",
            )
        try:
            query(connection, "SELECT pg_create_physical_replication_slot(%s, true)", (slot,))
        except psycopg2.Error as error:
            words = " ".join(str(error).split())
            raise refusal(words, primary) or SourceError(
                "SLOT_REFUSED", f"The slot {slot} cannot be made: {words}", "docs/replicas.md has the role's rights."
            ) from error


def _give_up_slot(primary: Target, slot: str) -> None:
    """Drop the slot, if the primary answers: what went wrong first is what is told."""
    import psycopg2

    with suppress(SourceError, psycopg2.Error), connect(primary) as connection:
        _drop_slot(connection, slot)


def _drop_slot(connection: Connection, slot: str) -> None:
    """A standby that was just stopped may hold its slot for a moment."""
    import psycopg2

    deadline = time.monotonic() + 10
    while True:
        try:
            query(connection, "SELECT pg_drop_replication_slot(%s)", (slot,))
            return
        except psycopg2.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _copy(
    primary: Target, into: Path, beside: _Beside, *, toolchain: Toolchain, account: Account, stage: Stage
) -> None:
    """pg_basebackup. Its -R is not used: it would name a password file that is gone afterwards."""

    def told(line: str) -> None:
        if match := _PROGRESS.match(line):
            stage.update(int(match[1]) * 1024, int(match[2]) * 1024)

    with workspace("replica", owner=account) as folder:
        environment = {**primary.write_service_file(folder), "HOME": str(folder)}
        _give(account, folder, *folder.glob("pg*"))
        argv: list[str | Path] = [toolchain.program("pg_basebackup"), "-D", into, "-X", "stream", "-c", "fast"]
        argv += ["--progress", "--verbose", "--no-password"]
        with connect(primary) as connection:
            for oid, path in query(
                connection, "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'"
            ):
                argv += ["-T", f"{path.replace('=', chr(92) + '=')}={beside.tablespaces / str(oid)}"]
                beside.tablespaces.mkdir(mode=0o700, exist_ok=True)
                _give(account, beside.tablespaces)
        finished = run(argv, environment=environment, account=account, on_line=told)
    if finished.status != 0:
        words = " ".join(line for line in finished.stderr[-4:] if not _PROGRESS.match(line))
        raise refusal(words, primary) or ProgramError(
            "PROGRAM_FAILED", f"pg_basebackup ended with status {finished.status}: {words}", "See docs/replicas.md."
        )


def _give(account: Account, *paths: Path) -> None:
    if account != current_account():
        for path in paths:
            os.chown(path, account.uid, account.gid)


def _wait_until_it_streams(primary: Target, slot: str, log: Path) -> None:
    """A slot is active from the moment in which the standby's connection uses it."""
    deadline = time.monotonic() + _STREAM_SECONDS
    with connect(primary) as connection:
        while not query(connection, "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", (slot,)):
            if time.monotonic() > deadline:
                raise SourceError(
                    "REPLICA_NOT_STREAMING",
                    f"The replica started, but did not stream in {_STREAM_SECONDS:.0f} s: {tail(log)}",
                    "Its log says what it waits for; pg_hba.conf of the primary must let it in for replication.",
                )
            time.sleep(0.1)


def _warnings(connection: Connection) -> tuple[str, ...]:
    (limit,) = query(connection, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")[0]
    if limit == "-1":
        return (
            "max_slot_wal_keep_size is not set on the primary: while the replica is down, its slot keeps WAL until the"
            " disk is full. Set it to what the disk can spare.",
        )
    return ()
