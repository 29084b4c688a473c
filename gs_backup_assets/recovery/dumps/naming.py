"""Gives a restored database its name: at once, or in exchange with the database that it replaces."""

from __future__ import annotations

import re
import time

from gs_backup_assets.errors import SourceError
from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.inventory import quote

_NAME_BYTES = 63  # NAMEDATALEN - 1: the server cuts longer names without a word
_PATIENCE_SECONDS = 30.0
_RESTORING = "restoring"
_A_STAMP, _A_TOKEN = "20261122T080003Z", "000000"
_TAIL = len(f"{_A_STAMP}_{_A_TOKEN}")


def name_beside(database: str, what: str) -> str:
    """`<database>_<what>`, the database's name cut so that the whole fits into PostgreSQL's 63 bytes."""
    room = _NAME_BYTES - len(what.encode()) - 1
    return f"{database.encode()[:room].decode(errors='ignore')}_{what}"


def working_name(database: str, stamp: str, token: str) -> str:
    """The name while the restore is at work; `token` makes it ours alone, so that dropping it never hits another's."""
    return name_beside(database, f"{_RESTORING}_{stamp}_{token}")


def half_restored(connection: Connection, database: str) -> tuple[str, ...]:
    """Databases that restores of the same name are working on, or left behind when they were killed."""
    pattern = re.compile(re.escape(working_name(database, _A_STAMP, _A_TOKEN)[:-_TAIL]) + r"\d{8}T\d{6}Z_[0-9a-f]{6}")
    names = query(connection, "SELECT datname FROM pg_database ORDER BY 1")
    return tuple(name for (name,) in names if pattern.fullmatch(name))


def rename(connection: Connection, current: str, new: str) -> None:
    """Rename a database that nobody uses. SourceError (`RENAME_REFUSED`)."""
    import psycopg2

    try:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {quote(current)} RENAME TO {quote(new)}")
    except psycopg2.Error as error:
        raise SourceError(
            "RENAME_REFUSED",
            f"The restored database is complete, but it keeps the name {current}: {_first_line(error)}.",
            f"Put right what the server says, then: ALTER DATABASE {quote(current)} RENAME TO {quote(new)};",
        ) from error


def exchange(connection: Connection, current: str, restored: str, kept_as: str) -> None:
    """Exchange the names in one transaction, after ending the sessions of the old database.

    A rename locks new sessions out, and gives old ones five seconds to go (PostgreSQL's `RenameDatabase`); where one
    slips in before the lock, the whole is tried again. Nothing is switched off that a killed restore would leave off.
    Raises SourceError (`DATABASE_IN_USE`, `SWAP_REFUSED`); then nothing is replaced.
    """
    import psycopg2

    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            _exchange_once(connection, current, restored, kept_as)
            return
        except psycopg2.errors.ObjectInUse as error:
            if time.monotonic() > deadline:
                raise SourceError(
                    "DATABASE_IN_USE",
                    f"Sessions of {current} do not end: {_first_line(error)}. Nothing is replaced.",
                    f"Stop the application; the restored database waits under the name {restored}.",
                ) from error
        except psycopg2.Error as error:
            raise SourceError(
                "SWAP_REFUSED",
                f"The names cannot be exchanged: {_first_line(error)}. Nothing is replaced.",
                f"The restored database waits under the name {restored}; an owner of both can rename them.",
            ) from error


def _exchange_once(connection: Connection, current: str, restored: str, kept_as: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (current,))
        cursor.execute("BEGIN")
        try:
            cursor.execute(f"ALTER DATABASE {quote(current)} RENAME TO {quote(kept_as)}")
            cursor.execute(f"ALTER DATABASE {quote(restored)} RENAME TO {quote(current)}")
            cursor.execute("COMMIT")
        except BaseException:
            if not connection.closed:
                cursor.execute("ROLLBACK")
            raise


# The database itself is not in a dump: who owns it (and so may use the schema public, since 15) and who may connect.
_OWNER_AND_GRANTS = """
SELECT format('ALTER DATABASE %%I OWNER TO %%I', %(new)s, pg_get_userbyid(datdba))
FROM pg_database WHERE datname = %(old)s
UNION ALL
SELECT format('REVOKE ALL ON DATABASE %%I FROM PUBLIC', %(new)s)
FROM pg_database WHERE datname = %(old)s AND datacl IS NOT NULL
UNION ALL
SELECT format('GRANT %%s ON DATABASE %%I TO %%s%%s', a.privilege_type, %(new)s,
              CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_database, aclexplode(datacl) AS a WHERE datname = %(old)s
"""


def take_after(connection: Connection, restored: str, current: str) -> None:
    """Give the restored database the owner and the grants of the one that it is going to replace; for a superuser."""
    for (statement,) in query(connection, _OWNER_AND_GRANTS, {"old": current, "new": restored}):
        query(connection, statement)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
