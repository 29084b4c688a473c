"""Requests about one object in S3, sent again where that helps: after damage on the way, and over a short outage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from gs_backup_assets.vault.s3_errors import code_of, status_of, was_repeated

_T = TypeVar("_T")
# Seconds between tries. botocore itself repeats a request that fails, but over less than two seconds and with one
# budget for all threads ("Retry behavior" of AWS SDKs): a server that restarts would end an upload that took hours.
PAUSES = (0.2, 1.0, 5.0, 15.0)
_DAMAGED = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_BUSY_WITH_THE_KEY = "ConditionalRequestConflict"
_OUTAGES = frozenset({500, 502, 503, 504})
_THROTTLED = "SlowDown"  # botocore has made long pauses for this one


@dataclass(frozen=True)
class Place:
    """One object in a bucket, the client to reach it with, and the seconds to pause between tries."""

    client: Any
    bucket: str
    key: str
    pauses: tuple[float, ...] = PAUSES

    @property
    def names(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}


def again(place: Place, request: Callable[[], _T]) -> _T:
    """Send a request, and again when another try may pass. Raises what boto3 raises."""
    from botocore.exceptions import BotoCoreError, ClientError

    for pause in place.pauses:
        try:
            return request()
        except (BotoCoreError, ClientError) as error:
            if not _may_pass(error):
                raise
        time.sleep(pause)
    return request()


def store_once(place: Place, request: Callable[[], object], is_ours: Callable[[], bool]) -> None:
    """Send, as `again` does, a request that brings an object into being and is refused when it is there.

    A try whose answer was lost may have had its effect: then the next one is refused, and all is well if the object
    `is_ours`.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    tries = 0

    def send() -> None:
        nonlocal tries
        tries += 1
        try:
            request()
        except (BotoCoreError, ClientError) as error:
            gone = code_of(error) == "NoSuchUpload"  # by another copy that went on with the same upload
            refused = exists_already(error) and (tries > 1 or was_repeated(error))
            if not ((gone or refused) and is_ours()):
                raise

    again(place, send)


def exists_already(error: BaseException) -> bool:
    """Whether a conditional request was refused because the object is there."""
    return code_of(error) in ("PreconditionFailed", "412")


def head(place: Place, **options: str) -> dict[str, Any]:
    """What the server says of an object. Raises what boto3 raises."""
    from botocore.exceptions import ClientError

    try:
        told: dict[str, Any] = place.client.head_object(**place.names, **options)
        return told
    except ClientError as error:
        # Such an answer has no body and so no code: asked for a byte, the server says what it has against us.
        if status_of(error) in (400, 403):
            place.client.get_object(**place.names, Range="bytes=0-0")
        raise


def checksum_of(place: Place) -> str | None:
    """The server's SHA-256 of an object as S3 writes it; None when the object is not there, or has none."""
    from botocore.exceptions import ClientError

    try:
        checksum: str | None = head(place, ChecksumMode="ENABLED").get("ChecksumSHA256")
    except ClientError as error:
        if status_of(error) != 404:
            raise
        return None
    return checksum


def _may_pass(error: Exception) -> bool:
    from botocore.exceptions import (
        ConnectionError,
        ConnectTimeoutError,
        HTTPClientError,
        IncompleteReadError,
        ReadTimeoutError,
        SSLError,
    )

    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError, SSLError)):
        return False  # the first two have taken minutes already
    if isinstance(error, (ConnectionError, HTTPClientError, IncompleteReadError)):
        return True
    code = code_of(error)
    return code in _DAMAGED or code == _BUSY_WITH_THE_KEY or (status_of(error) in _OUTAGES and code != _THROTTLED)
