"""One transaction on a connection that somebody else opened, whatever its autocommit setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gs_backup_assets.errors import ConfigError

if TYPE_CHECKING:
    import psycopg2.extensions

    from gs_backup_assets.postgres.connection import Connection
else:
    Connection = Any


@contextmanager
def transaction(connection: Connection) -> Iterator[psycopg2.extensions.cursor]:
    """Run the block in a transaction of its own: committed at its end, rolled back on any exception.

    The connection's autocommit setting is the same afterwards; settings made with SET LOCAL end with the block.
    Raises ConfigError (`TRANSACTION_OPEN`) when the connection is inside a transaction, which is not ours to end.
    """
    import psycopg2.extensions

    if connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
        raise ConfigError(
            "TRANSACTION_OPEN", "The connection is inside a transaction.", "Commit it or roll it back before this call."
        )
    before = connection.autocommit
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            yield cursor
        connection.commit()
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
    finally:
        if not connection.closed:
            connection.autocommit = before
