"""Starts and stops servers that outlive this process: pg_ctl makes them a session of their own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.account import Account
from gs_backup_assets.system.programs import run

_START_SECONDS = 120


def start_server(
    toolchain: Toolchain,
    data: Path,
    log: Path,
    account: Account,
    *,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start a server on its own settings and wait until it answers. ProgramError (`SERVER_NOT_STARTED`).

    `environment` is what its restore_command needs to open the store; of ours it gets nothing else.
    """
    finished = run(
        [toolchain.program("pg_ctl"), "-D", data, "-l", log, "-w", "-t", str(_START_SECONDS), "start"],
        account=account,
        environment={**(environment or {}), "HOME": str(data)},
    )
    if finished.status != 0:
        raise ProgramError("SERVER_NOT_STARTED", f"The server did not start: {tail(log)}", "Correct what its log says.")


def stop_server(toolchain: Toolchain, data: Path, account: Account) -> None:
    """Stop it at once, if it runs: its files are removed next."""
    run([toolchain.program("pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop"], account=account, timeout=60)


def is_running(toolchain: Toolchain, data: Path, account: Account) -> bool:
    """Whether a server runs on a data directory."""
    return run([toolchain.program("pg_ctl"), "-D", data, "status"], account=account, timeout=60).status == 0


def start_command(toolchain: Toolchain, data: Path, log: Path) -> str:
    """What one would type."""
    return shlex.join([str(toolchain.program("pg_ctl")), "-D", str(data), "-l", str(log), "start"])


def tail(log: Path) -> str:
    """The last words of a server's log."""
    try:
        return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-4:]) or "no output"
    except OSError:
        return "no log"
