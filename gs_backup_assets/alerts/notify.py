"""How a message reaches people: Apprise posts it to every URL that one environment variable holds."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gs_backup_assets.alerts.message import Kind, Message
from gs_backup_assets.errors import BackupError, ConfigError
from gs_backup_assets.system.threads import Threads

if TYPE_CHECKING:
    from apprise import NotifyBase, NotifyType

# A comma or white space parts two URLs only where another URL begins: both may occur inside one.
_BOUNDARY = re.compile(r"[\s,]+(?=[a-z0-9]{1,32}://)", re.IGNORECASE)

# Loggers that write a URL or its path, and with it the token, while a message is posted.
_TALKATIVE = ("apprise", "requests", "urllib3.connection", "urllib3.connectionpool", "urllib3.poolmanager")

# How long it is remembered that a receiver accepted a message which another refused.
_REMEMBER_SECONDS = 3600.0

# The strategy document's variable: used where no other receiver is named.
SLACK_VARIABLE = "SLACK_WEBHOOK_URL"

_RECEIVERS = 8  # served side by side: a slow one keeps nobody waiting
PATIENCE_SECONDS = 25.0  # less than the minute that Dagster gives a sensor

# While a message is posted: what those loggers said of it, as far as it is known to hold no secret. Else None.
_posting: ContextVar[list[str] | None] = ContextVar("gs_backup_posting", default=None)
_STATUS = re.compile(r"error=(\d{3})\b")  # how the plugins of Apprise log the status of an answer


class NotAccepted(BackupError):
    """At least one receiver did not accept a message (`ALERT_NOT_ACCEPTED`): it must be sent again later."""


class Notifier:
    """Posts messages to the Apprise URLs in the environment variable `urls_env`, which is read at every call.

    The variable holds one or several URLs, parted by white space or commas; a Slack webhook is one as it stands. Where
    it is not set, the Slack webhook in SLACK_WEBHOOK_URL is told.
    A message counts as sent when every receiver accepted it, so one that was refused somewhere is sent again by the
    caller. Make one notifier per process: for an hour it remembers which receivers accepted a message that another
    refused, and spares those the repetition. After that hour, or in a new process, they hear it again: twice is
    better than never. Redirects are not followed, because the answer of a login page is no acceptance. A URL that says
    `?optional=yes` never counts as a refusal.
    """

    def __init__(
        self,
        urls_env: str,
        *,
        timeout_seconds: float = 10.0,
        patience_seconds: float = PATIENCE_SECONDS,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout_seconds` bounds one message to one receiver, however slowly that one answers, and
        `patience_seconds` all messages of one call: what is not accepted by then counts as refused.

        Connecting and each read are bounded by Apprise as well: 4 seconds, or `?cto=` and `?rto=` of the URL.
        """
        self._urls_env = urls_env
        self._timeout_seconds = timeout_seconds
        self._patience_seconds = patience_seconds
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._accepted: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    @property
    def configured(self) -> bool:
        """Whether there is any URL. Without one nobody is told anything, and the caller must say so."""
        return bool(self._urls())

    @property
    def variable(self) -> str:
        """The environment variable whose URLs are told."""
        own = self._environment.get(self._urls_env, "").strip()
        return self._urls_env if own or not self._environment.get(SLACK_VARIABLE, "").strip() else SLACK_VARIABLE

    def receivers(self) -> tuple[str, ...]:
        """Scheme and host of every receiver, without its secrets. Raises ConfigError (`ALERT_URL_INVALID`)."""
        urls = self._urls()
        with _silence():
            plugins = [_plugin(url) for url in urls]
            self._require_valid(urls, [plugin is not None for plugin in plugins])
            return tuple(_label(url, plugin) for url, plugin in zip(urls, plugins, strict=True) if plugin is not None)

    def send(self, message: Message) -> bool:
        """Post one message; see `send_all`."""
        return self.send_all((message,))

    def send_all(self, messages: Sequence[Message]) -> bool:
        """Post the messages, in their order, to every receiver. False: no receiver is configured, nothing was sent.

        Without messages the URLs are not looked at; `receivers()` does that.
        A receiver that refuses one message is not offered those after it, and the other receivers are still served.
        Raises NotAccepted (`ALERT_NOT_ACCEPTED`) that names the receivers which refused, and ConfigError
        (`ALERT_URL_INVALID`) for a URL that Apprise does not know, after the valid ones were served.
        """
        urls = self._urls()
        if not urls:
            return False
        if not messages:
            return True
        deadline = time.monotonic() + self._patience_seconds
        with _silence():
            plugins = [(url, _plugin(url)) for url in urls]
            known = [(url, plugin) for url, plugin in plugins if plugin is not None]
            with Threads(_RECEIVERS, "alerts") as pool:
                # Each in this context, which keeps what is logged from holding a URL.
                futures = [
                    pool.submit(copy_context().run, self._offer_all, plugin, url, messages, deadline)
                    for url, plugin in known
                ]
                troubles = [future.result() for future in futures]
            refused = [
                f"{_label(url, plugin)} ({trouble})"
                for (url, plugin), trouble in zip(known, troubles, strict=True)
                if trouble
            ]
        self._require_valid(urls, [plugin is not None for _, plugin in plugins])
        if refused:
            raise NotAccepted(
                "ALERT_NOT_ACCEPTED",
                f"{len(refused)} of {len(urls)} receivers did not accept a message: {', '.join(refused)}.",
                f"It will be sent again. Check that each can be reached and that its URL in {self.variable} is valid.",
            )
        self._forget(urls, messages)
        return True

    def _urls(self) -> tuple[str, ...]:
        parts = _BOUNDARY.split(self._environment.get(self.variable, ""))
        urls = (part.strip(", \t\r\n") for part in parts)
        return tuple(dict.fromkeys(url for url in urls if url))

    def _require_valid(self, urls: Sequence[str], valid: Sequence[bool]) -> None:
        places = [str(place) for place, good in enumerate(valid, 1) if not good]
        if places:
            # Only its place is named: in a URL that nobody understands, any part may be the secret.
            raise ConfigError(
                "ALERT_URL_INVALID",
                f"Apprise knows no receiver for entry {', '.join(places)} of {len(urls)} in {self.variable}.",
                "Write it as Apprise's documentation says, for instance slack://, mailto:// or jsons://.",
            )

    def _offer_all(self, plugin: NotifyBase, url: str, messages: Sequence[Message], deadline: float) -> str:
        """What went wrong with the first message that was not accepted; nothing when all were."""
        offers = (self._offer(plugin, url, message, deadline - time.monotonic()) for message in messages)
        return next(filter(None, offers), "")

    def _offer(self, plugin: NotifyBase, url: str, message: Message, left_seconds: float) -> str:
        key = (_digest(url), message.identity)
        with self._lock:
            horizon = self._clock() - _REMEMBER_SECONDS
            self._accepted = {pair: when for pair, when in self._accepted.items() if when > horizon}
            if key in self._accepted:
                return ""
        if left_seconds <= 0:
            return "no time was left"
        trouble = _post(plugin, message, min(self._timeout_seconds, left_seconds))
        if not trouble:
            with self._lock:
                self._accepted[key] = self._clock()
        return trouble

    def _forget(self, urls: Sequence[str], messages: Sequence[Message]) -> None:
        # What everybody accepted is done: the same words may be news another day.
        with self._lock:
            for url in urls:
                for message in messages:
                    self._accepted.pop((_digest(url), message.identity), None)


def _plugin(url: str) -> NotifyBase | None:
    from apprise import Apprise, AppriseAsset  # imported here: it is slow, and loading the definitions must not pay

    asset = AppriseAsset(app_id="gs-backup", http_redirects=False, storage_mode="memory", secure_logging=True)
    return Apprise.instantiate(url, asset=asset)


def _post(plugin: NotifyBase, message: Message, timeout_seconds: float) -> str:
    """Post once; returns what went wrong, in words that hold nothing of the URL: it is a secret."""
    from apprise import Apprise, NotifyFormat
    from apprise.result import AppriseResultStatus

    apprise = Apprise(plugin, asset=plugin.asset)
    heard: list[str] = []
    token = _posting.set(heard)
    try:
        result = apprise.notify(
            title=message.title,
            body=message.body if message.body.strip() else message.title,  # Apprise refuses an empty body
            notify_type=_notify_type(message.kind),
            body_format=NotifyFormat.TEXT,
            timeout=timeout_seconds,
        )
    except Exception as error:  # a plugin may raise anything, and its words may hold the URL: it did not accept
        return f"its plugin failed, {type(error).__name__}"
    finally:
        _posting.reset(token)
    if result:
        return ""
    if result.status is AppriseResultStatus.TIMEOUT:
        return f"no answer within {timeout_seconds:.3g} s"
    # Apprise tells no refused connection from one that was cut off or silent: how long it took does.
    return heard[-1] if heard else f"not reached, or no answer, after {result.elapsed:.1f} s"


def _notify_type(kind: Kind) -> NotifyType:
    from apprise import NotifyType

    return {
        "problem": NotifyType.FAILURE,
        "reminder": NotifyType.WARNING,
        "event": NotifyType.WARNING,
        "recovered": NotifyType.SUCCESS,
        "success": NotifyType.SUCCESS,
        "failure": NotifyType.FAILURE,
    }[kind]


def _label(url: str, plugin: NotifyBase) -> str:
    scheme = url.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return f"{scheme}://{urlsplit(url).hostname}"
    # Where a host is not required, the same place in the URL may hold a token instead.
    host = plugin.template_tokens.get("host", {})
    if host.get("required") and not host.get("private") and "map_to" not in host:
        return f"{scheme}://{plugin.host}" + (f":{plugin.port}" if plugin.port else "")
    return f"{scheme}://…"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


class _WhilePosting(logging.Filter):
    """Drops records written while a message is posted, in this context or a worker thread of it, and no others.

    Of what it drops it keeps the status of an answer.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        heard = _posting.get()
        if heard is None:
            return True
        if status := _STATUS.search(record.getMessage()):
            heard.append(f"it answered with status {status[1]}")
        return False


_FILTER = _WhilePosting()


@contextmanager
def _silence() -> Iterator[None]:
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_FILTER)
    token = _posting.set([])
    try:
        yield
    finally:
        _posting.reset(token)
