"""Masks the columns of a copy, set by set in the server, and leaves nothing of the old values behind on its disk."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.errors import ConfigError, ProofFailed, SourceError
from gs_backup_assets.integrity.foreign_keys import ForeignKeyOutcome, check_foreign_keys
from gs_backup_assets.postgres import masking_words
from gs_backup_assets.postgres.column_facts import Column, read_column_facts
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.masking_values import made_up, says_nothing
from gs_backup_assets.progress import Progress, Stage
from gs_backup_assets.recovery.staging.masking_plan import Group, MaskedColumn, MaskedTable, MaskingPlan, plan_masking

# What is compared when the masking is proved: digests of the originals, gone with this schema before access opens.
PROOF_SCHEMA = "gs_backup_masking"
_TRIES = 40
_MANY = 1000  # values, of which one round says how many the next ones settle
# Settings that came with the copy, such as a database that is read-only by default, must not stand in the way.
_SESSION = {"row_security": "off", "default_transaction_read_only": "off"}


@dataclass(frozen=True)
class Masked:
    """What was done to a copy, and how its foreign keys were before."""

    plan: MaskingPlan
    foreign_keys: tuple[ForeignKeyOutcome, ...]


def masking_secret(rules: Anonymise) -> bytes:
    """The secret that decides what a value becomes; a new one where none is configured.

    Raises ConfigError (`MASKING_KEY_MISSING`, `MASKING_KEY_SHORT`).
    """
    if rules.key_env is None:
        return secrets.token_bytes(32)
    value = os.environ.get(rules.key_env, "")
    if not value:
        raise ConfigError(
            "MASKING_KEY_MISSING", f"{rules.key_env} is not set.", "Set it to a long random text, or leave out key_env."
        )
    if len(value) < 16:
        raise ConfigError(
            "MASKING_KEY_SHORT",
            f"{rules.key_env} has fewer than 16 characters: whoever guesses it can find out who is behind a value.",
            "Draw one: openssl rand -base64 32",
        )
    return value.encode()


def mask_database(target: Target, rules: Anonymise, secret: bytes, progress: Progress) -> Masked:
    """Mask the database `target`, a copy that nobody uses; `prove_masked` proves it.

    Everything is changed in one transaction, then each changed table is written anew, statistics are taken anew and
    materialized views refreshed. Raises ConfigError (`MASKING_REFUSED`) before anything is changed; SourceError
    (`MASKING_DENIED`), ProofFailed (`MASKING_EXHAUSTED`, `MASKING_FAILED`), which leave the copy as it was.
    """
    import psycopg2

    with connect(target, application="gs_backup_masking", settings=_SESSION) as connection:
        plan = plan_masking(rules, read_column_facts(connection))
        _require_constants(connection, plan)
        before = check_foreign_keys(connection)
        try:
            with progress.stage("mask") as stage:
                _change(connection, plan, secret, stage)
            with progress.stage("rewrite") as stage:
                _write_anew(connection, plan, stage)
        except psycopg2.errors.InsufficientPrivilege as error:
            raise SourceError(
                "MASKING_DENIED",
                f"The role may not do what masking needs: {error.diag.message_primary}.",
                "Use a role that owns the tables; a superuser where columns of foreign keys are masked.",
            ) from None
        except psycopg2.Error as error:
            raise ProofFailed(
                "MASKING_FAILED", f"The server refused to mask: {_without_values(error)}.", "Correct the rule."
            ) from None
    return Masked(plan, before)


def drop_proof(target: Target) -> None:
    """Drop what the proof compared with: access may open."""
    with connect(target, settings=_SESSION) as connection, connection.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(f"DROP SCHEMA IF EXISTS {PROOF_SCHEMA} CASCADE")


def _require_constants(connection: Connection, plan: MaskingPlan) -> None:
    """Every constant is a value of its column's type; ConfigError (`MASKING_REFUSED`)."""
    import psycopg2

    for masked in (masked for table in plan.tables for masked in table.columns if masked.constant is not None):
        column, value = masked.column, masked.constant or ""
        try:
            query(connection, f"SELECT {_literal(value)}::{column.type}")
            fits = column.kind != "text" or column.limit is None or len(value) <= column.limit
        except psycopg2.Error:
            fits = False
        if not fits:
            raise ConfigError(
                "MASKING_REFUSED",
                f"Nothing is masked: {value!r} is no value of {column.label}, whose type is {column.type}.",
                "Correct `anonymise` in backup.yaml.",
            )


def _without_values(error: Exception) -> str:
    """What the server's error is about, without its text: that repeats values."""
    diag = error.diag  # type: ignore[attr-defined]
    about = (diag.table_name, diag.column_name, diag.constraint_name)
    return " ".join([f"SQLSTATE {error.pgcode}", *(name for name in about if name)])  # type: ignore[attr-defined]


def _change(connection: Connection, plan: MaskingPlan, secret: bytes, stage: Stage) -> None:
    query(connection, "BEGIN")
    try:
        _prepare_session(connection, secret)
        for group in plan.groups:
            _make_mapping(connection, plan, group)
            stage.advance(1, len(plan.groups) + len(plan.tables), "steps")
        _remember(connection, plan)
        with _no_triggers(connection, plan):
            for table in plan.tables:
                if assignments := ", ".join(_assignments(table)):
                    query(connection, f"UPDATE {table.relation} AS t SET {assignments}")
                stage.advance(1, len(plan.groups) + len(plan.tables), "steps")
        query(connection, "COMMIT")
    except BaseException:
        if not connection.closed:
            query(connection, "ROLLBACK")
        raise


def _prepare_session(connection: Connection, secret: bytes) -> None:
    """Functions, words and the secret, all of this session alone. The secret is sent as data: statements are logged."""
    query(connection, files("gs_backup_assets.postgres").joinpath("masking.sql").read_text(encoding="utf-8"))
    halves = [hmac.new(secret, name, hashlib.sha256).hexdigest() for name in (b"outer", b"inner")]
    query(connection, "CREATE TEMPORARY TABLE gs_secret (outer_half text, inner_half text) ON COMMIT DROP")
    query(
        connection,
        "CREATE TEMPORARY TABLE gs_words ON COMMIT DROP AS SELECT string_to_array(%s, ' ') AS first_names,"
        " string_to_array(%s, ' ') AS last_names, string_to_array(%s, ' ') AS cities,"
        " string_to_array(%s, ' ') AS words",
        (masking_words.FIRST_NAMES, masking_words.LAST_NAMES, masking_words.CITIES, masking_words.WORDS),
    )
    with connection.cursor() as cursor:
        cursor.copy_expert("COPY pg_temp.gs_secret FROM STDIN", io.StringIO("\t".join(halves) + "\n"))
    query(
        connection,
        "SELECT set_config('gs_backup.outer', outer_half, true), set_config('gs_backup.inner', inner_half, true)"
        " FROM pg_temp.gs_secret",
    )


def _members(plan: MaskingPlan, group: Group) -> list[tuple[MaskedTable, Column]]:
    return [(table, masked.column) for table in plan.tables for masked in table.columns if masked.group == group]


def _make_mapping(connection: Connection, plan: MaskingPlan, group: Group) -> None:
    """A masked value for each original of the group, kept by its digest; those that collide are tried again."""
    mapping = f"pg_temp.gs_map_{group.number}"
    dated = group.rule == "fake:date"
    sources = " UNION ALL ".join(
        f"SELECT t.{quote(column.name)}::text AS value FROM {table.relation} AS t WHERE t.{quote(column.name)} IS NOT"
        f" NULL AND ({says_nothing(column, f't.{quote(column.name)}') or 'false'}) IS NOT TRUE"
        for table, column in _members(plan, group)
    )
    query(
        connection,
        f"CREATE TEMPORARY TABLE gs_map_{group.number} (digest bytea PRIMARY KEY, characters integer, original text,"
        " tries integer, masked text, masked_digest bytea) ON COMMIT DROP",
    )
    query(
        connection,
        f"INSERT INTO {mapping} (digest, characters, original, tries)"
        f" SELECT {_digest('value', group)}, max(length(value)), {'min(value)' if dated else 'NULL'}, -1"
        f" FROM ({sources}) AS v GROUP BY 1",
    )
    value = made_up(group.rule, group.kind, group.limit)
    purpose = f"'{group.rule}:{group.kind}:' || m.tries"
    drawn = int(query(connection, f"SELECT count(*) FROM {mapping}")[0][0])
    for left in reversed(range(_TRIES)):
        query(connection, f"UPDATE {mapping} SET tries = tries + 1 WHERE masked IS NULL")
        query(
            connection,
            f"UPDATE {mapping} AS target SET masked = made.value, masked_digest = {_digest('made.value', group)} FROM ("
            f"SELECT m.digest, {value} AS value FROM {mapping} AS m CROSS JOIN pg_temp.gs_words AS w"
            f" CROSS JOIN LATERAL pg_temp.gs_draw(m.digest, {purpose}) AS b WHERE m.masked IS NULL"
            ") AS made WHERE made.digest = target.digest",
        )
        query(connection, f"ANALYZE {mapping}")
        colliding = _collide(connection, mapping, group)
        if not colliding:
            return
        # The pool only fills: at this rate, or a worse one, the tries that are left do not settle them all.
        if drawn >= _MANY and colliding * (colliding / drawn) ** left >= 1:
            break
        drawn = colliding
    labels = ", ".join(column.label for _, column in _members(plan, group))
    raise ProofFailed(
        "MASKING_EXHAUSTED",
        f"There are not enough values of the kind {group.rule.replace(':', ': ')} for {labels}.",
        "Use hash, or a wider column.",
    )


def _collide(connection: Connection, mapping: str, group: Group) -> int:
    """Take back values that are an original, or another's where they must differ; returns how many."""
    wrong = []
    if group.scattered:
        wrong.append(f"SELECT a.digest FROM {mapping} AS a JOIN {mapping} AS b ON a.masked_digest = b.digest")
    else:
        wrong.append(f"SELECT digest FROM {mapping} WHERE masked_digest = digest")
    if group.unique:
        # Capitals count for nothing: an index may look at lower(...).
        wrong.append(
            "SELECT digest FROM (SELECT digest, row_number() OVER (PARTITION BY lower(masked) ORDER BY tries, digest)"
            f" AS place FROM {mapping}) AS same WHERE place > 1"
        )
    statement = f"UPDATE {mapping} SET masked = NULL WHERE digest IN ({' UNION ALL '.join(wrong)}) RETURNING 1"
    return int(query(connection, f"WITH again AS ({statement}) SELECT count(*) FROM again")[0][0])


def _digest(value: str, group: Group) -> str:
    return f"pg_temp.gs_keyed({f'lower({value})' if group.folds else value})"


def _masked_value(masked: MaskedColumn) -> str:
    """The expression of what a column of the row `t` becomes."""
    column = masked.column
    own = f"t.{quote(column.name)}"
    if masked.constant is not None:
        return f"{_literal(masked.constant)}::{column.type}"
    if masked.group is None:
        return f"NULL::{column.type}" if masked.rule == "null" and not column.generated else own
    mapped = (
        f"(SELECT m.masked FROM pg_temp.gs_map_{masked.group.number} AS m"
        f" WHERE m.digest = {_digest(f'{own}::text', masked.group)})::{column.type}"
    )
    nothing = says_nothing(column, own)
    return mapped if nothing is None else f"CASE WHEN {nothing} THEN {own} ELSE {mapped} END"


def _assignments(table: MaskedTable) -> Iterator[str]:
    for masked in table.columns:
        if not masked.column.generated:
            yield f"{quote(masked.column.name)} = {_masked_value(masked)}"


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _remember(connection: Connection, plan: MaskingPlan) -> None:
    """Keep salted digests of the originals, under the key that each row will have, for the proof."""
    query(connection, f"CREATE SCHEMA {PROOF_SCHEMA}")
    query(
        connection,
        f"CREATE TABLE {PROOF_SCHEMA}.salt AS SELECT sha256(convert_to(gen_random_uuid()::text"
        " || gen_random_uuid()::text || clock_timestamp()::text, 'UTF8')) AS salt",
    )
    for table in plan.tables:
        keys = []
        for number, column in enumerate(table.key, 1):
            masked = table.masked(column)
            value = f"t.{quote(column.name)}" if masked is None else _masked_value(masked)
            keys.append(f"({value})::text AS k{number}")
        digests = [
            f"{proof_digest(f't.{quote(masked.column.name)}')} AS d{number}"
            for number, masked in enumerate(table.columns, 1)
        ]
        query(
            connection,
            f"CREATE TABLE {PROOF_SCHEMA}.o{table.number} AS SELECT {', '.join([*keys, *digests])}"
            f" FROM {table.relation} AS t CROSS JOIN {PROOF_SCHEMA}.salt AS s",
        )
        query(connection, f"ANALYZE {PROOF_SCHEMA}.o{table.number}")


def proof_digest(value: str) -> str:
    """The digest by which the proof compares values; the salt is `s.salt`."""
    return f"sha256(s.salt || convert_to(({value})::text, getdatabaseencoding()))"


_TRIGGERS = """
WITH RECURSIVE family (oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN family AS f ON f.oid = i.inhparent
), firing (oid, name, state) AS (
    SELECT tgrelid, 'TRIGGER ' || quote_ident(tgname), tgenabled::text FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT ev_class, 'RULE ' || quote_ident(rulename), ev_enabled::text FROM pg_catalog.pg_rewrite
)
SELECT format('ALTER TABLE ONLY %%I.%%I', n.nspname, c.relname), t.name, t.state
FROM family AS f JOIN firing AS t ON t.oid = f.oid JOIN pg_catalog.pg_class AS c ON c.oid = f.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.state = ANY (%s)
ORDER BY 1, 2
"""
_ENABLE = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}


@contextmanager
def _no_triggers(connection: Connection, plan: MaskingPlan) -> Iterator[None]:
    """No trigger or rule of the application's fires inside; each is as it was afterwards.

    As a replica the session checks no foreign key, which change one side after the other (PostgreSQL manual,
    "session_replication_role"); those triggers that fire nevertheless are switched off. SourceError (`MASKING_DENIED`)
    where the role may not be one, and foreign keys are masked.
    """
    import psycopg2

    query(connection, "SAVEPOINT gs_role")
    try:
        query(connection, "SET LOCAL session_replication_role = replica")
        firing = ["A", "R"]
    except psycopg2.errors.InsufficientPrivilege:
        query(connection, "ROLLBACK TO SAVEPOINT gs_role")
        firing = ["O", "A"]
        if plan.touches_foreign_keys:
            raise SourceError(
                "MASKING_DENIED",
                "Columns of foreign keys are masked, and the role may not switch their checks off meanwhile.",
                "Use a superuser, or (from PostgreSQL 15 on) GRANT SET ON PARAMETER session_replication_role.",
            ) from None
    found = query(connection, _TRIGGERS, ([table.oid for table in plan.tables], firing))
    for table, trigger, _ in found:
        query(connection, f"{table} DISABLE {trigger}")
    yield
    for table, trigger, state in found:
        query(connection, f"{table} {_ENABLE[state]} {trigger}")


_VIEWS = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid
"""
# A table that others inherit from is one table; VACUUM of a partitioned one goes on to its partitions by itself.
_HEIRS = """
WITH RECURSIVE family (oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN family AS f ON f.oid = i.inhparent
)
SELECT format('%%I.%%I', n.nspname, c.relname) FROM family AS f JOIN pg_catalog.pg_class AS c ON c.oid = f.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'r' ORDER BY 1
"""


def _write_anew(connection: Connection, plan: MaskingPlan, stage: Stage) -> None:
    """Old row versions are on disk until a table is written anew, and most common values until they are counted anew.

    The tables of statistics keep old versions as well. Statistics of partitioned tables are not taken by VACUUM.
    """
    for (table,) in query(connection, _HEIRS, ([table.oid for table in plan.tables],)):
        query(connection, f"VACUUM (FULL, ANALYZE) {table}")
        stage.advance(1, None, "tables")
    for table in plan.tables:
        query(connection, f"ANALYZE {table.relation}")
    for (view,) in query(connection, _VIEWS):
        query(connection, f"REFRESH MATERIALIZED VIEW {view}")
        query(connection, f"ANALYZE {view}")
    for catalogue in ("pg_statistic", "pg_statistic_ext_data"):
        query(connection, f"VACUUM (FULL) pg_catalog.{catalogue}")
