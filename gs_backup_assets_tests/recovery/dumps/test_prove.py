"""Proofs of real backups: the zoo comes back whole, and what is wrong is said of the right one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.proof import DECISIVE_CHECKS, Blame, ProofRecord, decode, encode
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict
from gs_backup_assets.errors import ExitStatus
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.restore import Origin, RestoreError
from gs_backup_assets.recovery.dumps.judgement import restore_clean, rto_met
from gs_backup_assets.recovery.dumps.restoring import Restored
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets_tests.chain import chain_in, codes, execute, failures, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.zoo import ROLES, zoo

_MEMBERS = """
SELECT r.rolname, m.rolname, g.rolname, a.admin_option FROM pg_auth_members a
JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.grantor
WHERE r.rolname = ANY (%s) ORDER BY 1, 2, 3
"""
_ROLES = """
SELECT rolname, rolcanlogin, rolinherit, rolcreaterole, rolconnlimit, rolvaliduntil::text, rolpassword, setconfig,
       shobj_description(a.oid, 'pg_authid')
FROM pg_authid a LEFT JOIN pg_db_role_setting s ON s.setrole = a.oid AND s.setdatabase = 0
WHERE rolname = ANY (%s) ORDER BY 1
"""


@pytest.fixture(scope="module")
def prover(server17: Cluster) -> Iterator[RestoreServer]:
    """One throwaway server for the proofs of this module."""
    with throwaway_beside(server17) as server:
        yield server


def _roles(target: Target) -> list[list[tuple[object, ...]]]:
    with connect(target) as connection:
        return [query(connection, sql, (list(ROLES),)) for sql in (_ROLES, _MEMBERS)]


def test_a_zoo_is_proven_on_every_major(any_server: Cluster, tmp_path: Path) -> None:
    with zoo(any_server) as target, throwaway_beside(any_server) as server:
        manifest, record = chain_in(tmp_path).take_and_prove(target, server)
        assert record.verdict is Verdict.PROVEN, failures(record)
        assert {check.name for check in record.checks if check.status is not Status.PASSED} == set(), failures(record)
        assert _roles(server.admin) == _roles(target), "roles, memberships, their grantors, settings or comments"
        with connect(server.admin) as connection:
            databases = query(connection, "SELECT datname FROM pg_database WHERE NOT datistemplate")
            settings = query(connection, "SELECT * FROM pg_db_role_setting WHERE setdatabase <> 0")
            assert not query(connection, "SELECT 1 FROM pg_tablespace WHERE spcname LIKE 'zoo%%'")
    assert (databases, settings) == ([("postgres",)], []), "something was left on the server"
    assert record.exit_status is ExitStatus.GOOD
    assert record.blame is Blame.PRODUCTION
    assert manifest.fingerprint.large_objects is not None
    assert manifest.fingerprint.large_objects.count == 3
    assert {o.kind for o in manifest.omissions} == {"unlogged_table", "unpopulated_materialized_view"}
    assert decode(encode(record), key="k") == record
    kinds = {o.type for o in manifest.schema_objects}
    assert {"EVENT TRIGGER", "POLICY", "RULE", "PUBLICATION", "DEFAULT ACL", "AGGREGATE", "DOMAIN"} <= kinds
    assert len({t.name for t in record.tables}) == len(manifest.fingerprint.tables) >= 23


def test_an_empty_database_is_proven(empty_database: Target, tmp_path: Path, prover: RestoreServer) -> None:
    _, record = chain_in(tmp_path).take_and_prove(empty_database, prover)
    assert record.verdict is Verdict.PROVEN, failures(record)


def test_text_in_an_encoding_of_its_own(any_server: Cluster, tmp_path: Path) -> None:
    admin = any_server.target()
    for encoding, text in (("LATIN1", "chr(233)"), ("SQL_ASCII", r"E'\351\377'")):
        execute(admin, f"CREATE DATABASE encoded TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        try:
            execute(any_server.target("encoded"), f"CREATE TABLE t AS SELECT {text}::text AS t")
            with throwaway_beside(any_server) as server:
                chain = chain_in(tmp_path / encoding)
                _, record = chain.take_and_prove(any_server.target("encoded"), server)
            assert record.verdict is Verdict.PROVEN, failures(record)
        finally:
            execute(admin, "DROP DATABASE encoded WITH (FORCE)")


@pytest.mark.parametrize(
    ("level", "unclear"),
    [("counts", {"contents_equal"}), ("off", {"rows_equal", "contents_equal", "sequences_equal"})],
)
def test_without_contents_nothing_is_proven(
    empty_database: Target, tmp_path: Path, prover: RestoreServer, level: str, unclear: set[str]
) -> None:
    execute(empty_database, "CREATE TABLE t (id serial)", "INSERT INTO t DEFAULT VALUES")
    _, record = chain_in(tmp_path, logical={"fingerprint": level}).take_and_prove(empty_database, prover)
    assert record.verdict is Verdict.NOT_VERIFIED, failures(record)
    assert {c.name for c in record.checks if c.status is Status.NOT_VERIFIED} == unclear
    assert record.blame is Blame.UNKNOWN
    assert record.exit_status is ExitStatus.NOT_VERIFIED


_ORPHANS = (
    "CREATE TABLE parent (id integer PRIMARY KEY)",
    "CREATE TABLE child (id integer PRIMARY KEY, parent integer CONSTRAINT to_parent REFERENCES parent)",
    'CREATE TABLE "Other Child" (id integer PRIMARY KEY, "parentId" integer CONSTRAINT "to parent" REFERENCES parent)',
    "SET session_replication_role = replica",
    "INSERT INTO child VALUES (1, 404), (2, NULL)",
    'INSERT INTO "Other Child" VALUES (1, 405)',
    "RESET session_replication_role",
)


def test_a_foreign_key_broken_in_production_is_not_the_backups_fault(any_server: Cluster, tmp_path: Path) -> None:
    with fresh_database(any_server) as target, throwaway_beside(any_server) as server:
        execute(target, *_ORPHANS)
        _, record = chain_in(tmp_path).take_and_prove(target, server)
    assert record.verdict is Verdict.PROVEN, failures(record)
    clean = record.check("restore_clean")
    assert (clean.status, codes(clean)) == (Status.PASSED, {"FOREIGN_KEY_VIOLATED"})
    keys = record.check("foreign_keys_hold")
    assert (keys.status, keys.metrics["foreign_keys_violated"]) == (Status.FAILED, 2)
    assert record.blame is Blame.PRODUCTION
    assert record.exit_status is ExitStatus.FAILED
    assert "404" not in clean.model_dump_json()


def test_duplicates_under_a_unique_index(any_server: Cluster, tmp_path: Path) -> None:
    with fresh_database(any_server) as target, throwaway_beside(any_server) as server:
        execute(
            target,
            "CREATE TABLE users (mail text)",
            "CREATE UNIQUE INDEX once ON users (mail)",
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'once'::regclass",
            "INSERT INTO users VALUES ('jane@example.org'), ('jane@example.org')",
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'once'::regclass",
        )
        _, record = chain_in(tmp_path).take_and_prove(target, server)
    assert record.verdict is Verdict.FAILED
    clean = record.check("restore_clean")
    assert (clean.status, codes(clean)) == (Status.FAILED, {"UNIQUE_VIOLATED"}), failures(record)
    assert "REINDEX" in clean.findings[0].hint
    assert record.check("contents_equal").status is Status.PASSED
    assert codes(record.check("schema_equal")) == {"OBJECT_MISSING"}
    assert record.blame is Blame.PRODUCTION
    assert "jane" not in record.model_dump_json()


def test_changed_bytes_are_not_even_restored(empty_database: Target, tmp_path: Path, prover: RestoreServer) -> None:
    chain = chain_in(tmp_path)
    manifest = chain.take(empty_database)
    (chain.store.root / manifest.folder / "globals.sql").write_text("DROP DATABASE postgres;")
    record = chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    assert record.check("stored_bytes_match").status is Status.FAILED
    others = [record.check(name) for name in DECISIVE_CHECKS if name != "stored_bytes_match"]
    assert {c.status for c in others} == {Status.NOT_VERIFIED}
    assert record.rto_seconds is None
    assert record.blame is Blame.UNKNOWN


def test_an_event_trigger_or_setting_of_the_source_does_not_stop_a_proof(
    empty_database: Target, tmp_path: Path, prover: RestoreServer
) -> None:
    """Production may forbid changes of the schema, be read-only by default, and load what is not installed here."""
    name = empty_database.database
    execute(
        empty_database,
        "CREATE TABLE t (id integer)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
        "DROP EXTENSION plpgsql",
        "CREATE EXTENSION plpgsql",  # with an OID of its own, pg_dump takes it for the user's
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$",
        "CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no()",
    )
    execute(
        empty_database.with_database("postgres"),
        f"ALTER DATABASE {name} SET default_transaction_read_only TO on",
        f"ALTER DATABASE {name} SET statement_timeout TO '5s'",
    )
    _, record = chain_in(tmp_path).take_and_prove(empty_database, prover)
    assert record.verdict is Verdict.PROVEN, failures(record)


def test_a_foreign_server_out_of_reach_is_not_held_against_the_backup(
    empty_database: Target, tmp_path: Path, prover: RestoreServer
) -> None:
    """A partition on another server costs the statistics of its table; a view of such rows cannot be filled here."""
    execute(
        empty_database,
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER archive FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1')",
        "CREATE USER MAPPING FOR PUBLIC SERVER archive OPTIONS (user 'u', password 'p')",
        "CREATE TABLE t (id integer, year integer) PARTITION BY LIST (year)",
        "CREATE TABLE t_now PARTITION OF t FOR VALUES IN (2026)",
        "CREATE FOREIGN TABLE t_then PARTITION OF t FOR VALUES IN (2020) SERVER archive",
        "INSERT INTO t VALUES (1, 2026)",
    )
    chain = chain_in(tmp_path)
    _, record = chain.take_and_prove(empty_database, prover)
    clean = next(check for check in record.checks if check.name == "restore_clean")
    assert record.verdict is Verdict.PROVEN, failures(record)
    assert [(f.code, "public.t:" in f.message) for f in clean.findings] == [("NOT_ANALYZED", True)]
    execute(
        empty_database,
        "CREATE MATERIALIZED VIEW m AS SELECT 1 AS one",
        "CREATE MATERIALIZED VIEW of_m AS SELECT * FROM m",
        # As if it had been filled while the server could be reached: with the definition of another view.
        "CREATE VIEW far AS SELECT id FROM t_then",
        "CREATE FUNCTION far() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.t_now'",
        "CREATE MATERIALIZED VIEW n AS SELECT far()",
        "CREATE MATERIALIZED VIEW of_n AS SELECT * FROM n",
        "CREATE OR REPLACE FUNCTION far() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.far'",
    )
    _, record = chain.take_and_prove(empty_database, prover)
    assert record.verdict is Verdict.NOT_VERIFIED, failures(record)
    clean = next(check for check in record.checks if check.name == "restore_clean")
    assert {f.code for f in clean.findings} == {"FOREIGN_DATA_UNREACHABLE", "DEPENDS_ON_UNPOPULATED", "NOT_ANALYZED"}
    schema = next(check for check in record.checks if check.name == "schema_equal")
    assert (schema.status, codes(schema)) == (Status.NOT_VERIFIED, {"MATERIALIZED_VIEW_UNPOPULATED"})


def test_a_server_that_dies_leaves_the_proof_open(server17: Cluster, empty_database: Target, tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    chain.take(empty_database)
    with throwaway_beside(server17) as server:
        pass
    record = chain.prove(server)
    assert record.verdict is Verdict.NOT_VERIFIED
    assert record.check("stored_bytes_match").status is Status.PASSED
    assert codes(record.check("restore_clean")) == {"SERVER_UNREACHABLE"}


def test_a_second_proof_on_the_same_server_is_equal(
    empty_database: Target, tmp_path: Path, prover: RestoreServer
) -> None:
    execute(empty_database, *_ORPHANS)
    chain = chain_in(tmp_path)
    chain.take(empty_database)

    def outcomes(record: ProofRecord) -> list[tuple[str, Status, set[str]]]:
        return [(c.name, c.status, codes(c)) for c in record.checks]

    assert outcomes(chain.prove(prover)) == outcomes(chain.prove(prover))


def _clean(contents: Status, *errors: RestoreError, not_valid: tuple[str, ...] = ()) -> CheckResult:
    restored = Restored(Target({}), errors, not_valid)
    return restore_clean(restored, CheckResult(name="contents_equal", status=contents, summary=""))


def test_how_the_errors_of_a_restore_are_judged() -> None:
    key = RestoreError("FOREIGN_KEY_VIOLATED", Origin.DATA, "FK CONSTRAINT a a_fk o", "violates")
    lacking = RestoreError("EXTENSION_MISSING", Origin.ENVIRONMENT, "EXTENSION e", "is not available")
    omitted = RestoreError("DEPENDS_ON_OMITTED", Origin.OMISSION, "VIEW v o", "does not exist")
    broken = RestoreError("DATA_UNREADABLE", Origin.BACKUP, "TABLE DATA t o", "invalid input syntax")
    added = (key.entry,)
    assert _clean(Status.PASSED).status is Status.PASSED
    assert _clean(Status.PASSED, key, not_valid=added).status is Status.PASSED
    assert _clean(Status.FAILED, key, not_valid=added).status is Status.FAILED
    assert _clean(Status.NOT_VERIFIED, key, not_valid=added).status is Status.FAILED
    assert _clean(Status.PASSED, key).status is Status.FAILED
    assert _clean(Status.PASSED, lacking).status is Status.NOT_VERIFIED
    assert _clean(Status.PASSED, lacking, omitted, key, not_valid=added).status is Status.NOT_VERIFIED
    assert _clean(Status.PASSED, lacking, broken).status is Status.FAILED


def test_the_recovery_time_is_compared_with_its_target() -> None:
    assert rto_met(None, 10).status is Status.NOT_VERIFIED
    assert rto_met(10, None).status is Status.NOT_VERIFIED
    assert rto_met(10, 10).status is Status.PASSED
    late = rto_met(10.1, 10)
    assert (late.status, codes(late)) == (Status.FAILED, {"RTO_EXCEEDED"})
    assert isinstance(late.findings[0], Finding)
