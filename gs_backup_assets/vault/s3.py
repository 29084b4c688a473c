"""A store in a bucket of Amazon S3 or of a server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BufferedReader, BytesIO
from typing import Any, BinaryIO, Literal

from gs_backup_assets.errors import StoreError
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.digests import Digests
from gs_backup_assets.vault.s3_errors import store_error, translated
from gs_backup_assets.vault.s3_requests import PAUSES, Place, head
from gs_backup_assets.vault.s3_transfer import Download, upload
from gs_backup_assets.vault.store import MANIFEST, Listed, OwnChecksum, Source

# Requests at a time: boto3's clients keep ten connections.
_THREADS = 8
_DELETED_AT_ONCE = 1000
_FOR_EVER = datetime.max.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class ObjectOptions:
    """How new objects are stored: class, server-side encryption, lock."""

    storage_class: str = "STANDARD"
    sse: str | None = None
    sse_kms_key_id: str | None = None
    lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    lock_days: int | None = None

    def parameters(self, now: datetime, *, locked: bool) -> dict[str, Any]:
        """The options of a request that stores an object."""
        chosen: dict[str, Any] = {}
        if self.storage_class != "STANDARD":
            chosen["StorageClass"] = self.storage_class
        if self.sse is not None:
            chosen["ServerSideEncryption"] = self.sse
        if self.sse_kms_key_id is not None:
            chosen["SSEKMSKeyId"] = self.sse_kms_key_id
        if self.lock_days is not None and locked:
            chosen["ObjectLockMode"] = self.lock_mode
            chosen["ObjectLockRetainUntilDate"] = now + timedelta(days=self.lock_days)
        return chosen


class S3Store:
    """Objects of a bucket below a prefix. Writing is conditional and checked by the server."""

    def __init__(self, client: Any, bucket: str, prefix: str = "", options: ObjectOptions = ObjectOptions()) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.options = options
        self.pauses: tuple[float, ...] = PAUSES
        self._threads = Threads(_THREADS, "s3")

    def describe(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def put(self, source: Source, key: str, *, size: int, resume: bool = False) -> Digests:
        return self._put(source, key, size, locked=True, resume=resume)

    def put_bytes(self, data: bytes, key: str, *, locked: bool = True) -> Digests:
        return self._put(BytesIO(data), key, len(data), locked=locked, resume=False)

    def open(self, key: str) -> BinaryIO:
        place = self._place(key)
        # A small buffer: what is larger goes by it, from the range straight to where it is wanted.
        return BufferedReader(Download(place, self._threads, lambda: self._translated(key)), buffer_size=1 << 16)

    def exists(self, key: str) -> bool:
        try:
            self._head(key)
        except StoreError as error:
            if error.code in ("OBJECT_MISSING", "KEY_INVALID"):
                return False
            raise
        return True

    def folders(self, prefix: str) -> list[str]:
        start = self._start(prefix)
        with self._translated(prefix):
            pages = self._pages(start, Delimiter="/")
            return sorted(
                entry["Prefix"].removeprefix(start).rstrip("/")
                for page in pages
                for entry in page.get("CommonPrefixes", ())
            )

    def objects(self, prefix: str, *, skip: Collection[str] = (), after: str = "") -> Iterator[Listed]:
        behind = {"StartAfter": self.prefix + after} if after else {}
        with self._translated(prefix):
            for page in self._pages(self._start(prefix), **behind):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self.prefix)
                    if skip and not set(skip).isdisjoint(key.split("/")[:-1]):
                        continue
                    kind = found.get("StorageClass", "STANDARD")
                    yield Listed(key, found["Size"], found["LastModified"], kind, f"{found['ETag']}-{found['Size']}")

    def own_checksum(self, key: str) -> OwnChecksum | None:
        told = self._head(key, ChecksumMode="ENABLED")
        checksum = told.get("ChecksumSHA256")
        if checksum is None:
            return None
        digest, dash, count = checksum.partition("-")
        return OwnChecksum(told["ContentLength"], _decoded(digest), int(count) if dash else None)

    def locked_until(self, key: str) -> datetime | None:
        told = self._head(key)
        if told.get("ObjectLockLegalHoldStatus") == "ON":
            return _FOR_EVER
        until: datetime | None = told.get("ObjectLockRetainUntilDate")
        return until if until is not None and until > datetime.now(timezone.utc) else None

    def delete(self, key: str) -> None:
        place = self._place(key)
        with self._translated(key):
            self.client.delete_object(**place.names)

    def delete_tree(self, prefix: str) -> None:
        self.delete(f"{prefix}/{MANIFEST}")
        batch: list[dict[str, str]] = []
        for listed in self.objects(prefix):
            batch.append({"Key": self.prefix + listed.key})
            if len(batch) == _DELETED_AT_ONCE:
                self._delete_batch(batch, prefix)
                batch = []
        self._delete_batch(batch, prefix)
        self.sweep_uploads(prefix, datetime.now(timezone.utc))

    def sweep_uploads(self, prefix: str, before: datetime) -> int:
        swept = 0
        start = self._start(prefix)
        with self._translated(prefix):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=start)
            for begun in [u for page in pages for u in page.get("Uploads", ())]:
                if begun["Initiated"] < before:
                    with suppress(self.client.exceptions.NoSuchUpload):
                        self.client.abort_multipart_upload(
                            Bucket=self.bucket, Key=begun["Key"], UploadId=begun["UploadId"]
                        )
                        swept += 1
        return swept

    def _put(self, source: Source, key: str, size: int, *, locked: bool, resume: bool) -> Digests:
        place = self._place(key)
        options = self.options.parameters(datetime.now(timezone.utc), locked=locked)
        with self._translated(key):
            return upload(place, source, self._threads, size=size, options=options, resume=resume)

    def _head(self, key: str, **options: str) -> dict[str, Any]:
        place = self._place(key)
        with self._translated(key):
            return head(place, **options)

    def _start(self, prefix: str) -> str:
        """What all keys below a prefix begin with; the empty prefix is the whole store."""
        return f"{self._place(prefix).key}/" if prefix else self.prefix

    def _pages(self, start: str, **options: str) -> Any:
        return self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start, **options)

    def _delete_batch(self, batch: list[dict[str, str]], prefix: str) -> None:
        if not batch:
            return
        with self._translated(prefix):
            answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
        for refused in answer.get("Errors", ()):
            error = Exception()
            error.response = {"Error": refused, "ResponseMetadata": {}}  # type: ignore[attr-defined]
            raise store_error(error, self.describe(), refused["Key"].removeprefix(self.prefix))

    def _place(self, key: str) -> Place:
        parts = key.split("/")
        if "\0" in key or not {"", ".", ".."}.isdisjoint(parts):
            raise StoreError(
                "KEY_INVALID", f"{key!r} is no key of a store.", "A manifest with such a path is not one of ours."
            )
        return Place(self.client, self.bucket, self.prefix + key, self.pauses)

    def _translated(self, key: str) -> AbstractContextManager[None]:
        return translated(self.describe(), key)


def _decoded(checksum: str) -> str:
    import base64

    return base64.b64decode(checksum).hex()
