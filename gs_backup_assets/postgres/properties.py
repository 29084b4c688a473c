"""What belongs to a database itself and to no object in it: owner, privileges, comment, connection limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, query

if TYPE_CHECKING:
    from psycopg2 import sql

PUBLIC = ""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grant(_Record):
    """One privilege on the database; the grantee is empty for PUBLIC."""

    grantee: str
    privilege: str
    grantable: bool


class DatabaseProperties(_Record):
    """A database's own properties; `connection_limit` is -1 for none."""

    owner: str
    comment: str | None
    connection_limit: int
    grants: tuple[Grant, ...]


def read_properties(connection: Connection, database: str | None = None) -> DatabaseProperties:
    """The properties of `database`, or of the connected one."""
    oid, owner, comment, limit = query(
        connection,
        "SELECT d.oid::bigint, pg_get_userbyid(d.datdba), shobj_description(d.oid, 'pg_database'), d.datconnlimit"
        " FROM pg_database d WHERE d.datname = coalesce(%s, current_database())",
        (database,),
    )[0]
    grants = query(
        connection,
        "SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,"
        " bool_or(a.is_grantable) FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a"
        " WHERE d.oid = %s GROUP BY 1, 2 ORDER BY 1, 2",
        (oid,),
    )
    return DatabaseProperties(
        owner=owner,
        comment=comment,
        connection_limit=limit,
        grants=tuple(Grant(grantee=who, privilege=what, grantable=passed_on) for who, what, passed_on in grants),
    )


def apply_properties(connection: Connection, database: str, wanted: DatabaseProperties) -> tuple[str, ...]:
    """Give `database` the wanted properties; returns what the server refused, as text. Needs a superuser."""
    import psycopg2
    from psycopg2 import sql

    name = sql.Identifier(database)
    have = read_properties(connection, database)
    statements = [
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(wanted.owner)),
        sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(wanted.connection_limit)),
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, sql.Literal(wanted.comment)),
        *(
            sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(name, _grantee(grantee))
            for grantee in {wanted.owner, PUBLIC, *(grant.grantee for grant in have.grants)}
        ),
        *(
            sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(grant.privilege), name, _grantee(grant.grantee))
            + sql.SQL(" WITH GRANT OPTION" if grant.grantable and grant.grantee != wanted.owner else "")
            for grant in wanted.grants
        ),
    ]
    refused = []
    for statement in statements:
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.Error as error:
            refused.append(str(error).splitlines()[0])
    return tuple(refused)


def _grantee(name: str) -> sql.Composable:
    from psycopg2 import sql

    return sql.Identifier(name) if name != PUBLIC else sql.SQL("PUBLIC")
