"""Who may look: a bearer token for programs, and a signed cookie, given in exchange for the token, for browsers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping

from gs_backup_assets.errors import ConfigError

COOKIE = "gs_backup_session"
SESSION_SECONDS = 12 * 3600
_SHORTEST = 16
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class Access:
    """Judges tokens and cookies in constant time. Without a token everybody who gets here may look."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    @property
    def needed(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    def is_token(self, given: str) -> bool:
        """Whether `given` is the token. False without one: nothing can be started by everybody."""
        return self._token is not None and hmac.compare_digest(_digest(given), _digest(self._token))

    def has_bearer(self, header: str | None) -> bool:
        """Whether an Authorization header bears the token."""
        scheme, _, given = (header or "").strip().partition(" ")
        return scheme.lower() == "bearer" and self.is_token(given.strip())

    def new_cookie(self, now: float) -> str:
        """A session's cookie: when it ends, in seconds since 1970, and a signature that only the token can make."""
        end = str(int(now) + SESSION_SECONDS)
        return f"{end}.{self._signature(end)}"

    def has_cookie(self, cookie: str | None, now: float) -> bool:
        """Whether the cookie is one of ours, and its session has not ended at `now`."""
        end, _, signature = (cookie or "").partition(".")
        if self._token is None or not (end.isascii() and end.isdigit()) or len(end) > 12:
            return False
        genuine = hmac.compare_digest(signature.encode(), self._signature(end).encode())
        return genuine and int(end) > now

    def _signature(self, end: str) -> str:
        key = (self._token or "").encode()
        return hmac.new(key, f"gs-backup session until {end}".encode(), hashlib.sha256).hexdigest()


def choose_access(host: str, token_env: str, environment: Mapping[str, str]) -> Access:
    """The access for a server that listens on `host`.

    Raises ConfigError: `TOKEN_MISSING` when others than this machine could look without a token, `TOKEN_WEAK` when the
    token can be guessed.
    """
    token = environment.get(token_env, "").strip()
    if not token:
        if not is_loopback(host):
            raise ConfigError(
                "TOKEN_MISSING",
                f"Others could reach {host}, and {token_env} holds no token.",
                f"Set {token_env}, for instance to what `openssl rand -hex 32` prints, or listen on 127.0.0.1.",
            )
        return Access(None)
    if len(token) < _SHORTEST:
        raise ConfigError(
            "TOKEN_WEAK",
            f"The token in {token_env} has fewer than {_SHORTEST} characters.",
            "Use what `openssl rand -hex 32` prints.",
        )
    return Access(token)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(text: str) -> bytes:
    # Of equal length whatever was given: the comparison tells nothing of the token's length.
    return hashlib.sha256(text.encode()).digest()
