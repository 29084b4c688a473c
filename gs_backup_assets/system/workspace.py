"""Private folders for plaintext spools and throwaway clusters: 0700, gone on every exit path, swept if not."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.guardian import guardian

_PREFIX = "gs-backup-"
_LOCK = ".in-use"
_STILLBORN_SECONDS = 3600.0
_NEXT_TO_NOTHING = 4_000_000  # bytes: writers fail before the very last one is taken
_PROGRAMS = frozenset(
    {
        "initdb",
        "postgres",
        "pg_dump",
        "pg_dumpall",
        "pg_restore",
        "pg_amcheck",
        "psql",
        "pg_basebackup",
        "pg_combinebackup",
        "pg_verifybackup",
    }
)


@contextmanager
def workspace(purpose: str, *, parent: Path | None = None, owner: Account | None = None) -> Iterator[Path]:
    """Create a private folder, hand it out, and remove it whatever happens.

    `parent` defaults to the system's temporary folder (TMPDIR). When the process is killed, the guardian removes the
    folder; when the machine loses power, the next workspace made in the same parent sweeps it. An OSError that says
    that the disk is full becomes a ProgramError (`NO_SPACE`).
    """
    base = Path(parent or tempfile.gettempdir())
    try:
        base.mkdir(parents=True, exist_ok=True)
        sweep(base)
        if owner is not None and owner != current_account() and not owner.can_traverse(base):
            raise PermissionError(errno.EACCES, f"the account {owner.name} may not enter it")
        folder, lock = _make(base, purpose)
    except OSError as error:
        raise _unusable(base, error) from error
    try:
        if owner is not None and owner != current_account():
            os.chown(folder, owner.uid, owner.gid)
        yield folder
    except OSError as error:
        if not _disk_is_full(folder, error):
            raise
        raise _unusable(base, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        guardian.forget_folder(folder)


def sweep(parent: Path) -> list[Path]:
    """Remove workspaces in `parent` whose owner is gone: those of ours whose lock nobody holds."""
    swept = []
    for folder in parent.glob(f"{_PREFIX}*-*"):
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            _remove_stillborn(folder)
            continue
        except OSError:
            continue  # somebody else's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            _end_programs(folder)
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
        finally:
            os.close(descriptor)
    return swept


def _make(base: Path, purpose: str) -> tuple[Path, int]:
    """A new folder and the descriptor of its lock, which is ours."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=base))
        guardian.watch_folder(folder)
        descriptor = -1
        try:
            descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between these two lines another process may have swept the folder; then the locked file is gone.
            if _is_same(descriptor, folder / _LOCK):
                return folder, descriptor
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            _close_and_forget(descriptor, folder)
            raise
        _close_and_forget(descriptor, folder)


def _close_and_forget(descriptor: int, folder: Path) -> None:
    if descriptor >= 0:
        os.close(descriptor)
    guardian.forget_folder(folder)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_stillborn(folder: Path) -> None:
    """A folder without a lock is being made, or its maker was killed in that moment; an old one was the latter."""
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime > _STILLBORN_SECONDS:
            folder.rmdir()  # only removes an empty folder


def _end_programs(folder: Path) -> None:
    """End PostgreSQL's programs that still work in a folder whose owner and guardian were both killed."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            argv = entry.read_bytes().split(b"\0")
            if Path(os.fsdecode(argv[0])).name in _PROGRAMS and any(os.fsencode(folder) in part for part in argv[1:]):
                os.kill(int(entry.parent.name), signal.SIGQUIT)


def _disk_is_full(folder: Path, error: OSError) -> bool:
    """Whether the error is about this disk: the store or the reports may be full while this one is not."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return False
    try:
        return error.errno == errno.EDQUOT or shutil.disk_usage(folder).free < _NEXT_TO_NOTHING
    except OSError:
        return False


def _unusable(base: Path, error: OSError) -> ProgramError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProgramError("NO_SPACE", f"No space is left in {base}.", "Free space, or set TMPDIR to a larger disk.")
    return ProgramError(
        "WORKSPACE_UNUSABLE",
        f"No private folder can be made in {base}: {error.strerror or error}.",
        "Set TMPDIR to a folder that this account may write to, and that the account of servers may enter.",
    )
