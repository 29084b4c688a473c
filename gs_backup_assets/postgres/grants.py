"""What a role may do, and the SQL that gives a least-privileged backup role what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.inventory import Inventory, Relation, quote

_EVERY_LARGE_OBJECT = "SELECT oid FROM pg_largeobject_metadata"


@dataclass(frozen=True)
class Role:
    """The role of a session. `bypasses` says whether row security does not hold for it."""

    name: str
    superuser: bool
    bypasses: bool


def session_role(connection: Connection) -> Role:
    """The role that privileges are checked for."""
    name, superuser, bypasses = query(
        connection,
        "SELECT rolname, rolsuper, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user",
    )[0]
    return Role(name, superuser, bypasses)


def owners_of_tables(connection: Connection, schemas: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of schema and owner: whose future tables a backup role must be able to read as well."""
    rows = query(
        connection,
        "SELECT DISTINCT n.nspname, r.rolname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_roles r ON r.oid = c.relowner WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p', 'm', 'S')"
        " ORDER BY 1, 2",
        (list(schemas),),
    )
    return tuple((schema, owner) for schema, owner in rows)


def hidden(inventory: Inventory) -> tuple[Relation, ...]:
    """Tables and sequences that the role may not read; not those that row security hides."""
    names = {omission.name for omission in inventory.omissions if omission.kind.startswith("unreadable_")}
    return tuple(relation for relation in inventory.unreadable if relation.qualified in names)


def row_secured(connection: Connection) -> tuple[str, ...]:
    """Qualified names of the tables of which row security would hide rows, also of those not readable yet."""
    rows = query(
        connection,
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid) ORDER BY 1, 2",
    )
    return tuple(f"{quote(schema)}.{quote(name)}" for schema, name in rows)


def reading_grants(role: str) -> tuple[str, ...]:
    """The short way since PostgreSQL 14: every schema, table and sequence, also those to come.

    PostgreSQL manual, "Predefined Roles".
    """
    return (f"GRANT pg_read_all_data TO {quote(role)};",)


def schema_grants(role: str, schemas: Sequence[str], owners: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The way that also works on 13, and where pg_read_all_data is too much: schema by schema.

    Default privileges cover what the present `owners` (schema, owner) create later; another owner's tables stay hidden.
    """
    statements: list[str] = []
    for schema in schemas:
        place, whom = quote(schema), quote(role)
        statements += [
            f"GRANT USAGE ON SCHEMA {place} TO {whom};",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {place} TO {whom};",
            f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {place} TO {whom};",
        ]
        for owner in (owner for where, owner in owners if where == schema):
            default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(owner)} IN SCHEMA {place} GRANT SELECT ON"
            statements += [f"{default} TABLES TO {whom};", f"{default} SEQUENCES TO {whom};"]
    return tuple(statements)


def large_object_grants(role: str) -> tuple[str, ...]:
    """Large objects have privileges one by one, and no default privileges before PostgreSQL 18."""
    literal = role.replace("'", "''")
    grant = f"EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO %I', item, '{literal}');"
    return (f"DO $$ DECLARE item oid; BEGIN FOR item IN {_EVERY_LARGE_OBJECT} LOOP {grant} END LOOP; END $$;",)


def row_security_grants(role: str) -> tuple[str, ...]:
    """Row security is lifted for a role by a superuser only (PostgreSQL manual, CREATE ROLE, BYPASSRLS)."""
    return (f"ALTER ROLE {quote(role)} BYPASSRLS;",)
