"""The heartbeat: an address elsewhere is asked for after each proven backup, and raises the alarm when it is not."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as NotInTime
from datetime import datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from gs_backup_assets import __version__
from gs_backup_assets.catalogue.manifest import parse_id
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.system.threads import Threads

_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0


class HeartbeatFailed(BackupError):
    """The heartbeat's address could not be asked for, or did not answer that it heard (`HEARTBEAT_NOT_ACCEPTED`)."""


class _NoRedirects(HTTPRedirectHandler):
    """The answer of a page to which one is sent, such as a login, does not say that the heartbeat was heard."""

    def redirect_request(self, *_: Any) -> None:
        return None


def beat_after_proof(
    settings: DatabaseSettings,
    record: ProofRecord,
    now: datetime,
    *,
    on_record: bool,
    timeout_seconds: float = 10.0,
    environment: Mapping[str, str] | None = None,
) -> HeartbeatFailed | None:
    """Ask for the heartbeat's address if `record` proves a backup that is fresh at `now`; returns what went wrong.

    Anything but a proven backup whose proof is `on_record` in a store keeps silent, and so does the proof of an old
    backup: that a backup of last month is sound says nothing of those since. Without an address nothing is done.
    The failure is for the caller to tell: it must not make a failure of a good backup. Waits up to three times
    `timeout_seconds`.
    """
    url = (os.environ if environment is None else environment).get(settings.alerts.heartbeat_url_env, "").strip()
    fresh = now - parse_id(record.backup_id) <= settings.alerts.stale_after
    if not url or record.verdict is not Verdict.PROVEN or not on_record or not fresh:
        return None
    trouble = "It is no http:// or https:// address."
    if is_address(url):
        for attempt in range(_ATTEMPTS):
            time.sleep(_PAUSE_SECONDS if attempt else 0)
            trouble = _ask(url, timeout_seconds)
            if not trouble:
                return None
    variable = settings.alerts.heartbeat_url_env
    return HeartbeatFailed(
        "HEARTBEAT_NOT_ACCEPTED",
        f"The backup is proven, but the heartbeat at the address in {variable} was not heard. {trouble}",
        f"Check {variable} and the way there: whoever listens will raise the alarm.",
    )


def is_address(url: str) -> bool:
    """Whether it is an http:// or https:// address with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _ask(url: str, timeout_seconds: float) -> str:
    """Ask once; returns what went wrong, in words that hold nothing of the address: it is a secret."""
    # In a thread: the timeout of a socket bounds each read only, and a server may answer byte by byte.
    future = Threads(1, "heartbeat").submit(_get, url, timeout_seconds)
    try:
        status = future.result(timeout_seconds)
    except (NotInTime, TimeoutError):
        return f"There was no answer within {timeout_seconds:.0f} s."
    except HTTPError as error:
        status = error.code
    except (OSError, HTTPException, ValueError) as error:
        # URLError is an OSError; its reason is what went wrong, and may be a mere text that holds the address.
        reason = getattr(error, "reason", error)
        return f"It could not be reached: {type(reason).__name__}."
    return "" if 200 <= status < 300 else f"It answered with status {status}."


def _get(url: str, timeout_seconds: float) -> int:
    request = Request(url, headers={"User-Agent": f"gs-backup/{__version__}"})
    with build_opener(_NoRedirects).open(request, timeout=timeout_seconds) as answer:
        return int(answer.status)
