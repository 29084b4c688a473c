"""The rules at work on a real server: each one broken and kept, under both names of each table, and what cannot run."""

from __future__ import annotations

import logging
import os
import re
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sqlalchemy.engine import make_url

from gs_backup_assets.catalogue.proof import RuleOutcome
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import SourceError
from gs_backup_assets.integrity.rules import RuleSet, load_rules
from gs_backup_assets.integrity.suite import evaluate, url_of
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.integrity.studio import (
    BREACHES,
    DOCUMENT,
    PRODUCTION,
    add_breaches,
    add_sound_rows,
    create_tables,
)

RULES = load_rules("guitar_strategies")
PASSWORD = "p$a@s:s/w%o${HOME}d"


class Judged:
    """One database, judged three times: empty, with sound rows, and with every rule broken."""

    def __init__(self, target: Target, names: dict[str, str], docs: Path) -> None:
        self.names = names
        self.docs = docs
        with connect(target) as connection:
            create_tables(connection, names)
            self.empty = evaluate(RULES, target, docs=None)
            add_sound_rows(connection, names)
            self.sound = evaluate(RULES, target, docs=None)
            add_breaches(connection, names)
        # Nothing asks for the password of a socket that trusts everyone; it must not turn up anywhere all the same.
        self.broken = evaluate(RULES, replace(target, password=PASSWORD), docs=docs)


@pytest.fixture(scope="module", params=[PRODUCTION, DOCUMENT], ids=["production", "document"])
def judged(
    request: pytest.FixtureRequest, server17: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Judged]:
    with fresh_database(server17) as target:
        yield Judged(target, request.param, tmp_path_factory.mktemp("docs"))


def one(outcomes: tuple[RuleOutcome, ...], rule: str) -> RuleOutcome:
    return next(outcome for outcome in outcomes if outcome.id == rule)


def rule_set(folder: Path, tables: dict[str, list[str]], checks: dict[str, tuple[str, dict[str, object]]]) -> RuleSet:
    """Rules in short: id -> (table's alias, check), by way of a rule file."""
    rules = [
        {
            "id": name,
            "title": name,
            "description": "A test.",
            "severity": "warning",
            "table": table,
            "check": check,
            "hint": "None.",
        }
        for name, (table, check) in checks.items()
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"name": "test", "tables": tables, "rules": rules}))
    return load_rules("rules.yaml", folder)


def test_every_rule_has_a_breach() -> None:
    assert set(BREACHES) == {rule.id for rule in RULES.rules}


@pytest.mark.parametrize("rule", list(BREACHES))
def test_rule_names_exactly_the_rows_that_break_it(judged: Judged, rule: str) -> None:
    outcome = one(judged.broken, rule)
    keys = BREACHES[rule][1]
    assert (outcome.status, outcome.unexpected, outcome.sample_keys, outcome.reason) == (
        Status.FAILED,
        len(keys),
        keys,
        None,
    )
    assert outcome.rows is not None
    assert outcome.rows > len(keys)


def test_sound_rows_obey_every_rule(judged: Judged) -> None:
    assert [outcome for outcome in judged.sound if outcome.status is not Status.PASSED] == []
    assert {outcome.unexpected for outcome in judged.sound} == {0}
    assert one(judged.sound, "user_email_missing").rows == 3
    assert one(judged.sound, "lesson_orphaned_teacher").rows == 2


def test_empty_tables_obey_every_rule(judged: Judged) -> None:
    assert {(outcome.status, outcome.unexpected, outcome.rows) for outcome in judged.empty} == {(Status.PASSED, 0, 0)}


def test_outcomes_come_in_the_order_of_the_file_and_name_the_table_that_exists(judged: Judged) -> None:
    assert [(outcome.id, outcome.title, outcome.severity) for outcome in judged.broken] == [
        (rule.id, rule.title, rule.severity) for rule in RULES.rules
    ]
    tables = {outcome.table for outcome in judged.broken}
    assert {name.strip('"') for name in judged.names.values()} <= tables
    assert not tables & {name.strip('"') for name in (DOCUMENT if judged.names is PRODUCTION else PRODUCTION).values()}


def test_data_docs_show_the_outcomes_and_nothing_personal(judged: Judged) -> None:
    pages = {path: path.read_text() for path in judged.docs.rglob("*.html")}
    assert judged.docs / "index.html" in pages
    text = "\n".join(pages.values())
    assert "Every user has an e-mail address" in text
    assert "3 unexpected values found" in text
    assert "inner_space" in text
    everything = text + "\n".join(outcome.model_dump_json() for outcome in judged.broken)
    for private in ("@example", "@mail.example", "Twin", "2026/01", PASSWORD, "%24a"):
        assert private not in everything
    assert str(judged.docs) not in text
    assert "Traceback" not in text


def test_rules_that_cannot_be_evaluated_do_not_poison_the_others(empty_database: Target, tmp_path: Path) -> None:
    with connect(empty_database) as connection:
        query(
            connection,
            """CREATE SCHEMA "Billing"; CREATE TABLE "Billing"."Person" (id int PRIMARY KEY, email text);
               INSERT INTO "Billing"."Person" SELECT n, 'p' || n || '@example.com' FROM generate_series(1, 3) AS n""",
        )
    person = ("person", "Billing.Person")
    tables = {"person": ["Nobody", person[1]], "ghost": ["Ghost", "ghosts"]}
    select = "SELECT id FROM {person} WHERE email LIKE '%@example.com' AND id < 3 AND email !~ 'x{2}[[:space:]]:a'"
    rules = rule_set(
        tmp_path,
        tables,
        {
            "keeps": ("person", {"kind": "not_null", "columns": ["email"]}),
            "no_column": ("person", {"kind": "not_null", "columns": ["phone"]}),
            "no_syntax": ("person", {"kind": "condition", "sql": "id ><"}),
            "bad_value": ("person", {"kind": "condition", "sql": "email::int > 0"}),
            "divides": ("person", {"kind": "condition", "sql": "1 / (id - id) > 0"}),
            "broken": ("person", {"kind": "between", "columns": ["id"], "max": 2}),
            "no_table": ("ghost", {"kind": "not_null", "columns": ["id"]}),
            "no_parent": ("person", {"kind": "orphans", "column": "id", "parent": "ghost"}),
            "no_type": ("person", {"kind": "orphans", "column": "email", "parent": "person"}),
            "found": ("person", {"kind": "rows", "sql": select}),
            "no_key": ("person", {"kind": "rows", "sql": "SELECT email FROM {person}"}),
            "writes": ("person", {"kind": "rows", "sql": "SELECT id FROM {person} WHERE nextval('s') > 0"}),
            "holds": ("person", {"kind": "in_set", "columns": ["id"], "values": ["1", "2", "3"]}),
        },
    )
    with connect(empty_database) as connection:
        query(connection, "CREATE SEQUENCE public.s")
    told: list[str] = []
    docs = tmp_path / "docs"
    outcomes = evaluate(rules, empty_database, docs=docs, on_rule=told.append)
    assert told == [rule.id for rule in rules.rules]
    assert {outcome.id: (outcome.status.name, outcome.reason or outcome.sample_keys) for outcome in outcomes} == {
        "keeps": ("PASSED", ()),
        "no_column": ("NOT_VERIFIED", 'column "phone" does not exist'),
        "no_syntax": ("NOT_VERIFIED", 'syntax error at or near ")"'),
        "bad_value": ("NOT_VERIFIED", "PostgreSQL reports InvalidTextRepresentation (22P02)"),
        "divides": ("NOT_VERIFIED", "PostgreSQL reports DivisionByZero (22012)"),
        "broken": ("FAILED", ("3",)),
        "no_table": ("NOT_VERIFIED", "the database has no table Ghost or ghosts"),
        "no_parent": ("NOT_VERIFIED", "the database has no table Ghost or ghosts"),
        "no_type": ("NOT_VERIFIED", "operator does not exist: integer = text"),
        "found": ("FAILED", ("1", "2")),
        "no_key": ("NOT_VERIFIED", "column found.id does not exist"),
        "writes": ("NOT_VERIFIED", "cannot execute nextval() in a read-only transaction"),
        "holds": ("PASSED", ()),
    }
    assert {outcome.table for outcome in outcomes} == {"Billing.Person", None}
    pages = "".join(path.read_text() for path in docs.rglob("*.html"))
    assert "example.com" not in pages.replace("%@example.com", "")
    assert "Traceback" not in pages
    assert re.search(r"column &#34;phone&#34; does not exist|column \"phone\" does not exist", pages)


def test_a_statement_has_a_time_limit(empty_database: Target, tmp_path: Path) -> None:
    with connect(empty_database) as connection:
        query(connection, "CREATE TABLE public.slow (id int PRIMARY KEY); INSERT INTO public.slow VALUES (1)")
    rules = rule_set(
        tmp_path,
        {"slow": ["slow"]},
        {
            "waits": ("slow", {"kind": "rows", "sql": "SELECT id FROM {slow} WHERE pg_sleep(60) IS NULL"}),
            "holds": ("slow", {"kind": "not_null", "columns": ["id"]}),
        },
    )
    begin = time.monotonic()
    waits, holds = evaluate(rules, empty_database, docs=None, statement_timeout_seconds=1)
    assert time.monotonic() - begin < 30
    assert (waits.status, waits.reason) == (Status.NOT_VERIFIED, "canceling statement due to statement timeout")
    assert holds.status is Status.PASSED


def test_hidden_rows_are_not_taken_for_no_rows(empty_database: Target, tmp_path: Path) -> None:
    role = f"reader_{empty_database.database}"
    with connect(empty_database) as connection:
        query(
            connection,
            f"""CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (-1);
                ALTER TABLE public.t ENABLE ROW LEVEL SECURITY; CREATE TABLE public.closed (id int PRIMARY KEY);
                CREATE ROLE {role} LOGIN; GRANT SELECT ON public.t TO {role}""",
        )
        check = {"kind": "between", "columns": ["id"], "min": 0}
        rules = rule_set(
            tmp_path, {"t": ["t"], "closed": ["closed"]}, {"hidden": ("t", check), "forbidden": ("closed", check)}
        )
        reader = replace(empty_database, parameters={**empty_database.parameters, "user": role})
        try:
            outcomes = evaluate(rules, reader, docs=None)
        finally:
            query(connection, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
        (Status.NOT_VERIFIED, 'query would be affected by row-level security policy for table "t"'),
        (Status.NOT_VERIFIED, "permission denied for table closed"),
    ]


def test_many_broken_rows_take_no_memory(empty_database: Target, tmp_path: Path) -> None:
    with connect(empty_database) as connection:
        create_tables(connection, PRODUCTION)
        rules = RULES.model_copy(update={"rules": tuple(rule for rule in RULES.rules if rule.table == "lesson")})
        evaluate(rules, empty_database, docs=None)  # what is imported and compiled once is not counted
        query(
            connection,
            """INSERT INTO "Lesson" (id, "teacherId", duration)
               SELECT lpad(n::text, 8, '0'), 'gone', -1 FROM generate_series(1, 300000) AS n""",
        )
    docs = tmp_path / "docs"
    tracemalloc.start()
    outcomes = evaluate(rules, empty_database, docs=docs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    for rule in ("lesson_without_student", "lesson_orphaned_teacher", "lesson_duration_range"):
        outcome = one(outcomes, rule)
        assert (outcome.unexpected, outcome.rows) == (300_000, 300_000)
        assert outcome.sample_keys == tuple(f"{n:08}" for n in range(1, 21))
    # 300,000 rows of three rules would be some 200 MB of objects.
    assert peak < 40_000_000
    pages = "".join(path.read_text() for path in docs.rglob("*Lesson.html"))
    assert "300000 unexpected values found" in pages
    assert "00000020" in pages
    assert "00000021" not in pages


def test_keys_of_several_columns_and_of_none(empty_database: Target, tmp_path: Path) -> None:
    with connect(empty_database) as connection:
        query(
            connection,
            """CREATE TABLE public."odd ""x"" name" (b int, a text, "c.d" int, PRIMARY KEY (a, b));
               INSERT INTO public."odd ""x"" name" VALUES (10, 'x', -1), (9, 'x', -1), (1, 'y', 1);
               CREATE TABLE public.keyless (mail text, n int); INSERT INTO public.keyless VALUES ('a@b.c', -1)""",
        )
    below = {"kind": "between", "columns": ["n"], "min": 0}
    rules = rule_set(
        tmp_path,
        {"odd": ['odd "x" name'], "keyless": ["keyless"]},
        {
            "composite": ("odd", {"kind": "between", "columns": ["c.d"], "min": 0}),
            "twice": ("odd", {"kind": "unique", "columns": ["c.d"]}),
            "keyless": ("keyless", below),
            "keyless_rows": ("keyless", {"kind": "rows", "sql": "SELECT mail FROM {keyless} WHERE n < 0"}),
            "keyless_orphan": ("keyless", {"kind": "orphans", "column": "n", "parent": "odd", "parent_column": "b"}),
        },
    )
    outcomes = evaluate(rules, empty_database, docs=tmp_path / "docs")
    assert [(outcome.unexpected, outcome.sample_keys) for outcome in outcomes] == [
        (2, ("x, 9", "x, 10")),
        (2, ("x, 9", "x, 10")),
        (1, ()),
        (1, ()),
        (1, ()),
    ]


def test_leaves_no_trace(empty_database: Target, caplog: pytest.LogCaptureFixture) -> None:
    with connect(empty_database) as connection:
        create_tables(connection, DOCUMENT)
        query(connection, "ALTER TABLE lessons DROP COLUMN price")
        environment = dict(os.environ)
        level = logging.getLogger("great_expectations").level
        with caplog.at_level(logging.DEBUG):
            outcome = one(evaluate(RULES, empty_database, docs=None), "lesson_price_negative")
        assert outcome.status is Status.NOT_VERIFIED
        assert dict(os.environ) == environment
        assert logging.getLogger("great_expectations").level == level
        assert not [record for record in caplog.records if record.name.startswith("great_expectations")]
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gs_backup_rules' AND datname = %s"
        for _ in range(50):
            if query(connection, sessions, (empty_database.database,)) == [(0,)]:
                break
            time.sleep(0.1)
        else:
            pytest.fail("connections stayed open")


def test_docs_that_cannot_be_written_do_not_cost_the_outcomes(
    empty_database: Target, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(empty_database) as connection:
        create_tables(connection, PRODUCTION)
    (tmp_path / "file").touch()
    assert {outcome.status for outcome in evaluate(RULES, empty_database, docs=tmp_path / "file")} == {Status.PASSED}
    assert "Data Docs were not written" in caplog.text


def test_no_rules_need_no_suite(empty_database: Target) -> None:
    assert evaluate(load_rules("none"), empty_database, docs=None) == ()
    assert {outcome.status for outcome in evaluate(RULES, empty_database, docs=None)} == {Status.NOT_VERIFIED}


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="SERVER_UNREACHABLE"):
        evaluate(RULES, Target({"host": str(tmp_path), "dbname": "none", "user": "nobody"}), docs=None)


@pytest.mark.parametrize("host", ["/a folder/with:colon", "db.example.com", "127.0.0.1"])
def test_url_carries_everything(host: str) -> None:
    given = {"host": host, "port": "5433", "user": "o'b@r:x", "dbname": "d b/%x", "options": "-c geqo=off"}
    url = make_url(url_of(Target({**given, "sslmode": "require"}, PASSWORD), 5))
    _, keywords = url.get_dialect()().create_connect_args(url)
    assert {key: str(keywords[key]) for key in ("host", "port", "user", "dbname")} == {
        key: given[key] for key in ("host", "port", "user", "dbname")
    }
    assert keywords["password"] == PASSWORD
    assert keywords["sslmode"] == "require"
    assert keywords["options"].startswith("-c geqo=off -c ")
    assert "-c statement_timeout=5000" in keywords["options"]
