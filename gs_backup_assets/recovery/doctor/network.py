"""The doctor's checks of the way to the server: address, login, encryption, and poolers in between."""

from __future__ import annotations

import ipaddress
import re
import socket

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, not_verified, passed

_REACH_SECONDS = 5.0
_DEFAULT_PORT = "5432"
_POOLER_PORTS = frozenset({"6432", "6543"})  # PgBouncer's own, and the transaction pooler's of managed services
_TLS_WORDS = re.compile(r"SSL|certificate|TLS", re.IGNORECASE)

# The server's words in the C locale or the client library's own, and what they call for.
_LOGIN_HINTS = (
    (r"password authentication failed", "Role or password is wrong; a URL needs special characters percent-encoded."),
    (r"no password supplied", "Write the password into the URL."),
    (r"role .* does not exist", "Create the role: CREATE ROLE name LOGIN PASSWORD '...';"),
    (r"database .* does not exist", "The URL names a database that is not there; the name's case matters."),
    (r"permission denied for database", "GRANT CONNECT ON DATABASE name TO role;"),
    (r"is not permitted to log in", "ALTER ROLE name LOGIN;"),
    (r"no pg_hba\.conf entry", "The server's pg_hba.conf does not let this address, role or encryption in."),
    (r"too many (clients|connections)|connection slots", "No connection is free: raise max_connections, or wait."),
    (r"starting up|shutting down|in recovery mode", "The server is not ready; try again in a moment."),
    (r"timeout expired", "Nothing answered: a firewall, or the wrong address."),
)


def address(target: Target, connection: Connection | None) -> Diagnosis:
    """Whether the name resolves and something listens there. A session is the proof; without one each step is tried."""
    if connection is not None:
        return passed("address", f"{target.redacted()} answers.")
    places = _places(target)
    if not places:
        return not_verified("address", "The URL names no host; where it leads is for the client library to know.")
    problems = [problem for problem in (_unreachable(host, port) for host, port in places) if problem]
    if len(problems) < len(places):
        return passed("address", f"Something listens at {target.redacted()}.", problems)
    return failed(
        "address",
        problems[0],
        problems[1:],
        "Check that the server runs, that the URL has its address and port, and that no firewall is in between.",
    )


def _places(target: Target) -> list[tuple[str, str]]:
    parameters = target.parameters
    hosts = (parameters.get("hostaddr") or parameters.get("host") or "").split(",")
    ports = parameters.get("port", _DEFAULT_PORT).split(",")
    if len(ports) != len(hosts):
        ports = [ports[0]] * len(hosts)
    return [(host, port or _DEFAULT_PORT) for host, port in zip(hosts, ports, strict=True) if host]


def _unreachable(host: str, port: str) -> str | None:
    """Why nothing answers there; None when something does."""
    if host.startswith(("/", "@")):
        path = f"{host}/.s.PGSQL.{port}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local:
            local.settimeout(_REACH_SECONDS)
            try:
                local.connect(path.replace("@", "\0", 1) if host.startswith("@") else path)
            except OSError as error:
                return f"No server at the socket {path}: {error.strerror or error}."
        return None
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return f"The name {host} does not resolve: {getattr(error, 'strerror', None) or error}."
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"Nothing answers at {host}, port {port}: {getattr(error, 'strerror', None) or error}."
    return None


def is_tls_failure(error: SourceError) -> bool:
    """Whether the connection broke on encryption, before any password was asked for."""
    return bool(_TLS_WORDS.search(error.message)) and "pg_hba" not in error.message


def login(target: Target, error: SourceError | None, reached: Diagnosis) -> Diagnosis:
    """Whether the role gets in."""
    if error is None:
        return passed("login", f"The role {target.parameters.get('user', '')!r} may connect.".replace("'", ""))
    if reached.status is reached.status.FAILED:
        return not_verified("login", "The address could not be reached.")
    if is_tls_failure(error):
        return not_verified("login", "No encrypted connection could be made.")
    hint = next((advice for words, advice in _LOGIN_HINTS if re.search(words, error.message)), error.hint)
    return failed("login", error.message, hint=hint)


def tls(target: Target, connection: Connection | None, error: SourceError | None) -> Diagnosis:
    """Whether the session is encrypted, where it crosses a network."""
    if connection is None:
        if error is None or not is_tls_failure(error):
            return not_verified("tls", "There is no session to look at.")
        hint = "verify-full needs sslrootcert=FILE (or =system) with the provider's authority; a server needs ssl=on."
        return failed("tls", error.message, hint=hint)
    mode = target.parameters.get("sslmode", "prefer")
    if is_encrypted(connection):
        summary = f"The session is encrypted ({_cipher(connection)})."
        if mode == "verify-full":
            return passed("tls", summary)
        detail = f"sslmode={mode} does not check whose server it is: somebody in between could read and change all"
        return passed("tls", summary, [detail], "Add sslmode=verify-full and sslrootcert=FILE to the URL.")
    return _unencrypted(target, connection, mode)


def _unencrypted(target: Target, connection: Connection, mode: str) -> Diagnosis:
    if _is_local(target, connection):
        return passed("tls", "The session stays on this machine: encryption is not needed.")
    risk = "everybody on the network's path can read the data and the password"
    if mode == "disable":
        return passed("tls", "The session is not encrypted, as sslmode=disable asks for.", [risk])
    return failed(
        "tls",
        "The session is not encrypted.",
        [risk],
        "Turn TLS on at the server and add sslmode=verify-full to the URL; on a trusted network say sslmode=disable.",
    )


def is_encrypted(connection: Connection) -> bool:
    """Whether this side of the session uses TLS."""
    return bool(connection.info.ssl_in_use)


def _cipher(connection: Connection) -> str:
    # This side's view: where a proxy ends the encryption, pg_stat_ssl tells of the proxy's session instead.
    return ", ".join(str(connection.info.ssl_attribute(name)) for name in ("protocol", "cipher"))


def _is_local(target: Target, connection: Connection) -> bool:
    """Over a socket, or over the loopback interface."""
    name = target.parameters.get("hostaddr") or connection.info.host or ""
    if not name or name.startswith(("/", "@")):
        return True
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(name, None)}
        return all(ipaddress.ip_address(str(one).split("%", maxsplit=1)[0]).is_loopback for one in addresses)
    except (OSError, ValueError):
        return False


def pooler(target: Target, connection: Connection) -> Diagnosis:
    """Whether the session keeps its server process: exported snapshots and advisory locks live in one.

    A proxy shows where the process that the handshake names is not the one that answers. Whether it pools by
    transaction shows when another session takes a process and keeps it.
    """
    advice = "Use the database's direct address (with Prisma the one in DIRECT_URL), not the pooler's."
    port = target.parameters.get("port", _DEFAULT_PORT)
    signs = [f"port {port} is a pooler's by custom"] if port in _POOLER_PORTS else []
    if target.pooled:
        signs.append("the URL says pgbouncer=true")
    answering = _answering(connection)
    if connection.info.backend_pid in answering and len(answering) == 1:
        return passed("pooler", "The session is direct: no pooler stands in between.", signs)
    with connect(target, application="gs_backup doctor", autocommit=False) as second:
        query(second, "SELECT 1")
        answering |= _answering(connection)
    if len(answering) > 1:
        summary = "More than one server process answered one session: a transaction pooler stands in between."
        return failed("pooler", summary, signs, advice)
    if signs:
        summary = "A pooler stands in between, and by the looks of it one that shares processes between sessions."
        return failed("pooler", summary, signs, advice)
    return passed(
        "pooler",
        "A proxy stands in between; it kept the session's process, as a backup needs.",
        ["should it ever pool by transaction, a backup can fail half-way"],
        "A direct address is the safer one.",
    )


def _answering(connection: Connection) -> set[int]:
    return {query(connection, "SELECT pg_backend_pid()")[0][0] for _ in range(8)}
