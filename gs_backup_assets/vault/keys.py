"""Master keys: raw 256-bit keys and keys of AWS KMS, each with an id that may be written down, never the key itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gs_backup_assets.config_sections import KeyConfig, KmsKeyConfig, RawKeyConfig
from gs_backup_assets.errors import BackupError, ConfigError, StoreError

KEY_BYTES = 32
PROVIDER = "gs-backup"


class MasterKey(Protocol):
    """A key that wraps the data keys of backups. `id` is for people: a fingerprint, or an ARN."""

    @property
    def id(self) -> str: ...

    def provider(self) -> Any:
        """The key as the AWS Encryption SDK wants it."""
        ...


def fingerprint(identity: bytes) -> str:
    """16 hex digits that name a key and tell nothing of it."""
    return hashlib.sha256(identity).hexdigest()[:16]


@dataclass(frozen=True)
class RawKey:
    """A 256-bit AES key that this machine holds."""

    secret: bytes = field(repr=False)
    namespace: str = PROVIDER

    @property
    def id(self) -> str:
        return fingerprint(self.secret)

    def provider(self) -> Any:
        from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
        from aws_encryption_sdk.key_providers.raw import RawMasterKey, WrappingKey

        wrapping = WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=self.secret,
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )
        return RawMasterKey(provider_id=self.namespace, key_id=self.id.encode(), wrapping_key=wrapping)


@dataclass(frozen=True)
class KmsKey:
    """A key that AWS KMS holds and uses; `id` is its ARN."""

    id: str
    client: Any = field(repr=False)

    def provider(self) -> Any:
        from aws_encryption_sdk.key_providers.kms import KMSMasterKey

        return KMSMasterKey(key_id=self.id, client=self.client)


def new_raw_key() -> str:
    """A new random key, in base64 as it is configured."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def load_key(config: KeyConfig, folder: Path) -> MasterKey:
    """The key that a section of the configuration names.

    Raises ConfigError: `KEY_MISSING` when it is not where it should be, `KEY_INVALID` when it is no 256-bit key;
    StoreError: `KEY_REFUSED`, `KEY_UNAVAILABLE` (KMS).
    """
    return _kms_key(config) if isinstance(config, KmsKeyConfig) else _raw_key(config, folder)


def _raw_key(config: RawKeyConfig, folder: Path) -> RawKey:
    if config.key_env is not None:
        where, text = f"the environment variable {config.key_env}", os.environ.get(config.key_env, "")
    else:
        assert config.key_file is not None
        path = folder / config.key_file.expanduser()
        where = f"the file {path}"
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise ConfigError(
                "KEY_MISSING", f"The key is not in {where}: {error.strerror}.", "Put it there, with the mode 0600."
            ) from None
    return raw_key(text, where)


def raw_key(text: str, where: str) -> RawKey:
    """Read a key in base64; `where` it comes from is told in errors, of the key itself nothing."""
    if not text.strip():
        hint = "Put the key of the backups there. `gs-backup keys new` makes one for new backups."
        raise ConfigError("KEY_MISSING", f"There is no key in {where}.", hint)
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ConfigError(
            "KEY_INVALID", f"What is in {where} is not 32 bytes in base64.", "`gs-backup keys new` makes a key."
        )
    return RawKey(secret)


def _kms_key(config: KmsKeyConfig) -> KmsKey:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    region = config.region or (config.key_id.split(":")[3] if config.key_id.startswith("arn:") else None)
    try:
        session = boto3.session.Session(profile_name=config.profile)
        client = session.client(
            "kms",
            region_name=region,
            endpoint_url=config.endpoint,
            config=Config(retries={"total_max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=20),
        )
        if config.key_id.startswith("arn:") and ":key/" in config.key_id:
            return KmsKey(config.key_id, client)
        return KmsKey(client.describe_key(KeyId=config.key_id)["KeyMetadata"]["Arn"], client)
    except (ClientError, BotoCoreError, ValueError) as error:
        raise kms_error(error, config.key_id) from error


def kms_error(error: Exception, key_id: str) -> BackupError:
    """What KMS said, as an error with a code: refused, or not to be reached."""
    from gs_backup_assets.vault.s3_errors import code_of

    code = code_of(error)
    if code in ("NotFoundException", "DisabledException", "KMSInvalidStateException", "InvalidArnException"):
        return StoreError("KEY_REFUSED", f"KMS has no usable key {key_id}: {code}.", "Look at the key in AWS KMS.")
    if code in ("AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"):
        hint = "The role needs kms:GenerateDataKey and kms:Decrypt on the key; docs/encryption.md shows the policy."
        return StoreError("KEY_REFUSED", f"KMS refuses the key {key_id}: {code}.", hint)
    words = code or " ".join(str(error).split()).rstrip(".")
    return StoreError("KEY_UNAVAILABLE", f"KMS cannot be used for {key_id}: {words}.", "It may pass: try again.")
