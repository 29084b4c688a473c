"""The language of data rules: what a rule file may say, and the SQL that finds the rows that break a rule."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from gs_backup_assets.errors import ConfigError

PACKAGED = "guitar_strategies"

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Column = Annotated[str, StringConstraints(min_length=1)]
Columns = Annotated[tuple[Column, ...], Field(min_length=1)]
Number = StrictInt | Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True)
class Table:
    """A table that exists: its names as the catalogue has them, and the columns of its primary key, maybe none."""

    schema: str
    name: str
    key: tuple[str, ...]

    @property
    def sql(self) -> str:
        """Schema-qualified and quoted, for statements."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    @property
    def label(self) -> str:
        """As a rule file would name it: without the schema when that is public."""
        return self.name if self.schema == "public" and "." not in self.name else f"{self.schema}.{self.name}"


def identifier(name: str) -> str:
    """A quoted identifier (PostgreSQL manual, "Identifiers and Key Words")."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A quoted string. A backslash is a plain character in it, given standard_conforming_strings."""
    return "'" + value.replace("'", "''") + "'"


def split_name(name: str) -> tuple[str, str]:
    """Schema and table of a name in a rule file: what is before the first dot is the schema, else it is public."""
    schema, dot, table = name.partition(".")
    return (schema, table) if dot else ("public", name)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowCheck(_Model, ABC):
    """A check that looks at one row at a time; all of these on a table share one scan."""

    @abstractmethod
    def violation(self) -> str:
        """An SQL condition that is true for a row that breaks the rule, and null or false for every other."""


class QueryCheck(_Model, ABC):
    """A check that needs a query of its own."""

    def aliases(self) -> tuple[str, ...]:
        """The other tables that it reads, by their aliases."""
        return ()

    @abstractmethod
    def query(self, own: Table, tables: Mapping[str, Table]) -> str:
        """A SELECT that gives the primary key of every row of `own` that breaks the rule."""


class NotNull(RowCheck):
    """No column is null."""

    kind: Literal["not_null"]
    columns: Columns

    def violation(self) -> str:
        return _any(f"{identifier(c)} IS NULL" for c in self.columns)


class NotBlank(RowCheck):
    """No column is null, empty, or nothing but white space."""

    kind: Literal["not_blank"]
    columns: Columns

    def violation(self) -> str:
        return _any(f"({identifier(c)} ~ '\\S') IS NOT TRUE" for c in self.columns)


class Between(RowCheck):
    """Every column lies between `min` and `max`, the limits included; null passes."""

    kind: Literal["between"]
    columns: Columns
    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Between:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self

    def violation(self) -> str:
        limits = [(sign, limit) for sign, limit in (("<", self.min), (">", self.max)) if limit is not None]
        return _any(f"{identifier(c)} {sign} {limit}" for c in self.columns for sign, limit in limits)


class InSet(RowCheck):
    """Every column has one of the values, compared as text; null passes."""

    kind: Literal["in_set"]
    columns: Columns
    values: Annotated[tuple[str, ...], Field(min_length=1)]

    def violation(self) -> str:
        values = ", ".join(literal(value) for value in self.values)
        return _any(f"{identifier(c)}::text NOT IN ({values})" for c in self.columns)


class Matches(RowCheck):
    """Every column matches the regular expression (PostgreSQL manual, "POSIX Regular Expressions"); null passes."""

    kind: Literal["matches"]
    columns: Columns
    pattern: Annotated[str, StringConstraints(min_length=1)]

    def violation(self) -> str:
        return _any(f"{identifier(c)}::text !~ {literal(self.pattern)}" for c in self.columns)


class Condition(RowCheck):
    """An SQL condition on the row's columns is not false. As in a CHECK constraint, null passes."""

    kind: Literal["condition"]
    sql: Text

    def violation(self) -> str:
        return f"({self.sql}\n) IS FALSE"


class Unique(QueryCheck):
    """No two rows have the same values; a row with a null among them passes."""

    kind: Literal["unique"]
    columns: Columns
    ignore_case: StrictBool = False

    def query(self, own: Table, tables: Mapping[str, Table]) -> str:
        names = [f"lower({identifier(c)})" if self.ignore_case else identifier(c) for c in self.columns]
        values, groups = ", ".join(names), ", ".join(str(n) for n in range(1, len(names) + 1))
        return (
            f"SELECT {_keys(own)} FROM {own.sql} WHERE ({values}) IN"
            f" (SELECT {values} FROM {own.sql} GROUP BY {groups} HAVING count(*) > 1)"
        )


class Orphans(QueryCheck):
    """Every value of `column` is a value of the parent's column; null passes."""

    kind: Literal["orphans"]
    column: Column
    parent: Id
    parent_column: Column = "id"

    def aliases(self) -> tuple[str, ...]:
        return (self.parent,)

    def query(self, own: Table, tables: Mapping[str, Table]) -> str:
        column, key = identifier(self.column), identifier(self.parent_column)
        return (
            f"SELECT {_keys(own, 'child.')} FROM {own.sql} AS child WHERE child.{column} IS NOT NULL AND NOT EXISTS"
            f" (SELECT FROM {tables[self.parent].sql} AS parent WHERE parent.{key} = child.{column})"
        )


class Rows(QueryCheck):
    """A SELECT of the rows that break the rule. It gives the primary key of the rule's table, under its own names.

    Tables are written as `{alias}`, so that the statement holds for either name of a table. Other braces are left
    alone.
    """

    kind: Literal["rows"]
    sql: Text

    @field_validator("sql")
    @classmethod
    def _without_semicolon(cls, value: str) -> str:
        return value.rstrip("; \n")

    def aliases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_PLACEHOLDER.findall(self.sql)))

    def query(self, own: Table, tables: Mapping[str, Table]) -> str:
        return _PLACEHOLDER.sub(lambda match: tables[match[1]].sql, self.sql)


Check = Annotated[
    NotNull | NotBlank | Between | InSet | Matches | Condition | Unique | Orphans | Rows, Field(discriminator="kind")
]


class Rule(_Model):
    """One rule. Its id becomes the name of a check in Dagster, whose history hangs on it: never rename one."""

    id: Id
    title: Text
    description: str = ""
    severity: Literal["critical", "warning"]
    table: Id
    check: Check
    hint: str = ""

    def aliases(self) -> tuple[str, ...]:
        """Every table that the rule reads, its own first."""
        others = self.check.aliases() if isinstance(self.check, QueryCheck) else ()
        return (self.table, *(alias for alias in others if alias != self.table))


class RuleSet(_Model):
    """A rule file. `tables` gives each alias the names under which its table may exist; the first that does counts."""

    name: Text
    tables: Mapping[Id, Annotated[tuple[Text, ...], Field(min_length=1)]] = {}
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> RuleSet:
        seen: set[str] = set()
        for rule in self.rules:
            if rule.id in seen:
                raise ValueError(f"rule {rule.id}: there is another rule with this id")
            seen.add(rule.id)
            unknown = [alias for alias in rule.aliases() if alias not in self.tables]
            if unknown:
                raise ValueError(f"rule {rule.id}: {', '.join(unknown)} is not listed under tables")
        return self


def load_rules(spec: str, base: Path | None = None) -> RuleSet:
    """Read rules: 'none', 'guitar_strategies' (the file in this package), or the path of a file, meant from `base`.

    Raises ConfigError: `RULES_NOT_FOUND`, `RULES_INVALID`, naming the file, the rules and what is wrong with each.
    """
    if spec == "none":
        return RuleSet(name="none")
    path = Path(__file__).with_name("rules.yaml") if spec == PACKAGED else (base or Path()) / spec
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "RULES_NOT_FOUND",
            f"The rule file {path} cannot be read: {error.strerror}.",
            f"Set rules to 'none', '{PACKAGED}' or the path of a YAML file, meant from the folder of backup.yaml.",
        ) from None
    except UnicodeDecodeError:
        raise _invalid(path, "it is not UTF-8 text") from None
    return _read(path, text)


@lru_cache(maxsize=16)
def _read(path: Path, text: str) -> RuleSet:
    """The rules in a text, remembered: hundreds of databases may share one file, and YAML is slow to parse."""
    document = _parse(path, text)
    try:
        return RuleSet.model_validate(document)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(document, p["loc"], p["msg"]) for p in error.errors(include_input=False))
        raise _invalid(path, "; ".join(problems)) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _invalid(path, f"it is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise _invalid(path, "it has no rules")
    return document


def _invalid(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        "RULES_INVALID",
        f"The rule file {path} is wrong: {problem}.",
        "Correct it; the packaged gs_backup_assets/integrity/rules.yaml is an example.",
    )


def _problem(document: dict[str, Any], where: tuple[int | str, ...], message: str) -> str:
    """Say where in the file a problem is, by the rule's id instead of its position where it has one."""
    message = message.removeprefix("Value error, ")
    if len(where) < 2 or where[0] != "rules" or not isinstance(where[1], int):
        return f"{'.'.join(map(str, where))}: {message}" if where else message
    item = document["rules"][where[1]]
    identity = item.get("id") if isinstance(item, dict) else None
    name = f"rule {identity}" if isinstance(identity, str) else f"rule number {where[1] + 1}"
    rest = ".".join(map(str, where[2:]))
    return f"{name}: {rest}: {message}" if rest else f"{name}: {message}"


def _any(conditions: Any) -> str:
    return " OR ".join(conditions)


def _keys(table: Table, prefix: str = "") -> str:
    """The key's columns for a SELECT list; without a key, something to count."""
    return ", ".join(prefix + identifier(column) for column in table.key) or "1 AS row"
