"""Fill an empty database with the sample: the production schema and two believable years of a guitar studio."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.sample.session import transaction
from gs_backup_assets.sample.terms import terms_pdf

if TYPE_CHECKING:
    import psycopg2.extensions

    from gs_backup_assets.postgres.connection import Connection
else:
    Connection = Any

# What scale 1 holds; everything else follows from these. A teacher's week has seats for 12 to 13 students.
_TEACHERS = 18
_STUDENTS = 220
_JOB_RUNS = 6600

# The day the sample is told on. It is fixed, so that the same call gives the same contents on any day.
ANCHOR = date(2026, 11, 1)

# The large object's OID is fixed as well; an empty database has no other.
TERMS_OID = 424242

_STEPS = (
    ("tables and enumerated types", "tables.sql"),
    ("word lists", "staging.sql"),
    ("people, profiles and slots", "people.sql"),
    ("lessons", "lessons.sql"),
    ("subscriptions and invoices", "money.sql"),
    ("curricula, checklists and library", "teaching.sql"),
    ("keys, indexes and foreign keys", "constraints.sql"),
    ("sequence, triggers and views", "extras.sql"),
)

# What the load needs for itself, for its transaction only. Bulk sorts and index builds take the memory.
_SETTINGS = (
    "SET LOCAL search_path = public",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL lock_timeout = 0",
    "SET LOCAL synchronous_commit = off",
    "SET LOCAL jit = off",
    "SET LOCAL work_mem = '128MB'",
    "SET LOCAL maintenance_work_mem = '256MB'",
    "SET LOCAL check_function_bodies = on",
)

_STAGING_FUNCTIONS = (
    "pick(bigint, bigint, integer)",
    "cuid(text, bigint)",
    "token(text, bigint)",
    "password_hash(bigint)",
)


def load_sample(
    connection: Connection,
    *,
    scale: float = 1.0,
    today: date = ANCHOR,
    report: Callable[[str], None] = lambda step: None,
) -> None:
    """Create the schema in the connection's empty database and fill it, in one transaction.

    `scale` multiplies students, teachers and job runs: 1 is about 40 MB, and size grows linearly. Equal arguments
    give equal contents. `today` ends the two years of history; four more weeks are scheduled after it. `report` is
    told the name of each step as it begins. The role must be allowed to create the trusted extension pg_trgm.

    Raises ConfigError: `SAMPLE_SCALE` for a scale that is not above 0, `SAMPLE_NOT_EMPTY` for a database that has
    tables, `SAMPLE_ENCODING` for one that cannot store the sample's names, `TRANSACTION_OPEN` for a connection
    that is inside a transaction. Nothing is left behind then, nor after any other error.
    """
    if not 0 < scale < 10_000:
        raise ConfigError("SAMPLE_SCALE", f"The scale {scale} is not between 0 and 10000.", "1 is about 40 MB.")
    with transaction(connection) as cursor:
        _refuse_unfit_database(cursor)
        for setting in _SETTINGS:
            cursor.execute(setting)
        cursor.execute("CREATE SCHEMA IF NOT EXISTS public")
        _write_plan(cursor, scale, today)
        for step, file in _STEPS:
            report(step)
            # No parameters: psycopg2 then leaves every per cent sign alone.
            cursor.execute(files(__package__).joinpath(file).read_text(encoding="utf-8"))
        report("large object")
        cursor.execute("SELECT lo_from_bytea(%s, %s)", (TERMS_OID, terms_pdf()))
        cursor.execute(f"COMMENT ON LARGE OBJECT {TERMS_OID} IS 'Terms of the studio (PDF)'")
        for function in _STAGING_FUNCTIONS:
            cursor.execute(f"DROP FUNCTION pg_temp.{function}")
        report("statistics")
        cursor.execute("ANALYZE")


def _refuse_unfit_database(cursor: psycopg2.extensions.cursor) -> None:
    cursor.execute(
        "SELECT count(*) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
        " AND relnamespace::regnamespace::text NOT LIKE 'pg\\_%'"
        " AND relnamespace <> 'information_schema'::regnamespace"
    )
    if cursor.fetchone() != (0,):
        raise ConfigError(
            "SAMPLE_NOT_EMPTY",
            "The database already has tables, and the sample goes into an empty one only.",
            "Create a new database for it.",
        )
    cursor.execute("SELECT current_setting('server_encoding')")
    row = cursor.fetchone()
    if row not in {("UTF8",), ("SQL_ASCII",)}:
        raise ConfigError(
            "SAMPLE_ENCODING",
            f"The database's encoding is {row[0] if row else 'unknown'}, and the sample has names from many languages.",
            "Create the database with ENCODING 'UTF8' TEMPLATE template0.",
        )


def _write_plan(cursor: psycopg2.extensions.cursor, scale: float, today: date) -> None:
    cursor.execute(
        "CREATE TEMPORARY TABLE staging_plan ON COMMIT DROP AS"
        " SELECT %s::integer AS teachers, %s::integer AS students, %s::integer AS job_runs, %s::date AS today",
        (
            max(2, round(_TEACHERS * scale)),
            max(20, round(_STUDENTS * scale)),
            max(40, round(_JOB_RUNS * scale)),
            today,
        ),
    )
