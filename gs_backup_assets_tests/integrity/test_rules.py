"""The rule language: what a rule file may say, what is wrong with it when it is wrong, and the SQL that comes of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.integrity.rules import Check, QueryCheck, RowCheck, Table, load_rules, split_name

# The ids that Dagster's check history, the sample data and its sabotages hang on. Never take one out or rename one.
IDS = [
    "user_email_missing",
    "user_email_malformed",
    "user_email_duplicate",
    "user_name_missing",
    "student_profile_orphaned",
    "student_profile_orphaned_teacher",
    "student_profile_role",
    "teacher_profile_orphaned",
    "teacher_profile_role",
    "teacher_price_negative",
    "availability_time_order",
    "lesson_without_teacher",
    "lesson_without_student",
    "lesson_orphaned_teacher",
    "lesson_orphaned_student",
    "lesson_duration_range",
    "lesson_rating_range",
    "lesson_price_negative",
    "lesson_completed_in_future",
    "recurring_slot_day_of_week",
    "recurring_slot_duration_range",
    "recurring_slot_cancelled_at",
    "invoice_total_negative",
    "invoice_subtotal_negative",
    "invoice_total_matches_items",
    "invoice_paid_has_paid_at",
    "invoice_orphaned_teacher",
    "invoice_number_duplicate",
    "invoice_month_malformed",
    "invoice_item_orphaned",
    "invoice_item_amount",
    "subscription_month_order",
    "subscription_rate_negative",
    "monthly_billing_amount",
    "curriculum_progress_percent",
    "curriculum_progress_items",
    "item_progress_completed_at",
    "checklist_item_completed_at",
    "library_item_size_negative",
]

OWN = Table("public", "Lesson", ("id",))
TABLES = {"lesson": OWN, "teacher": Table("public", "Teacher", ("id",)), "odd": Table("A b", 'x"y', ("k1", "k2"))}


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "id": "has_teacher",
        "title": "Has a teacher",
        "description": "It is there.",
        "severity": "critical",
        "table": "lesson",
        "check": {"kind": "not_null", "columns": ["teacherId"]},
        "hint": "Add it.",
        **changes,
    }


def document(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "mine", "tables": {"lesson": ["Lesson", "lessons"]}, "rules": list(rules), **changes}


def write(folder: Path, content: Any) -> str:
    (folder / "mine.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return "mine.yaml"


def check(**fields: Any) -> Any:
    return TypeAdapter(Check).validate_python(fields)


def test_packaged_rules() -> None:
    rules = load_rules("guitar_strategies")
    assert [rule.id for rule in rules.rules] == IDS
    assert {"User", "users"} == set(rules.tables["user"])
    assert {"Lesson", "lessons"} == set(rules.tables["lesson"])
    assert {"Invoice", "invoices"} == set(rules.tables["invoice"])
    assert len({rule.title for rule in rules.rules}) == len(IDS)
    for item in rules.rules:
        sql = item.check.violation() if isinstance(item.check, RowCheck) else ""
        assert "now()" not in sql.lower() and "current_" not in sql.lower()


def test_none_is_an_empty_set() -> None:
    assert load_rules("none").rules == ()


def test_a_file_is_meant_from_the_base(tmp_path: Path) -> None:
    spec = write(tmp_path, document(rule(), rule(id="second")))
    assert [item.id for item in load_rules(spec, tmp_path).rules] == ["has_teacher", "second"]
    assert load_rules(str(tmp_path / spec)).name == "mine"


def test_rules_are_frozen(tmp_path: Path) -> None:
    rules = load_rules(write(tmp_path, document(rule())), tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        rules.rules[0].title = "Other"  # type: ignore[misc]


@pytest.mark.parametrize("spec", ["missing.yaml", "."])
def test_no_such_file(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_rules(spec, tmp_path)
    assert caught.value.code == "RULES_NOT_FOUND"
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("rules: [", "not YAML"),
        ("- 1", "no rules"),
        ("", "no rules"),
        (document(rule(), rule()), "rule has_teacher: there is another rule with this id"),
        (document(rule(id="Has-Teacher")), "rule Has-Teacher: id"),
        (document({"title": "x"}), "rule number 1: id"),
        (document("has_teacher"), "rule number 1"),  # type: ignore[arg-type]
        (document(rule(colour="red")), "rule has_teacher: colour"),
        (document(rule(severity="mild")), "rule has_teacher: severity"),
        (document(rule(title="")), "rule has_teacher: title"),
        (document(rule(table="teacher")), "rule has_teacher: teacher is not listed under tables"),
        (document(rule(check={"kind": "sparkling"})), "rule has_teacher: check"),
        (document(rule(check={"kind": "not_null", "columns": []})), "rule has_teacher: check.not_null.columns"),
        (document(rule(check={"kind": "not_null", "column": "a"})), "rule has_teacher: check.not_null.column"),
        (document(rule(check={"kind": "between", "columns": ["a"]})), "give min, max or both"),
        (document(rule(check={"kind": "between", "columns": ["a"], "min": 2, "max": 1})), "min is above max"),
        (document(rule(check={"kind": "between", "columns": ["a"], "min": float("inf")})), "rule has_teacher: check"),
        (document(rule(check={"kind": "between", "columns": ["a"], "min": "1; DROP"})), "rule has_teacher: check"),
        (
            document(rule(check={"kind": "orphans", "column": "teacherId", "parent": "teacher"})),
            "rule has_teacher: teacher is not listed under tables",
        ),
        (
            document(rule(check={"kind": "rows", "sql": "SELECT id FROM {lesson} JOIN {slot} USING (id)"})),
            "rule has_teacher: slot is not listed under tables",
        ),
        (document(tables={"lesson": []}), "tables.lesson"),
        (document(tables={"Lesson": ["Lesson"]}), "tables.Lesson"),
        (document(shape="round"), "shape"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, says: str) -> None:
    spec = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_rules(spec, tmp_path)
    assert caught.value.code == "RULES_INVALID"
    assert str(tmp_path / spec) in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_rules("mine.yaml", tmp_path)


@pytest.mark.parametrize(
    ("given", "sql"),
    [
        (check(kind="not_null", columns=["a", 'b"c']), '"a" IS NULL OR "b""c" IS NULL'),
        (check(kind="not_blank", columns=["a"]), "(\"a\" ~ '\\S') IS NOT TRUE"),
        (check(kind="between", columns=["a"], min=1, max=5), '"a" < 1 OR "a" > 5'),
        (check(kind="between", columns=["a", "b"], max=0.5), '"a" > 0.5 OR "b" > 0.5'),
        (check(kind="in_set", columns=["a"], values=["x", "o'y"]), "\"a\"::text NOT IN ('x', 'o''y')"),
        (check(kind="matches", columns=["a"], pattern="^it's$"), "\"a\"::text !~ '^it''s$'"),
        (check(kind="condition", sql=" a < b -- note "), "(a < b -- note\n) IS FALSE"),
    ],
)
def test_sql_of_row_checks(given: RowCheck, sql: str) -> None:
    assert given.violation() == sql


@pytest.mark.parametrize(
    ("given", "own", "sql"),
    [
        (
            check(kind="unique", columns=["a", "b"]),
            OWN,
            'SELECT "id" FROM "public"."Lesson" WHERE ("a", "b") IN'
            ' (SELECT "a", "b" FROM "public"."Lesson" GROUP BY 1, 2 HAVING count(*) > 1)',
        ),
        (
            check(kind="orphans", column="c", parent="teacher"),
            TABLES["odd"],
            'SELECT child."k1", child."k2" FROM "A b"."x""y" AS child WHERE child."c" IS NOT NULL AND NOT EXISTS'
            ' (SELECT FROM "public"."Teacher" AS parent WHERE parent."id" = child."c")',
        ),
        (
            check(kind="rows", sql="SELECT id FROM {odd} WHERE a ~ 'x{2}' AND b = '{}' ; \n"),
            OWN,
            'SELECT id FROM "A b"."x""y" WHERE a ~ \'x{2}\' AND b = \'{}\'',
        ),
    ],
)
def test_sql_of_query_checks(given: QueryCheck, own: Table, sql: str) -> None:
    assert given.query(own, TABLES) == sql


@pytest.mark.parametrize(
    ("name", "parts"),
    [("Lesson", ("public", "Lesson")), ("billing.Invoice", ("billing", "Invoice")), ("public.a.b", ("public", "a.b"))],
)
def test_names_of_tables(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts
    assert split_name(Table(*parts, key=()).label) == parts


def test_importing_the_language_is_light() -> None:
    program = (
        "import sys, gs_backup_assets.integrity.rules as r; r.load_rules('guitar_strategies')\n"
        "import gs_backup_assets.integrity.suite, gs_backup_assets.integrity.foreign_keys\n"
        "print([m for m in ('great_expectations', 'pandas', 'sqlalchemy', 'dagster') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_example_in_the_documentation_is_a_rule_file(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shop.yaml").write_text(example, encoding="utf-8")
    loaded = load_rules("shop.yaml", tmp_path)
    assert [rule.id for rule in loaded.rules] == ["customer_email_missing", "order_orphaned", "order_paid_in_full"]
    kinds = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert kinds == {choice.model_fields["kind"].annotation.__args__[0] for choice in get_args(get_args(Check)[0])}
