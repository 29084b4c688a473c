"""Sections of backup.yaml: dumps, base backups, the write-ahead log, where they are proved, and how long they stay."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, field_validator

from gs_backup_assets.config_values import Duration, Section, cron_schedule, slot_name


class Logical(Section):
    """Dumps: when, how many at a time, how compressed, and how much of the contents is fingerprinted."""

    schedule: str = "0 2 * * *"
    jobs: PositiveInt | Literal["auto"] = "auto"
    compression: str = "zstd:1"
    fingerprint: Literal["full", "counts", "off"] = "full"

    _known_schedule = field_validator("schedule")(cron_schedule)

    @field_validator("compression")
    @classmethod
    def _known_compression(cls, value: str) -> str:
        if not re.fullmatch(r"none|(zstd|lz4|gzip)(:\d+)?", value):
            raise ValueError("write zstd:1, lz4:1, gzip:1 or none")
        return value


class Physical(Section):
    """Base backups: full ones on `schedule`, incremental ones between them where server and programs can (17).

    `url_env` names the address of another server to take them from, such as a standby, or of another role: the role
    needs REPLICATION. `chain_length` is how many backups a chain may have, the full one included. `max_rate` is a
    number of bytes a second such as 50M (pg_basebackup's --max-rate). The drill recovers to a random moment.
    """

    schedule: str = "0 1 * * 0"
    incremental: Literal["auto", "never"] = "auto"
    incremental_schedule: str = "0 1 * * 1-6"
    chain_length: PositiveInt = 7
    compression: str = "zstd:1"
    max_rate: str | None = None
    checkpoint: Literal["fast", "spread"] = "fast"
    url_env: str | None = None
    drill_schedule: str = "0 4 * * 0"

    _known_schedules = field_validator("schedule", "incremental_schedule", "drill_schedule")(cron_schedule)

    @field_validator("compression")
    @classmethod
    def _known_compression(cls, value: str) -> str:
        if not re.fullmatch(r"none|(zstd|gzip)(:\d+)?", value):
            raise ValueError("write zstd:1, gzip:1 or none")
        return value

    @field_validator("max_rate")
    @classmethod
    def _known_rate(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d+[kM]?", value):
            raise ValueError("write a rate such as 50M or 800k, at least 32k")
        return value


class Wal(Section):
    """The write-ahead log: streamed through a replication slot into the archive.

    `url_env` names the address of the server to stream from, where it is another than the database's: the role needs
    REPLICATION. `spool` is a folder that survives a restart; what lies there is not yet in the archive. The part of an
    unfinished segment that is written is archived every `partial_every`; what is archived is brought off-site every
    `offsite_every`. `max_lag` is how far the archive may be behind the server before people are told.
    """

    slot: str = "gs_backup"
    max_lag: Duration = timedelta(minutes=5)
    partial_every: Duration = timedelta(seconds=30)
    offsite_every: Duration = timedelta(minutes=1)
    spool: Path = Path("wal-spool")
    url_env: str | None = None

    _known_slot = field_validator("slot")(slot_name)


class Verification(Section):
    """Where proofs restore to: a throwaway cluster, or a server on which databases may be created and dropped.

    With `server_url_env` the server is used where the throwaway cluster lacks an extension or a collation.
    """

    target: Literal["throwaway"] = "throwaway"
    server_url_env: str | None = None
    jobs: PositiveInt | Literal["auto"] = "auto"


class Retention(Section):
    """How many days, weeks, months and years keep their newest proven backup, and how many proven ones stay anyway."""

    daily: NonNegativeInt = 30
    weekly: NonNegativeInt = 8
    monthly: NonNegativeInt = 12
    yearly: NonNegativeInt = 0
    keep_proven: PositiveInt = 2
