"""Proves with Great Expectations that a masked copy holds none of the values that were masked, before access opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.integrity.rules import Rows, Rule, RuleSet, Table, identifier, literal
from gs_backup_assets.integrity.suite import evaluate
from gs_backup_assets.postgres.connection import Target

CHECK = "anonymised"
_CODES = {
    "complete": "MASKING_INCOMPLETE",
    "changed": "MASKING_UNCHANGED",
    "gone": "MASKING_LEFT_ORIGINAL",
    "format": "MASKING_FORMAT_WRONG",
    "statistics": "MASKING_LEFT_STATISTICS",
}
What = Literal["complete", "changed", "gone", "format", "statistics"]


@dataclass(frozen=True)
class ProvedColumn:
    """A masked column. `digest` is the column of the originals' digests; `wrong` finds values that a rule cannot make.

    `nothing` is the condition under which a value is kept. Of a `null` or constant column `wrong` alone decides;
    `dense` values may be those of other rows.
    """

    label: str
    name: str
    digest: str
    digest_of: str
    wrong: str | None
    nothing: str | None
    replaced: bool
    dense: bool


@dataclass(frozen=True)
class ProvedTable:
    """A table with masked columns, the names of its key, and the table with the digests of its originals."""

    relation: str
    schema: str
    name: str
    key: tuple[str, ...]
    originals: str
    salt: str
    columns: tuple[ProvedColumn, ...]


class _AsItStands(Rows):
    """A statement without aliases: braces in it are those of a name, or of a constant such as an array."""

    def aliases(self) -> tuple[str, ...]:
        return ()

    def query(self, own: Table, tables: Mapping[str, Table]) -> str:
        return self.sql


def prove_columns(tables: Sequence[ProvedTable], target: Target) -> CheckResult:
    """Evaluate the suite: one rule for each thing that could have been left behind in each column.

    The check is named `anonymised`; its findings name columns and numbers of rows, never a value.
    """
    found: list[tuple[Rule, What, str]] = []
    names = {}
    for number, table in enumerate(tables, 1):
        alias = f"t{number}"
        names[alias] = (f"{table.schema}.{table.name}",)
        for what, label, sql in _statements(table):
            rule = Rule(
                id=f"r{len(found) + 1}",
                title=f"{label}: {what}",
                severity="critical",
                table=alias,
                check=_AsItStands(kind="rows", sql=sql),
            )
            found.append((rule, what, label))
    outcomes = evaluate(
        RuleSet(name="masking", tables=names, rules=tuple(rule for rule, _, _ in found)), target, docs=None
    )
    findings = []
    statuses = set()
    for (_, what, label), outcome in zip(found, outcomes, strict=True):
        statuses.add(outcome.status)
        if outcome.status is Status.FAILED:
            message = f"{label}: {outcome.unexpected} rows, or values of its statistics, are not masked ({what})."
            findings.append(Finding(code=_CODES[what], message=message, hint="Nobody gets access to this copy."))
        elif outcome.status is Status.NOT_VERIFIED:
            message = f"{label}: {what} could not be proved: {outcome.reason}."
            findings.append(Finding(code="MASKING_NOT_PROVED", message=message))
    columns = sum(len(table.columns) for table in tables)
    status = (
        Status.FAILED
        if Status.FAILED in statuses
        else Status.NOT_VERIFIED
        if findings or not statuses
        else Status.PASSED
    )
    summary = f"{columns} columns of {len(tables)} tables hold none of their original values"
    if status is not Status.PASSED:
        summary = f"{len(findings)} of {len(found)} expectations about {columns} masked columns are not met"
    return CheckResult(
        name=CHECK,
        status=status,
        summary=summary,
        findings=tuple(findings),
        metrics={"masked_columns": columns, "masking_expectations": len(found)},
    )


def _statements(table: ProvedTable) -> Iterator[tuple[What, str, str]]:
    keys = ", ".join(f"t.{identifier(name)}" for name in table.key) or "1 AS row"
    nulls = ", ".join(f"NULL AS {identifier(name)}" for name in table.key) or "1 AS row"
    joined = " AND ".join(f"o.k{i} = t.{identifier(name)}::text" for i, name in enumerate(table.key, 1))
    rows = f"{table.relation} AS t"
    missing = f"(SELECT count(*) FROM {rows}) <> (SELECT count(*) FROM {table.originals})"
    if table.key:
        missing += (
            f" OR EXISTS (SELECT FROM {rows} WHERE NOT EXISTS (SELECT FROM {table.originals} AS o WHERE {joined}))"
        )
    yield "complete", table.name, f"SELECT {nulls} WHERE {missing}"
    for column in table.columns:
        if column.wrong is not None:
            yield "format", column.label, f"SELECT {keys} FROM {rows} WHERE {column.wrong}"
        if column.replaced:
            continue
        kept = f"t.{identifier(column.name)} IS NOT NULL AND ({column.nothing or 'false'}) IS NOT TRUE"
        salted = f"{rows} CROSS JOIN {table.salt} AS s"
        if table.key:
            yield (
                "changed",
                column.label,
                f"SELECT {keys} FROM {salted} JOIN {table.originals} AS o ON {joined}"
                f" WHERE {kept} AND {column.digest_of} = o.{column.digest}",
            )
        if column.dense:
            continue
        originals = f"(SELECT o.{column.digest} FROM {table.originals} AS o WHERE o.{column.digest} IS NOT NULL)"
        yield "gone", column.label, f"SELECT {keys} FROM {salted} WHERE {kept} AND {column.digest_of} IN {originals}"
        yield (
            "statistics",
            column.label,
            f"SELECT {nulls} FROM pg_catalog.pg_stats AS p CROSS JOIN {table.salt} AS s"
            " CROSS JOIN LATERAL unnest(p.most_common_vals::text::text[] || p.histogram_bounds::text::text[]) AS v"
            f" WHERE p.schemaname = {literal(table.schema)} AND p.tablename = {literal(table.name)}"
            f" AND p.attname = {literal(column.name)} AND v <> ''"
            f" AND sha256(s.salt || convert_to(v, getdatabaseencoding())) IN {originals}",
        )
