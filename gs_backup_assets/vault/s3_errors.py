"""What an S3 server's answers mean: each becomes a StoreError with a stable code and something to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gs_backup_assets.errors import StoreError

_ACCESS = (
    "Look at the policies of the bucket and of the user or role; docs/offsite.md shows the least that is needed.",
)
_CODES: dict[str, tuple[str, str, str]] = {
    # S3's code: (our code, what happened, what to do)
    "NoSuchKey": ("OBJECT_MISSING", "the object is not there", "Somebody removed it; use another backup."),
    "NoSuchVersion": ("OBJECT_MISSING", "the object is not there", "Somebody removed it; use another backup."),
    "404": ("OBJECT_MISSING", "the object is not there", "Somebody removed it; use another backup."),
    "PreconditionFailed": ("OBJECT_EXISTS", "the object is there already", "Objects are never replaced; start again."),
    "412": ("OBJECT_EXISTS", "the object is there already", "Objects are never replaced; start again."),
    "NoSuchBucket": ("BUCKET_MISSING", "there is no such bucket", "Create the bucket, or correct its name or region."),
    "InvalidObjectState": (
        "OBJECT_ARCHIVED",
        "the object is in an archive class, from which it cannot be read at once",
        "Ask S3 to bring it back (`aws s3api restore-object`), and try again in some hours.",
    ),
    "RequestTimeTooSkewed": (
        "CLOCK_SKEWED",
        "the clock of this machine and that of the server differ too much",
        "Set this machine's clock (NTP), and try again.",
    ),
    "RequestExpired": (
        "CLOCK_SKEWED",
        "the clock of this machine and that of the server differ too much",
        "Set this machine's clock (NTP), and try again.",
    ),
    "QuotaExceeded": ("STORE_FULL", "no space is left", "Free space or raise the quota."),
    "InsufficientStorage": ("STORE_FULL", "no space is left", "Free space or raise the quota."),
    "507": ("STORE_FULL", "no space is left", "Free space or raise the quota."),
    "BadDigest": (
        "TRANSFER_DAMAGED",
        "the bytes that arrived are not those that were sent",
        "Try again; if it stays, look for a proxy, or bad memory or network, between here and the store.",
    ),
    "XAmzContentChecksumMismatch": (
        "TRANSFER_DAMAGED",
        "the bytes that arrived are not those that were sent",
        "Try again; if it stays, look for a proxy, or bad memory or network, between here and the store.",
    ),
    "XAmzContentSHA256Mismatch": (
        "TRANSFER_DAMAGED",
        "the bytes that arrived are not those that were sent",
        "Try again; if it stays, look for a proxy, or bad memory or network, between here and the store.",
    ),
}
_REFUSED = frozenset({"AccessDenied", "403", "AllAccessDisabled", "UnauthorizedAccess"})
_LOGIN = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "401"}
)


def code_of(error: BaseException) -> str:
    """S3's code of a ClientError; empty for other errors."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def status_of(error: BaseException) -> int:
    """The HTTP status of a ClientError; 0 for other errors."""
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def was_repeated(error: BaseException) -> bool:
    """Whether botocore had sent the request more than once: an earlier one may have had its effect."""
    return int(_response(error).get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0


def _response(error: BaseException) -> dict[str, Any]:
    """What a ClientError holds. Errors of the connection have such an attribute as well, and nothing in it."""
    return getattr(error, "response", None) or {}


@contextmanager
def translated(store: str, key: str) -> Iterator[None]:
    """Turn what boto3 raises into a StoreError about `key` in `store`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error) as error:
        raise store_error(error, store, key) from error


def store_error(error: Exception, store: str, key: str) -> StoreError:
    """The StoreError for what boto3 raised."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError, ProfileNotFound

    code, status = code_of(error), status_of(error)
    if code in _CODES:
        ours, words, hint = _CODES[code]
        return StoreError(ours, f"{_name(store, key)}: {words}.", hint)
    if code in _REFUSED or (status == 403 and code not in _LOGIN):
        return StoreError(
            "STORE_ACCESS_DENIED", f"{_name(store, key)}: the server refuses it ({code or status}).", _ACCESS[0]
        )
    if code in _LOGIN or isinstance(error, (NoCredentialsError, PartialCredentialsError, ProfileNotFound)):
        words = code or " ".join(str(error).split()).rstrip(".")
        hint = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, or name variables in backup.yaml."
        return StoreError("STORE_CREDENTIALS", f"{store}: the credentials are missing or not accepted: {words}.", hint)
    words = f"{code} ({status})" if code else " ".join(str(error).split()).rstrip(".")
    hint = "It may pass: try again. Then look at the endpoint, the region, the network, and the server's own log."
    return StoreError("STORE_UNAVAILABLE", f"{_name(store, key)} cannot be used: {words}.", hint)


def _name(store: str, key: str) -> str:
    return f"{store}/{key}" if key else store
