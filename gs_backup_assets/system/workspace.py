"""Private folders for plaintext spools and throwaway clusters: 0700, gone on every exit path, swept if not."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.guardian import guardian

_PREFIX = "gs-backup-"
_LOCK = ".in-use"


@contextmanager
def workspace(purpose: str, *, parent: Path | None = None, owner: Account | None = None) -> Iterator[Path]:
    """Create a private folder, hand it out, and remove it whatever happens.

    `parent` defaults to the system's temporary folder (TMPDIR). When the process is killed, the guardian removes the
    folder; when the machine loses power, the next workspace made in the same parent sweeps it.
    """
    base = Path(parent or tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=base))
    guardian.watch_folder(folder)
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        if owner is not None and owner != current_account():
            os.chown(folder, owner.uid, owner.gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
        guardian.forget_folder(folder)


def sweep(parent: Path) -> list[Path]:
    """Remove workspaces in `parent` whose owner is gone: those of ours whose lock nobody holds."""
    swept = []
    for folder in parent.glob(f"{_PREFIX}*-*"):
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:
            continue  # being made, being removed, or somebody else's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
        finally:
            os.close(descriptor)
    return swept
