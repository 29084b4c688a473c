"""Roles as a backup must bring them back: attributes, memberships, digests of settings; never anything secret."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.settings import value_digest

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


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoleSetting(_Record):
    """One `ALTER ROLE ... SET`; `sha256` is of its value, which may be a secret."""

    name: str
    sha256: str


class Role(_Record):
    """A role: its attributes, the roles that it is a member of (with the admin option or not), and its settings."""

    name: str
    attributes: tuple[str, ...]
    connection_limit: int
    valid_until: str | None
    member_of: tuple[str, ...]
    settings: tuple[RoleSetting, ...]

    @field_validator("settings", mode="before")
    @classmethod
    def _without_values(cls, settings: Any) -> Any:
        # Both the server and manifests from before `settings.sql` have `name=value`. Only the digest is kept.
        return [_setting_print(one) if isinstance(one, str) else one for one in settings]

    @field_validator("settings")
    @classmethod
    def _in_order(cls, settings: tuple[RoleSetting, ...]) -> tuple[RoleSetting, ...]:
        return tuple(sorted(settings, key=lambda setting: setting.name))


def _setting_print(stored: str) -> RoleSetting:
    name, _, value = stored.partition("=")
    return RoleSetting(name=name, sha256=value_digest(value))


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
            settings=settings or (),
        )
        for name, limit, until, settings, *flags in query(
            connection,
            f"SELECT rolname, rolconnlimit, rolvaliduntil::text, rolconfig, {attributes}"
            " FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1",
        )
    )
