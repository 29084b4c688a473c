"""Tries on two small objects what backups rely on: write-once, checked bytes, no strangers; then removes them."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from gs_backup_assets.vault.bucket import REFUSED, Bucket, permission_missing
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.s3_errors import code_of, status_of, translated
from gs_backup_assets.vault.s3_transfer import encoded

# Folders of probes; the writer's policy allows to delete below it and nowhere else.
PROBES = ".doctor-"
_EXISTS = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class Probed:
    """What the server did.

    `writes_once`: a second object under the same key was refused. `refuses_damage`: bytes that are not those of the
    SHA-256 sent with them were refused. `tells`: the SHA-256 that it tells of an object is that of its bytes (`true`),
    of what the writer claimed (`claimed`), or it tells none (`nothing`). `lets_strangers_read`: without credentials.
    `left`: keys that could not be removed.
    """

    writes_once: bool
    refuses_damage: bool
    tells: Literal["true", "claimed", "nothing"]
    lets_strangers_read: bool
    left: tuple[str, ...]


def probe(bucket: Bucket) -> Probed:
    """Try it. NotVerifiable (`PERMISSION_MISSING`) for a role that may not write; StoreError."""
    store = bucket.store
    folder = f"{store.prefix}{PROBES}{secrets.token_hex(6)}"
    sound, damaged = f"{folder}/once", f"{folder}/damaged"
    data, other = secrets.token_bytes(64), secrets.token_bytes(64)
    written: list[str] = []
    with translated(store.describe(), folder):
        try:
            _put(store, sound, data, data, written)
            refuses_damage = not _put(store, damaged, data, other, written)
            tells = _tells(store, sound if refuses_damage else damaged, data)
            writes_once = not _put(store, sound, other, other, written)
            strangers = bucket.strangers_read(sound)
        finally:
            left = _remove(store, written)
    return Probed(writes_once, refuses_damage, tells, strangers, left)


def _put(store: S3Store, key: str, data: bytes, claimed: bytes, written: list[str]) -> bool:
    """Whether bytes were stored under a key of which there should be no object, with the SHA-256 of `claimed`."""
    from botocore.exceptions import ClientError

    try:
        store.client.put_object(
            Bucket=store.bucket,
            Key=key,
            Body=data,
            ChecksumSHA256=_digest(claimed),
            IfNoneMatch="*",
            **store.options.parameters(datetime.now(timezone.utc), locked=False),
        )
    except ClientError as error:
        if code_of(error) in REFUSED:
            raise permission_missing("write objects", "s3:PutObject", code_of(error)) from error
        damaged = data != claimed and status_of(error) == 400
        if damaged or code_of(error) in _EXISTS:
            return False
        raise
    if key not in written:
        written.append(key)
    return True


def _tells(store: S3Store, key: str, stored: bytes) -> Literal["true", "claimed", "nothing"]:
    """What the server says of the SHA-256 of an object with the bytes `stored`."""
    head = store.client.head_object(Bucket=store.bucket, Key=key, ChecksumMode="ENABLED")
    told = head.get("ChecksumSHA256")
    if told is None:
        return "nothing"
    return "true" if told == _digest(stored) else "claimed"


def _remove(store: S3Store, keys: list[str]) -> tuple[str, ...]:
    """The keys that could not be removed: what the probe found out is worth telling all the same."""
    from botocore.exceptions import BotoCoreError, ClientError

    left = []
    for key in keys:
        try:
            store.client.delete_object(Bucket=store.bucket, Key=key)
        except (ClientError, BotoCoreError):
            left.append(key)
    return tuple(left)


def _digest(data: bytes) -> str:
    return encoded(hashlib.sha256(data).digest())
