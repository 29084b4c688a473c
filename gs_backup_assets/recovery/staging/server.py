"""The staging server's side of a test: whose turn it is, what names mean, the swap and the way back.

A test works in `<database>_staging_<time>_<token>`. The old database waits as `<database>_before_test_<time>` until the
application was found healthy: while there is one, a test is under way or was killed, and its place is to be given back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_recovery import Staging
from gs_backup_assets.errors import ConfigError, SourceError
from gs_backup_assets.postgres.cluster import drop_database
from gs_backup_assets.postgres.connection import (
    Connection,
    Target,
    connect,
    query,
    server_facts,
    target_from_environment,
)
from gs_backup_assets.recovery.dumps.naming import exchange, name_beside, rename, take_after
from gs_backup_assets.recovery.dumps.servers import RestoreServer

_A_STAMP, _A_TOKEN = "20261122T080003Z", "000000"
_STAMP, _TOKEN = r"\d{8}T\d{6}Z", r"[0-9a-f]{6}"


def staging_section(settings: DatabaseSettings) -> Staging:
    """The section; ConfigError (`NO_STAGING`) without one."""
    if settings.staging is None:
        raise ConfigError("NO_STAGING", "backup.yaml has no staging.", "docs/staging-test.md shows how to add it.")
    return settings.staging


def trial_name(database: str, stamp: str) -> str:
    """The name while the copy is restored and masked: nobody but the test uses it."""
    return name_beside(database, f"staging_{stamp}_{secrets.token_hex(len(_A_TOKEN) // 2)}")


def safety_name(database: str, stamp: str) -> str:
    """The name under which the old database waits."""
    return name_beside(database, f"before_test_{stamp}")


def _like(connection: Connection, example: str, tail: str) -> list[str]:
    head = example[: -len(_A_STAMP)] if tail == _STAMP else example[: -len(f"{_A_STAMP}_{_A_TOKEN}")]
    pattern = re.compile(re.escape(head) + tail)
    names = query(connection, "SELECT datname FROM pg_database ORDER BY 1")
    return [name for (name,) in names if pattern.fullmatch(name)]


def safeties(connection: Connection, database: str) -> list[str]:
    """Old databases that tests have put aside, the oldest first."""
    return _like(connection, safety_name(database, _A_STAMP), _STAMP)


def _trials(connection: Connection, database: str) -> list[str]:
    return _like(connection, name_beside(database, f"staging_{_A_STAMP}_{_A_TOKEN}"), f"{_STAMP}_{_TOKEN}")


def exists(connection: Connection, database: str) -> bool:
    """Whether there is a database of the name."""
    return bool(query(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (database,)))


class Turn:
    """The one test of a database that may be at work; `orders` gives the session that holds the lock.

    For hours nothing is said on it. Where it was ended meanwhile, a new one takes the lock anew.
    """

    def __init__(self, admin: Target, database: str, sessions: ExitStack) -> None:
        # A firewall forgets connections on which nothing is said.
        self._admin = replace(admin, parameters={"keepalives_idle": "60", **admin.parameters})
        self._database = database
        self._sessions = sessions
        self._session: Connection | None = None

    def orders(self) -> Connection:
        """The session. Raises SourceError (`STAGING_BUSY`, `SERVER_UNREACHABLE`)."""
        if self._session is None or not _answers(self._session):
            self._session = self._sessions.enter_context(connect(self._admin, application="gs_backup_staging"))
            key = f"gs_backup staging test of {self._database}"
            if not query(self._session, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (key,))[0][0]:
                raise SourceError(
                    "STAGING_BUSY", f"Another test of {self._database} is at work.", "Wait until it is done, or end it."
                )
        return self._session


def _answers(connection: Connection) -> bool:
    import psycopg2

    try:
        return bool(query(connection, "SELECT 1"))
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        return False


@contextmanager
def only_test(admin: Target, database: str) -> Iterator[Turn]:
    """Give orders inside, while no other test of the same database does. SourceError (`STAGING_BUSY`).

    The lock is the session's: it is gone when this process is, however that ends.
    """
    with ExitStack() as sessions:
        turn = Turn(admin, database, sessions)
        turn.orders()
        yield turn


def require_not_production(
    settings: DatabaseSettings, manifest: Manifest, staging: Target, connection: Connection
) -> None:
    """Refuse the database that the backups are taken of. ConfigError (`STAGING_IS_PRODUCTION`).

    It is the same when name and system identifier are: those of the manifest, and those that the source tells now.
    Where an identifier cannot be read, the name alone decides.
    """
    ours = server_facts(connection).system_identifier
    known = [(manifest.source.name, manifest.server.system_identifier)]
    try:
        source = target_from_environment(settings.url_env)
        same_address = all(
            source.parameters.get(part) == staging.parameters.get(part) for part in ("host", "hostaddr", "port")
        )
        if same_address:
            known.append((source.database, ours))
        with connect(source) as other:
            known.append((source.database, server_facts(other).system_identifier))
    except (ConfigError, SourceError):
        pass  # a prover need not reach the source: the manifest says what it was
    if any(name == staging.database and (theirs is None or ours in (None, theirs)) for name, theirs in known):
        raise ConfigError(
            "STAGING_IS_PRODUCTION",
            f"{staging.redacted()} is the database that the backups are taken of.",
            "Give staging.url_env another address, or the staging database another name.",
        )


def require_ours(connection: Connection, database: str) -> None:
    """Only its owner renames a database: SourceError (`STAGING_NOT_OWNED`) where the role is none of its own."""
    rows = query(
        connection,
        "SELECT format('The role %%I may not rename %%I, which belongs to %%I.', current_user, datname, owner.name),"
        " format('Have a superuser of the staging server run: ALTER DATABASE %%I OWNER TO %%I;', datname, current_user)"
        " FROM pg_database CROSS JOIN LATERAL (SELECT pg_get_userbyid(datdba) AS name) AS owner"
        " WHERE datname = %s AND NOT pg_has_role(datdba, 'USAGE')",
        (database,),
    )
    for message, hint in rows:
        raise SourceError("STAGING_NOT_OWNED", message, hint)


def swap_in(connection: Connection, server: RestoreServer, trial: str, database: str, stamp: str) -> str | None:
    """Give the copy the name of the staging database; returns the name of the old one, None where there was none."""
    if not exists(connection, database):
        rename(connection, trial, database)
        return None
    if server.owners:
        take_after(connection, trial, database)
    safety = safety_name(database, stamp)
    exchange(connection, database, trial, safety)
    return safety


def give_up_safety(connection: Connection, database: str, stamp: str) -> list[str]:
    """Take the old databases their names of the way back; returns those under which they wait to be dropped.

    This is where a test is decided: a test that is killed later has left something to drop, nothing to put back.
    Raises SourceError (`RENAME_REFUSED`).
    """
    names = []
    for safety in safeties(connection, database):
        name = trial_name(database, stamp)
        # Whoever looks into every database of a server would keep it from its new name.
        query(connection, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (safety,))
        rename(connection, safety, name)
        names.append(name)
    return names


@dataclass(frozen=True)
class Repaired:
    """What was `done`, in words, and which copies are `kept`, each with the server's reason: drop them by hand."""

    done: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def words(self) -> str | None:
        """Both; None when there was nothing to put right."""
        return "; ".join((*self.done, *self.kept)) or None


def repair(connection: Connection, database: str, stamp: str) -> Repaired:
    """Put right what a test that was ended midway has left, and say what that was.

    Inside `only_test`. The old database gets its name back, copies of production are dropped; one that the server does
    not drop is in nobody's way. Raises SourceError (`STAGING_AMBIGUOUS`, `DATABASE_IN_USE`, `SWAP_REFUSED`).
    """
    waiting = safeties(connection, database)
    if len(waiting) > 1:
        raise SourceError(
            "STAGING_AMBIGUOUS",
            f"Several databases wait to become {database} again: {', '.join(waiting)}.",
            "Rename the right one by hand, and drop or rename the others.",
        )
    done, kept = [], []
    for safety in waiting:
        if exists(connection, database):
            exchange(connection, database, safety, trial_name(database, stamp))
        else:
            rename(connection, safety, database)
        done.append(f"{safety} is {database} again")
    for trial in _trials(connection, database):
        reason = drop_or_reason(connection, trial)
        if reason is None:
            done.append(f"{trial} is dropped")
        else:
            kept.append(f"{trial} is still there: {reason}")
    return Repaired(tuple(done), tuple(kept))


def drop_or_reason(connection: Connection, name: str) -> str | None:
    """Drop a database; why the server did not, as it does while a slot or a prepared transaction needs it, or None."""
    import psycopg2

    try:
        drop_database(connection, name)
    except psycopg2.Error as error:
        return error.diag.message_primary or "the server went away"
    return None
