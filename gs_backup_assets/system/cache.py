"""The cache: what can be made again at any time, and may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "GS_BACKUP_CACHE"


def cache_root() -> Path:
    """The folder that GS_BACKUP_CACHE names, else one in the user's cache; for root one that other accounts can enter.

    Servers never run as root, and need the programs that are cached there.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/gs-backup")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gs-backup"
