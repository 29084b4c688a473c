"""The sample on a real server: its schema, its believability, and that it is the same every time."""

from __future__ import annotations

from datetime import date

import pytest

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.sample.generate import TERMS_OID, load_sample

from .content import TABLES, broken_rules, hashes

SMALL = 0.1


def _one(connection: Connection, sql: str) -> object:
    return query(connection, sql)[0][0]


def _emptied(connection: Connection) -> None:
    for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", f"SELECT lo_unlink({TERMS_OID})"):
        with connection.cursor() as cursor:
            cursor.execute(statement)


def test_has_the_production_schema_and_what_a_dump_must_carry_besides(empty_database: Target) -> None:
    steps: list[str] = []
    with connect(empty_database) as connection:
        load_sample(connection, scale=SMALL, report=steps.append)
        tables = [name for (name,) in query(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        assert sorted(tables) == sorted(TABLES)
        assert len(tables) == 31
        ours = "connamespace = 'public'::regnamespace"
        deletes = query(
            connection,
            f"SELECT confdeltype, count(*)::integer FROM pg_constraint WHERE contype = 'f' AND convalidated AND {ours}"
            " GROUP BY 1 ORDER BY 1",
        )
        assert deletes == [("c", 33), ("n", 4), ("r", 2)]
        assert sum(count for _, count in deletes) == 39
        assert _one(connection, f"SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND {ours}") == 30
        assert _one(connection, "SELECT count(*) FROM pg_type WHERE typtype = 'e'") == 13
        columns = "SELECT count(*) FROM information_schema.columns NATURAL JOIN information_schema.tables"
        assert _one(connection, f"{columns} WHERE table_schema = 'public' AND table_type = 'BASE TABLE'") == 321
        assert _one(connection, "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'") == 1
        assert _one(connection, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 3
        assert _one(connection, 'SELECT count(*) FROM public."UpcomingLesson"') != 0
        assert _one(connection, "SELECT bool_and(ispopulated) FROM pg_matviews") is True
        assert str(_one(connection, f"SELECT convert_from(lo_get({TERMS_OID}, 0, 8), 'UTF8')")) == "%PDF-1.4"
        # Every table has rows, and nothing of the load is left.
        assert all(count > 0 for count, _ in hashes(connection).values())
        assert _one(connection, "SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()") == 0
        assert _one(connection, "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()") == 0
        assert _one(connection, "SHOW search_path") == "pg_catalog"
    assert steps[0] == "tables and enumerated types"
    assert len(steps) == len(set(steps)) == 10


def test_keeps_every_data_rule(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=SMALL)
        assert broken_rules(connection) == set()


def test_is_believable(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=SMALL)
        lengths = 'length("notes") + length("homework") + length("progress")'
        assert 300 < float(str(_one(connection, f'SELECT avg({lengths}) FROM public."Lesson"'))) < 1200
        first, last = query(connection, 'SELECT min("date")::date, max("date")::date FROM public."Lesson"')[0]
        assert date(2024, 10, 1) < first < date(2025, 1, 1)
        assert date(2026, 11, 1) < last < date(2026, 12, 1)
        assert _one(connection, 'SELECT count(DISTINCT "status") FROM public."Lesson"') == 5
        clashes = 'SELECT FROM public."Lesson" GROUP BY "teacherId", "date" HAVING count(*) > 1'
        assert _one(connection, f"SELECT count(*) FROM ({clashes}) AS clash") == 0
        # No placeholder of a phrase was left open.
        texts = 'concat("notes", "homework", "progress", "nextSteps")'
        assert _one(connection, f"""SELECT count(*) FROM public."Lesson" WHERE {texts} ~ '[{{}}]'""") == 0
        # The next invoice number is free.
        highest = 'SELECT max(right("invoiceNumber", 6)::bigint) FROM public."Invoice"'
        assert _one(connection, f"SELECT nextval('public.invoice_number_seq') - ({highest})") == 1
        # Nothing that has happened is dated after the day the sample is told on.
        newest = 'greatest("paidAt", "createdAt", "updatedAt")'
        assert _one(connection, f"""SELECT max({newest}) < '2026-11-01 12:00' FROM public."Invoice" """) is True


def test_trigger_keeps_updated_at_current(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        load_sample(connection, scale=SMALL, today=date(2020, 1, 15))
        with connection.cursor() as cursor:
            cursor.execute("""UPDATE public."User" SET "name" = 'New Name' WHERE "role" = 'ADMIN'""")
        changed = """SELECT "updatedAt" > now() AT TIME ZONE 'UTC' - interval '1 hour' FROM public."User" WHERE"""
        assert _one(connection, f"""{changed} "role" = 'ADMIN'""") is True
        assert _one(connection, f"""{changed} "role" = 'STUDENT' LIMIT 1""") is False


def test_same_call_same_contents_and_scale_grows(empty_database: Target) -> None:
    with connect(empty_database, autocommit=False) as connection:
        load_sample(connection, scale=SMALL)
        assert connection.autocommit is False
        first = hashes(connection)
        connection.commit()
        connection.autocommit = True
        _emptied(connection)
        load_sample(connection, scale=SMALL)
        assert hashes(connection) == first
        _emptied(connection)
        load_sample(connection, scale=3 * SMALL)
        larger = hashes(connection)
    assert 2 < larger["Lesson"][0] / first["Lesson"][0] < 4
    assert 2 < larger["InvoiceItem"][0] / first["InvoiceItem"][0] < 4
    assert larger["SystemSettings"][0] == 1


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_refuses_a_scale_that_is_none(empty_database: Target, scale: float) -> None:
    with connect(empty_database) as connection, pytest.raises(ConfigError) as caught:
        load_sample(connection, scale=scale)
    assert caught.value.code == "SAMPLE_SCALE"


def test_refuses_a_database_that_has_tables_and_leaves_it_alone(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE public.precious (id integer)")
        with pytest.raises(ConfigError) as caught:
            load_sample(connection, scale=SMALL)
        assert caught.value.code == "SAMPLE_NOT_EMPTY"
        assert _one(connection, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 1
        assert connection.autocommit is True


def test_refuses_a_connection_inside_a_transaction(empty_database: Target) -> None:
    with connect(empty_database, autocommit=False) as connection:
        query(connection, "SELECT 1")
        with pytest.raises(ConfigError) as caught:
            load_sample(connection, scale=SMALL)
    assert caught.value.code == "TRANSACTION_OPEN"


def test_leaves_nothing_behind_when_it_fails(empty_database: Target) -> None:
    def stop(step: str) -> None:
        if step == "keys, indexes and foreign keys":
            raise KeyboardInterrupt

    with connect(empty_database) as connection:
        with pytest.raises(KeyboardInterrupt):
            load_sample(connection, scale=SMALL, report=stop)
        assert _one(connection, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
        load_sample(connection, scale=SMALL)
