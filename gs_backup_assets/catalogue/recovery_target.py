"""Where a recovery is to end: the newest point, a time, a position in the write-ahead log, or a restore point. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Literal

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.wal import Lsn

_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"([Tt ](?P<hours>\d\d)(:?(?P<minutes>\d\d)(:?(?P<seconds>\d\d)([.,](?P<fraction>\d+))?)?)?)?"
    r"\s*(?P<zone>[Zz]|[+-]\d\d(:?\d\d)?)?"
)
_LONGEST_NAME = 63  # bytes; PostgreSQL manual, "Backup Control Functions": a restore point's name has at most 63


@dataclass(frozen=True)
class RecoveryTarget:
    """A point to recover to. Exactly one of `at`, `lsn` and `name` is set, or none for the newest point.

    `at` is aware, in UTC. A time is `inclusive`: what was committed at exactly that time is there. A position is not:
    what begins before it is there, as `pg_current_wal_lsn()` is the position after the newest record. `timeline` is the
    one to follow, None for the newest.
    """

    at: datetime | None = None
    lsn: Lsn | None = None
    name: str | None = None
    timeline: int | None = None
    inclusive: bool = True

    @property
    def kind(self) -> Literal["latest", "time", "lsn", "name"]:
        if self.at is not None:
            return "time"
        if self.lsn is not None:
            return "lsn"
        return "latest" if self.name is None else "name"

    def __str__(self) -> str:
        """As `parse` reads it."""
        if self.at is not None:
            return moment_text(self.at)
        if self.lsn is not None:
            return str(self.lsn)
        return "latest" if self.name is None else f"name:{self.name}"

    @classmethod
    def parse(cls, text: str, *, timeline: int | None = None) -> RecoveryTarget:
        """Read `latest`, an ISO time with its zone, a position such as `16/B374D848`, or a restore point's name.

        `name:...` is always a name. Raises ConfigError: `TARGET_ZONE_MISSING`, `TARGET_INVALID`.
        """
        text = text.strip()
        if text == "latest":
            return cls(timeline=timeline)
        if text.startswith("name:"):
            return cls(name=_name(text.removeprefix("name:")), timeline=timeline)
        if _TIME.fullmatch(text):
            return cls(at=_moment(text), timeline=timeline)
        if "/" in text:
            try:
                return cls(lsn=Lsn.parse(text), timeline=timeline, inclusive=False)
            except ValueError as error:
                raise _invalid(str(error)) from None
        return cls(name=_name(text), timeline=timeline)


def moment_text(moment: datetime) -> str:
    """A moment in UTC, to the microsecond where it has any: `2026-11-24T18:00:00.123456Z`."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def _moment(text: str) -> datetime:
    match = _TIME.fullmatch(text)
    assert match is not None
    hours, minutes, seconds = match["hours"] or "0", match["minutes"] or "0", match["seconds"] or "0"
    zone = match["zone"]
    try:
        day = date.fromisoformat(match["day"])
        clock = time(int(hours), int(minutes), int(seconds), int((match["fraction"] or "0")[:6].ljust(6, "0")))
        offset = None if zone is None else _offset(zone)
    except ValueError:
        raise _invalid(f"{text!r} is no time") from None
    if offset is None:
        raise ConfigError(
            "TARGET_ZONE_MISSING",
            f"{text} has no time zone: it would be another moment on another machine.",
            f"Write the zone: {text}Z for UTC, or with the hours that local time is ahead of it, such as {text}+02:00.",
        )
    return datetime.combine(day, clock, timezone(offset)).astimezone(timezone.utc)


def _offset(zone: str) -> timedelta:
    if zone in ("Z", "z"):
        return timedelta(0)
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    if int(digits[2:]) >= 60 or offset >= timedelta(hours=24):
        raise ValueError(zone)
    return -offset if zone[0] == "-" else offset


def _name(text: str) -> str:
    if not text or len(text.encode()) > _LONGEST_NAME or not text.isprintable():
        raise _invalid(f"{text!r} is no name of a restore point")
    return text


def _invalid(words: str) -> ConfigError:
    return ConfigError(
        "TARGET_INVALID",
        f"{words}.",
        "Write latest, a time such as 2026-11-24T18:00:00Z, a position such as 16/B374D848, or a restore point's name.",
    )
