"""Sections of backup.yaml: the stores in which backups rest, and the keys with which they are encrypted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, PositiveInt, field_validator, model_validator

from gs_backup_assets.config_values import Duration, Section

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.'()*-]+(/[A-Za-z0-9!_.'()*-]+)*")

# Amazon S3's storage classes whose objects can be read at once ("Understanding and managing storage classes").
InstantClass = Literal["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"]
# Those into which a lifecycle rule may move old objects; from GLACIER and DEEP_ARCHIVE they are back after hours only.
ColdClass = Literal["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"]


class LocalStoreConfig(Section):
    """A folder. A relative path is meant from the folder of the configuration file."""

    kind: Literal["local"] = "local"
    path: Path = Path("backups")


class S3StoreConfig(Section):
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


class Stores(Section):
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


class RawKeyConfig(Section):
    """A 256-bit key in base64, from an environment variable or a file."""

    kind: Literal["raw-aes-256"]
    key_env: str | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> RawKeyConfig:
        if (self.key_env is None) == (self.key_file is None):
            raise ValueError("write either key_env or key_file")
        return self


class KmsKeyConfig(Section):
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
