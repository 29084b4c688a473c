"""AES-256-GCM envelopes with the AWS Encryption SDK, bound to the backup and the path that they belong to.

Every backup has a data key of its own, which its files are encrypted with. The data key lies beside them, wrapped by
the master key; to move a backup to another master key is to wrap that one key again. All of it is the AWS Encryption
SDK's message format, so that the SDK alone can read it.
"""

from __future__ import annotations

import logging
import secrets
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.keys import KEY_BYTES, MasterKey, RawKey
from gs_backup_assets.vault.store import Source

ALGORITHM = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"
FRAME_BYTES = 1 << 20
SUFFIX = ".enc"
_FRAME_OVERHEAD = 4 + 12 + 16  # sequence number, IV, tag ("AWS Encryption SDK message format reference")
_DATA_KEY = "gs-backup-data-key"
_HINT = "Use another backup, or another copy of this one; `gs-backup list` shows them."


@dataclass(frozen=True)
class Identity:
    """What an envelope belongs to; it is authenticated with the bytes, and readable by everybody."""

    database: str
    backup_id: str

    def context(self, path: str) -> dict[str, str]:
        """The encryption context of one file of the backup."""
        return {"gs-backup-database": self.database, "gs-backup-id": self.backup_id, "gs-backup-path": path}


class BackupCipher:
    """Encrypts and decrypts the files of one backup with its data key."""

    def __init__(self, data_key: bytes, identity: Identity) -> None:
        self._key = RawKey(data_key, _DATA_KEY)
        self._identity = identity

    @classmethod
    def new(cls, identity: Identity) -> BackupCipher:
        """A cipher with a new random data key."""
        return cls(secrets.token_bytes(KEY_BYTES), identity)

    @property
    def data_key_id(self) -> str:
        """The fingerprint of the data key."""
        return self._key.id

    def sealed_size(self, size: int) -> int:
        """About how many bytes the envelope of `size` bytes has."""
        return size + (size // FRAME_BYTES + 1) * _FRAME_OVERHEAD + 1024

    def encrypting(self, source: Source, path: str) -> Source:
        """The envelope of the bytes of `source`, to be read once."""
        client, algorithm = _client()
        sealed: Source = client.stream(
            mode="e",
            source=source,
            key_provider=self._key.provider(),
            encryption_context=self._identity.context(path),
            algorithm=algorithm,
            frame_length=FRAME_BYTES,
        )
        return sealed

    def decrypting(self, source: Source, path: str) -> Source:
        """The bytes that are in the envelope `source`, to be read once; a frame's bytes come out once it is proved.

        Reading raises StoreError: `ENVELOPE_MISPLACED` when it belongs to another backup or path, `ENVELOPE_DAMAGED`.
        """
        return _Opened(source, self._key, self._identity.context(path), path)

    def wrapped_by(self, master: MasterKey) -> bytes:
        """The data key, wrapped by a master key; StoreError (`KEY_REFUSED`, `KEY_UNAVAILABLE`)."""
        client, algorithm = _client()
        sealed, _ = client.encrypt(
            source=self._key.secret,
            key_provider=master.provider(),
            encryption_context=self._identity.context(_DATA_KEY),
            algorithm=algorithm,
            frame_length=FRAME_BYTES,
        )
        return bytes(sealed)

    @classmethod
    def unwrapped(cls, wrapped: bytes, master: MasterKey, identity: Identity) -> BackupCipher:
        """The cipher whose data key a master key wrapped.

        Raises StoreError: `ENVELOPE_DAMAGED`, `ENVELOPE_MISPLACED`, and for KMS `KEY_REFUSED`, `KEY_UNAVAILABLE`.
        """
        name = f"the data key for {master.id}"
        data_key = _Opened(BytesIO(wrapped), master, identity.context(_DATA_KEY), name).read(KEY_BYTES + 1)
        if len(data_key) != KEY_BYTES:
            raise _damaged(name, "it holds no key")
        return cls(data_key, identity)


class _Opened:
    """Reads an envelope; what is wrong with it comes out as a StoreError."""

    def __init__(self, source: Source, key: MasterKey, context: Mapping[str, str], name: str) -> None:
        self._name = name
        client, _ = _client()
        self._stream = client.stream(
            mode="decrypt-unsigned",
            source=source,
            materials_manager=_manager(key, context, name),
            max_body_length=FRAME_BYTES,
        )

    def read(self, size: int, /) -> bytes:
        from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
        from cryptography.exceptions import InvalidTag

        try:
            data: bytes = self._stream.read(size)
        # The last ones: what the SDK itself stumbles over where a header is not one.
        except (AWSEncryptionSDKClientError, InvalidTag, struct.error, ValueError, KeyError, TypeError) as error:
            raise _damaged(self._name, "it does not decrypt with the key of this backup") from error
        return data


def _manager(key: MasterKey, context: Mapping[str, str], name: str) -> Any:
    """The SDK's own materials manager, which looks at the context before it lets a key be used."""
    from aws_encryption_sdk.materials_managers.default import DefaultCryptoMaterialsManager

    class Checking(DefaultCryptoMaterialsManager):  # type: ignore[misc]
        def decrypt_materials(self, request: Any) -> Any:
            if dict(request.encryption_context) != context:
                raise _misplaced(name, request.encryption_context)
            return super().decrypt_materials(request)

    return Checking(key.provider())


def kms_key_of(wrapped: bytes) -> str | None:
    """The ARN of the KMS key that a wrapped data key says it was wrapped by; None for a raw key, and for no envelope.

    Nothing proves it until that key has unwrapped the data key.
    """
    from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
    from aws_encryption_sdk.materials_managers.base import CryptoMaterialsManager

    found: list[str] = []

    class Asking(CryptoMaterialsManager):  # type: ignore[misc]
        def get_encryption_materials(self, request: Any) -> Any:
            raise NotImplementedError

        def decrypt_materials(self, request: Any) -> Any:
            for data_key in request.encrypted_data_keys:
                if data_key.key_provider.provider_id == "aws-kms":
                    found.append(data_key.key_provider.key_info.decode())
            raise AWSEncryptionSDKClientError

    client, _ = _client()
    with suppress(AWSEncryptionSDKClientError, struct.error, ValueError, KeyError, TypeError):
        client.stream(mode="decrypt-unsigned", source=wrapped, materials_manager=Asking()).read(0)
    return found[0] if found else None


def _misplaced(name: str, context: Mapping[str, str]) -> StoreError:
    told = {key.removeprefix("gs-backup-"): value for key, value in context.items() if key.startswith("gs-backup-")}
    where = ", ".join(f"{key} {told[key]}" for key in ("database", "id", "path") if key in told)
    return StoreError(
        "ENVELOPE_MISPLACED",
        f"{name}: the envelope belongs to another place ({where or 'it does not say which'}).",
        f"Somebody moved or exchanged files. {_HINT}",
    )


def _damaged(name: str, words: str) -> StoreError:
    return StoreError("ENVELOPE_DAMAGED", f"{name}: the envelope is damaged: {words}.", _HINT)


def _client() -> tuple[Any, Any]:
    import aws_encryption_sdk
    from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy

    # It logs what it raises, tracebacks included; the error is told once, by us.
    logging.getLogger("aws_encryption_sdk").setLevel(logging.CRITICAL + 1)
    client = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT, max_encrypted_data_keys=1
    )
    return client, AlgorithmSuite[ALGORITHM]
