"""What pg_restore complains of, on real servers: every error gets a name, and no row's values are repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.dump import Compression, dump_database
from gs_backup_assets.postgres.restore import (
    Origin,
    RestoreError,
    add_not_valid,
    apply_globals,
    classify,
    parse_errors,
    restore_sections,
    trace_causes,
)
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets_tests.chain import execute
from gs_backup_assets_tests.conftest import fresh_database

_SECRET = "jane.doe@example.org"
_ALL = ("pre-data", "data", "post-data")


def _dump(cluster: Cluster, source: Target, folder: Path, compression: str = "none") -> Path:
    with exported_snapshot(source) as snapshot:
        dump_database(
            cluster.toolchain,
            source.write_service_file(folder),
            folder / "dump",
            snapshot=snapshot.name,
            jobs=2,
            compression=Compression.parse(compression),
        )
    return folder / "dump"


@contextmanager
def _restored(
    cluster: Cluster, dump: Path, folder: Path, *before: str, owners: bool = True
) -> Iterator[tuple[Target, tuple[RestoreError, ...]]]:
    with fresh_database(cluster) as target:
        execute(target, *before)
        environment = target.write_service_file(folder)
        yield (
            target,
            restore_sections(cluster.toolchain, environment, dump, sections=_ALL, jobs=2, owners=owners),
        )


def test_violated_constraints(any_server: Cluster, tmp_path: Path) -> None:
    with fresh_database(any_server) as source:
        execute(
            source,
            "CREATE TABLE parent (mail text PRIMARY KEY)",
            "CREATE TABLE child (mail text REFERENCES parent)",
            "CREATE TABLE child2 (mail text REFERENCES parent)",
            "CREATE TABLE twice (mail text)",
            "CREATE UNIQUE INDEX once ON twice (mail)",
            "CREATE TABLE limited (mail text)",
            "INSERT INTO limited VALUES ('jane.doe@example.org')",
            "ALTER TABLE limited ADD CONSTRAINT short CHECK (length(mail) < 5) NOT VALID",
            "UPDATE pg_constraint SET convalidated = true WHERE conname = 'short'",
            "SET session_replication_role = replica",
            f"INSERT INTO child VALUES ('{_SECRET}')",
            f"INSERT INTO child2 VALUES ('{_SECRET}')",
            "RESET session_replication_role",
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'once'::regclass",
            f"INSERT INTO twice VALUES ('{_SECRET}'), ('{_SECRET}')",
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'once'::regclass",
        )
        dump = _dump(any_server, source, tmp_path)
    with _restored(any_server, dump, tmp_path) as (target, errors):
        found = {(e.code, e.origin) for e in errors}
        assert found == {
            ("FOREIGN_KEY_VIOLATED", Origin.DATA),
            ("UNIQUE_VIOLATED", Origin.DATA),
            ("CHECK_VIOLATED", Origin.DATA),
        }
        keys = sorted(e.entry for e in errors if e.code == "FOREIGN_KEY_VIOLATED")
        assert [entry.rsplit(" ", 1)[0] for entry in keys] == [
            "FK CONSTRAINT child child_mail_fkey",
            "FK CONSTRAINT child2 child2_mail_fkey",
        ]
        assert _SECRET not in repr(errors)
        with connect(target) as connection:
            assert sorted(add_not_valid(connection, errors)) == keys
            marks = query(connection, "SELECT convalidated FROM pg_constraint WHERE contype = 'f'")
        assert marks == [(False,), (False,)]


def test_what_the_server_lacks(any_server: Cluster, tmp_path: Path) -> None:
    with fresh_database(any_server) as source:
        execute(source, "CREATE ROLE soon_gone", "CREATE TABLE t (id integer)", "ALTER TABLE t OWNER TO soon_gone")
        execute(source, "CREATE POLICY p ON t TO soon_gone USING (true)", "CREATE EXTENSION hstore")
        dump = _dump(any_server, source, tmp_path)
        execute(source, "REASSIGN OWNED BY soon_gone TO CURRENT_USER", "DROP POLICY p ON t", "DROP ROLE soon_gone")
    with _restored(any_server, dump, tmp_path) as (_, errors):
        assert {(e.code, e.origin) for e in errors} == {("ROLE_MISSING", Origin.BACKUP)}
    with _restored(any_server, dump, tmp_path, owners=False) as (_, errors):
        # Where no roles can be made, a policy for one that is missing is no fault of the backup.
        (error,) = errors
        assert (error.code, error.origin) == ("ROLE_MISSING", Origin.ENVIRONMENT)
        assert "POLICY" in error.entry
    with _restored(any_server, dump, tmp_path, "CREATE TABLE t ()") as (_, errors):
        assert "OBJECT_EXISTS" in {e.code for e in errors}


@pytest.mark.parametrize("compression", ["none", "gzip:1", "zstd:1"])
def test_a_damaged_archive(any_server: Cluster, tmp_path: Path, compression: str) -> None:
    if not Compression.parse(compression).supported_by(any_server.toolchain):
        return
    with fresh_database(any_server) as source:
        execute(
            source, f"CREATE TABLE t AS SELECT i, '{_SECRET}' || md5(i::text) AS m FROM generate_series(1, 20000) i"
        )
        dump = _dump(any_server, source, tmp_path, compression)
    (data,) = (path for path in dump.iterdir() if path.name != "toc.dat")
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with _restored(any_server, dump, tmp_path) as (target, errors), connect(target) as connection:
        # pg_restore may be content with half of a file, so that only counting shows the loss.
        assert query(connection, "SELECT count(*) FROM public.t")[0][0] < 20000
        assert (compression.partition(":")[0], bool(errors)) in {("none", False), ("zstd", False), ("gzip", True)}
        assert {e.code for e in errors} <= {"ARCHIVE_DAMAGED", "RESTORE_ERROR"}
        assert _SECRET not in repr(errors)
    data.unlink()
    with _restored(any_server, dump, tmp_path) as (_, errors):
        assert errors[0].code == "ARCHIVE_DAMAGED"
        assert {e.origin for e in errors} == {Origin.BACKUP}
    data.write_bytes(whole)
    (dump / "toc.dat").write_bytes((dump / "toc.dat").read_bytes()[:100])
    with _restored(any_server, dump, tmp_path) as (_, errors):
        assert {e.code for e in errors} == {"ARCHIVE_DAMAGED"}


def test_values_of_rows_are_not_repeated(any_server: Cluster, tmp_path: Path) -> None:
    """Rows of another table's file: the server quotes what it cannot read, and that is somebody's address."""
    with fresh_database(any_server) as source:
        execute(source, "CREATE TABLE numbers (n integer)", "CREATE TABLE mails (m text)")
        execute(source, "INSERT INTO numbers VALUES (1234567)", f"INSERT INTO mails VALUES ('{_SECRET}')")
        dump = _dump(any_server, source, tmp_path)
    data = [path for path in dump.iterdir() if path.name != "toc.dat"]
    mails = next(path.read_bytes() for path in data if _SECRET.encode() in path.read_bytes())
    for path in data:
        path.write_bytes(mails)
    with _restored(any_server, dump, tmp_path) as (_, errors):
        (error,) = errors
        assert (error.code, error.origin) == ("DATA_UNREADABLE", Origin.BACKUP)
        assert "invalid input syntax" in error.message
        assert "numbers" in error.entry
        assert _SECRET not in repr(error)


def test_unknown_settings_point_to_the_programs() -> None:
    assert classify('unrecognized parameter "pg_attver"')[0] == "PROGRAMS_OLDER_THAN_SERVER"
    assert classify('unrecognized configuration parameter "transaction_timeout"')[0] == "PROGRAMS_OLDER_THAN_SERVER"


@pytest.mark.parametrize(
    ("message", "code", "origin"),
    [
        ('extension "postgis" is not available', "EXTENSION_MISSING", Origin.ENVIRONMENT),
        (
            'could not access file "$libdir/postgis-3": No such file or directory',
            "EXTENSION_MISSING",
            Origin.ENVIRONMENT,
        ),
        ("pg_cron can only be loaded via shared_preload_libraries", "EXTENSION_NOT_PRELOADED", Origin.ENVIRONMENT),
        ('could not create locale "xx_XX": No such file or directory', "COLLATION_MISSING", Origin.ENVIRONMENT),
        ('collation "public.german" for encoding "UTF8" does not exist', "COLLATION_MISSING", Origin.ENVIRONMENT),
        ('could not connect to server "archive"', "FOREIGN_DATA_UNREACHABLE", Origin.ENVIRONMENT),
        ('materialized view "m" has not been populated', "DEPENDS_ON_UNPOPULATED", Origin.ENVIRONMENT),
        ("could not extend file: No space left on device", "NO_SPACE", Origin.ENVIRONMENT),
        ('permission denied to create extension "adminpack"', "PERMISSION_DENIED", Origin.ENVIRONMENT),
        ("must be owner of table t", "PERMISSION_DENIED", Origin.ENVIRONMENT),
        ('schema "x" does not exist', "OBJECT_MISSING", Origin.BACKUP),
        ("conflicting key value violates exclusion constraint", "EXCLUSION_VIOLATED", Origin.DATA),
        ('column "a" of relation "t" contains null values', "CHECK_VIOLATED", Origin.DATA),
        ("the moon is in the wrong house", "RESTORE_ERROR", Origin.BACKUP),
    ],
)
def test_messages(message: str, code: str, origin: Origin) -> None:
    assert classify(message) == (code, origin)


def test_details_hints_and_mixed_lines() -> None:
    lines = (
        "pg_restore: while PROCESSING TOC:",
        "pg_restore: from TOC entry 3412; 2606 16412 FK CONSTRAINT a a_fk owner",
        "pg_restore: from TOC entry 3413; 2606 16413 FK CONSTRAINT b b_fk owner",
        'pg_restore: error: could not execute query: ERROR:  insert or update on table "a" violates foreign key'
        ' constraint "a_fk"',
        f'DETAIL:  Key (mail)=({_SECRET}) is not present in table "p".',
        "Command was: ALTER TABLE ONLY public.a",
        "    ADD CONSTRAINT a_fk FOREIGN KEY (mail) REFERENCES public.p(mail);",
        "",
        "",
        'pg_restore: error: could not execute query: ERROR:  insert or update on table "b" violates foreign key'
        ' constraint "b_fk"',
        f'DETAIL:  Key (mail)=({_SECRET}) is not present in table "p".',
        "Command was: ALTER TABLE ONLY public.b",
        "    ADD CONSTRAINT b_fk FOREIGN KEY (mail) REFERENCES public.p(mail);",
        "pg_restore: warning: errors ignored on restore: 2",
    )
    first, second = parse_errors(lines)
    assert first.entry.startswith("FK CONSTRAINT a a_fk ")  # two jobs spoke at once; the command says whose it is
    assert second.entry == "FK CONSTRAINT b b_fk owner"
    assert first.command.endswith("REFERENCES public.p(mail);")
    assert _SECRET not in repr((first, second))
    assert parse_errors(()) == ()


def test_no_error_of_parallel_jobs_is_lost(any_server: Cluster, tmp_path: Path) -> None:
    indexes = 80
    with fresh_database(any_server) as source:
        execute(
            source,
            "CREATE FUNCTION inverse(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / ($1 + 1)'",
            *(f"CREATE TABLE t{i} AS SELECT 0 AS n" for i in range(indexes)),
            *(f"CREATE INDEX i{i} ON t{i} (inverse(n))" for i in range(indexes)),
            "CREATE OR REPLACE FUNCTION inverse(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / ($1 * 0)'",
        )
        dump = _dump(any_server, source, tmp_path)
    with fresh_database(any_server) as target:
        environment = target.write_service_file(tmp_path)
        for _ in range(2):  # the second time the tables are there as well
            errors = restore_sections(any_server.toolchain, environment, dump, sections=_ALL, jobs=8)
            found = {e.command for e in errors if e.message == "division by zero"}
            assert len(found) == indexes and all(command.startswith("CREATE INDEX i") for command in found)


@pytest.mark.parametrize(
    "first",
    [
        (
            "pg_restore:pg_restore: error:  error: could not execute query: ERROR:  A",
            "could not execute query: ERROR:  B",
        ),
        (
            "pg_restore: error: pg_restore: could not execute query: ERROR:  A",
            "error: could not execute query: ERROR:  B",
        ),
        (
            "pg_restore:pg_restore: error: could not execute query: ERROR:  A",
            " error: could not execute query: ERROR:  B",
        ),
        ('pg_restore: pg_restore: error: error: COPY failed for table "A": ERROR:  A', 'COPY failed for table "B": B'),
        ("pg_restore: warning: pg_restore: error: A", "error: B"),
    ],
)
def test_lines_that_parallel_jobs_mixed(first: tuple[str, str]) -> None:
    lines = [line for message in first for line in (message, "DETAIL:  x", "Command was: SELECT 1;")]
    errors = parse_errors([*lines, "pg_restore: warning: errors ignored on restore: 4"])
    assert [(e.message[-1], e.command) for e in errors] == [("A", "SELECT 1;"), ("B", "SELECT 1;")]


def test_what_follows_from_an_omission() -> None:
    def error(message: str, command: str) -> RestoreError:
        return RestoreError("OBJECT_MISSING", Origin.BACKUP, "", message, command)

    errors = (
        error('relation "hidden.Se.cret" does not exist', 'CREATE VIEW public."first one" AS SELECT 1'),
        error('relation "public.first one" does not exist', "CREATE VIEW public.second AS SELECT 1"),
        error('relation "public.second" does not exist', "GRANT SELECT ON TABLE public.second TO x;"),
        error('relation "public.lost" does not exist', "ALTER TABLE public.x ADD FOREIGN KEY"),
    )
    judged = trace_causes(errors, ['"hidden"."Se.cret"'])
    assert [e.code for e in judged] == ["DEPENDS_ON_OMITTED"] * 3 + ["OBJECT_MISSING"]
    assert {e.origin for e in judged[:3]} == {Origin.OMISSION}
    assert trace_causes(errors, []) == errors


def test_what_follows_from_something_that_the_server_lacks() -> None:
    table = "CREATE TABLE public.names (\n    n text COLLATE public.phone\n);"
    errors = (
        RestoreError("COLLATION_MISSING", Origin.ENVIRONMENT, "", 'collation "public.phone" does not exist', table),
        RestoreError("OBJECT_MISSING", Origin.BACKUP, "", 'relation "public.names" does not exist', "ALTER TABLE x"),
        RestoreError("OBJECT_MISSING", Origin.BACKUP, "", 'relation "public.other" does not exist', "ALTER TABLE x"),
    )
    assert [(e.code, e.origin) for e in trace_causes(errors, [])] == [
        ("COLLATION_MISSING", Origin.ENVIRONMENT),
        ("COLLATION_MISSING", Origin.ENVIRONMENT),
        ("OBJECT_MISSING", Origin.BACKUP),
    ]


def test_globals_leave_roles_that_exist_and_tablespaces_alone(server17: Cluster, tmp_path: Path) -> None:
    execute(server17.target(), 'CREATE ROLE "was there" NOLOGIN')
    script = tmp_path / "globals.sql"
    script.write_text(
        'CREATE ROLE "was there";\nALTER ROLE "was there" WITH LOGIN;\n'
        'CREATE ROLE "is new";\nCOMMENT ON ROLE "is new" IS \'one\x0ctwo\u2028three\';\n'
        'CREATE TABLESPACE t OWNER x LOCATION \'/nowhere\';\nGRANT "is new" TO "was there";\n'
        'GRANT no_such_role TO "is new";\n'
    )
    try:
        with connect(server17.target()) as connection:
            errors = apply_globals(
                server17.toolchain,
                server17.target().write_service_file(tmp_path),
                script,
                tmp_path,
                existing_roles={"was there"},
            )
            assert [(e.code, e.entry) for e in errors] == [("ROLE_MISSING", "globals.sql")]
            roles = dict(query(connection, "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname LIKE '% %'"))
            assert (roles["was there"], roles["is new"]) == (False, False)
            comment = query(connection, "SELECT shobj_description('\"is new\"'::regrole, 'pg_authid')")
            assert comment == [("one\x0ctwo\u2028three",)]
        assert not list(tmp_path.glob("globals.filtered*"))
    finally:
        execute(server17.target(), 'DROP ROLE IF EXISTS "is new"', 'DROP ROLE "was there"')
