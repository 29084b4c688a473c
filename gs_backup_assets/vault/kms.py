"""Master keys that AWS KMS holds and uses. Imported only where a key of KMS is configured, or named by a backup."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import boto3
from aws_encryption_sdk.exceptions import DecryptKeyError, GenerateKeyError
from aws_encryption_sdk.key_providers.kms import KMSMasterKey
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from gs_backup_assets.config_stores import KmsKeyConfig
from gs_backup_assets.errors import BackupError, ConfigError, StoreError
from gs_backup_assets.vault.keys import fingerprint

# KMS that does not answer is given up after half a minute: three times 5 s to connect and 5 s to read, and pauses.
_CONFIG = Config(retries={"total_max_attempts": 3, "mode": "standard"}, connect_timeout=5, read_timeout=5)
_UNUSABLE = frozenset(
    {
        "DisabledException",
        "InvalidArnException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
        "ValidationException",
    }
)
_REFUSED = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "UnrecognizedClientException",
        "403",  # of something in between, whose answer is not KMS's
    }
)
# What KMS says when it did not encrypt those bytes, or did it with another key or for another context.
_NOT_ITS_OWN = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})


@dataclass(frozen=True)
class KmsKey:
    """A key of KMS; `id` is its ARN."""

    id: str
    client: Any = field(repr=False)

    @property
    def name(self) -> str:
        return fingerprint(self.id.encode())

    def provider(self) -> KMSMasterKey:
        return _Provider(key_id=self.id, client=self.client)


class _Provider(KMSMasterKey):  # type: ignore[misc]
    """The SDK's own, but for errors: of what KMS said it keeps nothing."""

    def _generate_data_key(self, algorithm: Any, encryption_context: Any = None) -> Any:
        try:
            return super()._generate_data_key(algorithm, encryption_context)
        except (GenerateKeyError, BotoCoreError) as error:
            raise kms_error(error.__cause__ or error, self._key_id) from error

    def _decrypt_data_key(self, encrypted_data_key: Any, algorithm: Any, encryption_context: Any = None) -> Any:
        try:
            return super()._decrypt_data_key(encrypted_data_key, algorithm, encryption_context)
        except (DecryptKeyError, BotoCoreError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, DecryptKeyError) or _code(cause) in _NOT_ITS_OWN:
                raise  # the envelope is to blame, not the key
            raise kms_error(cause, self._key_id) from error


def load_kms_key(config: KmsKeyConfig) -> KmsKey:
    """The key that a section of the configuration names; errors as for `load_key`."""
    parts = config.key_id.split(":")
    is_arn = parts[0] == "arn" and len(parts) == 6
    # At DEBUG it logs whole answers, and KMS's hold keys.
    logging.getLogger("botocore.parsers").setLevel(logging.INFO)
    try:
        session = boto3.session.Session(profile_name=config.profile)
        region = config.region or (parts[3] if is_arn else None)
        client = session.client("kms", region_name=region, endpoint_url=config.endpoint, config=_CONFIG)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            "KEY_INVALID",
            f"KMS cannot be asked for {config.key_id}: {_words(error)}.",
            "Correct key_id, region, endpoint and profile under encryption in backup.yaml.",
        ) from None
    if is_arn and parts[5].startswith("key/"):
        return KmsKey(config.key_id, client)
    try:
        return KmsKey(client.describe_key(KeyId=config.key_id)["KeyMetadata"]["Arn"], client)
    except (ClientError, BotoCoreError) as error:
        raise kms_error(error, config.key_id) from error


def kms_error(error: BaseException, key_id: str) -> BackupError:
    """What KMS said, as an error with a code: it refuses the key, or cannot be reached."""
    code = _code(error)
    if code in _UNUSABLE:
        hint = "Look at the key in AWS KMS: is it there, is it enabled, is it symmetric?"
        return StoreError("KEY_REFUSED", f"KMS has no usable key {key_id}: {code}.", hint)
    if code in _REFUSED or isinstance(error, NoCredentialsError | PartialCredentialsError):
        hint = "The role needs kms:GenerateDataKey and kms:Decrypt on the key; docs/encryption.md shows the policy."
        return StoreError("KEY_REFUSED", f"KMS refuses the key {key_id}: {code or _words(error)}.", hint)
    hint = (
        "Look at the network, and at region, endpoint and profile under encryption; what passes by itself, try again."
    )
    return StoreError("KEY_UNAVAILABLE", f"KMS cannot be used for {key_id}: {code or _words(error)}.", hint)


def _code(error: BaseException) -> str:
    """KMS's own code; empty where it did not answer."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
