"""The folder that a recovery is made in: empty before, marked as unfinished until it is done, never anybody else's."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.system.account import Account, current_account

MARK = "UNFINISHED-RECOVERY.json"
_GUARDIAN_SECONDS = 20.0  # in which a guardian has ended everything, by force if need be


@contextmanager
def unfinished_folder(into: Path, target: str, account: Account) -> Iterator[None]:
    """Make `into` ready for a recovery and mark it; it stays marked, whatever happens inside.

    What an earlier recovery left unfinished there is removed first: everything in it was made by that one. Raises
    ConfigError: `INTO_NOT_EMPTY`, `INTO_BUSY` (another recovery is at work there), `INTO_UNUSABLE`.
    """
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(into)
    except OSError as error:
        raise _unusable(into, error.strerror or str(error)) from error
    if names and MARK not in names:
        raise ConfigError(
            "INTO_NOT_EMPTY",
            f"{into} is not empty, and no recovery was begun in it.",
            "Name a folder that does not exist yet, or an empty one: nothing is ever replaced.",
        )
    try:
        descriptor = os.open(into / MARK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(into, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                "INTO_BUSY", f"Another recovery is at work in {into}.", "Wait for it, or choose another folder."
            ) from None
        _wait_for_its_server(into)
        _clear(into)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps({"target": target, "pid": os.getpid()}) + "\n").encode(), 0)
        into.chmod(0o700)
        if account != current_account():
            os.chown(into, account.uid, account.gid)
            if not account.can_traverse(into):
                words = f"the account {account.name}, which servers run as, cannot enter a folder above it"
                raise _unusable(into, words)
        yield
    finally:
        os.close(descriptor)


def finish_folder(into: Path) -> None:
    """Take the mark away: what is in the folder is whole."""
    (into / MARK).unlink()


def _wait_for_its_server(into: Path) -> None:
    """The server of a recovery that was killed is being ended by its guardian: its files are still its own."""
    deadline = time.monotonic() + _GUARDIAN_SECONDS
    while _server_runs(into / "data"):
        if time.monotonic() > deadline:
            raise ConfigError("INTO_BUSY", f"A server runs in {into}.", "Stop it, or choose another folder.")
        time.sleep(0.05)


def _server_runs(data: Path) -> bool:
    """Whether the process that the server's own lock file names is alive, and a server of this folder."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    try:  # the number may be another process's by now
        return os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()


def _clear(into: Path) -> None:
    for path in into.iterdir():
        if path.name == MARK:
            continue
        # The guardian of a recovery that was killed may be removing the same at this moment.
        while path.exists() or path.is_symlink():
            with suppress(FileNotFoundError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _unusable(into: Path, words: str) -> ConfigError:
    return ConfigError("INTO_UNUSABLE", f"{into} cannot be used: {words}.", "Choose another folder for --into.")
