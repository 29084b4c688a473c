"""Applies a set of data rules to a restored database with Great Expectations, and writes its Data Docs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.proof import RuleOutcome
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.integrity.foreign_keys import reason_of
from gs_backup_assets.integrity.rules import QueryCheck, RowCheck, Rule, RuleSet, Table, identifier, split_name
from gs_backup_assets.postgres.connection import Target, connect, query

__all__ = ["RuleOutcome", "evaluate"]

_LOG = logging.getLogger(__name__)

SAMPLE_KEYS = 20

# The connection string, which holds the password, is in the environment while the suite runs and nowhere else.
_CONNECTION_VARIABLE = "GS_BACKUP_RULES_CONNECTION"

_NOISY_LOGGERS = ("great_expectations", "great_expectations.data_context.types.base")

# A Great Expectations context is a global of its process, and validations find it there: one evaluation at a time,
# and its tables one after the other. PostgreSQL scans each of them in parallel by itself.
_ONE_AT_A_TIME = threading.Lock()

_TABLES = """
SELECT n.nspname, t.relname, coalesce(k.columns, '{}')
FROM pg_catalog.pg_class AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
LEFT JOIN (
    SELECT i.indrelid, array_agg(a.attname::text ORDER BY p.i) AS columns
    FROM pg_catalog.pg_index AS i
    CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS p (column_number, i)
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = p.column_number
    WHERE i.indisprimary AND p.i <= i.indnkeyatts
    GROUP BY i.indrelid
) AS k ON k.indrelid = t.oid
WHERE t.relkind IN ('r', 'p')
"""


def evaluate(
    rules: RuleSet,
    target: Target,
    *,
    docs: Path | None,
    statement_timeout_seconds: int = 600,
    on_rule: Callable[[str], None] | None = None,
) -> tuple[RuleOutcome, ...]:
    """Apply `rules` to the database and return their outcomes in the order of the rule file.

    A rule whose table does not exist, or whose SQL fails or runs longer than `statement_timeout_seconds`, is
    NOT_VERIFIED with the reason, and does not keep the others from being evaluated. `docs` is the folder for the Data
    Docs site. `on_rule` is told each rule's id as soon as its outcome is known. Nothing is written to the database,
    and neither outcomes nor Data Docs hold anything of a row but its primary key.

    Raises SourceError (`SERVER_UNREACHABLE`) when there is no connection.
    """
    with connect(target, application="gs_backup_rules") as connection:
        existing = {(schema, name): Table(schema, name, tuple(key)) for schema, name, key in query(connection, _TABLES)}
    tables = {alias: table for alias, names in rules.tables.items() if (table := _first(names, existing))}
    can_run = [rule for rule in rules.rules if all(alias in tables for alias in rule.aliases())]
    found: Mapping[str, _Found] = {}
    if can_run:
        with _ONE_AT_A_TIME, _quiet(), _environment(_CONNECTION_VARIABLE, url_of(target, statement_timeout_seconds)):
            try:
                found = _validate(can_run, tables, docs)
            except Exception as error:
                # The rest of a proof stands without the rules. The error's text may repeat anything, so only its name.
                reason = f"Great Expectations failed with {type(error).__name__}"
                found = {rule.id: _Found(reason=reason) for rule in can_run}
    outcomes = []
    for rule in rules.rules:
        outcomes.append(_outcome(rule, rules, tables, found.get(rule.id)))
        if on_rule is not None:
            on_rule(rule.id)
    return tuple(outcomes)


@dataclass(frozen=True)
class _Found:
    """What the validation of one rule brought to light; `unexpected` is None when it could not be evaluated."""

    unexpected: int | None = None
    rows: int | None = None
    keys: tuple[str, ...] = ()
    reason: str | None = None


def _first(names: tuple[str, ...], existing: Mapping[tuple[str, str], Table]) -> Table | None:
    return next((existing[name] for name in map(split_name, names) if name in existing), None)


def _outcome(rule: Rule, rules: RuleSet, tables: Mapping[str, Table], found: _Found | None) -> RuleOutcome:
    table = tables.get(rule.table)
    missing = [" or ".join(rules.tables[alias]) for alias in rule.aliases() if alias not in tables]
    if missing:
        found = _Found(reason=f"the database has no table {', no table '.join(missing)}")
    elif found is None:
        found = _Found(reason="Great Expectations returned no result")
    status = Status.NOT_VERIFIED if found.unexpected is None else Status.FAILED if found.unexpected else Status.PASSED
    return RuleOutcome(
        id=rule.id,
        title=rule.title,
        severity=rule.severity,
        table=table.label if table else None,
        status=status,
        unexpected=found.unexpected,
        rows=found.rows,
        sample_keys=found.keys,
        reason=found.reason,
    )


def _validate(rules: list[Rule], tables: Mapping[str, Table], docs: Path | None) -> Mapping[str, _Found]:
    """Build one suite per table and one checkpoint over them, run it, and give the results by rule id."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    if docs is not None:
        context.add_data_docs_site("integrity", _site(docs))
    source = context.data_sources.add_postgres(
        "restored", connection_string="${" + _CONNECTION_VARIABLE + "}", create_temp_table=False
    )
    try:
        validations = []
        for table in dict.fromkeys(tables[rule.table] for rule in rules):
            own = [rule for rule in rules if tables[rule.table] == table]
            suite = context.suites.add(gx.ExpectationSuite(name=table.label, expectations=_expectations(own, tables)))
            asset = source.add_query_asset(table.label, query=f"SELECT * FROM {table.sql}")
            batch = asset.add_batch_definition_whole_table("all rows")
            validation = gx.ValidationDefinition(name=table.label, data=batch, suite=suite)
            validations.append(context.validation_definitions.add(validation))
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name="integrity",
                validation_definitions=validations,
                result_format={"result_format": "COMPLETE", "partial_unexpected_count": SAMPLE_KEYS},
            )
        )
        # A run name that looks like a date would be taken for one.
        results = checkpoint.run(run_id=gx.RunIdentifier(run_name="rules")).run_results.values()
        if docs is not None:
            # Once for all tables. UpdateDataDocsAction would build the site again for each: five times as long.
            _build_docs(context, docs)
        return {result.expectation_config.meta["rule"]: _read(result) for suite in results for result in suite.results}
    finally:
        # It keeps two engines, whose connections would stand in the way of dropping the database.
        source.get_execution_engine().close()
        source.get_engine().dispose()


def _expectations(rules: list[Rule], tables: Mapping[str, Table]) -> list[Any]:
    """One expectation per rule of one table. What looks at single rows is counted in one scan that they share."""
    own = tables[rules[0].table]
    conditions = {rule.id: rule.check.violation() for rule in rules if isinstance(rule.check, RowCheck)}
    return [
        _expectation_class()(
            rule=rule.id,
            relation=own.sql,
            key=list(own.key),
            conditions=conditions,
            query=rule.check.query(own, tables) if isinstance(rule.check, QueryCheck) else "",
            description=f"{rule.title}. {rule.description}",
            severity=rule.severity,
            meta={"rule": rule.id},
            notes=rule.hint,
        )
        for rule in rules
    ]


def _read(result: Any) -> _Found:
    info = result.exception_info or {}
    # One exception, or one entry for each metric that raised one.
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    raised = next((entry for entry in entries if entry.get("raised_exception")), None)
    if raised is not None:
        return _Found(reason=str(raised["exception_message"]).strip().partition("\n")[0][:200])
    found = result.result
    return _Found(found["unexpected_count"], found["element_count"], tuple(found["partial_unexpected_list"]))


def _build_docs(context: Any, folder: Path) -> None:
    """Write the site. It only shows the outcomes, so that a full disk here does not cost them."""
    try:
        context.build_data_docs(site_names=["integrity"])
    except Exception as error:
        _LOG.warning("The Data Docs were not written to %s: %s", folder, type(error).__name__)


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Import Great Expectations without usage data, and keep it from logging every failed rule once more."""
    with _environment("GX_ANALYTICS_ENABLED", "false"):
        loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
        levels = [logger.level for logger in loggers]
        try:
            _mute(loggers)
            import great_expectations  # noqa: F401 - when it is imported, it sets a level of its own

            _mute(loggers)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _mute(loggers: list[logging.Logger]) -> None:
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)


def url_of(target: Target, timeout_seconds: int) -> str:
    """SQLAlchemy's URL of a target, password included, for a session that can only read, and reads every row.

    With row_security off, a policy that would hide rows from this role is an error instead of a wrong count
    (PostgreSQL manual, "Row Security Policies").
    """
    from sqlalchemy.engine import URL

    settings = {
        "default_transaction_read_only": "on",
        "row_security": "off",
        "statement_timeout": str(timeout_seconds * 1000),
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "jit": "off",
        "TimeZone": "UTC",
        "DateStyle": "ISO",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    others = {key: value for key, value in target.parameters.items() if key not in {"user", "dbname", "options"}}
    if given := target.parameters.get("options"):
        options = f"{given} {options}"
    return URL.create(
        "postgresql+psycopg2",
        username=target.parameters.get("user"),
        password=target.password,
        database=target.parameters.get("dbname"),
        query={"connect_timeout": "10", **others, "application_name": "gs_backup_rules", "options": options},
    ).render_as_string(hide_password=False)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    previous = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if previous is None:
            del os.environ[name]
        else:
            os.environ[name] = previous


def _scan(run: Callable[[str], Any], relation: str, key: list[str], conditions: Mapping[str, str]) -> dict[str, Any]:
    """Count the rows of a table, and those that meet each condition, in one scan; then fetch a few keys of those."""
    names = list(conditions)
    filters = "".join(f", count(*) FILTER (WHERE {condition})" for condition in conditions.values())
    try:
        counts = run(f"SELECT count(*){filters} FROM {relation}")[0]
    except _StatementError as failure:
        if len(names) <= 1:
            return {"rows": None, "found": {name: {"error": str(failure)} for name in names}}
        alone = {name: _scan(run, relation, key, {name: conditions[name]}) for name in names}
        rows = next((scan["rows"] for scan in alone.values() if scan["rows"] is not None), None)
        return {"rows": rows, "found": {name: scan["found"][name] for name, scan in alone.items()}}
    found: dict[str, Any] = {}
    for name, count in zip(names, counts[1:], strict=True):
        found[name] = {"count": count, "keys": []}
        if count and key:
            found[name] = _select(run, key, f"SELECT * FROM {relation} WHERE {conditions[name]}")
    return {"rows": counts[0], "found": found}


def _select(run: Callable[[str], Any], key: list[str], statement: str) -> dict[str, Any]:
    """Count the rows of a statement and fetch the first few keys in one go, however many rows there are.

    The number is a window over all rows, so that no more than SAMPLE_KEYS of them leave the server.
    """
    columns = [f"found.{identifier(column)}" for column in key]
    texts = "".join(f", {column}::text" for column in columns)
    number, order = ("count(*) OVER ()", f"ORDER BY {', '.join(columns)}") if key else ("count(*)", "")
    try:
        rows = run(f"SELECT {number}{texts} FROM (\n{statement}\n) AS found {order} LIMIT {SAMPLE_KEYS}")
    except _StatementError as failure:
        return {"error": str(failure)}
    return {"count": rows[0][0] if rows else 0, "keys": [", ".join(map(str, row[1:])) for row in rows if key]}


class _StatementError(Exception):
    """A statement failed; the message is fit for a report."""


def _runner(engine: Any) -> Callable[[str], Any]:
    """Runs a statement on Great Expectations' connection, exactly as it is written."""

    def run(statement: str) -> Any:
        from sqlalchemy.exc import DBAPIError

        try:
            with engine.get_connection() as connection:
                # Without parameters neither % nor : means anything but itself.
                return connection.exec_driver_sql(statement, execution_options={"no_parameters": True}).fetchall()
        except DBAPIError as error:
            raise _StatementError(reason_of(error.orig)) from None  # type: ignore[arg-type]

    return run


@cache
def _expectation_class() -> Any:
    """The expectation that all rules become.

    Great Expectations' own would not do. Its column expectations put the offending values themselves into results and
    Data Docs, and values are personal data. Its UnexpectedRowsExpectation runs each query twice and fetches all rows
    of it. Both cost a scan or more for each rule.
    """
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.expectations.expectation import BatchExpectation
    from great_expectations.expectations.metrics.metric_provider import metric_value
    from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

    # Metrics never raise: Great Expectations would compute all others of the table again, three times over.
    class Scan(TableMetricProvider):  # type: ignore[misc]
        """All conditions of a table. It has the same arguments for each of its rules, so it is computed once."""

        metric_name = "gs_backup.scan"
        value_keys = ("relation", "key", "conditions")

        @metric_value(engine=SqlAlchemyExecutionEngine)  # type: ignore[untyped-decorator]
        def _sqlalchemy(cls, execution_engine: Any, metric_value_kwargs: Any, **_: Any) -> Any:  # noqa: N805
            given = metric_value_kwargs
            return _scan(_runner(execution_engine), given["relation"], given["key"], given["conditions"])

    class Query(TableMetricProvider):  # type: ignore[misc]
        """The query of one rule."""

        metric_name = "gs_backup.query"
        value_keys = ("key", "query")

        @metric_value(engine=SqlAlchemyExecutionEngine)  # type: ignore[untyped-decorator]
        def _sqlalchemy(cls, execution_engine: Any, metric_value_kwargs: Any, **_: Any) -> Any:  # noqa: N805
            statement = metric_value_kwargs["query"]
            return _select(_runner(execution_engine), metric_value_kwargs["key"], statement) if statement else {}

    class ExpectRowsToObeyRule(BatchExpectation):  # type: ignore[misc]
        """No row of the table breaks the rule."""

        rule: str
        relation: str
        key: list[str]
        conditions: dict[str, str]
        query: str

        metric_dependencies = (Scan.metric_name, Query.metric_name)
        success_keys = ("rule", "relation", "key", "conditions", "query")

        def _validate(self, metrics: Any, **_: Any) -> Any:
            scan = metrics[Scan.metric_name]
            found = metrics[Query.metric_name] or scan["found"][self.rule]
            if "error" in found:
                # Raised, it would take a stack trace into the Data Docs.
                info = {"raised_exception": True, "exception_message": found["error"], "exception_traceback": ""}
                return ExpectationValidationResult(success=False, exception_info=info)
            rows, count = scan["rows"], found["count"]
            return {
                "success": count == 0,
                "result": {
                    "element_count": rows,
                    "unexpected_count": count,
                    "unexpected_percent": 100 * count / rows if rows else 0.0,
                    "partial_unexpected_list": found["keys"],
                },
            }

    return ExpectRowsToObeyRule
