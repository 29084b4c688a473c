"""Roles as a backup must bring them back: attributes, memberships and settings; never passwords or their verifiers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, query

# What CREATE ROLE can say (PostgreSQL manual, "CREATE ROLE"), in the words of the command.
_ATTRIBUTES = {
    "SUPERUSER": "rolsuper",
    "INHERIT": "rolinherit",
    "CREATEROLE": "rolcreaterole",
    "CREATEDB": "rolcreatedb",
    "LOGIN": "rolcanlogin",
    "REPLICATION": "rolreplication",
    "BYPASSRLS": "rolbypassrls",
}


class Role(BaseModel):
    """A role: its attributes, the roles that it is a member of (with the admin option or not), and its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    attributes: tuple[str, ...]
    connection_limit: int
    valid_until: str | None
    member_of: tuple[str, ...]
    settings: tuple[str, ...]


def read_roles(connection: Connection) -> tuple[Role, ...]:
    """Every role but the predefined ones, by name. Any role may read this."""
    attributes = ", ".join(_ATTRIBUTES.values())
    members: dict[str, list[str]] = {}
    for member, group, admin in query(
        connection,
        "SELECT m.rolname, g.rolname, bool_or(a.admin_option) FROM pg_auth_members a"
        " JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid GROUP BY 1, 2 ORDER BY 1, 2",
    ):
        members.setdefault(member, []).append(f"{group} WITH ADMIN" if admin else group)
    return tuple(
        Role(
            name=name,
            attributes=tuple(word for word, has in zip(_ATTRIBUTES, flags, strict=True) if has),
            connection_limit=limit,
            valid_until=until,
            member_of=tuple(members.get(name, ())),
            settings=tuple(sorted(settings or ())),
        )
        for name, limit, until, settings, *flags in query(
            connection,
            f"SELECT rolname, rolconnlimit, rolvaliduntil::text, rolconfig, {attributes}"
            " FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1",
        )
    )
