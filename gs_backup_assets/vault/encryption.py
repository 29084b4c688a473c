"""AES-256-GCM envelopes with the AWS Encryption SDK, bound to the backup and the path that they belong to.

Every backup has a data key of its own, which its files are encrypted with. The data key lies beside them, wrapped by
the master key; to move a backup to another master key is to wrap that one key again. All of it is the AWS Encryption
SDK's message format, so that the SDK alone can read it.
"""

from __future__ import annotations

import logging
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.keys import KEY_BYTES, MasterKey, RawKey, kms_error
from gs_backup_assets.vault.store import Source

SCHEME = "aws-encryption-sdk"
ALGORITHM = "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"
FRAME_BYTES = 1 << 20
SUFFIX = ".enc"
_FRAME_OVERHEAD = 4 + 12 + 16  # sequence number, IV, tag ("AWS Encryption SDK message format reference")
_DATA_KEYS = "gs-backup-data-key"
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
        self._key = RawKey(data_key, _DATA_KEYS)
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

    @contextmanager
    def encrypting(self, source: Source, size: int, path: str) -> Iterator[Source]:
        """The envelope of exactly `size` bytes of `source`, to be read once."""
        client, algorithm = _client()
        with client.stream(
            mode="e",
            source=source,
            source_length=size,
            key_provider=self._key.provider(),
            encryption_context=self._identity.context(path),
            algorithm=algorithm,
            frame_length=FRAME_BYTES,
        ) as stream:
            yield stream

    def decrypting(self, source: Source, path: str) -> Source:
        """The bytes that are in the envelope `source`, to be read once; a frame's bytes come out once it is proved.

        Reading raises StoreError: `ENVELOPE_MISPLACED` when it belongs to another backup or path, `ENVELOPE_DAMAGED`.
        """
        return _Opened(source, self._key, self._identity.context(path), path)

    def wrapped_by(self, master: MasterKey) -> bytes:
        """The data key, wrapped by a master key; StoreError (`KEY_REFUSED`, `KEY_UNAVAILABLE`)."""
        from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError

        client, algorithm = _client()
        try:
            sealed, _ = client.encrypt(
                source=self._key.secret,
                key_provider=master.provider(),
                encryption_context=self._identity.context(_DATA_KEYS),
                algorithm=algorithm,
            )
        except AWSEncryptionSDKClientError as error:
            raise kms_error(_cause(error), master.id) from error
        return bytes(sealed)

    @classmethod
    def unwrapped(cls, wrapped: bytes, master: MasterKey, identity: Identity) -> BackupCipher:
        """The cipher whose data key a master key wrapped.

        Raises StoreError: `ENVELOPE_DAMAGED`, `ENVELOPE_MISPLACED`, and for KMS `KEY_REFUSED`, `KEY_UNAVAILABLE`.
        """
        from io import BytesIO

        opened = _Opened(BytesIO(wrapped), master, identity.context(_DATA_KEYS), f"the key for {master.id}")
        data_key = b"".join(iter(lambda: opened.read(KEY_BYTES), b""))
        if len(data_key) != KEY_BYTES:
            raise _damaged(f"the key for {master.id}", "it holds no key")
        return cls(data_key, identity)


class _Opened:
    """Reads an envelope; what is wrong with it comes out as a StoreError."""

    def __init__(self, source: Source, key: MasterKey, context: Mapping[str, str], name: str) -> None:
        self._key = key
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
        except (AWSEncryptionSDKClientError, InvalidTag, struct.error, ValueError, KeyError, TypeError) as error:
            cause = _cause(error)
            if type(cause).__module__.startswith("botocore"):
                raise kms_error(cause, self._key.id) from error
            raise _damaged(self._name, "it does not decrypt") from error
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


def _cause(error: BaseException) -> Exception:
    """The first error of a chain: the SDK wraps what KMS said."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error if isinstance(error, Exception) else Exception(error)


def _client() -> tuple[Any, Any]:
    import aws_encryption_sdk
    from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy

    # It logs what it raises, tracebacks included; the error is told once, by us.
    logging.getLogger("aws_encryption_sdk").setLevel(logging.CRITICAL + 1)
    client = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT, max_encrypted_data_keys=1
    )
    return client, AlgorithmSuite[ALGORITHM]
