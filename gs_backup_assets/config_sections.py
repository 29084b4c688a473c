"""The sections of backup.yaml, one model each; an unknown key is an error, and no section holds a secret."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    field_validator,
    model_validator,
)

from gs_backup_assets.config_masking import Anonymise

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.'()*-]+(/[A-Za-z0-9!_.'()*-]+)*")
_CRON = r"@(hourly|daily|midnight|weekly|monthly)|[\w*/,#-]+( +[\w*/,#-]+){4}"

# Amazon S3's storage classes whose objects can be read at once ("Understanding and managing storage classes").
InstantClass = Literal["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"]
# Those into which a lifecycle rule may move old objects; from GLACIER and DEEP_ARCHIVE they are back after hours only.
ColdClass = Literal["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"]


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


_SIZE_UNITS = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _size(value: Any) -> Any:
    match = re.fullmatch(r"(\d+)\s*([kMGT])", value.strip()) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]) * _SIZE_UNITS[match[2]]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("write a size such as 64M or 4G")


Size = Annotated[PositiveInt, BeforeValidator(_size)]


def _schedule(value: str) -> str:
    if not re.fullmatch(_CRON, value.strip()):
        raise ValueError('write a cron schedule of five fields, such as "0 2 * * *"')
    return value


def _slot(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z0-9_]{1,63}", value):
        raise ValueError("a slot's name has small letters, digits and underscores")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalStoreConfig(_Section):
    """A folder. A relative path is meant from the folder of the configuration file."""

    kind: Literal["local"] = "local"
    path: Path = Path("backups")


class S3StoreConfig(_Section):
    """A bucket of Amazon S3, or of any server that speaks its protocol.

    Credentials come from where boto3 looks for them (environment, profile, role), or from the two named variables.
    """

    kind: Literal["s3"]
    bucket: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None
    access_key_env: str | None = None
    secret_key_env: str | None = None
    storage_class: InstantClass = "STANDARD"
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    sse_kms_key_id: str | None = None
    object_lock_days: PositiveInt | None = None
    object_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    transitions: dict[ColdClass, Duration] = {}

    @field_validator("bucket")
    @classmethod
    def _known_bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError("a bucket's name has 3 to 63 small letters, digits, dots and hyphens")
        return value

    @field_validator("prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        value = value.strip("/")
        if value and (not _PREFIX.fullmatch(value) or not {".", ".."}.isdisjoint(value.split("/"))):
            raise ValueError("write a prefix such as prod or backups/prod")
        return value

    @field_validator("endpoint")
    @classmethod
    def _plain_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/@]+(/[^\s@?#]*)?", value):
            raise ValueError("write an endpoint such as https://s3.example.com:9000, without user or password")
        return value

    @model_validator(mode="after")
    def _go_together(self) -> S3StoreConfig:
        if (self.access_key_env is None) != (self.secret_key_env is None):
            raise ValueError("access_key_env and secret_key_env go together")
        if self.sse_kms_key_id is not None and not (self.sse or "").startswith("aws:kms"):
            raise ValueError("sse_kms_key_id goes with sse: aws:kms")
        return self


StoreConfig = Annotated[LocalStoreConfig | S3StoreConfig, Discriminator("kind")]


def _place(store: LocalStoreConfig | S3StoreConfig) -> tuple[object, ...]:
    """What makes two stores one."""
    if isinstance(store, LocalStoreConfig):
        return (store.path.expanduser(),)
    return (store.endpoint, store.bucket, store.prefix)


def _local_by_default(value: Any) -> Any:
    return {"kind": "local", **value} if isinstance(value, dict) else value


class Stores(_Section):
    """Where backups rest: the primary store, and a second one in another place.

    Every day some of the backups off-site are read back, so that each has its turn once in `read_back_days` days.
    """

    primary: Annotated[StoreConfig, BeforeValidator(_local_by_default)] = LocalStoreConfig()
    offsite: Annotated[StoreConfig, BeforeValidator(_local_by_default)] | None = None
    read_back_days: PositiveInt = 30

    @model_validator(mode="after")
    def _two_places(self) -> Stores:
        if self.offsite is not None and _place(self.primary) == _place(self.offsite):
            raise ValueError("the off-site store is the primary one: a copy has to be in another place")
        return self


class RawKeyConfig(_Section):
    """A 256-bit key in base64, from an environment variable or a file."""

    kind: Literal["raw-aes-256"]
    key_env: str | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> RawKeyConfig:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("write either key_env or key_file")
        return self


class KmsKeyConfig(_Section):
    """A key that never leaves AWS KMS, by ARN, id or alias."""

    kind: Literal["aws-kms"]
    key_id: str
    region: str | None = None
    endpoint: str | None = None
    profile: str | None = None


KeyConfig = Annotated[RawKeyConfig | KmsKeyConfig, Discriminator("kind")]


class RawEncryption(RawKeyConfig):
    """New backups are encrypted with this key; `previous` are keys of which older backups still need one."""

    previous: tuple[KeyConfig, ...] = ()


class KmsEncryption(KmsKeyConfig):
    """New backups are encrypted with this key; `previous` are keys of which older backups still need one."""

    previous: tuple[KeyConfig, ...] = ()


Encryption = Annotated[RawEncryption | KmsEncryption, Discriminator("kind")]


class Logical(_Section):
    """Dumps: when, how many at a time, how compressed, and how much of the contents is fingerprinted."""

    schedule: str = "0 2 * * *"
    jobs: PositiveInt | Literal["auto"] = "auto"
    compression: str = "zstd:1"
    fingerprint: Literal["full", "counts", "off"] = "full"

    _known_schedule = field_validator("schedule")(_schedule)

    @field_validator("compression")
    @classmethod
    def _known_compression(cls, value: str) -> str:
        if not re.fullmatch(r"none|(zstd|lz4|gzip)(:\d+)?", value):
            raise ValueError("write zstd:1, lz4:1, gzip:1 or none")
        return value


class Physical(_Section):
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

    _known_schedules = field_validator("schedule", "incremental_schedule", "drill_schedule")(_schedule)

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


class Wal(_Section):
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

    _known_slot = field_validator("slot")(_slot)


class Replica(_Section):
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

    _known_slot = field_validator("slot")(_slot)


class Hook(_Section):
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


class Health(_Section):
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


class DisasterRecovery(_Section):
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


class Staging(_Section):
    """The staging database, into which the newest proven backup is restored every month.

    `url_env` names the variable with its address; the role may create, rename and drop databases there. `stop` and
    `start` are the application's, and every address of `health` has to answer as it should afterwards.
    """

    url_env: str
    schedule: str = "0 4 * * 0#1"
    stop: tuple[Hook, ...] = ()
    start: tuple[Hook, ...] = ()
    health: tuple[Health, ...] = ()

    _known_schedule = field_validator("schedule")(_schedule)


class DataClass(_Section):
    """Objectives of the tables of one class; a table may be given under several names, of which one exists."""

    rpo: Duration
    rto: Duration
    tables: tuple[str | tuple[str, ...], ...] = ()

    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        return tuple((t,) if isinstance(t, str) else t for t in self.tables)


class Retention(_Section):
    """How many days, weeks, months and years keep their newest proven backup, and how many proven ones stay anyway."""

    daily: NonNegativeInt = 30
    weekly: NonNegativeInt = 8
    monthly: NonNegativeInt = 12
    yearly: NonNegativeInt = 0
    keep_proven: PositiveInt = 2


class Costs(_Section):
    """What storage costs in a month: `prices` for 1 GB (10^9 bytes) by storage class, `budget` by storage class.

    The defaults are Amazon's list prices of us-east-1 in 2026 for S3, a disk of 500 GB for 10 a month for `local`, and
    the strategy document's estimates for the budget.
    """

    currency: str = "USD"
    prices: dict[str, NonNegativeFloat] = {
        "local": 0.02,
        "STANDARD": 0.023,
        "INTELLIGENT_TIERING": 0.023,
        "STANDARD_IA": 0.0125,
        "ONEZONE_IA": 0.01,
        "GLACIER_IR": 0.004,
        "GLACIER": 0.0036,
        "DEEP_ARCHIVE": 0.00099,
    }
    budget: dict[str, NonNegativeFloat] = {"local": 10.0, "STANDARD": 25.0, "GLACIER": 5.0}


class Alerts(_Section):
    """Whom to tell, and when a backup or a proof counts as stale.

    The URL in `heartbeat_url_env`, a secret, is asked for after each proven backup: that it was not for too long is
    noticed elsewhere, even when this machine is dead. A problem that comes and goes is told of once in `flap_window`.
    """

    urls_env: str = "GS_BACKUP_ALERT_URLS"
    heartbeat_url_env: str = "GS_BACKUP_HEARTBEAT_URL"
    stale_after: Duration = timedelta(hours=25)
    remind_after: Duration = timedelta(hours=24)
    flap_window: Duration = timedelta(minutes=15)


class Verification(_Section):
    """Where proofs restore to: a throwaway cluster, or a server on which databases may be created and dropped.

    With `server_url_env` the server is used where the throwaway cluster lacks an extension or a collation.
    """

    target: Literal["throwaway"] = "throwaway"
    server_url_env: str | None = None
    jobs: PositiveInt | Literal["auto"] = "auto"


def default_classes() -> dict[str, DataClass]:
    """Without data classes of one's own every table is `important`."""
    return {"important": DataClass(rpo=timedelta(hours=1), rto=timedelta(hours=4))}


class Settings(_Section):
    """Everything that may be set for all databases and overridden for one.

    Without `retention` nothing is ever deleted; without `encryption` backups rest as they are; without `physical` there
    are no base backups, without `wal` no archive of the write-ahead log: both need a role with REPLICATION.
    """

    stores: Stores = Stores()
    encryption: Encryption | None = None
    logical: Logical = Logical()
    physical: Physical | None = None
    wal: Wal | None = None
    replicas: dict[str, Replica] = {}
    disaster_recovery: DisasterRecovery | None = None
    staging: Staging | None = None
    anonymise: Anonymise | None = None
    data_classes: dict[str, DataClass] = Field(default_factory=default_classes)
    retention: Retention | None = None
    costs: Costs = Costs()
    alerts: Alerts = Alerts()
    rules: str = "none"
    reports: Path = Path("reports")
    owners: tuple[str, ...] = ("team:database",)
    verification: Verification = Verification()

    @field_validator("replicas")
    @classmethod
    def _named_replicas(cls, value: dict[str, Replica]) -> dict[str, Replica]:
        for name in value:
            _slot(name)
        return value
