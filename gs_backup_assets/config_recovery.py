"""Sections of backup.yaml: replicas, recovery from complete loss, and the restore test on staging."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from pydantic import Field, field_validator

from gs_backup_assets.config_values import Duration, Section, Size, cron_schedule, slot_name


class Replica(Section):
    """A standby, and how far it may fall behind before people are told.

    `url_env` names the address of the standby, for questions and for its promotion. `slot` is its physical replication
    slot on the primary (default: its name). `max_lag` and `max_lag_bytes` limit what it has not replayed yet,
    `max_retained` what its slot keeps the primary from removing.
    """

    url_env: str
    slot: str | None = None
    max_lag: Duration = timedelta(minutes=5)
    max_lag_bytes: Size = 1 << 30
    max_retained: Size = 4 << 30

    _known_slot = field_validator("slot")(slot_name)


class Hook(Section):
    """A command of one's own that is run when the database is back, such as one that restarts the application.

    It is run without a shell. Facts are in its environment (docs/disaster-recovery.md), and so is what `environment`
    names of ours.
    """

    name: str
    command: tuple[str, ...] = Field(min_length=1)
    timeout: Duration = timedelta(minutes=5)
    environment: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,62}", value):
            raise ValueError("a hook's name has letters, digits, blanks, hyphens and underscores")
        return value


class Health(Section):
    """An address that answers when the application works again: asked until it does, or `deadline` has passed."""

    url: str
    status: int = Field(200, ge=100, le=599)
    expect: str | None = None
    deadline: Duration = timedelta(minutes=5)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s@]+", value):
            raise ValueError("write an address such as https://app.example.com/api/health, without user or password")
        return value


class DisasterRecovery(Section):
    """What `gs-backup disaster-recover` does after a complete loss.

    `into` is the data directory that is made of the newest base backup and the write-ahead log; its server then listens
    on `listen_addresses` and `port`. `server_url_env` names the address of the database that is made of the newest
    proven dump where there is no physical path. Then the hooks run, in their order, and `health` is asked.
    """

    into: Path
    listen_addresses: str = "localhost"
    port: int = Field(5432, ge=1, le=65535)
    server_url_env: str | None = None
    hooks: tuple[Hook, ...] = ()
    health: Health | None = None

    @field_validator("hooks")
    @classmethod
    def _named_once(cls, value: tuple[Hook, ...]) -> tuple[Hook, ...]:
        names = [hook.name for hook in value]
        if len(set(names)) != len(names):
            raise ValueError("every hook needs a name of its own: a recovery that is resumed knows them by it")
        return value


class Staging(Section):
    """The staging database, into which the newest proven backup is restored every month.

    `url_env` names the variable with its address; the role may create, rename and drop databases there. `stop` and
    `start` are the application's, and every address of `health` has to answer as it should afterwards.
    """

    url_env: str
    schedule: str = "0 4 * * 0#1"
    stop: tuple[Hook, ...] = ()
    start: tuple[Hook, ...] = ()
    health: tuple[Health, ...] = ()

    _known_schedule = field_validator("schedule")(cron_schedule)
