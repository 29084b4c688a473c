"""Taking a backup while the database is in use, by roles of few rights, and on the right day only."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import backup_id, parse_id
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import BackupError, ConfigError, SourceError
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import jobs_of, take_backup
from gs_backup_assets_tests.chain import chain_in, codes, execute, failures, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database, toolchain_of

_ZONES = ("UTC", "America/Chicago", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Niue")
_moments = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(timezone.utc))


@pytest.fixture(scope="module")
def prover(server17: Cluster) -> Iterator[RestoreServer]:
    """One throwaway server for the proofs of this module."""
    with throwaway_beside(server17) as server:
        yield server


@given(_moments, st.sampled_from(_ZONES), st.integers(-3, 3))
def test_only_today_can_be_backed_up(now: datetime, zone_name: str, days: int) -> None:
    zone = ZoneInfo(zone_name)
    today = now.astimezone(zone).date()
    wanted = (today + timedelta(days=days)).isoformat()
    assert DAY.of(now, zone) == today.isoformat()
    if days == 0:
        DAY.require_current(wanted, now, zone)
        return
    with pytest.raises(ConfigError) as caught:
        DAY.require_current(wanted, now, zone)
    assert caught.value.code == "PARTITION_NOT_TODAY"
    assert today.isoformat() in caught.value.hint


@pytest.mark.parametrize(
    ("moment", "zone", "day"),
    [
        ("2026-03-08T05:59:59+00:00", "America/Chicago", "2026-03-07"),
        ("2026-03-08T06:00:00+00:00", "America/Chicago", "2026-03-08"),  # 23 hours long
        ("2026-03-09T04:59:59+00:00", "America/Chicago", "2026-03-08"),
        ("2026-03-09T05:00:00+00:00", "America/Chicago", "2026-03-09"),
        ("2026-11-01T05:00:00+00:00", "America/Chicago", "2026-11-01"),  # 25 hours long
        ("2026-11-02T05:59:59+00:00", "America/Chicago", "2026-11-01"),
        ("2026-11-02T06:00:00+00:00", "America/Chicago", "2026-11-02"),
        ("2026-06-01T09:59:59+00:00", "Pacific/Kiritimati", "2026-06-01"),
        ("2026-06-01T10:00:00+00:00", "Pacific/Kiritimati", "2026-06-02"),
    ],
)
def test_days_begin_at_local_midnight(moment: str, zone: str, day: str) -> None:
    assert DAY.of(datetime.fromisoformat(moment), ZoneInfo(zone)) == day


@pytest.mark.parametrize("partition", ["", "today", "2026-13-01", "2026-02-30", "22.11.2026", "../2026-11-22"])
def test_what_is_no_day(partition: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DAY.require_current(partition, datetime.now(timezone.utc), ZoneInfo("UTC"))
    assert caught.value.code == "PARTITION_INVALID"


@given(_moments)
def test_ids_name_the_second_and_sort_by_time(moment: datetime) -> None:
    assert parse_id(backup_id(moment)) == moment.replace(microsecond=0)
    assert backup_id(moment) < backup_id(moment + timedelta(seconds=1))


def test_another_day_leaves_nothing_behind(empty_database: Target, tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    yesterday = (date.fromisoformat(chain.today) - timedelta(days=1)).isoformat()
    with pytest.raises(ConfigError, match="PARTITION_NOT_TODAY"):
        take_backup(chain.settings, empty_database, chain.store, yesterday, Progress())
    assert not list(tmp_path.iterdir())


def test_jobs() -> None:
    assert jobs_of(3) == 3
    assert 1 <= jobs_of("auto") <= 8


def test_id_partition_and_manifest_agree(empty_database: Target, tmp_path: Path) -> None:
    chain = chain_in(tmp_path, timezone="Pacific/Kiritimati")
    before = datetime.now(timezone.utc).replace(microsecond=0)
    manifest = chain.take(empty_database)
    assert before <= parse_id(manifest.id) <= manifest.snapshot_at <= manifest.finished_at
    assert manifest.partition == DAY.of(manifest.snapshot_at, ZoneInfo("Pacific/Kiritimati"))
    assert chain.entry.manifest == manifest
    assert {file.path for file in manifest.files} >= {"globals.sql", "dump/toc.dat"}
    assert not list(chain.store.root.rglob(".partial-*"))


def test_a_backup_of_a_database_in_use(empty_database: Target, tmp_path: Path, prover: RestoreServer) -> None:
    """Rows are committed and sequences move all the time: the backup holds the snapshot's rows and is proved."""
    execute(
        empty_database,
        "CREATE TABLE log (id bigserial PRIMARY KEY, t text DEFAULT md5(random()::text))",
        "CREATE SEQUENCE busy",
        "CREATE SEQUENCE down INCREMENT -2",
        "CREATE SEQUENCE ring MAXVALUE 101 CYCLE",
        "INSERT INTO log (t) SELECT md5(i::text) FROM generate_series(1, 20000) i",
    )
    stop = threading.Event()

    def write() -> None:
        with connect(empty_database, settings={"search_path": "public"}) as connection:
            while not stop.is_set():
                query(connection, "INSERT INTO log DEFAULT VALUES RETURNING id")
                query(connection, "SELECT nextval('busy'), nextval('down'), nextval('ring')")
                query(connection, "UPDATE log SET t = md5(random()::text) WHERE id = 1")

    writer = threading.Thread(target=write)
    writer.start()
    chain = chain_in(tmp_path)
    try:
        manifest = chain.take(empty_database)
    finally:
        stop.set()
        writer.join()
    with connect(empty_database) as connection:
        ((rows,),) = query(connection, "SELECT count(*) FROM public.log")
    assert manifest.fingerprint.rows < rows, "no row was committed while the dump ran: this shows nothing"
    moved = {s.name for s in manifest.fingerprint.sequences if s.before != s.after}
    assert {"busy", "down", "log_id_seq"} <= moved
    record = chain.prove(prover)
    assert record.verdict is Verdict.PROVEN, failures(record)
    (table,) = record.tables
    assert table.restored_rows == manifest.fingerprint.rows


def test_two_at_once_are_refused(empty_database: Target, tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    with exported_snapshot(empty_database), pytest.raises(SourceError) as caught:
        chain.take(empty_database)
    assert caught.value.code == "BACKUP_RUNNING"
    assert not list(tmp_path.iterdir())
    chain.take(empty_database)


@pytest.mark.parametrize("fingerprint", ["full", "counts", "off"])
def test_a_locked_table_ends_the_backup(empty_database: Target, tmp_path: Path, fingerprint: str) -> None:
    execute(empty_database, "CREATE TABLE t (id integer)")
    chain = chain_in(tmp_path, logical={"fingerprint": fingerprint})
    with connect(empty_database, autocommit=False) as locker:
        query(locker, "LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BackupError) as caught:
            chain.take(empty_database, lock_wait=0.3)
    assert caught.value.code == "LOCK_TIMEOUT"
    assert not list(tmp_path.iterdir())
    chain.take(empty_database, lock_wait=0.3)


def test_a_source_that_fails_is_a_source_error(empty_database: Target, tmp_path: Path) -> None:
    """A failure in the middle of reading: an extension's condition that divides by zero."""
    execute(
        empty_database,
        "CREATE TABLE t (id integer)",
        "INSERT INTO t VALUES (0)",
        "CREATE EXTENSION hstore",
        "ALTER EXTENSION hstore ADD TABLE t",
        "UPDATE pg_extension SET extconfig = ARRAY['t'::regclass]::oid[], extcondition = ARRAY['WHERE 1 / id > 0']"
        " WHERE extname = 'hstore'",
    )
    with pytest.raises(BackupError) as caught:
        chain_in(tmp_path).take(empty_database)
    assert caught.value.code in ("SOURCE_FAILED", "PROGRAM_FAILED")
    assert "division by zero" in caught.value.message
    assert not list(tmp_path.iterdir())


@contextmanager
def _role(target: Target, *rights: str) -> Iterator[Target]:
    name = f"reader_{secrets.token_hex(4)}"
    execute(target, f"CREATE ROLE {name} LOGIN", *(right.format(role=name) for right in rights))
    try:
        yield Target({**target.parameters, "user": name})
    finally:
        execute(target, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


_SHOP = (
    "CREATE TABLE users (id integer PRIMARY KEY, mail text)",
    "CREATE TABLE orders (id serial PRIMARY KEY, user_id integer REFERENCES users)",
    "CREATE VIEW mails AS SELECT mail FROM users",
    "CREATE VIEW upper_mails AS SELECT upper(mail) AS mail FROM mails",
    "INSERT INTO users VALUES (1, 'a')",
    "INSERT INTO orders (user_id) VALUES (1), (1)",
)


def test_a_reading_role_is_enough(any_server: Cluster, tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    with (
        fresh_database(any_server) as target,
        _role(target, "GRANT pg_read_all_data TO {role}") as reader,
        throwaway_beside(any_server) as server,
    ):
        execute(target, *_SHOP, "CREATE ROLE someone LOGIN PASSWORD 'x'")
        try:
            manifest, record = chain.take_and_prove(reader, server)
        finally:
            execute(target, "DROP ROLE someone")
    assert not manifest.dump.role_passwords
    assert any("without their passwords" in warning for warning in manifest.warnings)
    assert "PASSWORD" not in (chain.store.root / manifest.folder / "globals.sql").read_text()
    assert manifest.omissions == ()
    assert record.verdict is Verdict.PROVEN, failures(record)


_ALL_BUT = (
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
)


@pytest.mark.parametrize(
    ("before", "rights", "kind", "name"),
    [
        ((), ("REVOKE SELECT ON users FROM {role}",), "unreadable_table", '"public"."users"'),
        (
            ("CREATE SCHEMA hr", "ALTER TABLE users SET SCHEMA hr"),
            ("GRANT SELECT ON ALL TABLES IN SCHEMA hr TO {role}",),
            "unreadable_table",
            '"hr"."users"',
        ),
        (
            ("ALTER TABLE users ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON users USING (id > 1)"),
            (),
            "row_security",
            '"public"."users"',
        ),
    ],
    ids=["no SELECT", "no USAGE", "row security"],
)
def test_what_the_role_cannot_read_is_neither_a_pass_nor_a_fault(
    empty_database: Target,
    tmp_path: Path,
    prover: RestoreServer,
    before: tuple[str, ...],
    rights: tuple[str, ...],
    kind: str,
    name: str,
) -> None:
    """Others depend on the table that is left out: a foreign key, a view, and a view on that view."""
    execute(empty_database, *_SHOP, *before)
    with _role(empty_database, *_ALL_BUT, *rights) as reader:
        manifest, record = chain_in(tmp_path).take_and_prove(reader, prover)
    assert [(o.kind, o.name, o.loses_data) for o in manifest.omissions] == [(kind, name, True)]
    assert record.verdict is Verdict.NOT_VERIFIED, failures(record)
    assert record.check("everything_included").status is Status.NOT_VERIFIED
    assert codes(record.check("everything_included")) == {"OMITTED"}
    clean = record.check("restore_clean")
    assert (clean.status, codes(clean)) == (Status.NOT_VERIFIED, {"DEPENDS_ON_OMITTED"}), failures(record)
    assert record.check("schema_equal").status is Status.NOT_VERIFIED
    for sound in ("rows_equal", "contents_equal", "sequences_equal", "amcheck_clean"):
        assert record.check(sound).status is Status.PASSED, failures(record)


def test_a_sequence_that_cannot_be_read_keeps_its_definition(any_server: Cluster, tmp_path: Path) -> None:
    with (
        fresh_database(any_server) as target,
        throwaway_beside(any_server) as server,
    ):
        execute(
            target,
            *_SHOP,
            "CREATE TABLE with_identity (id integer GENERATED ALWAYS AS IDENTITY)",
            "INSERT INTO with_identity DEFAULT VALUES",
        )
        with _role(target, _ALL_BUT[0]) as reader:
            manifest, record = chain_in(tmp_path).take_and_prove(reader, server)
    assert {(o.kind, o.name) for o in manifest.omissions} == {
        ("unreadable_sequence", '"public"."orders_id_seq"'),
        ("unreadable_sequence", '"public"."with_identity_id_seq"'),
    }
    assert record.verdict is Verdict.NOT_VERIFIED, failures(record)
    unclear = {check.name for check in record.checks if check.status is not Status.PASSED}
    assert unclear == {"everything_included"}, failures(record)


def test_old_programs_fall_back_to_gzip(tmp_path: Path) -> None:
    with running_cluster(toolchain_of(15), purpose="test15", settings={"fsync": "off"}) as cluster:
        chain = chain_in(tmp_path)
        manifest = chain.take(cluster.target())
    assert manifest.dump.compression == "gzip:1"
    assert any("zstd:1 is not known to pg_dump 15" in warning for warning in manifest.warnings)


def test_a_password_shows_nowhere(
    server17: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture, prover: RestoreServer
) -> None:
    """Not in what is stored or said, nor in any process's arguments or environment while the programs run."""
    secret = f"s3cret-{secrets.token_hex(8)}"
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            for process in filter(str.isdigit, os.listdir("/proc")):
                for name in ("cmdline", "environ"):
                    try:
                        data = Path("/proc", process, name).read_bytes()
                    except OSError:
                        continue  # it has ended
                    if secret.encode() in data:
                        seen.append(f"{process} {name}")
                    elif b"PGSERVICEFILE" in data:
                        seen.append("a child")

    chain = chain_in(tmp_path)
    caplog.set_level(logging.DEBUG)
    with fresh_database(server17) as target:
        execute(target, *_SHOP, "INSERT INTO orders (user_id) SELECT 1 FROM generate_series(1, 50000)")
        with _role(target, f"ALTER ROLE {{role}} SUPERUSER PASSWORD '{secret}'") as reader:
            asked = Target(reader.parameters, secret)
            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                manifest, record = chain.take_and_prove(asked, prover)
            finally:
                stop.set()
                watcher.join()
            with pytest.raises(SourceError) as caught:
                chain.take(asked.with_database("no such database"))
    assert record.verdict is Verdict.PROVEN, failures(record)
    assert "a child" in seen, "no child was seen at work: this shows nothing"
    assert set(seen) == {"a child"}
    told = [manifest.model_dump_json(), record.model_dump_json(), caplog.text, str(caught.value), repr(asked)]
    told += [repr(e) for e in Catalogue(chain.store, "shop").entries()]
    assert not [text for text in told if secret in text]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
