"""Asks an application's health address until it answers as it should, or a deadline has passed."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from gs_backup_assets.config_recovery import Health
from gs_backup_assets.errors import ProofFailed

_PAUSE_SECONDS = 0.5
_LONGEST_ANSWER_SECONDS = 10.0
_MOST_BYTES = 1 << 20
_ADVICE = "Look at the application's log. When it is corrected, run this again: it goes on with this step."


@dataclass(frozen=True)
class Healthy:
    """How often was asked, and how many seconds it took until the answer was right."""

    asked: int
    seconds: float


def wait_until_healthy(
    health: Health, tick: Callable[[str], None] = lambda _words: None, *, advice: str = _ADVICE
) -> Healthy:
    """Poll with a deadline. `tick` is told each wrong answer. Raises ProofFailed (`HEALTH_NOT_REACHED`, `advice`).

    No proxy is used, and redirects are followed: what counts is the last answer's status, and the text in it.
    """
    started = time.monotonic()
    deadline = started + health.deadline.total_seconds()
    asked, wrong = 0, "it was not asked"
    while (left := deadline - time.monotonic()) > 0:
        asked += 1
        problem = _ask(health, min(left, _LONGEST_ANSWER_SECONDS))
        if problem is None:
            return Healthy(asked, time.monotonic() - started)
        if problem != wrong:
            tick(problem)
        wrong = problem
        time.sleep(max(0.0, min(_PAUSE_SECONDS, deadline - time.monotonic())))
    raise ProofFailed(
        "HEALTH_NOT_REACHED",
        f"{health.url} did not answer as it should within {health.deadline.total_seconds():.0f} s: {wrong}.",
        advice,
    )


def _ask(health: Health, timeout: float) -> str | None:
    """What is wrong with the answer; None when nothing is. It may take `timeout` seconds in all."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + timeout
    try:
        with opener.open(health.url, timeout=timeout) as answer:
            status, body = answer.status, _read(answer, end)
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, _read(error, end)
    except TimeoutError:
        return "it does not answer in time"
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return "it does not answer in time" if isinstance(reason, TimeoutError) else f"no answer: {reason}"
    if status != health.status:
        return f"its status is {status}, not {health.status}"
    if body is None:
        return "it does not answer in time"
    if health.expect is not None and health.expect.encode() not in body:
        return f"its answer does not hold {health.expect!r}"
    return None


def _read(answer: http.client.HTTPResponse | urllib.error.HTTPError, end: float) -> bytes | None:
    """At most a megabyte; None when it did not come in time, however many small pieces came."""
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < _MOST_BYTES:
        if time.monotonic() > end:
            return None
        try:
            piece = answer.read1(1 << 16)
        except OSError:
            return None
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)
