"""What sections of backup.yaml are made of: an unknown key is an error; durations, sizes, schedules and slots."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, PositiveInt

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_CRON = r"@(hourly|daily|midnight|weekly|monthly)|[\w*/,#-]+( +[\w*/,#-]+){4}"


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+)\s*([smhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration such as 90s, 15m, 4h or 30d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


Duration = Annotated[
    timedelta, BeforeValidator(_duration), PlainSerializer(lambda d: f"{int(d.total_seconds())}s", when_used="json")
]


def _size(value: Any) -> Any:
    match = re.fullmatch(r"(\d+)\s*([kMGT])", value.strip()) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]) * _SIZE_UNITS[match[2]]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("write a size such as 64M or 4G")


Size = Annotated[PositiveInt, BeforeValidator(_size)]


def cron_schedule(value: str) -> str:
    """A cron schedule of five fields, or its short name; ValueError."""
    if not re.fullmatch(_CRON, value.strip()):
        raise ValueError('write a cron schedule of five fields, such as "0 2 * * *"')
    return value


def slot_name(value: str | None) -> str | None:
    """A name that a replication slot may have; ValueError."""
    if value is not None and not re.fullmatch(r"[a-z0-9_]{1,63}", value):
        raise ValueError("a slot's name has small letters, digits and underscores")
    return value


class Section(BaseModel):
    """A section of backup.yaml. No section holds a secret: it names environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid")
