"""Critical tables first: usable before the others are there, and at the end nothing is missing or there twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.restore import list_entries
from gs_backup_assets.postgres.schema import SchemaObject, read_schema
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.critical_first import split_dump
from gs_backup_assets.recovery.dumps.restore import restore_backup
from gs_backup_assets.recovery.dumps.restoring import Restored, restore_fetched
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.stored.stored_bytes import fetch
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets_tests.chain import Chain, chain_in, execute, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database

CRITICAL = ("User", "Lesson", "StudentProfile", "TeacherProfile")
CLASSES = {
    "critical": {
        "rpo": "15m",
        "rto": "1h",
        "tables": [["users", "User"], "Lesson", "StudentProfile", "TeacherProfile"],
    },
    "important": {"rpo": "1h", "rto": "4h"},
}
# Names that are hard to read in a table of contents, and everything that hangs on tables.
HARD = (
    'CREATE SCHEMA "my schema"',
    'CREATE TABLE "my schema"."a "" table" ("the id" int PRIMARY KEY, note text)',
    'INSERT INTO "my schema"."a "" table" SELECT i, i FROM generate_series(1, 50) i',
    'CREATE INDEX "an index on it" ON "my schema"."a "" table" (note)',
    'COMMENT ON TABLE "my schema"."a "" table" IS $$with; a line\n-- Name: and a header; Type: X$$',
    'CREATE TABLE public.refers (id int PRIMARY KEY, a int REFERENCES "my schema"."a "" table")',
    "INSERT INTO public.refers VALUES (1, 1)",
    "CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.refers",
    "CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    'CREATE TRIGGER noted BEFORE INSERT ON public."Lesson" FOR EACH ROW EXECUTE FUNCTION public.noted()',
    "CREATE RULE quiet AS ON DELETE TO public.refers DO INSTEAD NOTHING",
    'ALTER TABLE public."User" ENABLE ROW LEVEL SECURITY',
    'CREATE POLICY everybody ON public."User" USING (true)',
    'CREATE STATISTICS public.together ON "teacherId", "studentId" FROM public."Lesson"',
    "CREATE PUBLICATION everything FOR ALL TABLES",
    "CREATE TABLE public.parts (id int, day date) PARTITION BY RANGE (day)",
    "CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "ALTER TABLE public.parts ADD PRIMARY KEY (id, day)",
    "INSERT INTO public.parts VALUES (1, '2026-05-05')",
)


@pytest.fixture(scope="module")
def chain(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    made = chain_in(tmp_path_factory.mktemp("critical"), data_classes=CLASSES)
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.2)
        execute(target, *HARD)
        made.take(target)
        yield made


@pytest.fixture(scope="module")
def fetched(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetched")
    with Progress().stage("fetch") as stage:
        assert fetch(chain.store, chain.entry, stage, folder, chain.settings).status.value == "passed"
    return folder


@pytest.fixture(scope="module")
def server(server17: Cluster) -> Iterator[RestoreServer]:
    with throwaway_beside(server17) as running:
        yield running


def qualified(chain: Chain) -> tuple[str, ...]:
    tables = chain.entry.require_manifest().fingerprint.tables
    return tuple(table.qualified for table in tables if table.name in CRITICAL)


def state(target: Target) -> dict[str, tuple[int, bool, bool, int]]:
    """Of every table: its rows, whether it has a primary key, whether it has statistics, and its foreign keys."""
    found = {}
    with connect(target) as connection:
        for oid, schema, name, keyed, analysed, foreign in query(
            connection,
            "SELECT c.oid::regclass::text, n.nspname, c.relname,"
            " EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p'),"
            " EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid),"
            " (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f')"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname IN ('public', 'my schema')",
        ):
            rows = query(connection, f"SELECT count(*) FROM {oid}")[0][0]
            found[name] = (rows, keyed, analysed, foreign)
            assert schema
    return found


def schema_of(server: RestoreServer, restored: Restored, folder: Path) -> tuple[SchemaObject, ...]:
    folder.mkdir(exist_ok=True)
    return read_schema(server.toolchain, restored.target.write_service_file(folder))


def test_critical_tables_are_usable_while_the_others_are_empty(
    chain: Chain, fetched: Path, server: RestoreServer, tmp_path: Path
) -> None:
    manifest = chain.entry.require_manifest()
    expected = {table.name: table.rows for table in manifest.fingerprint.tables}
    at_core: dict[str, Any] = {}

    def observe() -> None:
        at_core.update(state(server.admin.with_database("core")))

    def restore(name: str, **options: Any) -> Restored:
        return restore_fetched(server, manifest, fetched, name, jobs=2, progress=Progress(), **options)

    try:
        restored = restore("core", critical=qualified(chain), core_done=observe)
        plain = restore("plain")
        assert restored.errors == plain.errors == ()

        assert set(at_core) >= {*CRITICAL, "Invoice", 'a " table', "refers"}
        for name, (rows, keyed, analysed, _) in at_core.items():
            if name in CRITICAL:
                assert (rows, keyed, analysed) == (expected[name], True, True), name
                assert rows > 0
            else:
                assert (rows, keyed, analysed) == (0, False, False), name
        assert at_core["Lesson"][3] > 0, "foreign keys between critical tables hold already"
        # At the end there is no difference to a plain restore: nothing forgotten, nothing twice.
        after, reference = state(restored.target), state(plain.target)
        assert after == reference
        assert {name: values[0] for name, values in after.items()} == expected
        assert schema_of(server, restored, tmp_path / "a") == schema_of(server, plain, tmp_path / "b")
        with connect(restored.target) as one, connect(plain.target) as other:
            for sql in ("SELECT * FROM public.counted", "SELECT last_value, is_called FROM public.invoice_number_seq"):
                assert query(one, sql) == query(other, sql)
            assert query(one, "SELECT count(*) FROM pg_largeobject_metadata") == [(1,)]
    finally:
        with connect(server.admin) as connection:
            drop_database(connection, "core")
            drop_database(connection, "plain")


def test_every_entry_is_in_exactly_one_part(chain: Chain, fetched: Path, server: RestoreServer) -> None:
    """Lines that are in no list would be forgotten, lines in two would be restored twice."""
    split = split_dump(server.toolchain, fetched / "dump", qualified(chain))
    for section, parts in (
        ("data", (split.core_data, split.other_data)),
        ("post-data", (split.core_rest, split.other_rest)),
    ):
        lines = [entry.line for entry in list_entries(server.toolchain, fetched / "dump", section=section)]
        assert sorted(lines) == sorted([*parts[0], *parts[1]])
        assert len(set(lines)) == len(lines)
        assert all(parts), f"{section}: both parts have something"
    assert any("SEQUENCE SET" in line for line in split.core_data), "keys need their sequences"
    assert not any("Invoice " in line for line in split.core_rest if "FK CONSTRAINT" in line)


def test_the_whole_restore_is_proven_and_tells_both_times(chain: Chain, server17: Cluster) -> None:
    into = server17.target("critical_first")
    try:
        outcome = restore_backup(chain.settings, chain.store, chain.entry, into, Progress(), critical_first=True)
        assert outcome.verdict is Verdict.PROVEN, outcome.checks
        assert outcome.core_seconds is not None
        assert 0 < outcome.core_seconds < outcome.full_seconds
    finally:
        with connect(server17.target()) as connection:
            drop_database(connection, "critical_first")


def test_without_critical_tables_nothing_is_started(chain: Chain, server17: Cluster) -> None:
    settings = chain.settings.model_copy(update={"data_classes": {}})
    into = server17.target("critical_none")
    with pytest.raises(ConfigError, match="NO_CRITICAL_TABLES"):
        restore_backup(settings, chain.store, chain.entry, into, Progress(), critical_first=True)
    with connect(server17.target()) as connection:
        assert query(connection, "SELECT 1 FROM pg_database WHERE datname LIKE 'critical_none%'") == []


def test_tables_of_the_same_name_in_several_schemas_are_all_critical(server17: Cluster, tmp_path: Path) -> None:
    chain = chain_in(tmp_path, data_classes=CLASSES)
    with fresh_database(server17) as target:
        execute(
            target,
            "CREATE SCHEMA a",
            "CREATE SCHEMA b",
            'CREATE TABLE a."User" (id int PRIMARY KEY)',
            'CREATE TABLE b."User" (id int PRIMARY KEY)',
            "CREATE TABLE a.other (id int PRIMARY KEY)",
            'INSERT INTO a."User" VALUES (1)',
            'INSERT INTO b."User" VALUES (1)',
        )
        chain.take(target)
    into = server17.target("critical_twice")
    try:
        outcome = restore_backup(chain.settings, chain.store, chain.entry, into, Progress(), critical_first=True)
        assert outcome.verdict is Verdict.PROVEN, outcome.checks
        with connect(into) as connection:
            assert query(connection, 'SELECT count(*) FROM a."User", b."User"') == [(1,)]
    finally:
        with connect(server17.target()) as connection:
            drop_database(connection, "critical_twice")
