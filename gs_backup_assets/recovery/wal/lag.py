"""How far the archive is behind the server, in bytes and in seconds. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from gs_backup_assets.postgres.wal import Lsn


class Seen(Protocol):
    """A look at the server: what was committed before `at` is in the log before `lsn`."""

    @property
    def at(self) -> datetime: ...

    @property
    def lsn(self) -> Lsn: ...


@dataclass(frozen=True)
class Lag:
    """`seconds`: what was committed longer ago is in the archive. None where no look at the server is so old."""

    bytes: int
    seconds: float | None


def lag_of(looks: Iterable[Seen], archived: Lsn, now: datetime) -> Lag:
    """The lag, from looks at the server in their order, the oldest first."""
    safe: datetime | None = None
    newest: Seen | None = None
    for look in looks:
        newest = look
        if look.lsn <= archived:
            safe = look.at
    behind = 0 if newest is None else max(0, newest.lsn.value - archived.value)
    return Lag(behind, None if safe is None else max(0.0, (now - safe).total_seconds()))


_Look = TypeVar("_Look", bound=Seen)


def forget_before(looks: deque[_Look], archived: Lsn) -> None:
    """Drop looks that a later one with nothing missing makes useless."""
    while len(looks) > 1 and looks[1].lsn <= archived:
        looks.popleft()
