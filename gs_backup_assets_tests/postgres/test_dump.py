"""pg_dump and pg_dumpall: compression, encodings, locks, and what their failures mean."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gs_backup_assets.errors import ConfigError, ProgramError
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.dump import Compression, dump_database, dump_globals, excluded, explain
from gs_backup_assets.postgres.schema import read_schema
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.system.programs import Finished, run
from gs_backup_assets_tests.chain import execute
from gs_backup_assets_tests.conftest import fresh_database


@pytest.mark.parametrize("text", ["zstd:1", "lz4:12", "gzip:9", "none"])
def test_compression_reads_what_it_writes(text: str) -> None:
    assert str(Compression.parse(text)) == text


@pytest.mark.parametrize("text", ["", "zip", "zstd:", "gzip:x", "zstd:-1", "none:x", "zstd:1:2"])
def test_compression_refuses_the_rest(text: str) -> None:
    if text == "zstd:":
        assert str(Compression.parse(text)) == "zstd:1"
        return
    with pytest.raises(ConfigError, match="COMPRESSION_INVALID"):
        Compression.parse(text)


@pytest.mark.parametrize(("text", "suffix"), [("none", ".dat"), ("gzip:1", ".dat.gz"), ("zstd:1", ".dat.zst")])
def test_a_dump_is_compressed_as_wanted(any_server: Cluster, tmp_path: Path, text: str, suffix: str) -> None:
    toolchain, compression = any_server.toolchain, Compression.parse(text)
    if not compression.supported_by(toolchain):
        assert (text, toolchain.release.major < 16) == ("zstd:1", True)
        return
    sizes: list[int] = []
    with fresh_database(any_server) as target:
        execute(target, "CREATE TABLE t AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 100)")
        with exported_snapshot(target) as snapshot:
            finished = dump_database(
                toolchain,
                target.write_service_file(tmp_path),
                tmp_path / "dump",
                snapshot=snapshot.name,
                jobs=2,
                compression=compression,
                written=sizes.append,
            )
    assert finished.status == 0
    data = [path for path in (tmp_path / "dump").iterdir() if path.name != "toc.dat"]
    assert [path.name.removeprefix(path.name.split(".")[0]) for path in data] == [suffix]
    assert (data[0].stat().st_size < 20_000) == (text != "none")
    assert sizes == sorted(sizes)


def test_bytes_that_are_no_text_are_dumped_in_their_own_encoding(any_server: Cluster, tmp_path: Path) -> None:
    admin = any_server.target()
    execute(admin, "CREATE DATABASE legacy TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        target = any_server.target("legacy")
        execute(target, r"CREATE TABLE t AS SELECT E'caf\351'::text AS t")
        environment = target.write_service_file(tmp_path)

        def dump(folder: str, encoding: str) -> None:
            with exported_snapshot(target) as snapshot:
                dump_database(
                    any_server.toolchain,
                    environment,
                    tmp_path / folder,
                    snapshot=snapshot.name,
                    jobs=1,
                    compression=Compression("none", 0),
                    encoding=encoding,
                )

        with pytest.raises(ProgramError, match="PROGRAM_FAILED"):
            dump("refused", "UTF8")  # what would happen otherwise
        dump("own", "SQL_ASCII")
        (data,) = (path for path in (tmp_path / "own").iterdir() if path.name != "toc.dat")
        assert b"caf\xe9" in data.read_bytes()
    finally:
        execute(admin, "DROP DATABASE legacy WITH (FORCE)")


def test_a_table_that_stays_locked_is_a_lock_timeout(empty_database: Target, server17: Cluster, tmp_path: Path) -> None:
    execute(empty_database, "CREATE TABLE t (id integer)")
    environment = empty_database.write_service_file(tmp_path)
    with exported_snapshot(empty_database) as snapshot, connect(empty_database, autocommit=False) as locker:
        query(locker, "LOCK TABLE public.t")
        with pytest.raises(ProgramError) as caught:
            read_schema(server17.toolchain, environment, snapshot=snapshot.name, lock_wait=0.3)
        assert caught.value.code == "LOCK_TIMEOUT"
        with pytest.raises(ProgramError) as caught:
            dump_database(
                server17.toolchain,
                environment,
                tmp_path / "dump",
                snapshot=snapshot.name,
                jobs=2,
                compression=Compression("none", 0),
                lock_wait=0.3,
            )
        assert caught.value.code == "LOCK_TIMEOUT"


def test_names_that_look_like_patterns_are_excluded_exactly(
    empty_database: Target, server17: Cluster, tmp_path: Path
) -> None:
    """pg_dump reads names as patterns: a table `a*` left out must not take `ab` with it."""
    names = ['"a*"', '"a?"', '"A.b"', '"x|y"', '"q""q"', '"p%s"', '"(z)"', '"ä 😀"', '"d$"']
    execute(
        empty_database,
        *(f"CREATE TABLE {name} (id integer)" for name in names),
        *(f"CREATE TABLE {name} (id integer)" for name in ("ab", "a", "x", "y", "z", "d")),
        "CREATE SEQUENCE kept",
        "CREATE ROLE exact LOGIN",
        "GRANT SELECT ON ab, a, x, y, z, d TO exact",
    )
    try:
        reader = Target({**empty_database.parameters, "user": "exact"})
        environment = reader.write_service_file(tmp_path)
        with exported_snapshot(reader) as snapshot:
            arguments = excluded(snapshot.inventory)
            assert len(arguments) == len(names) + 1
            objects = read_schema(server17.toolchain, environment, snapshot=snapshot.name, exclude=arguments)
        assert {o.name for o in objects if o.type == "TABLE"} == {"ab", "a", "x", "y", "z", "d"}
        assert {o.name for o in objects if o.type == "SEQUENCE"} == {"kept"}
    finally:
        execute(empty_database, "DROP OWNED BY exact", "DROP ROLE exact")


def test_globals_are_private_and_hold_passwords_only_on_request(server17: Cluster, tmp_path: Path) -> None:
    execute(server17.target(), "CREATE ROLE with_password PASSWORD 'hunter2'")
    try:
        environment = server17.target().write_service_file(tmp_path)
        for passwords in (True, False):
            path = tmp_path / f"{passwords}.sql"
            dump_globals(server17.toolchain, environment, path, database="postgres", passwords=passwords)
            text = path.read_text()
            assert "CREATE ROLE with_password;" in text
            assert ("SCRAM-SHA-256$" in text) is passwords
            assert "hunter2" not in text
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        execute(server17.target(), "DROP ROLE with_password")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("pg_dump: error: aborting because of server version mismatch", "PROGRAMS_OLDER_THAN_SERVER"),
        ("pg_dump: error: could not write to file: No space left on device", "NO_SPACE"),
        ("pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout", "LOCK_TIMEOUT"),
        ("pg_dump: error: something else", "PROGRAM_FAILED"),
    ],
)
def test_failures_have_names(words: str, code: str) -> None:
    with pytest.raises(ProgramError) as caught:
        explain(Finished("pg_dump", 1, (words,), "", 0.1))
    assert caught.value.code == code
    explain(Finished("pg_dump", 0, (words,), "", 0.1))


def test_the_programs_really_say_so(empty_database: Target, server17: Cluster, tmp_path: Path) -> None:
    environment = empty_database.with_database("no such").write_service_file(tmp_path)
    finished = run([server17.toolchain.program("pg_dump"), "-s"], environment=environment)
    with pytest.raises(ProgramError, match=r'PROGRAM_FAILED.*database "no such" does not exist'):
        explain(finished)
