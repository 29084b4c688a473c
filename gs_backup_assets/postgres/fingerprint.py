"""The fingerprint: rows and an content hash of every table, sequences, and large objects, under one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from enum import Enum
from threading import Lock

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.inventory import Inventory, Relation, quote

_SEQUENCES_PER_QUERY = 200
_TABLES_PER_LOCK = 200
_LOCKS_PER_TABLE = 4  # pg_dump's, the one that holds it, and a reader's on it and on its index
_ROOM_FOR_LOCKS = """
SELECT current_setting('max_locks_per_transaction')::int
     * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)
"""
_LARGE_OBJECT_BLOCK = 16 * 1024 * 1024  # bytes read at once: lo_get returns one value in memory


class Level(str, Enum):
    """How much is recorded: contents, row counts only, or nothing."""

    FULL = "full"
    COUNTS = "counts"
    OFF = "off"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TablePrint(_Record):
    """One table. `content` is the exact sum of 64-bit hashes of the rows' text forms (None below level `full`)."""

    table_schema: str
    name: str
    rows: int
    content: str | None
    total_bytes: int

    @property
    def qualified(self) -> str:
        return f"{quote(self.table_schema)}.{quote(self.name)}"


class SequenceState(_Record):
    """`last_value` and `is_called`, as the sequence itself holds them."""

    last_value: int
    is_called: bool


class SequencePrint(_Record):
    """A sequence when the snapshot was taken and when the dump had ended: sequences do not obey snapshots."""

    sequence_schema: str
    name: str
    increment: int
    cycles: bool = False
    before: SequenceState
    after: SequenceState

    @property
    def qualified(self) -> str:
        return f"{quote(self.sequence_schema)}.{quote(self.name)}"


class LargeObjectsPrint(_Record):
    """Number of large objects, and sums of hashes: of blocks with oid, place and comment; of owners with grants."""

    count: int
    content: str | None
    owners: str | None = None


class Fingerprint(_Record):
    """What must be equal in a database restored from the dump that was taken under the same snapshot."""

    level: Level
    tables: tuple[TablePrint, ...] = ()
    sequences: tuple[SequencePrint, ...] = ()
    large_objects: LargeObjectsPrint | None = None

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


def take_fingerprint(
    target: Target,
    inventory: Inventory,
    *,
    level: Level,
    jobs: int,
    snapshot: str | None = None,
    advance: Callable[[int], None] = lambda _bytes: None,
) -> Fingerprint:
    """Read every table of the inventory once, `jobs` at a time, the largest first.

    Each worker has a connection of its own that imports `snapshot` (or reads what is there now when None).
    `advance` is told the bytes of each table read, and 0 now and then; what it raises ends the work.
    With a snapshot, the tables are held against TRUNCATE and ALTER TABLE until all are read, where the server has room
    for so many locks. Sequences are read once; see `sequences_again`.
    """
    if level is Level.OFF:
        return Fingerprint(level=level)
    order = sorted(inventory.tables, key=lambda relation: relation.total_bytes, reverse=True)
    todo: Iterator[Relation] = iter(order)
    prints: dict[int, TablePrint] = {}
    lock = Lock()
    open_connections: list[Connection] = []

    def work(number: int) -> None:
        with _reader(target, snapshot) as connection:
            with lock:
                open_connections.append(connection)
            if snapshot is not None and number == 0:  # one for all: a server has room for so many locks only
                _hold(connection, order)
            while True:
                with lock:
                    relation = next(todo, None)
                if relation is None:
                    return
                prints[relation.oid] = _print_table(connection, relation, level)
                advance(relation.total_bytes)

    with _reader(target, snapshot) as connection:
        sequences = _print_sequences(connection, inventory.sequences)
        pool = ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="fingerprint")
        futures = [pool.submit(work, number) for number in range(max(1, jobs))]
        try:
            large_objects = _print_large_objects(connection, level) if inventory.large_objects_readable else None
            while wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION).not_done and not _any_failed(futures):
                advance(0)  # may raise, also while a table is locked; short waits keep the thread open to signals
            for future in futures:
                if future.done():
                    future.result()
        finally:
            # Reached on an error or an interruption with workers still reading: their queries must end now.
            with lock:
                todo = iter(())
                for busy in open_connections:
                    _cancel(busy)
            pool.shutdown(wait=True)
    tables = tuple(prints[relation.oid] for relation in inventory.tables)
    return Fingerprint(level=level, tables=tables, sequences=sequences, large_objects=large_objects)


def sequences_again(target: Target, fingerprint: Fingerprint) -> Fingerprint:
    """The same fingerprint with the sequences' states of now as `after`: call it when the dump has ended."""
    if not fingerprint.sequences:
        return fingerprint
    relations = [Relation(0, s.sequence_schema, s.name, "S", 0) for s in fingerprint.sequences]
    with connect(target) as connection:
        states = _sequence_states(connection, relations)
    sequences = tuple(
        s.model_copy(update={"after": state}) for s, state in zip(fingerprint.sequences, states, strict=True)
    )
    return fingerprint.model_copy(update={"sequences": sequences})


@contextmanager
def _reader(target: Target, snapshot: str | None) -> Iterator[Connection]:
    with connect(
        target, application="gs_backup fingerprint", autocommit=False, settings={"row_security": "off"}
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if snapshot is not None:
                cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
        yield connection


def _hold(connection: Connection, tables: Sequence[Relation]) -> None:
    """Lock the tables as pg_dump does, before the first is read: a snapshot does not keep them from being emptied.

    TRUNCATE and an ALTER TABLE that rewrites take the rows from older snapshots as well (PostgreSQL manual, "Caveats"
    of "Concurrency Control"), and pg_dump, which may end first, lets go of its locks then. Of so many tables that there
    might be no lock left for others, none is held: then an emptied one shows as a difference.
    """
    ((room,),) = query(connection, _ROOM_FOR_LOCKS)
    if len(tables) * _LOCKS_PER_TABLE > room:
        return
    for start in range(0, len(tables), _TABLES_PER_LOCK):
        names = ", ".join(f"ONLY {relation.qualified}" for relation in tables[start : start + _TABLES_PER_LOCK])
        query(connection, f"LOCK TABLE {names} IN ACCESS SHARE MODE")


def _any_failed(futures: Sequence[object]) -> bool:
    return any(f.done() and f.exception() is not None for f in futures)  # type: ignore[attr-defined]


def _cancel(connection: Connection) -> None:
    import psycopg2

    # It may have been closed, or its server may be gone: then nothing is left to cancel.
    with suppress(psycopg2.InterfaceError, psycopg2.OperationalError):
        connection.cancel()


def _print_table(connection: Connection, relation: Relation, level: Level) -> TablePrint:
    # A whole-row reference, so that a column of the same name as the alias cannot take its place. The "C" collation
    # makes the hash independent of the database's default collation.
    row = f"ROW({', '.join(f'r.{quote(name)}' for name in relation.columns)})" if relation.columns else "(r.*)"
    content = f'sum(hashtextextended({row}::text COLLATE "C", 0))' if level is Level.FULL else "NULL"
    # An extension's condition is written for the table under its own name.
    source = f"ONLY {relation.qualified}"
    if relation.condition:
        source = f"(SELECT * FROM {source} {relation.condition})"
    sql = f"SELECT count(*), {content}::text FROM {source} AS r"
    rows, digest = query(connection, sql)[0]
    return TablePrint(
        table_schema=relation.schema,
        name=relation.name,
        rows=rows,
        content=(digest or "0") if level is Level.FULL else None,
        total_bytes=relation.total_bytes,
    )


def _print_sequences(connection: Connection, sequences: Sequence[Relation]) -> tuple[SequencePrint, ...]:
    steps = {
        (schema, name): (increment, cycles)
        for schema, name, increment, cycles in query(
            connection, "SELECT schemaname, sequencename, increment_by, cycle FROM pg_sequences"
        )
    }
    return tuple(
        SequencePrint(
            sequence_schema=relation.schema,
            name=relation.name,
            increment=steps[relation.schema, relation.name][0],
            cycles=steps[relation.schema, relation.name][1],
            before=state,
            after=state,
        )
        for relation, state in zip(sequences, _sequence_states(connection, sequences), strict=True)
    )


def _sequence_states(connection: Connection, sequences: Sequence[Relation]) -> list[SequenceState]:
    states: list[SequenceState] = []
    for start in range(0, len(sequences), _SEQUENCES_PER_QUERY):
        part = sequences[start : start + _SEQUENCES_PER_QUERY]
        sql = " UNION ALL ".join(
            f"SELECT {i} AS i, last_value, is_called FROM {r.qualified}" for i, r in enumerate(part)
        )
        states += [
            SequenceState(last_value=value, is_called=called)
            for _, value, called in query(connection, f"{sql} ORDER BY i")
        ]
    return states


# lo_lseek64(..., 2) finds the end (SEEK_END); x'40000' is INV_READ (PostgreSQL manual, "Large Objects").
_LARGE_OBJECTS = f"""
SELECT count(DISTINCT o.oid),
       sum(hashtextextended(o.oid::text || ':' || block || ':'
                            || coalesce(obj_description(o.oid, 'pg_largeobject'), '') || ':'
                            || md5(lo_get(o.oid, block * {_LARGE_OBJECT_BLOCK}, {_LARGE_OBJECT_BLOCK})), 0))::text
FROM pg_largeobject_metadata o,
     LATERAL (SELECT lo_lseek64(lo_open(o.oid, x'40000'::int), 0, 2) AS size) s,
     LATERAL generate_series(0, s.size / {_LARGE_OBJECT_BLOCK}) AS block
"""


_LARGE_OBJECT_OWNERS = """
SELECT sum(hashtextextended(concat_ws(':', o.oid, pg_get_userbyid(o.lomowner), grants.list), 0))::text
FROM pg_largeobject_metadata o,
     LATERAL (SELECT string_agg(concat_ws(' ', a.grantee::regrole, a.privilege_type, a.is_grantable), ',' ORDER BY
                                a.grantee::regrole::text COLLATE "C", a.privilege_type, a.is_grantable) AS list
              FROM aclexplode(o.lomacl) a) grants
"""


def _print_large_objects(connection: Connection, level: Level) -> LargeObjectsPrint:
    if level is not Level.FULL:
        count = query(connection, "SELECT count(*) FROM pg_largeobject_metadata")[0][0]
        return LargeObjectsPrint(count=count, content=None, owners=None)
    count, digest = query(connection, _LARGE_OBJECTS)[0]
    (owners,) = query(connection, _LARGE_OBJECT_OWNERS)[0]
    return LargeObjectsPrint(count=count, content=digest or "0", owners=owners or "0")
