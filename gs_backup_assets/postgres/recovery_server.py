"""Runs a server on unpacked files until it has recovered: with our settings only, closed to everybody else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.errors import ProgramError, ProofFailed, SourceError
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.login_roles import superusers
from gs_backup_assets.postgres.recovery_log import RecoveryLog
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.programs import Program, run
from gs_backup_assets.system.workspace import workspace

_PORT = "5432"
_POLL_SECONDS = 0.02
_CONNECT_SECONDS = 60.0
_SHUTDOWN_SECONDS = 600.0
AUTO_CONF = "postgresql.auto.conf"
KEPT_AUTO_CONF = "postgresql.auto.conf.gs-backup-kept"
# Of pg_controldata: a server that recovers must not have less than the one that wrote the log (PostgreSQL manual,
# "Hot Standby", "Administrator's Overview").
_LIMITS = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
_SEGMENT = "Bytes per WAL segment"
# Prepared transactions are brought back at the end, and the log may raise the limit that the base backup knew.
_LEAST_PREPARED = 1000
_DATABASES = ("postgres", "template1")
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def control_data(toolchain: Toolchain, data: Path, account: Account) -> dict[str, str]:
    """What pg_controldata says, by its labels. ProgramError (`PROGRAM_FAILED`)."""
    done = run([toolchain.program("pg_controldata"), data], account=account, capture_stdout=True, timeout=60)
    done.require_success("The data directory is not whole: unpack the base backup again.")
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {label.strip(): value.strip() for label, _, value in pairs}


def server_settings(control: Mapping[str, str], major: int, *, durable: bool) -> dict[str, str]:
    """The settings of a server that recovers files of another one, but for where and how far."""
    settings = {
        "listen_addresses": "",
        "port": _PORT,
        "unix_socket_permissions": "0700",
        "ssl": "off",
        "archive_mode": "off",
        "archive_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "max_logical_replication_workers": "0",  # subscriptions would fetch from their publishers
        "autovacuum": "off",
        "hot_standby": "off",
        "wal_level": "replica",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "1h",
        "shared_buffers": "256MB",
        "maintenance_work_mem": "192MB",
        "huge_pages": "off",
        "jit": "off",
        "restart_after_crash": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "",
        "log_min_messages": "warning",
        "log_statement": "none",
        "lc_messages": "C",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "recovery_target_action": "promote",
    }
    for name, label in _LIMITS.items():
        settings[name] = control[label]
    settings["max_prepared_transactions"] = str(max(_LEAST_PREPARED, int(settings["max_prepared_transactions"])))
    # At least two segments (guc.c), which may have up to 1 GB each: the default, 80 MB, is too little from 64 MB on.
    settings["min_wal_size"] = f"{max(80, 2 * int(control[_SEGMENT]) >> 20)}MB"
    if major >= 15:
        settings["archive_library"] = ""
    if major >= 17:
        settings |= {"event_triggers": "off", "sync_replication_slots": "off", "summarize_wal": "off"}
    return settings | ({} if durable else _NOT_DURABLE)


@dataclass(frozen=True)
class RecoveringServer:
    """A server that was started on unpacked files, and what it says. `started` is a moment of `time.monotonic`."""

    program: Program
    log: RecoveryLog
    data: Path
    socket: Path
    started: float

    def wait_until(self, done: Callable[[], object], tell: Callable[[], None]) -> None:
        """Wait until `done` says something true; `tell` is called often meanwhile.

        Raises what `RecoveryLog.why_it_ended` gives when the server ends before.
        """
        while not done():
            tell()
            if not self.program.running:
                self.program.stop()  # its last words are read then
                raise self.log.why_it_ended()
            time.sleep(_POLL_SECONDS)

    def login(self) -> Target:
        """A superuser's target, who may log in without a password. Raises ProgramError (`NO_SUPERUSER`)."""
        deadline = time.monotonic() + _CONNECT_SECONDS
        problem: SourceError | None = None
        while time.monotonic() < deadline and self.program.running:
            for user in superusers(self.data):
                for database in _DATABASES:
                    target = Target({**self._parameters, "user": user, "dbname": database})
                    try:
                        with connect(target) as connection:
                            if query(connection, "SELECT current_setting('is_superuser') = 'on'")[0][0]:
                                return target
                    except SourceError as error:
                        problem = error
            time.sleep(_POLL_SECONDS)
        words = "" if problem is None else f" {problem.message}"
        raise ProgramError(
            "NO_SUPERUSER",
            f"No superuser can log in to the recovered server.{words}",
            "Start it by hand in single-user mode (postgres --single) and give a superuser LOGIN.",
        )

    @property
    def _parameters(self) -> dict[str, str]:
        # Settings of roles and databases would win over the server's, but not over the session's own.
        options = {
            "session_preload_libraries": "",
            "local_preload_libraries": "",
            "default_transaction_read_only": "off",
            "row_security": "off",
        }
        flags = " ".join(f"-c {name}={value}" for name, value in options.items())
        return {"host": str(self.socket), "port": _PORT, "options": flags}


@contextmanager
def recovering_server(
    toolchain: Toolchain,
    data: Path,
    account: Account,
    restore: Mapping[str, str],
    *,
    durable: bool,
) -> Iterator[RecoveringServer]:
    """Start a server on unpacked files, to recover with the settings `restore`: the restore_command and the target.

    Nothing of the cluster's own configuration is read: its postgresql.conf is replaced on the command line, its
    postgresql.auto.conf lies under another name until `keep_settings`. At the end of the block it is shut down with a
    checkpoint, after an error at once. Raises ProgramError (`SHUTDOWN_FAILED`).
    """
    control = control_data(toolchain, data, account)
    settings = server_settings(control, toolchain.release.major, durable=durable)
    _set_own_settings_aside(data, account)
    with workspace("recovery", owner=account) as folder:
        socket = folder / "s"
        socket.mkdir(mode=0o700)
        files = {"config_file": "", "hba_file": "local all all trust\n", "ident_file": ""}
        for name, text in files.items():
            settings[name] = str(folder / name)
            (folder / name).write_text(text, encoding="utf-8")
        for path in (socket, *(folder / name for name in files)):
            _give(path, account)
        settings["unix_socket_directories"] = str(socket)
        every = {**settings, **restore}
        log = RecoveryLog()
        argv: list[str | Path] = [toolchain.program("postgres"), "-D", data]
        with Program(
            [*argv, *(f"--{name}={value}" for name, value in every.items())],
            environment={"TZ": "UTC", "HOME": str(folder)},
            account=account,
            on_line=log.read,
            stop_signal=signal.SIGINT,
        ) as program:
            try:
                yield RecoveringServer(program, log, data, socket, time.monotonic())
            except BaseException:
                _kill(program)
                raise
            program.stop(patience=_SHUTDOWN_SECONDS)
        state = control_data(toolchain, data, account).get("Database cluster state")
        if state != "shut down":
            words = " | ".join(log.lines[-3:])
            raise ProgramError(
                "SHUTDOWN_FAILED",
                f"The recovered server did not shut down cleanly ({state}): {words}.",
                "Start it again.",
            )


def require_closed(connection: Connection) -> None:
    """Ask a running server that it archives nothing, follows nobody, and can be reached by nobody else.

    Raises ProofFailed (`SERVER_NOT_CLOSED`).
    """
    wanted = {
        "archive_mode": ("off",),
        "archive_command": ("", "(disabled)"),
        "listen_addresses": ("",),
        "primary_conninfo": ("",),
        "shared_preload_libraries": ("",),
        "max_logical_replication_workers": ("0",),
        "unix_socket_permissions": ("0700",),
    }
    rows = query(connection, "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(wanted),))
    wrong = [f"{name} = {value!r}" for name, value in rows if value not in wanted[name]]
    wrong += [
        f"pg_hba.conf lets {kind} connections in"
        for (kind,) in query(connection, "SELECT DISTINCT type FROM pg_hba_file_rules WHERE type <> 'local'")
    ]
    if query(connection, "SELECT pg_is_in_recovery()")[0][0]:
        wrong.append("it is still in recovery")
    if wrong:
        raise ProofFailed(
            "SERVER_NOT_CLOSED",
            f"The recovered server is not what it has to be: {'; '.join(wrong)}.",
            "It was stopped. Report this with the settings of the source server.",
        )


def keep_settings(data: Path) -> str:
    """Bring the cluster's own postgresql.auto.conf back; returns its contents, or nothing where it had none."""
    kept = data / KEPT_AUTO_CONF
    if kept.exists():
        kept.replace(data / AUTO_CONF)
    path = data / AUTO_CONF
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _set_own_settings_aside(data: Path, account: Account) -> None:
    own, kept = data / AUTO_CONF, data / KEPT_AUTO_CONF
    if own.exists() and not kept.exists():
        own.rename(kept)
    own.write_text("", encoding="utf-8")
    own.chmod(0o600)
    (data / "standby.signal").unlink(missing_ok=True)
    (data / "recovery.signal").touch(mode=0o600)
    for path in (own, data / "recovery.signal"):
        _give(path, account)


def _kill(program: Program) -> None:
    if program.running:
        os.kill(program.pid, signal.SIGQUIT)


def _give(path: Path, account: Account) -> None:
    if account != current_account():
        os.chown(path, account.uid, account.gid)
