"""What a database says of its columns, keys and triggers, as far as masking their values has to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.inventory import quote

Kind = Literal["text", "uuid", "int", "date", "timestamp", "timestamptz", "enum", "other"]
ColumnKey: TypeAlias = tuple[int, int]  # the table's OID and the column's number

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), "text"),
    **dict.fromkeys(("int2", "int4", "int8"), "int"),
    "uuid": "uuid",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}
_LARGEST = {"int2": (1 << 15) - 1, "int4": (1 << 31) - 1, "int8": (1 << 63) - 1}
_HEADER = 4  # in the modifier of varchar(n) and char(n) (PostgreSQL's VARHDRSZ)


@dataclass(frozen=True)
class Column:
    """A column. `limit` is the most characters of a text, the largest of an int; `folds` is citext's equality."""

    key: ColumnKey
    schema: str
    table: str
    name: str
    kind: Kind
    type: str
    limit: int | None
    folds: bool
    not_null: bool
    generated: bool
    always_identity: bool
    partition: bool

    @property
    def relation(self) -> str:
        return f"{quote(self.schema)}.{quote(self.table)}"

    @property
    def table_label(self) -> str:
        """As the configuration names it."""
        return self.table if self.schema == "public" else f"{self.schema}.{self.table}"

    @property
    def label(self) -> str:
        return f"{self.table_label}.{self.name}"


@dataclass(frozen=True)
class ForeignKey:
    """A declared foreign key: pairs of the referring column and the one that it refers to."""

    name: str
    pairs: tuple[tuple[ColumnKey, ColumnKey], ...]


@dataclass(frozen=True)
class UniqueKey:
    """A primary key, a unique constraint or index, or an exclusion constraint, with every column that it looks at."""

    name: str
    table: int
    columns: tuple[ColumnKey, ...]
    primary: bool
    nulls_distinct: bool


@dataclass(frozen=True)
class ColumnFacts:
    """All of it. Keys of partitions are told of the partitioned table at the top.

    `ancestors` has the tables that a table inherits from, however far up; partitions are not among them.
    """

    columns: Mapping[ColumnKey, Column]
    foreign_keys: tuple[ForeignKey, ...]
    unique_keys: tuple[UniqueKey, ...]
    ancestors: Mapping[int, tuple[int, ...]]

    def primary_key(self, table: int) -> tuple[Column, ...]:
        """The columns of a table's primary key in their order; none without one."""
        keys = [key for key in self.unique_keys if key.table == table and key.primary]
        return tuple(self.columns[column] for column in keys[0].columns) if keys else ()


_COLUMNS = """
WITH RECURSIVE domains (origin, current, modifier, not_null) AS (
    SELECT oid, typbasetype, typtypmod, typnotnull FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT d.origin, t.typbasetype, CASE d.modifier WHEN -1 THEN t.typtypmod ELSE d.modifier END,
           d.not_null OR t.typnotnull
    FROM domains AS d JOIN pg_catalog.pg_type AS t ON t.oid = d.current WHERE t.typtype = 'd'
), base AS (
    SELECT d.* FROM domains AS d JOIN pg_catalog.pg_type AS t ON t.oid = d.current WHERE t.typtype <> 'd'
)
SELECT c.oid::bigint, a.attnum, n.nspname, c.relname, a.attname, t.typname, t.typtype::text,
       coalesce(b.modifier, a.atttypmod), a.attnotnull OR coalesce(b.not_null, false), a.attgenerated <> '',
       a.attidentity = 'a', c.relispartition, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
LEFT JOIN base AS b ON b.origin = a.atttypid
JOIN pg_catalog.pg_type AS t ON t.oid = coalesce(b.current, a.atttypid)
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
"""

# Copies of a key that a partition has are left out; a key that only a partition has is told of the table at the top.
_FOREIGN_KEYS = """
SELECT k.conname, array_agg(child.attrelid::bigint ORDER BY p.i), array_agg(child.attnum ORDER BY p.i),
       array_agg(parent.attrelid::bigint ORDER BY p.i), array_agg(parent.attnum ORDER BY p.i)
FROM pg_catalog.pg_constraint AS k
CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS p (child, parent, i)
JOIN pg_catalog.pg_attribute AS ca ON ca.attrelid = k.conrelid AND ca.attnum = p.child
JOIN pg_catalog.pg_attribute AS pa ON pa.attrelid = k.confrelid AND pa.attnum = p.parent
JOIN pg_catalog.pg_attribute AS child
    ON child.attrelid = coalesce(pg_catalog.pg_partition_root(k.conrelid), k.conrelid) AND child.attname = ca.attname
JOIN pg_catalog.pg_attribute AS parent
    ON parent.attrelid = coalesce(pg_catalog.pg_partition_root(k.confrelid), k.confrelid)
    AND parent.attname = pa.attname
WHERE k.contype = 'f' AND k.conparentid = 0
GROUP BY k.oid, k.conname ORDER BY k.conname
"""

# An index on an expression depends on the columns in it (PostgreSQL manual, "pg_depend").
_UNIQUE_KEYS = """
SELECT ic.relname, root.oid::bigint, array_agg(a.attnum ORDER BY u.i, a.attnum), i.indisprimary,
       NOT coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
CROSS JOIN LATERAL (SELECT coalesce(pg_catalog.pg_partition_root(i.indrelid), i.indrelid) AS oid) AS root
CROSS JOIN LATERAL (
    SELECT k.n, min(k.i) AS i FROM (
        SELECT n, i FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS key (n, i)
        WHERE n > 0 AND i <= i.indnkeyatts
        UNION ALL
        SELECT d.refobjsubid, 1000 FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
          AND d.refobjid = i.indrelid AND d.refobjsubid > 0 AND 0 = ANY (i.indkey::smallint[])
    ) AS k GROUP BY k.n
) AS u
JOIN pg_catalog.pg_attribute AS own ON own.attrelid = i.indrelid AND own.attnum = u.n
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = root.oid AND a.attname = own.attname
WHERE i.indisunique OR i.indisexclusion
GROUP BY i.indexrelid, ic.relname, root.oid, i.indisprimary, to_jsonb(i) ->> 'indnullsnotdistinct'
ORDER BY ic.relname
"""

_ANCESTORS = """
WITH RECURSIVE above (child, parent) AS (
    SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relkind = 'r' AND NOT c.relispartition
    UNION
    SELECT a.child, i.inhparent FROM above AS a JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = a.parent
)
SELECT child::bigint, array_agg(parent::bigint ORDER BY parent) FROM above GROUP BY child
"""


def read_column_facts(connection: Connection) -> ColumnFacts:
    """Read columns, foreign keys, unique keys and inheritance of the connected database."""
    columns = {}
    for row in query(connection, _COLUMNS):
        oid, number, schema, table, name, base, typtype, modifier, not_null, generated, identity, partition, type_ = row
        kind: Kind = "enum" if typtype == "e" else _KINDS.get(base, "other")
        limit = _LARGEST.get(base)
        if base in ("varchar", "bpchar") and modifier >= _HEADER:
            limit = modifier - _HEADER
        columns[(oid, number)] = Column(
            key=(oid, number),
            schema=schema,
            table=table,
            name=name,
            kind=kind,
            type=type_,
            limit=limit,
            folds=base == "citext",
            not_null=not_null,
            generated=generated,
            always_identity=identity,
            partition=partition,
        )
    foreign = tuple(
        ForeignKey(
            name,
            tuple(
                zip(
                    zip(children, child_numbers, strict=True),
                    zip(parents, parent_numbers, strict=True),
                    strict=True,
                )
            ),
        )
        for name, children, child_numbers, parents, parent_numbers in query(connection, _FOREIGN_KEYS)
    )
    unique = tuple(
        UniqueKey(name, table, tuple((table, number) for number in numbers), primary, nulls_distinct)
        for name, table, numbers, primary, nulls_distinct in query(connection, _UNIQUE_KEYS)
    )
    ancestors = {child: tuple(parents) for child, parents in query(connection, _ANCESTORS)}
    return ColumnFacts(columns, foreign, unique, ancestors)
