"""The staging test on real servers: the application works with the newest proven backup, or staging is what it was."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.alerts.staging import staging_message
from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.staging_tests import read_staging_tests
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import ConfigError, ExitStatus, ProofFailed, SourceError
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.staging.server import only_test
from gs_backup_assets.recovery.staging.staging_test import put_staging_back
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets_tests.chain import Chain, chain_in, codes, execute
from gs_backup_assets_tests.conftest import fresh_database, toolchain_of
from gs_backup_assets_tests.recovery.staging.staging_site import URL_VARIABLE, Site, application, keep_proof

RULES = {
    "tables": {
        "User": {"id": "hash", "email": {"fake": "email"}, "name": {"fake": "name"}, "password": {"constant": "x"}},
        "StudentProfile": {"parentEmail": {"fake": "email"}, "emergencyContact": None},
    }
}


@pytest.fixture(scope="module")
def chain(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A proven backup of a small sample, whose source is gone."""
    made = chain_in(tmp_path_factory.mktemp("staging"))
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.05)
        # Settings of the database come with it, and must be in nobody's way.
        execute(target, f"ALTER DATABASE {target.database} SET default_transaction_read_only = on")
        made.take(target)
    keep_proof(made)
    return made


@pytest.fixture
def site(server17: Cluster, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with application() as app:
        made = Site(server17, f"staging{secrets.token_hex(3)}", tmp_path, chain, app)
        made.reset()
        monkeypatch.setenv(URL_VARIABLE, made.url)
        yield made
        made.drop()


def users(site: Site) -> list[tuple[Any, ...]]:
    with connect(site.target) as connection:
        return query(connection, 'SELECT email, password FROM public."User" ORDER BY 1')


def test_the_newest_proven_backup_becomes_the_staging_database(site: Site) -> None:
    execute(site.cluster.target(), f"REVOKE CONNECT ON DATABASE {site.name} FROM PUBLIC")
    done = site.test()
    record = done.record
    assert record.verdict is Verdict.PROVEN, "\n".join(f"{c.name}: {c.status} {c.summary}" for c in record.checks)
    assert record.exit_status is ExitStatus.GOOD
    assert [check.name for check in record.checks] == [
        "staging_stopped", "staging_restored", "staging_started", "staging_healthy", "rto_met",
    ]  # fmt: skip
    assert not site.is_old and len(users(site)) > 20
    assert site.databases() == [site.name], "the old database and the working one are gone"
    assert site.told == [f"stop {site.name}", f"start {site.name}"]
    assert site.app.asked == 1
    assert record.rto_seconds is not None and {"stop", "fetch", "restore", "swap", "start", "health"} <= set(
        record.stage_seconds
    )
    with connect(site.target) as connection:
        acl = query(connection, "SELECT datacl::text FROM pg_database WHERE datname = %s", (site.name,))
    assert "=Tc/" not in acl[0][0].replace("{", "").split(",")[0], "the grants of the old database are kept"
    assert read_staging_tests(site.chain.store, "shop", newest=1) == (record,)
    assert AuditLog(site.chain.store, "shop").records()[-1].event == "staging_test"


def test_the_copy_is_masked_and_proved_before_it_gets_its_name(site: Site, chain: Chain) -> None:
    site.sections = {"anonymise": RULES}
    record = site.test().record
    assert record.verdict is Verdict.PROVEN, "\n".join(f"{c.name}: {c.status} {c.summary}" for c in record.checks)
    assert record.anonymised and record.check("staging_anonymised").metrics["masked_columns"] >= 6
    assert "LARGE_OBJECTS_NOT_MASKED" in codes(record.check("staging_anonymised"))
    told = staging_message(record).body
    assert record.backup_id in told and "columns masked. NOT MASKED: " in told and "large object" in told
    assert all(email.endswith("@example.com") and password == "x" for email, password in users(site))
    with connect(site.target) as connection:
        assert query(connection, "SELECT to_regnamespace('gs_backup_masking')") == [(None,)]
        (orphans,) = query(
            connection,
            'SELECT count(*) FROM public."StudentProfile" s LEFT JOIN public."User" u ON u.id = s."userId"'
            " WHERE u.id IS NULL",
        )[0]
    assert orphans == 0
    assert record.rto_seconds is not None
    assert record.rto_seconds < sum(record.stage_seconds.values()) - record.stage_seconds["prove masked"]


@pytest.mark.parametrize(
    ("changes", "check", "code", "told"),
    [
        ({"stop": [{"name": "stop", "command": ["false"]}]}, "staging_stopped", "HOOK_FAILED", ["start"]),
        (
            {"start": [{"name": "start", "command": ["sh", "-c", "echo broken >&2; exit 3"]}]},
            "staging_started",
            "HOOK_FAILED",
            ["stop", "stop"],
        ),
        (
            {"stop": [{"name": "stop", "command": ["sleep", "60"], "timeout": "1s"}]},
            "staging_stopped",
            "HOOK_FAILED",
            ["start"],
        ),
    ],
    ids=["stop fails", "start fails", "stop hangs"],
)
def test_a_command_that_fails(site: Site, changes: dict[str, Any], check: str, code: str, told: list[str]) -> None:
    record = site.test(site.settings(**changes)).record
    assert record.exit_status is ExitStatus.FAILED
    assert record.check(check).status is Status.FAILED and codes(record.check(check)) == {code}
    assert site.is_old and site.databases() == [site.name]
    assert site.told == [f"{word} {site.name}" for word in told]
    put_back = record.check("staging_put_back").status
    # Where the start command itself is broken, the application is down, and that is said.
    assert put_back is (Status.FAILED if check == "staging_started" else Status.PASSED)
    assert record.check("rto_met").status is Status.NOT_VERIFIED


@pytest.mark.parametrize(
    ("status", "text", "delay", "words"),
    [
        (500, "all systems go", 0.0, "its status is 500"),
        (200, "database is empty", 0.0, "does not hold"),
        (200, "all systems go", 30.0, "does not answer in time"),
    ],
    ids=["wrong status", "wrong text", "slow"],
)
def test_an_application_that_does_not_work(site: Site, status: int, text: str, delay: float, words: str) -> None:
    site.app.status, site.app.text, site.app.delay = status, text, delay
    health = [{"url": site.app.url, "expect": "all systems go", "deadline": "2s"}]
    record = site.test(site.settings(health=health)).record
    assert record.verdict is Verdict.FAILED
    assert codes(record.check("staging_healthy")) == {"HEALTH_NOT_REACHED"}
    assert words in record.check("staging_healthy").summary
    assert site.is_old and site.databases() == [site.name]
    assert site.told == [f"{word} {site.name}" for word in ("stop", "start", "stop", "start")]
    assert record.check("staging_put_back").status is Status.PASSED


def test_an_application_that_cannot_be_stopped_again(site: Site) -> None:
    """The old database comes back whatever the command says, and people are told of the command."""
    site.app.status = 500
    once = f"test ! -e {site.folder}/stopped && touch {site.folder}/stopped"
    health = [{"url": site.app.url, "deadline": "1s"}]
    stop = [{"name": "stop", "command": ["sh", "-c", once]}]
    record = site.test(site.settings(health=health, stop=stop)).record
    put_back = record.check("staging_put_back")
    assert put_back.status is Status.FAILED and codes(put_back) == {"HOOK_FAILED"}
    assert site.is_old and site.databases() == [site.name]
    assert site.told == [f"start {site.name}"] * 2


def ends_the_session(site: Site, status: int) -> dict[str, Any]:
    """A command during which the server ends the session that the test gives its orders on."""
    p = site.cluster.target().parameters
    words = f"dbname=postgres user={p['user']} host={p['host']} port={p['port']}"
    sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'gs_backup_staging'"
    code = f"import psycopg2, sys; psycopg2.connect({words!r}).cursor().execute({sql!r}); sys.exit({status})"
    return {"name": "end", "command": [sys.executable, "-c", code]}


def test_a_session_that_ends_meanwhile_keeps_nothing_from_its_place(site: Site) -> None:
    record = site.test(site.settings(stop=[ends_the_session(site, 1)])).record
    assert codes(record.check("staging_stopped")) == {"HOOK_FAILED"}
    assert record.check("staging_put_back").status is Status.PASSED
    assert site.told == [f"start {site.name}"] and site.is_old
    record = site.test(site.settings(start=[ends_the_session(site, 0), site.command("start")])).record
    assert record.exit_status is ExitStatus.GOOD
    assert not site.is_old and site.databases() == [site.name]


def test_an_old_database_that_cannot_be_dropped_stops_no_other_test(site: Site) -> None:
    """A subscription that is at work keeps it; one that is switched off, as restored ones are, is dropped with it."""
    subscription = "CREATE SUBSCRIPTION s CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)"
    execute(site.target, subscription, "ALTER SUBSCRIPTION s ENABLE")
    record = site.test().record
    assert record.exit_status is ExitStatus.GOOD and codes(record.check("staging_healthy")) == {"OLD_DATABASE_KEPT"}
    (kept,) = set(site.databases()) - {site.name}
    try:
        said = put_staging_back(site.settings(), Progress(), now=datetime.now(timezone.utc))
        assert said is not None and f"{kept} is still there: " in said and "subscription" in said
    finally:
        execute(site.cluster.target(kept), "ALTER SUBSCRIPTION s DISABLE")
    said = put_staging_back(site.settings(), Progress(), now=datetime.now(timezone.utc))
    assert said == f"{kept} is dropped" and site.databases() == [site.name]


def test_a_staging_database_of_another_role_is_refused_before_anything_is_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"creator_{site.name}"
    execute(site.cluster.target(), f"CREATE ROLE {role} LOGIN CREATEDB")
    monkeypatch.setenv(URL_VARIABLE, site.url.replace(f"{site.target.parameters['user']}@", f"{role}@"))
    with pytest.raises(SourceError, match=f"STAGING_NOT_OWNED.*OWNER TO {role}"):
        site.test()
    assert site.told == [] and site.is_old
    execute(site.cluster.target(), f"DROP ROLE {role}")


def test_a_rule_that_breaks_a_key_changes_nothing(site: Site) -> None:
    site.sections = {"anonymise": {"tables": {"StudentProfile": {"userId": "hash"}}}}
    record = site.test().record
    found = record.check("staging_anonymised")
    assert codes(found) == {"MASKING_REFUSED"} and "give the rule to User.id" in found.summary
    assert record.check("staging_started").status is Status.NOT_VERIFIED
    assert site.is_old and site.databases() == [site.name]


def test_damaged_bytes_never_reach_staging(site: Site, chain: Chain) -> None:
    path = next((chain.store.root / chain.entry.folder / "dump").glob("*.dat*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        record = site.test().record
    finally:
        path.write_bytes(whole)
    assert record.check("staging_restored").status is Status.FAILED
    assert site.is_old and site.databases() == [site.name]
    assert site.told == [f"stop {site.name}", f"start {site.name}"]


def test_a_staging_database_that_was_not_there(site: Site) -> None:
    site.drop()
    site.app.status = 500
    health = [{"url": site.app.url, "deadline": "1s"}]
    assert site.test(site.settings(health=health)).record.exit_status is ExitStatus.FAILED
    assert site.databases() == [], "nothing was there before, nothing is there after"
    site.app.status = 200
    assert site.test().record.exit_status is ExitStatus.GOOD
    assert site.databases() == [site.name]


def test_the_rto_is_beside_the_verdict(site: Site) -> None:
    site.sections = {"data_classes": {"critical": {"rpo": "15m", "rto": "0s"}}}
    record = site.test().record
    assert record.verdict is Verdict.PROVEN and record.exit_status is ExitStatus.FAILED
    assert codes(record.check("rto_met")) == {"RTO_EXCEEDED"}
    assert not site.is_old, "it works: that it took too long is no reason to take it away"


def test_production_is_refused(site: Site, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    source = chain.entry.require_manifest().source.name
    monkeypatch.setenv(URL_VARIABLE, site.url.replace(site.name, source))
    with pytest.raises(ConfigError, match="STAGING_IS_PRODUCTION"):
        site.test()
    # Whatever the manifest says, the address of the source is production.
    monkeypatch.setenv(URL_VARIABLE, site.url)
    monkeypatch.setenv(chain.settings.url_env, site.url)
    with pytest.raises(ConfigError, match="STAGING_IS_PRODUCTION"):
        site.test()
    assert site.told == [] and site.is_old


def test_only_one_test_at_a_time(site: Site) -> None:
    with only_test(site.cluster.target(), site.name), pytest.raises(SourceError, match="STAGING_BUSY"):
        site.test()
    assert site.told == []


def test_nothing_that_is_not_proven_is_used(server17: Cluster, site: Site, tmp_path: Path) -> None:
    unproven = chain_in(tmp_path / "unproven")
    with fresh_database(server17) as target:
        unproven.take(target)
    site.chain = unproven
    with pytest.raises(ProofFailed, match="NO_PROVEN_BACKUP"):
        site.test()
    assert site.told == []


_RUN = """
import sys, os, pathlib
from datetime import datetime, timezone
from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.staging.staging_test import run_staging_test
from gs_backup_assets.vault.opening import open_vault
settings = DatabaseSettings.model_validate_json(pathlib.Path(sys.argv[1]).read_text())
pathlib.Path(sys.argv[2]).write_text(str(os.getpid()))
run_staging_test(settings, open_vault(settings), Progress(), by=Author("t", "t"), now=datetime.now(timezone.utc))
"""


@pytest.mark.parametrize("moment", ["stop", "start"])
def test_killed_midway_it_is_put_right(site: Site, moment: str) -> None:
    """The command itself kills the test, so that the moment is the same every time."""
    pid = site.folder / "pid"
    killer = {"name": moment, "command": ["sh", "-c", f"kill -9 $(cat {pid}); sleep 5"]}
    file = site.folder / "settings.json"
    file.write_text(site.settings(**{moment: [killer]}).model_dump_json(exclude_unset=True), encoding="utf-8")
    ended = subprocess.run([sys.executable, "-c", _RUN, file, pid], env=dict(os.environ), timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert site.is_old is (moment == "stop"), "the old state or the new one, nothing between"
    before = site.databases()
    assert len(before) == (1 if moment == "stop" else 2)
    record = site.test().record
    assert record.exit_status is ExitStatus.GOOD
    assert (record.repaired is None) is (moment == "stop")
    assert site.databases() == [site.name]


def test_what_a_killed_test_left_is_put_back_alone(site: Site) -> None:
    now = datetime.now(timezone.utc)
    execute(
        site.cluster.target(),
        f'ALTER DATABASE {site.name} RENAME TO "{site.name}_before_test_20261101T040000Z"',
        f"CREATE DATABASE {site.name}",
        f'CREATE DATABASE "{site.name}_staging_20261101T040000Z_0a1b2c"',
        f"CREATE DATABASE {site.name}_staging_of_somebody",
    )
    repaired = put_staging_back(site.settings(), Progress(), now=now)
    assert repaired is not None and "_before_test_20261101T040000Z" in repaired
    assert site.is_old
    assert site.databases() == [site.name, f"{site.name}_staging_of_somebody"], "what others made is not touched"
    assert site.told == [f"stop {site.name}", f"start {site.name}"]
    assert put_staging_back(site.settings(), Progress(), now=now) is None


def test_on_postgresql_15(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"fsync": "off", "max_connections": "60"}
    with running_cluster(toolchain_of(15), purpose="staging15", settings=settings) as cluster, application() as app:
        made = chain_in(tmp_path / "store")
        with fresh_database(cluster) as target:
            with connect(target) as connection:
                load_sample(connection, scale=0.05)
            made.take(target)
        keep_proof(made)
        site = Site(cluster, "staging", tmp_path, made, app, {"anonymise": RULES})
        site.reset()
        monkeypatch.setenv(URL_VARIABLE, site.url)
        record = site.test().record
        assert record.verdict is Verdict.PROVEN, "\n".join(f"{c.name}: {c.status} {c.summary}" for c in record.checks)
        assert all(email.endswith("@example.com") for email, _ in users(site))
