"""The operating-system account that PostgreSQL servers run as: they refuse to run as root."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.errors import ConfigError


@dataclass(frozen=True)
class Account:
    """A user and its primary group."""

    name: str
    uid: int
    gid: int

    def can_traverse(self, path: Path) -> bool:
        """Whether this account may read `path` and search every folder above it, by permission bits alone."""
        for part in (path, *path.parents):
            status = part.stat()
            if status.st_uid == self.uid:
                bits = status.st_mode >> 6
            elif status.st_gid == self.gid:
                bits = status.st_mode >> 3
            else:
                bits = status.st_mode
            if not bits & 0o1:
                return False
        return True


def current_account() -> Account:
    """The account of this process."""
    entry = pwd.getpwuid(os.geteuid())
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def server_account() -> Account:
    """The account for servers: our own, unless that is root; then GS_BACKUP_OS_USER, `postgres`, or `nobody`."""
    if os.geteuid() != 0:
        return current_account()
    wanted = os.environ.get("GS_BACKUP_OS_USER")
    for name in [wanted] if wanted else ["postgres", "nobody"]:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "NO_SERVER_ACCOUNT",
        "PostgreSQL servers refuse to run as root, and no other account was found to run them.",
        "Create a user (adduser --system postgres), or name one in GS_BACKUP_OS_USER.",
    )
