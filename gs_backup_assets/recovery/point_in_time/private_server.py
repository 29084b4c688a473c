"""Runs a recovered cluster closed to everybody else, to look at it before anybody is let in."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.login_roles import superusers
from gs_backup_assets.postgres.recovery_server import control_data, server_settings
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.programs import Program
from gs_backup_assets.system.workspace import workspace

_DATABASES = ("postgres", "template1")
_START_SECONDS = 300.0


@contextmanager
def private_server(toolchain: Toolchain, data: Path, account: Account) -> Iterator[Target]:
    """Start the cluster on a private socket, hand out a superuser's target, and shut it down with a checkpoint.

    It archives nothing and follows nobody; its own configuration files are not read. Raises SourceError
    (`SERVER_UNREACHABLE`).
    """
    settings = server_settings(control_data(toolchain, data, account), toolchain.release.major, durable=True)
    with workspace("inspect", owner=account) as folder:
        socket = folder / "s"
        socket.mkdir(mode=0o700)
        files = {"config_file": "", "hba_file": "local all all trust\n", "ident_file": ""}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            settings[name] = str(folder / name)
        if account != current_account():
            for path in folder.iterdir():
                path.chmod(0o700 if path.is_dir() else 0o600)
                _give(path, account)
        settings["unix_socket_directories"] = str(socket)
        with Program(
            [toolchain.program("postgres"), "-D", data, *(f"--{name}={value}" for name, value in settings.items())],
            environment={"TZ": "UTC", "HOME": str(folder)},
            account=account,
            stop_signal=signal.SIGINT,
        ) as program:
            yield _login(program, data, {"host": str(socket), "port": settings["port"]})
            program.stop(patience=_START_SECONDS)


def _login(program: Program, data: Path, place: dict[str, str]) -> Target:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        for user in superusers(data):
            for database in _DATABASES:
                target = Target({**place, "user": user, "dbname": database})
                try:
                    with connect(target):
                        return target
                except SourceError as error:
                    problem = error
        if not program.running or time.monotonic() > deadline:
            program.stop()
            words = " | ".join(program.last_lines[-3:]) or problem.message
            raise SourceError("SERVER_UNREACHABLE", f"The recovered server cannot be asked: {words}", problem.hint)
        time.sleep(0.05)


def _give(path: Path, account: Account) -> None:
    os.chown(path, account.uid, account.gid)
