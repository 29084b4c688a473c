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

from gs_backup_assets.config_stores import KeyConfig, KmsKeyConfig
from gs_backup_assets.errors import ConfigError

KEY_BYTES = 32
PROVIDER = "gs-backup"
_NEW_KEY = "`gs-backup keys new` makes a key."
_LONGEST_FILE = 1024  # characters; a key has 44


class MasterKey(Protocol):
    """A key that wraps the data keys of backups.

    `id` is for people: a fingerprint, or an ARN. `name` is made of 16 hex digits, for the names of files.
    """

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

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

    @property
    def name(self) -> str:
        return self.id

    def provider(self) -> Any:
        from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
        from aws_encryption_sdk.key_providers.raw import RawMasterKey, WrappingKey

        wrapping = WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=self.secret,
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )
        return RawMasterKey(provider_id=self.namespace, key_id=self.id.encode(), wrapping_key=wrapping)


def new_raw_key() -> str:
    """A new random key, in base64 as it is configured."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def load_key(config: KeyConfig, folder: Path) -> MasterKey:
    """The key that a section of the configuration names; of KMS it is asked only what an alias or an id stands for.

    Raises ConfigError: `KEY_MISSING` when it is not where it should be, `KEY_EXPOSED` when others may read it there,
    `KEY_INVALID` when it is no 256-bit key, or KMS cannot be addressed; StoreError: `KEY_REFUSED`, `KEY_UNAVAILABLE`
    (KMS).
    """
    if isinstance(config, KmsKeyConfig):
        from gs_backup_assets.vault.kms import load_kms_key

        return load_kms_key(config)
    if config.key_env is not None:
        return raw_key(os.environ.get(config.key_env, ""), place_of(config))
    assert config.key_file is not None
    return raw_key(_read_private(folder / config.key_file.expanduser()), place_of(config))


def place_of(config: KeyConfig) -> str:
    """Where a key is, in words; never the key."""
    if isinstance(config, KmsKeyConfig):
        return f"AWS KMS, {config.key_id}"
    return f"the environment variable {config.key_env}" if config.key_env else f"the file {config.key_file}"


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
        raise ConfigError("KEY_INVALID", f"What is in {where} is not 32 bytes in base64.", _NEW_KEY)
    return RawKey(secret)


def _read_private(path: Path) -> str:
    """The text of a key file. As with ssh's keys, a file of our own account must be closed to all others.

    A file of another account is that one's affair: so orchestrators mount secrets into containers, with modes that the
    reader cannot change.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            status = os.fstat(file.fileno())
            text = file.read(_LONGEST_FILE)
    except OSError as error:
        words = f"The key is not in the file {path}: {error.strerror}."
        raise ConfigError("KEY_MISSING", words, "Put it there, with the mode 0600.") from None
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        raise ConfigError(
            "KEY_EXPOSED",
            f"The key in {path} is open to other accounts: its mode is {status.st_mode & 0o7777:04o}.",
            f"`chmod 600 {path}`; a secret that Kubernetes mounts gets `defaultMode: 0400`.",
        )
    return text
