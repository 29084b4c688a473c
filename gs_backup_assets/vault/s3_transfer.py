"""Moves bytes to and from S3 in parts, several at a time: SHA-256 checked by the server, broken uploads resumed."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Executor, Future, wait
from contextlib import closing, suppress
from io import RawIOBase
from itertools import count
from typing import Any

from gs_backup_assets.errors import StoreError
from gs_backup_assets.system.threads import clean_up, patience_after
from gs_backup_assets.vault.digests import Digester, Digests, Parts, part_size
from gs_backup_assets.vault.pipeline import read_exactly
from gs_backup_assets.vault.s3_errors import code_of
from gs_backup_assets.vault.s3_requests import Place, again, checksum_of, exists_already, head, store_once
from gs_backup_assets.vault.store import Source

# Bytes on their way for one object, in at most so many parts; with what is being read they bound the memory.
_BYTES_IN_FLIGHT = 64 << 20
_IN_FLIGHT = 4
# Every request costs both sides some milliseconds of work: fewer and larger ones. A multiple of the parts of an upload.
_READ_AHEAD = 3
_RANGE = 16 << 20
_AT_ONCE = 1 << 20
_PAST_THE_END = "InvalidRange"


def encoded(digest: bytes) -> str:
    """A digest as S3 writes it."""
    return base64.b64encode(digest).decode()


def upload(
    place: Place, source: Source, pool: Executor, *, size: int, options: Mapping[str, Any], resume: bool
) -> Digests:
    """Store an object that is not there yet, in one request or in parts, and return its digests.

    `options` are those of PutObject and CreateMultipartUpload (storage class, encryption, lock). An upload that fails
    is aborted, or left to be resumed. Raises what boto3 raises, and StoreError (`OBJECT_EXISTS`).
    """
    part = part_size(size)
    digester = Digester(size)
    first, second = read_exactly(source, part), read_exactly(source, part)
    digester.update(first)
    if not second:
        _put_whole(place, first, options)
    else:
        _Multipart(place, pool, part, options, resume=resume).run(first, second, source, digester)
    return digester.digests()


def _put_whole(place: Place, data: bytes, options: Mapping[str, Any]) -> None:
    checksum = encoded(hashlib.sha256(data).digest())
    store_once(
        place,
        lambda: place.client.put_object(**place.names, Body=data, ChecksumSHA256=checksum, IfNoneMatch="*", **options),
        lambda: checksum_of(place) == checksum,
    )


class _Multipart:
    """One multipart upload."""

    def __init__(self, place: Place, pool: Executor, part: int, options: Mapping[str, Any], *, resume: bool) -> None:
        self._place = place
        self._pool = pool
        self._part = part
        self._options = options
        self._resume = resume
        self._present: dict[int, tuple[int, str]] = {}
        self._id = ""

    def run(self, first: bytes, data: bytes, source: Source, digester: Digester) -> None:
        """Upload all parts and complete. Whatever goes wrong, no part is left that nobody will ever use."""
        self._begin()
        waiting = deque([self._pool.submit(self._send, 1, first)])
        parts: list[dict[str, Any]] = []
        try:
            for number in count(2):
                if not data:
                    break
                digester.update(data)
                if len(waiting) >= max(1, min(_IN_FLIGHT, _BYTES_IN_FLIGHT // self._part)):
                    parts.append(waiting.popleft().result())
                waiting.append(self._pool.submit(self._send, number, data))
                data = read_exactly(source, self._part)
            parts += [future.result() for future in waiting]
            self._complete(parts, digester.digests())
        except BaseException as error:
            hanging = wait([sent for sent in waiting if not sent.cancel()], patience_after(error)).not_done
            if not hanging and (not self._resume or exists_already(error)):
                with suppress(Exception):  # what went wrong first is told; a sweep and the lifecycle rule clear up
                    clean_up(self._abort, after=error)
            if code_of(error) == "NoSuchUpload" and checksum_of(self._place) is not None:
                raise _completed_by_another(self._place) from error
            raise

    def _abort(self) -> None:
        self._place.client.abort_multipart_upload(**self._place.names, UploadId=self._id)

    def _begin(self) -> None:
        if self._resume and again(self._place, self._adopt):
            return
        begun = again(
            self._place,
            lambda: self._place.client.create_multipart_upload(
                **self._place.names, ChecksumAlgorithm="SHA256", **self._options
            ),
        )
        self._id = begun["UploadId"]

    def _adopt(self) -> bool:
        """Go on with the newest upload of this key that broke off; parts of it that are not ours are sent again."""
        client, names = self._place.client, self._place.names
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=names["Bucket"], Prefix=names["Key"])
        ours = [u for page in pages for u in page.get("Uploads", ()) if u["Key"] == names["Key"]]
        if not ours:
            return False
        self._id = max(ours, key=lambda u: u["Initiated"])["UploadId"]
        pages = client.get_paginator("list_parts").paginate(**names, UploadId=self._id)
        try:
            self._present = {p["PartNumber"]: (p["Size"], p["ETag"]) for page in pages for p in page.get("Parts", ())}
        except client.exceptions.NoSuchUpload:  # completed by another copy, or ended, in this moment
            return False
        return True

    def _send(self, number: int, data: bytes) -> dict[str, Any]:
        checksum = encoded(hashlib.sha256(data).digest())
        there = self._present.get(number)
        # A part's ETag is its MD5 (but not under SSE-KMS: then it is simply sent again).
        if there is not None and there == (len(data), f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'):
            return {"PartNumber": number, "ETag": there[1], "ChecksumSHA256": checksum}
        answer = again(
            self._place,
            lambda: self._place.client.upload_part(
                **self._place.names, UploadId=self._id, PartNumber=number, Body=data, ChecksumSHA256=checksum
            ),
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _complete(self, parts: list[dict[str, Any]], digests: Digests) -> None:
        store_once(
            self._place,
            lambda: self._place.client.complete_multipart_upload(
                **self._place.names, UploadId=self._id, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            ),
            lambda: digests.parts is not None and checksum_of(self._place) == composite(digests.parts),
        )


def composite(parts: Parts) -> str:
    """S3's checksum of an object in parts ("Checking object integrity", composite checksums)."""
    return f"{encoded(bytes.fromhex(parts.sha256))}-{parts.count}"


def _completed_by_another(place: Place) -> StoreError:
    return StoreError(
        "OBJECT_EXISTS",
        f"s3://{place.bucket}/{place.key}: somebody else completed the upload that was being gone on with.",
        "Objects are never replaced; start again.",
    )


class Download(RawIOBase):
    """An object's bytes in their order, with the next ranges already on their way.

    The ranges are read into a few buffers that are used again and again: to touch fresh memory for every range costs
    about as much as to decrypt it.
    """

    def __init__(self, place: Place, pool: Executor, translate: Any) -> None:
        super().__init__()
        self._place = place
        self._pool = pool
        self._translate = translate
        self._ahead: deque[Future[memoryview]] = deque()
        self._free: list[memoryview] = []
        with translate():
            self._current, self._size, self._etag = _first_range(place)
        self._position = 0
        self._next = len(self._current)
        self._fill()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._position == len(self._current):
            if not self._ahead:
                return 0
            with self._translate():
                following = self._ahead[0].result()  # it stays there when it failed: nothing is ever left out
            self._ahead.popleft()
            self._free.append(self._current)
            self._current, self._position = following, 0
            self._fill()
        piece = self._current[self._position : self._position + len(buffer)]  # no copy before the last
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()
        super().close()

    def _fill(self) -> None:
        while self._next < self._size and len(self._ahead) < _READ_AHEAD:
            wanted = min(_RANGE, self._size - self._next)
            into = self._free.pop()[:wanted] if self._free else memoryview(bytearray(wanted))
            self._ahead.append(self._pool.submit(_read_range, self._place, self._next, into, self._etag))
            self._next += len(into)


def _first_range(place: Place) -> tuple[memoryview, int, str]:
    """The beginning of an object, its size and its tag."""
    from botocore.exceptions import ClientError

    def read() -> tuple[memoryview, int, str]:
        answer = place.client.get_object(**place.names, Range=f"bytes=0-{_RANGE - 1}")
        whole = answer.get("ContentRange")
        size = int(whole.rpartition("/")[2]) if whole else int(answer["ContentLength"])
        return _body(answer, memoryview(bytearray(int(answer["ContentLength"])))), size, answer["ETag"]

    try:
        return again(place, read)
    except ClientError as error:
        if code_of(error) != _PAST_THE_END and code_of(error) != "416":
            raise
        head(place)
    return memoryview(bytearray()), 0, ""


def _read_range(place: Place, start: int, into: memoryview, etag: str) -> memoryview:
    """Fill `into` from one range of an object that must still be the one whose reading was begun."""
    from botocore.exceptions import ClientError

    end = start + len(into)

    def read() -> memoryview:
        return _body(place.client.get_object(**place.names, Range=f"bytes={start}-{end - 1}", IfMatch=etag), into)

    try:
        return again(place, read)
    except ClientError as error:
        if not exists_already(error):
            raise
        raise StoreError(
            "OBJECT_CHANGED",
            f"s3://{place.bucket}/{place.key} was replaced while it was read.",
            "Nothing of ours replaces objects: find out who did, and use another backup or another copy.",
        ) from error


def _body(answer: Any, into: memoryview) -> memoryview:
    """Fill `into` with the bytes of an answer. An end that is late is one that came too early."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    try:
        # Not as a context manager: that would hand out urllib3's own stream, whose errors botocore does not translate.
        with closing(answer["Body"]) as body:
            filled = 0
            while filled < len(into):
                if not (size := body.readinto(into[filled : filled + _AT_ONCE])):
                    raise IncompleteReadError(actual_bytes=filled, expected_bytes=len(into))
                filled += size
            return into
    except ReadTimeoutError as error:
        raise ResponseStreamingError(error=error) from error
