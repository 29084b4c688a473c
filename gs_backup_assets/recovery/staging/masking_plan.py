"""Decides how each column of a copy is masked, and refuses rules that would break a key; nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.column_facts import Column, ColumnFacts, ColumnKey, Kind

# The fewest characters that a value of the kind needs to be told from others.
_SHORTEST = {
    "hash": 8,
    "fake:name": 12,
    "fake:email": 24,
    "fake:phone": 15,
    "fake:address": 24,
    "fake:url": 36,
    "fake:text": 1,
}
_DENSE = frozenset({"date", "timestamp", "timestamptz"})
_HASHED = frozenset({"text", "uuid", "int"})


@dataclass(frozen=True)
class Group:
    """Columns that are masked by one mapping, so that equal values stay equal in all of them.

    `limit` is the smallest of their limits. `unique` keeps different values different, `folds` takes capitals for small
    letters. `scattered` values are never one of the originals; dates lie too dense for that.
    """

    number: int
    rule: str
    kind: Kind
    limit: int | None
    unique: bool
    folds: bool

    @property
    def scattered(self) -> bool:
        return self.kind not in _DENSE


@dataclass(frozen=True)
class MaskedColumn:
    """A column, its rule, and the group whose mapping it uses; a generated column has none and follows by itself."""

    column: Column
    rule: str
    group: Group | None

    @property
    def constant(self) -> str | None:
        name, _, value = self.rule.partition(":")
        return value if name == "constant" else None


@dataclass(frozen=True)
class MaskedTable:
    """A table with its masked columns; `key` are the columns of its primary key, masked or not."""

    number: int
    relation: str
    schema: str
    name: str
    oid: int
    key: tuple[Column, ...]
    columns: tuple[MaskedColumn, ...]

    def masked(self, column: Column) -> MaskedColumn | None:
        """How a column of it is masked."""
        return next((masked for masked in self.columns if masked.column == column), None)


@dataclass(frozen=True)
class MaskingPlan:
    """What is done. `touches_foreign_keys`: values that foreign keys compare change, on both of their sides."""

    tables: tuple[MaskedTable, ...]
    groups: tuple[Group, ...]
    touches_foreign_keys: bool


def plan_masking(rules: Anonymise, facts: ColumnFacts) -> MaskingPlan:
    """Follow the foreign keys from masked columns to those that refer to them, and put the columns into groups.

    Raises ConfigError (`MASKING_REFUSED`) that names everything that would not work: an unknown table or column, a rule
    that its type cannot have, or one that breaks a key.
    """
    problems: list[str] = []
    given = _given(rules, facts, problems)
    wanted = _followed(given, facts)
    for key, rule in wanted.items():
        problems += _unfit(facts.columns[key], rule, facts, wanted)
    problems += _broken_keys(given, wanted, facts)
    problems += _masked_twice(wanted, facts)
    if problems:
        listed = " ".join(f"{problem}." for problem in dict.fromkeys(problems))
        raise ConfigError(
            "MASKING_REFUSED", f"Nothing is masked: {listed}", "Correct `anonymise` in backup.yaml; docs/anonymise.md."
        )
    groups = _groups(wanted, facts)
    referring = {key for foreign in facts.foreign_keys for pair in foreign.pairs for key in pair}
    touches = any(wanted[key].startswith(("hash", "fake")) for key in referring & wanted.keys())
    return MaskingPlan(_tables(wanted, groups, facts), tuple(groups.values()), touches)


def _given(rules: Anonymise, facts: ColumnFacts, problems: list[str]) -> dict[ColumnKey, str]:
    named = {(column.table_label, column.name): column for column in facts.columns.values()}
    tables = {label for label, _ in named}
    given = {}
    for table, columns in rules.tables.items():
        label = table.removeprefix("public.")
        if label not in tables:
            problems.append(f"there is no table {table}")
            continue
        if len({column.relation for column in facts.columns.values() if column.table_label == label}) > 1:
            problems.append(f"{table} is the name of several tables")
            continue
        for name, rule in columns.items():
            column = named.get((label, name))
            if column is None:
                problems.append(f"the table {table} has no column {name}")
            elif column.partition:
                problems.append(f"{table} is a partition, give the rules to the partitioned table")
            else:
                given[column.key] = rule
    return given


def _followed(given: Mapping[ColumnKey, str], facts: ColumnFacts) -> dict[ColumnKey, str]:
    """Add the columns that refer to a masked one, and those that refer to these, however far that goes."""
    wanted = dict(given)
    while True:
        more = {
            child: wanted[parent]
            for foreign in facts.foreign_keys
            for child, parent in foreign.pairs
            if parent in wanted and child not in wanted and wanted[parent].startswith(("hash", "fake"))
        }
        if not more:
            return wanted
        wanted |= more


def _unfit(column: Column, rule: str, facts: ColumnFacts, wanted: Mapping[ColumnKey, str]) -> Iterable[str]:
    """What is wrong with a rule for a column by itself."""
    name = rule.partition(":")[0]
    if column.generated:
        return
    if column.always_identity:
        yield f"{column.label} is an identity column that is always generated"
    elif name == "null" and column.not_null:
        yield f"{column.label} cannot be null"
    elif rule == "hash" and column.kind not in _HASHED:
        yield f"{column.label} of type {column.type} cannot be hashed, only be null or constant"
    elif rule == "fake:date":
        if column.kind not in _DENSE:
            yield f"{column.label} of type {column.type} is no date"
        elif not facts.primary_key(column.key[0]):
            yield f"{column.label} cannot be proved to be masked: its table has no primary key"
    elif name == "fake" and column.kind != "text":
        yield f"{column.label} of type {column.type} is no text, {rule.partition(':')[2]} does not fit"
    if column.kind == "text" and column.limit is not None and column.limit < _SHORTEST.get(rule, 0):
        yield f"{column.label} is too short for {rule.replace(':', ': ')}, which needs {_SHORTEST[rule]} characters"


def _broken_keys(given: Mapping[ColumnKey, str], wanted: Mapping[ColumnKey, str], facts: ColumnFacts) -> Iterable[str]:
    for foreign in facts.foreign_keys:
        for child, parent in foreign.pairs:
            ours, theirs = wanted.get(child), wanted.get(parent)
            referring, referred = facts.columns[child], facts.columns[parent]
            if theirs is not None and not theirs.startswith(("hash", "fake")):
                yield f"{referred.label} cannot be {theirs.replace(':', ' ')}: {referring.label} refers to it"
            elif ours is not None and ours not in ("null", theirs) and child in given:
                yield (
                    f"{referring.label} refers to {referred.label} ({foreign.name}) and has to be masked in the same "
                    f"way: give the rule to {referred.label}"
                )
            elif ours is not None and ours not in ("null", theirs):
                yield f"{referring.label} refers to columns that are masked in different ways ({foreign.name})"
    for unique in facts.unique_keys:
        for key in unique.columns:
            rule = wanted.get(key, "")
            if rule.startswith("constant") or (rule == "null" and not unique.nulls_distinct):
                yield f"{facts.columns[key].label} is unique ({unique.name}) and cannot be {rule.replace(':', ' ')}"


def _masked_twice(wanted: Mapping[ColumnKey, str], facts: ColumnFacts) -> Iterable[str]:
    """A statement for a table changes the rows of those that inherit from it: a second one would find no originals."""
    names = {(key[0], facts.columns[key].name): facts.columns[key] for key in wanted}
    for key in wanted:
        column = facts.columns[key]
        for ancestor in facts.ancestors.get(key[0], ()):
            if (above := names.get((ancestor, column.name))) is not None:
                yield f"{column.label} is inherited, it is masked with {above.label}"


def _groups(wanted: Mapping[ColumnKey, str], facts: ColumnFacts) -> dict[tuple[str, Kind], Group]:
    compared = {key for unique in facts.unique_keys for key in unique.columns}
    compared |= {key for foreign in facts.foreign_keys for pair in foreign.pairs for key in pair}
    members: dict[tuple[str, Kind], list[Column]] = {}
    for key, rule in wanted.items():
        column = facts.columns[key]
        if rule.startswith(("hash", "fake")) and not column.generated:
            members.setdefault((rule, column.kind), []).append(column)
    return {
        (rule, kind): Group(
            number=number,
            rule=rule,
            kind=kind,
            limit=min((column.limit for column in columns if column.limit is not None), default=None),
            unique=any(column.key in compared for column in columns),
            folds=any(column.folds for column in columns),
        )
        for number, ((rule, kind), columns) in enumerate(sorted(members.items()), 1)
    }


def _tables(
    wanted: Mapping[ColumnKey, str], groups: Mapping[tuple[str, Kind], Group], facts: ColumnFacts
) -> tuple[MaskedTable, ...]:
    by_table: dict[int, list[Column]] = {}
    for key in sorted(wanted):
        by_table.setdefault(key[0], []).append(facts.columns[key])
    tables = []
    for number, (oid, columns) in enumerate(by_table.items(), 1):
        first = columns[0]
        masked = tuple(
            MaskedColumn(c, wanted[c.key], None if c.generated else groups.get((wanted[c.key], c.kind)))
            for c in columns
        )
        tables.append(
            MaskedTable(
                number=number,
                relation=first.relation,
                schema=first.schema,
                name=first.table,
                oid=oid,
                key=facts.primary_key(oid),
                columns=masked,
            )
        )
    return tuple(tables)
