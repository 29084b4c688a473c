"""What a database holds, as a backup sees it: relations with rows, sequences, and what a dump will leave out."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, query


class Omission(BaseModel):
    """Something of the source that the dump does not carry, or carries only in part.

    `loses_data` is true where rows that exist in the source are not in the backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    name: str
    reason: str
    loses_data: bool


@dataclass(frozen=True)
class Relation:
    """A relation whose rows the dump carries. `condition` limits an extension's configuration table (or is empty).

    `columns` is the order that the columns have in a restored database, where it is not the order that they have here.
    """

    oid: int
    schema: str
    name: str
    kind: str
    total_bytes: int
    condition: str = ""
    columns: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"


@dataclass(frozen=True)
class Inventory:
    """Relations with rows, sequences, and the omissions, each sorted by name."""

    tables: tuple[Relation, ...]
    sequences: tuple[Relation, ...]
    omissions: tuple[Omission, ...]
    unreadable: tuple[Relation, ...]
    large_objects_readable: bool


def quote(identifier: str) -> str:
    """Quote an identifier unconditionally."""
    return '"' + identifier.replace('"', '""') + '"'


# Everything that is not the system's own and not a member of an extension, or is an extension's configuration table
# (PostgreSQL manual, "Extension Configuration Tables").
_RELATIONS = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relispopulated,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END,
       coalesce(config.condition, ''),
       has_schema_privilege(n.oid, 'USAGE')
         AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                  ELSE has_table_privilege(c.oid, 'SELECT') END,
       c.relkind = 'r' AND row_security_active(c.oid)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT e.extcondition[i] AS condition
    FROM pg_extension e, generate_subscripts(e.extconfig, 1) AS i
    WHERE e.extconfig[i] = c.oid
) AS config ON true
WHERE c.relkind IN ('r', 'p', 'm', 'f', 'S')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_(toast|temp_|toast_temp_)'
  AND (config.condition IS NOT NULL OR NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
  -- the sequence behind an identity column of an extension's table, and the like, belong to the extension as well
  AND NOT (c.relkind = 'S' AND EXISTS (
        SELECT FROM pg_depend d
        JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'))
ORDER BY n.nspname, c.relname
"""

_SKIPPED_SUBSCRIPTIONS = """
SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE d.datname = current_database() AND current_setting('is_superuser') <> 'on' ORDER BY 1
"""

_UNREADABLE_LARGE_OBJECTS = """
SELECT count(*) FROM pg_largeobject_metadata m
WHERE current_setting('is_superuser') <> 'on'
  AND current_setting('lo_compat_privileges') <> 'on'
  AND NOT pg_has_role(m.lomowner, 'USAGE')
  AND NOT EXISTS (
        SELECT FROM aclexplode(m.lomacl) a
        WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
"""


# Every table that inherits and is no partition, with its parents, and every parent; columns in their order.
_HEIRS = """
SELECT c.oid::bigint,
       ARRAY(SELECT inhparent::bigint FROM pg_inherits WHERE inhrelid = c.oid ORDER BY inhseqno),
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum)
FROM pg_class c
WHERE NOT c.relispartition AND c.relkind IN ('r', 'f')
  AND (c.oid IN (SELECT inhrelid FROM pg_inherits) OR c.oid IN (SELECT inhparent FROM pg_inherits))
"""


def _reordered(connection: Connection) -> dict[int, tuple[str, ...]]:
    """The tables whose columns a restore puts into another order: it makes those of the parents first.

    A column that a parent was given later stands last in a child that is older. pg_dump loads by name, so no value
    gets lost; but a whole row has another text then.
    """
    heirs = {oid: (parents, columns) for oid, parents, columns in query(connection, _HEIRS)}
    orders: dict[int, tuple[str, ...]] = {}

    def restored(oid: int) -> tuple[str, ...]:
        if oid not in orders:
            parents, columns = heirs[oid]
            orders[oid] = tuple(dict.fromkeys([name for parent in parents for name in restored(parent)] + columns))
        return orders[oid]

    return {oid: restored(oid) for oid, (_, columns) in heirs.items() if restored(oid) != tuple(columns)}


def take_inventory(connection: Connection) -> Inventory:
    """Read the catalogue, inside whatever transaction and snapshot the connection is in."""
    tables: list[Relation] = []
    sequences: list[Relation] = []
    unreadable: list[Relation] = []
    omissions: list[Omission] = []
    reordered = _reordered(connection)
    standby = bool(query(connection, "SELECT pg_is_in_recovery()")[0][0])

    def omit(kind: str, relation: Relation, reason: str, *, loses_data: bool) -> None:
        omissions.append(Omission(kind=kind, name=relation.qualified, reason=reason, loses_data=loses_data))

    for oid, schema, name, kind, persistence, populated, size, condition, readable, row_security in query(
        connection, _RELATIONS
    ):
        relation = Relation(oid, schema, name, kind, int(size), condition, reordered.get(oid, ()))
        if kind == "f":
            omit(
                "foreign_table",
                relation,
                "its rows live on another server; only its definition is dumped",
                loses_data=False,
            )
        elif kind == "m":
            if not populated:
                omit(
                    "unpopulated_materialized_view",
                    relation,
                    "it was never populated, and is restored so",
                    loses_data=False,
                )
        elif not readable:
            unreadable.append(relation)
            what = "sequence" if kind == "S" else "table"
            omit(f"unreadable_{what}", relation, "the backup role may not read it", loses_data=True)
        elif row_security:
            unreadable.append(relation)
            omit("row_security", relation, "row security would hide rows from the backup role", loses_data=True)
        elif kind == "S":
            sequences.append(relation)
        elif kind == "r" and persistence == "u" and standby:
            unreadable.append(relation)
            omit("unlogged_table", relation, "a standby does not have the rows of unlogged tables", loses_data=True)
        elif kind == "r":
            tables.append(relation)
            if persistence == "u":
                omit(
                    "unlogged_table",
                    relation,
                    "its rows are dumped, but a crash or a physical restore empties it",
                    loses_data=False,
                )
    for (name,) in query(connection, _SKIPPED_SUBSCRIPTIONS):
        reason = "pg_dump leaves subscriptions out unless the backup role is a superuser"
        omissions.append(Omission(kind="subscription", name=quote(name), reason=reason, loses_data=False))
    (hidden,) = query(connection, _UNREADABLE_LARGE_OBJECTS)[0]
    if hidden:
        reason = f"the backup role may not read {hidden} of them, so none is dumped"
        omissions.append(
            Omission(kind="unreadable_large_objects", name="large objects", reason=reason, loses_data=True)
        )
    return Inventory(tuple(tables), tuple(sequences), tuple(omissions), tuple(unreadable), not hidden)
