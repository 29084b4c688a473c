"""Every foreign key that a database declares, tested by anti-join: do the rows that refer to something find it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gs_backup_assets.catalogue.proof import ForeignKeyOutcome
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.postgres.connection import Connection, query

if TYPE_CHECKING:
    import psycopg2
    from psycopg2.sql import Composable

__all__ = ["ForeignKeyOutcome", "check_foreign_keys", "reason_of"]

# One row per key (PostgreSQL manual, "pg_constraint"). conparentid names the key of which this one is the copy that
# a partition has. conpfeqop holds the operators by which the server itself compares parent and child.
_KEYS = """
SELECT c.conname, n.nspname, t.relname, t.relkind = 'p', fn.nspname, ft.relname, ft.relkind = 'p',
       c.convalidated, c.confmatchtype, coalesce((to_jsonb(c) ->> 'conperiod')::boolean, false),
       format('%I.%I', n.nspname, t.relname),
       format('%I.%I (%s)', fn.nspname, ft.relname, string_agg(quote_ident(fa.attname), ', ' ORDER BY k.i)),
       array_agg(a.attname::text ORDER BY k.i), array_agg(fa.attname::text ORDER BY k.i),
       array_agg(o.nspname::text ORDER BY k.i), array_agg(o.oprname::text ORDER BY k.i),
       array_agg(CASE WHEN a.attcollation <> fa.attcollation THEN fc.nspname::text END ORDER BY k.i),
       array_agg(CASE WHEN a.attcollation <> fa.attcollation THEN fc.collname::text END ORDER BY k.i)
FROM pg_catalog.pg_constraint AS c
JOIN pg_catalog.pg_class AS t ON t.oid = c.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_catalog.pg_class AS ft ON ft.oid = c.confrelid
JOIN pg_catalog.pg_namespace AS fn ON fn.oid = ft.relnamespace
CROSS JOIN LATERAL unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY AS k (child, parent, operator, i)
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.child
JOIN pg_catalog.pg_attribute AS fa ON fa.attrelid = c.confrelid AND fa.attnum = k.parent
JOIN (SELECT op.oid, op.oprname, opn.nspname FROM pg_catalog.pg_operator AS op
      JOIN pg_catalog.pg_namespace AS opn ON opn.oid = op.oprnamespace) AS o ON o.oid = k.operator
LEFT JOIN (SELECT co.oid, co.collname, con.nspname FROM pg_catalog.pg_collation AS co
           JOIN pg_catalog.pg_namespace AS con ON con.oid = co.collnamespace) AS fc ON fc.oid = fa.attcollation
WHERE c.contype = 'f' AND c.conparentid = 0 AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)
GROUP BY c.oid, c.conname, n.nspname, t.relname, t.relkind, fn.nspname, ft.relname, ft.relkind,
         c.convalidated, c.confmatchtype, to_jsonb(c) ->> 'conperiod'
ORDER BY n.nspname, t.relname, c.conname
"""


@dataclass(frozen=True)
class _Column:
    """A pair of columns and how they are compared."""

    child: str
    parent: str
    operator: tuple[str, str]
    collation: tuple[str, str] | None


@dataclass(frozen=True)
class _Key:
    name: str
    child: tuple[str, str]
    child_partitioned: bool
    parent: tuple[str, str]
    parent_partitioned: bool
    validated: bool
    match_full: bool
    period: bool
    table: str
    references: str
    columns: tuple[_Column, ...]


def check_foreign_keys(connection: Connection, *, limit_samples: int = 20) -> tuple[ForeignKeyOutcome, ...]:
    """Count, for each foreign key, the referencing rows whose parent is missing, with `limit_samples` values at most.

    Composite and self-referencing keys, MATCH FULL, keys that are NOT VALID or not enforced, keys of partitioned
    tables (once, at the top) and PostgreSQL 18's PERIOD keys are tested like any other. A key whose tables cannot be
    read is NOT_VERIFIED with the reason, and does not keep the others from being tested. Row security that would hide
    rows from this role is such a reason. The samples are distinct values of the referencing columns, as text.
    """
    previous = query(connection, "SELECT pg_catalog.current_setting('row_security')")[0][0]
    query(connection, "SELECT pg_catalog.set_config('row_security', 'off', false)")
    try:
        return tuple(_test(connection, key, limit_samples) for key in _declared(connection))
    finally:
        if not connection.closed:
            query(connection, "SELECT pg_catalog.set_config('row_security', %s, false)", (previous,))


def reason_of(error: psycopg2.Error) -> str:
    """What went wrong, in a few words, without anything out of a row.

    Messages of some classes repeat values (PostgreSQL manual, "PostgreSQL Error Codes": class 22 is about data); of
    those only the name of the error is told.
    """
    message = (error.diag.message_primary or "").strip()
    if error.pgcode is None:
        return "the connection to the database was lost"
    if error.pgcode[:2] in _HARMLESS_CLASSES and message:
        return message
    return f"PostgreSQL reports {type(error).__name__} ({error.pgcode})"


# Feature not supported, transaction state, unknown schema, syntax and names, resources, state, intervention, system.
_HARMLESS_CLASSES = frozenset({"08", "0A", "25", "3F", "42", "53", "54", "55", "57", "58"})


def _declared(connection: Connection) -> Iterator[_Key]:
    for row in query(connection, _KEYS):
        (name, schema, table, partitioned, parent_schema, parent, parent_partitioned, validated, match, period) = row[
            :10
        ]
        label, references, *columns = row[10:]
        yield _Key(
            name=name,
            child=(schema, table),
            child_partitioned=partitioned,
            parent=(parent_schema, parent),
            parent_partitioned=parent_partitioned,
            validated=validated,
            match_full=match == "f",
            period=period,
            table=label,
            references=references,
            columns=tuple(
                _Column(c, p, (operator_schema, operator), (collation_schema, collation) if collation else None)
                for c, p, operator_schema, operator, collation_schema, collation in zip(*columns, strict=True)
            ),
        )


def _test(connection: Connection, key: _Key, limit: int) -> ForeignKeyOutcome:
    import psycopg2

    orphans: int | None = None
    samples: tuple[str, ...] = ()
    reason: str | None = None
    try:
        with _undone_if_it_fails(connection):
            rows = query(connection, _anti_join(key, max(limit, 1)).as_string(connection))
    except psycopg2.Error as error:
        reason = reason_of(error)
    else:
        orphans = int(rows[0][0]) if rows else 0
        samples = tuple(", ".join("null" if v is None else v for v in values) for _, *values in rows[:limit])
    return ForeignKeyOutcome(
        name=key.name,
        table=key.table,
        columns=tuple(column.child for column in key.columns),
        references=key.references,
        validated=key.validated,
        status=Status.NOT_VERIFIED if orphans is None else Status.FAILED if orphans else Status.PASSED,
        orphans=orphans,
        sample_keys=samples,
        reason=reason,
    )


@contextmanager
def _undone_if_it_fails(connection: Connection) -> Iterator[None]:
    """Keep a failed statement from aborting the caller's transaction, where there is one."""
    if connection.autocommit:
        yield
        return
    query(connection, "SAVEPOINT gs_backup_foreign_key")
    try:
        yield
    except BaseException:
        if not connection.closed:
            query(connection, "ROLLBACK TO SAVEPOINT gs_backup_foreign_key")
        raise
    query(connection, "RELEASE SAVEPOINT gs_backup_foreign_key")


def _anti_join(key: _Key, limit: int) -> Composable:
    """Distinct orphaned values with the number of all orphaned rows, in one statement.

    The number is a window over the groups, so that few rows come back however many are orphaned.
    """
    from psycopg2.sql import SQL, Identifier, Literal

    child = [SQL("child.{}").format(Identifier(column.child)) for column in key.columns]
    all_set = SQL(" AND ").join(SQL("{} IS NOT NULL").format(c) for c in child)
    orphaned = SQL("({} AND NOT {})").format(all_set, _parent_found(key))
    if key.match_full and len(child) > 1:
        # MATCH FULL: either all columns are null or none (PostgreSQL manual, "CREATE TABLE").
        none_set = SQL(" AND ").join(SQL("{} IS NULL").format(c) for c in child)
        orphaned = SQL("(NOT ({}) AND NOT ({})) OR {}").format(none_set, all_set, orphaned)
    texts = SQL(", ").join(SQL('({}::text COLLATE "C")').format(c) for c in child)
    positions = SQL(", ").join(SQL(str(n)) for n in range(2, len(child) + 2))
    return SQL(
        "SELECT (pg_catalog.sum(pg_catalog.count(*)) OVER ())::bigint, {texts} FROM {relation} AS child"
        " WHERE {orphaned} GROUP BY {positions} ORDER BY {positions} LIMIT {limit}"
    ).format(
        texts=texts,
        relation=_relation(key.child, key.child_partitioned),
        orphaned=orphaned,
        positions=positions,
        limit=Literal(limit),
    )


def _parent_found(key: _Key) -> Composable:
    from psycopg2.sql import SQL

    relation = _relation(key.parent, key.parent_partitioned)
    pairs = [_pair(column) for column in key.columns]
    if not key.period:
        equal = SQL(" AND ").join(parent + operator + child for parent, operator, child in pairs)
        return SQL("EXISTS (SELECT FROM {} AS parent WHERE {})").format(relation, equal)
    # The last column is a period: the parents' periods must cover it together (PostgreSQL 18 manual, "CREATE TABLE").
    *scalars, (parent, _, child) = pairs
    conditions = [p + operator + c for p, operator, c in scalars]
    overlap = parent + SQL(" OPERATOR(pg_catalog.&&) ") + child
    return SQL(
        "coalesce((SELECT {child} OPERATOR(pg_catalog.<@) pg_catalog.range_agg({parent}) FROM {relation} AS parent"
        " WHERE {conditions}), false)"
    ).format(child=child, parent=parent, relation=relation, conditions=SQL(" AND ").join([*conditions, overlap]))


def _pair(column: _Column) -> tuple[Any, Any, Any]:
    from psycopg2.sql import SQL, Identifier

    schema, name = column.operator
    child: Composable = SQL("child.{}").format(Identifier(column.child))
    if column.collation is not None:
        # As the server's own trigger does: the parent's collation decides.
        child = SQL("{} COLLATE {}").format(child, Identifier(*column.collation))
    operator = SQL(" OPERATOR({}." + name + ") ").format(Identifier(schema))
    return SQL("parent.{}").format(Identifier(column.parent)), operator, child


def _relation(name: tuple[str, str], partitioned: bool) -> Composable:
    """The rows that a key is about: a partitioned table's partitions, but not the children of a plain table."""
    from psycopg2.sql import SQL, Identifier

    return SQL("{}" if partitioned else "ONLY {}").format(Identifier(*name))
