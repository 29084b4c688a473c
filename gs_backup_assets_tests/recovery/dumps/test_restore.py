"""Real restores on real servers: the wanted name is given last, and nothing is replaced by what is not proved equal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import BackupError, ConfigError, ProofFailed, SourceError
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.progress import Progress, Silent
from gs_backup_assets.recovery.dumps.naming import half_restored, name_beside, working_name
from gs_backup_assets.recovery.dumps.restore import RestoreOutcome, restore_backup
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets_tests.chain import Chain, chain_in, execute
from gs_backup_assets_tests.conftest import fresh_database, running_cluster, toolchain_of

NAMES = ("wanted", "wanted_restor%", "wanted_replaced%")


@pytest.fixture(scope="module")
def chain(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A backup of a small sample."""
    made = chain_in(tmp_path_factory.mktemp("restore"))
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.05)
        execute(target, 'ALTER TABLE public."User" OWNER TO CURRENT_USER')
        made.take(target)
    yield made  # the source is gone: restores must not need it


def databases(cluster: Cluster) -> list[str]:
    with connect(cluster.target()) as connection:
        rows = query(
            connection, "SELECT datname FROM pg_database WHERE datname LIKE ANY (%s) ORDER BY 1", (list(NAMES),)
        )
    return [name for (name,) in rows]


@pytest.fixture
def into(server17: Cluster) -> Iterator[Target]:
    """The name to restore to; everything of that name is dropped at the end."""
    yield server17.target("wanted")
    with connect(server17.target()) as connection:
        for name in databases(server17):
            drop_database(connection, name)


def restore(
    chain: Chain, into: Target, entry: Entry | None = None, progress: Progress | None = None, **options: Any
) -> RestoreOutcome:
    return restore_backup(chain.settings, chain.store, entry or chain.entry, into, progress or Progress(), **options)


def old_database(server: Cluster, *statements: str) -> None:
    execute(server.target(), "CREATE DATABASE wanted")
    execute(server.target("wanted"), "CREATE TABLE old (id int)", "INSERT INTO old VALUES (41), (42)", *statements)


def rows(target: Target, sql: str) -> list[tuple[Any, ...]]:
    with connect(target, settings={"search_path": "public"}) as connection:
        return query(connection, sql)


@contextmanager
def damaged(chain: Chain, name: str) -> Iterator[None]:
    """Change the last byte of one of the backup's files for a while."""
    path = chain.store.root / chain.entry.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        yield
    finally:
        path.write_bytes(whole)


def test_into_a_new_database(chain: Chain, into: Target, server17: Cluster) -> None:
    outcome = restore(chain, into)
    assert (outcome.verdict, outcome.database, outcome.replaced) == (Verdict.PROVEN, "wanted", None)
    assert {check.name: check.status.value for check in outcome.checks} == {
        "everything_included": "passed",
        "restore_clean": "passed",
        "rows_equal": "passed",
        "contents_equal": "passed",
        "schema_equal": "passed",
        "sequences_equal": "passed",
    }
    assert outcome.owners
    assert outcome.core_seconds is None and outcome.full_seconds > 0
    assert databases(server17) == ["wanted"]
    manifest = chain.entry.require_manifest()
    expected = next(table.rows for table in manifest.fingerprint.tables if table.name == "Lesson")
    assert rows(into, 'SELECT count(*) FROM public."Lesson"') == [(expected,)]
    # Planner statistics are there: without them the application times out.
    assert rows(into, "SELECT count(*) > 50 FROM pg_stats WHERE schemaname = 'public'") == [(True,)]


def test_an_existing_database_is_refused_and_untouched(chain: Chain, into: Target, server17: Cluster) -> None:
    old_database(server17)
    with pytest.raises(ConfigError, match=r"DATABASE_EXISTS.*--replace") as caught:
        restore(chain, into)
    assert caught.value.exit_status == 2
    assert rows(into, "SELECT sum(id) FROM old") == [(83,)]
    assert databases(server17) == ["wanted"]


class Application(threading.Thread):
    """An application that connects again and again, as pools do, and holds its sessions."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.ended = 0
        self.working = threading.Event()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(psycopg2.Error, BackupError), connect(self.target, application="application") as connection:
                self.working.set()
                try:
                    while not self.stop.is_set():
                        query(connection, "SELECT pg_sleep(0.02)")
                except psycopg2.Error:
                    self.ended += 1
                    raise


def test_replacing_a_database_in_use(chain: Chain, into: Target, server17: Cluster) -> None:
    """Sessions are ended, the names swapped at once, the old data kept; the application comes back to the new data."""
    old_database(server17)
    application = [Application(into) for _ in range(6)]
    for session in application:
        session.start()
    assert all(session.working.wait(60) for session in application)
    try:
        outcome = restore(chain, into, replace=True)
        assert (outcome.verdict, outcome.database) == (Verdict.PROVEN, "wanted")
        assert outcome.replaced is not None and outcome.replaced.startswith("wanted_replaced_2")
        assert databases(server17) == sorted(["wanted", outcome.replaced])
        assert rows(into, 'SELECT count(*) > 0 FROM public."Lesson"') == [(True,)]
        assert rows(into.with_database(outcome.replaced), "SELECT sum(id) FROM old") == [(83,)]
        assert all(session.ended for session in application), "sessions of the old database were ended"
        deadline = time.monotonic() + 60
        while rows(server17.target(), "SELECT count(*) FROM pg_stat_activity WHERE datname = 'wanted'") < [(6,)]:
            assert time.monotonic() < deadline, "the application can connect again"
            time.sleep(0.05)
    finally:
        for session in application:
            session.stop.set()
        for session in application:
            session.join(30)


def test_the_new_database_takes_after_the_old_one(chain: Chain, into: Target, server17: Cluster) -> None:
    """Else the application loses the schema public with its ownership, and a closed database opens to everybody."""
    execute(server17.target(), 'CREATE ROLE "the app" LOGIN', "CREATE ROLE auditor LOGIN")
    try:
        old_database(server17)
        execute(
            server17.target(),
            'ALTER DATABASE wanted OWNER TO "the app"',
            "REVOKE ALL ON DATABASE wanted FROM PUBLIC",
            "GRANT CONNECT ON DATABASE wanted TO auditor WITH GRANT OPTION",
        )
        sql = "SELECT pg_get_userbyid(datdba), datacl::text FROM pg_database WHERE datname = '{}'"
        before = rows(server17.target(), sql.format("wanted"))
        assert restore(chain, into, replace=True).verdict is Verdict.PROVEN
        assert rows(server17.target(), sql.format("wanted")) == before
    finally:
        with connect(server17.target()) as connection:
            for name in databases(server17):
                drop_database(connection, name)
        execute(server17.target(), 'DROP ROLE "the app"', "DROP ROLE auditor")


def test_sessions_that_do_not_end_stop_the_swap(
    chain: Chain, into: Target, server17: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prepared transaction cannot be ended: nothing is replaced, the restored database waits beside."""
    monkeypatch.setattr("gs_backup_assets.recovery.dumps.naming._PATIENCE_SECONDS", 0.0)
    with running_cluster(
        server17.toolchain, purpose="testprepared", settings={"max_prepared_transactions": "2", "fsync": "off"}
    ) as server:
        old_database(server)
        with connect(server.target("wanted"), autocommit=False) as connection:
            query(connection, "INSERT INTO public.old VALUES (1)")
            query(connection, "PREPARE TRANSACTION 'waiting'")
        with pytest.raises(SourceError, match=r"DATABASE_IN_USE.*Nothing is replaced") as caught:
            restore(chain, server.target("wanted"), replace=True)
        (left, wanted) = sorted(databases(server), reverse=True)
        assert wanted == "wanted" and left.startswith("wanted_restored_2") and left in caught.value.hint
        assert rows(server.target("wanted"), "SELECT sum(id) FROM old") == [(83,)]
        assert rows(server.target(left), 'SELECT count(*) > 0 FROM public."Lesson"') == [(True,)]


def unequal(chain: Chain) -> Entry:
    """The newest backup, with a manifest that promises one row more: what a dump that lost a row looks like."""
    manifest = chain.entry.require_manifest()
    first, *others = manifest.fingerprint.tables
    fingerprint = manifest.fingerprint.model_copy(
        update={"tables": (first.model_copy(update={"rows": first.rows + 1}), *others)}
    )
    changed = manifest.model_copy(update={"fingerprint": fingerprint})
    return Entry("shop", manifest.partition, manifest.id, changed, "", None, None)


def test_what_is_not_equal_replaces_nothing(chain: Chain, into: Target, server17: Cluster) -> None:
    old_database(server17)
    outcome = restore(chain, into, unequal(chain), replace=True)
    assert (outcome.verdict, outcome.replaced) == (Verdict.FAILED, None)
    assert outcome.database.startswith("wanted_restored_2")
    assert rows(into, "SELECT sum(id) FROM old") == [(83,)]
    assert databases(server17) == ["wanted", outcome.database]


class AtStage(Silent):
    """Does something when a stage begins."""

    def __init__(self, stage: str, action: Callable[[], None]) -> None:
        self.stage, self.action = stage, action

    def stage_started(self, stage: str) -> None:
        if stage == self.stage:
            self.action()


def test_data_that_cannot_be_compared_is_not_thrown_away(chain: Chain, into: Target, server17: Cluster) -> None:
    def close() -> None:
        (name,) = [name for name in databases(server17) if name != "wanted"]
        execute(server17.target(), f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

    outcome = restore(chain, into, progress=Progress(AtStage("equality", close)))
    assert (outcome.verdict, outcome.database) == (Verdict.NOT_VERIFIED, "wanted")
    assert {check.name: check.status for check in outcome.checks} == {
        "everything_included": Status.PASSED,
        "restore_clean": Status.PASSED,
        **dict.fromkeys(("rows_equal", "contents_equal", "schema_equal", "sequences_equal"), Status.NOT_VERIFIED),
    }
    execute(server17.target(), "ALTER DATABASE wanted ALLOW_CONNECTIONS true")
    assert rows(into, 'SELECT count(*) > 0 FROM public."User"') == [(True,)]


def test_what_is_not_equal_does_not_get_the_wanted_name(chain: Chain, into: Target, server17: Cluster) -> None:
    outcome = restore(chain, into, unequal(chain))
    assert outcome.verdict is Verdict.FAILED
    assert databases(server17) == [outcome.database]
    assert outcome.database.startswith("wanted_restored_2")


@pytest.mark.parametrize(("name", "code"), [("manifest.json", "MANIFEST_DAMAGED"), ("dump/toc.dat", "FILE_DIFFERS")])
def test_a_damaged_backup_is_refused_before_anything_is_created(
    chain: Chain, into: Target, server17: Cluster, name: str, code: str
) -> None:
    with damaged(chain, name), pytest.raises(ProofFailed, match=code) as caught:
        restore(chain, into)
    assert caught.value.exit_status == 1
    assert databases(server17) == []


def test_a_server_that_is_too_old(chain: Chain, tmp_path: Path) -> None:
    with running_cluster(toolchain_of(15), purpose="testold") as old:
        with pytest.raises(ConfigError, match=r"SERVER_TOO_OLD.*17.*15"):
            restore(chain, old.target("wanted"))
        assert databases(old) == []


def test_a_dump_of_newer_programs_goes_back_into_the_older_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed server of 16, and only programs of 17 here: pg_restore 17 sets a timeout that 16 does not know."""
    chain = chain_in(tmp_path)
    newer = toolchain_of(17)
    for module in ("take", "restore"):
        monkeypatch.setattr(f"gs_backup_assets.recovery.dumps.{module}.choose", lambda *_: newer)
    with running_cluster(toolchain_of(16), purpose="testolder") as old:
        execute(old.target(), "CREATE DATABASE source")
        execute(old.target("source"), "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        assert chain.take(old.target("source")).dump.programs == str(newer.release)
        outcome = restore(chain, old.target("wanted"))
        assert outcome.verdict is Verdict.PROVEN, outcome.checks


def test_a_role_that_is_no_superuser(chain: Chain, into: Target, server17: Cluster) -> None:
    """As on managed servers: CREATEDB is enough; owners are not restored, and that is told."""
    execute(server17.target(), "CREATE ROLE restorer LOGIN CREATEDB")
    try:
        target = Target({**into.parameters, "user": "restorer"})
        outcome = restore(chain, target)
        assert not outcome.owners
        assert (outcome.verdict, outcome.database) == (Verdict.PROVEN, "wanted"), outcome.checks
        owners = rows(into, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert owners == [("restorer",)]
        again = restore(chain, target, replace=True)
        assert again.verdict is Verdict.PROVEN and again.replaced is not None, "its own database it may replace"
    finally:
        with connect(server17.target()) as connection:
            for name in databases(server17):
                drop_database(connection, name)
        execute(server17.target(), "DROP ROLE restorer")


def test_a_role_without_the_right_to_create_databases(chain: Chain, into: Target, server17: Cluster) -> None:
    execute(server17.target(), "CREATE ROLE nobody_special LOGIN")
    try:
        with pytest.raises(SourceError, match=r"CREATE_REFUSED.*CREATEDB"):
            restore(chain, Target({**into.parameters, "user": "nobody_special"}))
        assert databases(server17) == []
    finally:
        execute(server17.target(), "DROP ROLE nobody_special")


def test_a_server_that_cannot_be_reached(chain: Chain, into: Target) -> None:
    with pytest.raises(SourceError, match="SERVER_UNREACHABLE"):
        restore(chain, Target({**into.parameters, "host": "/nonexistent"}))


def test_leftovers_of_killed_restores_are_told(chain: Chain, into: Target, server17: Cluster) -> None:
    left = working_name("wanted", "20261101T000000Z", "abc123")
    for name in (left, "wanted_restoring_party", "wanted_too"):
        execute(server17.target(), f'CREATE DATABASE "{name}"')
    try:
        assert restore(chain, into).half_restored == (left,)
        assert left in databases(server17), "told, not dropped: another restore may be at work"
    finally:
        with connect(server17.target()) as connection:
            drop_database(connection, "wanted_too")


def test_names_fit_into_what_postgresql_keeps(server17: Cluster) -> None:
    """The server cuts longer names without a word: then the wanted and the working name could be one and the same."""
    for base in ("shop", "x" * 63, "ü" * 31, "名" * 21):
        for name in (working_name(base, "20261101T000000Z", "abc123"), name_beside(base, "replaced_20261101T000000Z")):
            assert len(name.encode()) <= 63
            name.encode().decode()
    long = "y" * 63
    name = working_name(long, "20261101T000000Z", "abc123")
    with connect(server17.target()) as connection:
        query(connection, f'CREATE DATABASE "{name}"')
        try:
            assert half_restored(connection, long) == (name,)
        finally:
            drop_database(connection, name)


def test_restoring_the_maintenance_database_itself(chain: Chain) -> None:
    """`postgres` may be the application's database: it cannot be renamed from inside."""
    with running_cluster(toolchain_of(17), purpose="testpostgres") as server:
        outcome = restore(chain, server.target("postgres"), replace=True)
        assert (outcome.verdict, outcome.database) == (Verdict.PROVEN, "postgres")
        assert rows(server.target("postgres"), 'SELECT count(*) > 0 FROM public."Lesson"') == [(True,)]
