"""Replicas of real servers: built by the verb, watched, and broken one limit at a time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.replicas.source import archive_environment
from gs_backup_assets.system.account import server_account
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.processes import open_folder, processes_with, wait_until
from gs_backup_assets_tests.production import DATABASE, SUPERUSER, Production, new_folder, production
from gs_backup_assets_tests.recovery.replicas.replica_site import PASSWORD, ROLE, Site, least_rights


@pytest.fixture(scope="module", params=[15, 17], ids=lambda major: f"pg{major}")
def server(request: pytest.FixtureRequest) -> Iterator[Production]:
    with production(request.param) as server:
        server.configure(unix_socket_directories=str(server.folder / "s"))
        server.bench("-i", "-s", "1", "-q").require_success()
        yield server


@pytest.fixture
def site(server: Production, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The replication role has a password and the rights of docs/replicas.md, and no others."""
    with open_folder() as folder:
        port = free_port()
        admin = f"postgresql://{SUPERUSER}@127.0.0.1:{port}/{DATABASE}"
        secret = "pa%3Ass%27w%5Cord%207"
        environment = {
            "PRIMARY": f"postgresql://{ROLE}:{secret}@127.0.0.1:{server.port}/{DATABASE}",
            "SPARE": f"postgresql://{ROLE}:{secret}@127.0.0.1:{port}/{DATABASE}",
            "SPARE_ADMIN": admin,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        least_rights(server)
        made = Site(server, folder, port, environment)
        made.configure()
        try:
            yield made
        finally:
            made.stop_spare()
            for (slot,) in server.sql("SELECT slot_name FROM pg_replication_slots"):
                wait_until(lambda: not active(server), what="no walsender is left")
                server.sql(f"SELECT pg_drop_replication_slot('{slot}')")


def active(server: Production) -> bool:
    return bool(server.sql("SELECT 1 FROM pg_replication_slots WHERE active"))


def test_a_standby_is_built_and_follows_until_force_promotes_it(site: Site) -> None:
    made = site.create()
    assert (made["name"], made["slot"], made["started"]) == ("spare", "spare", True)
    assert any("max_slot_wal_keep_size" in warning for warning in made["warnings"])
    site.primary.sql("CREATE TABLE seen (n int)")
    site.primary.sql("INSERT INTO seen VALUES (42)")
    wait_until(lambda: site.spare("SELECT to_regclass('public.seen') IS NOT NULL")[0][0], what="the table")
    wait_until(lambda: site.spare("SELECT n FROM public.seen") == [(42,)], what="the row")
    site.primary.sql("DROP TABLE seen")
    settings = dict(site.spare("SELECT name, setting FROM pg_settings WHERE name ~ 'primary|hot_standby$|timeline'"))
    assert settings["primary_slot_name"] == "spare" and settings["recovery_target_timeline"] == "latest"
    assert PASSWORD not in settings["primary_conninfo"] and "password" not in settings["primary_conninfo"]
    assert "application_name='spare'" in settings["primary_conninfo"]
    for path in site.data.rglob("*.conf"):
        assert "word 7" not in path.read_text(encoding="utf-8", errors="replace")
    assert not (site.data / "recovery.conf").exists() and (site.data / "standby.signal").exists()
    passfile = site.folder / "spare.pgpass"
    assert (passfile.stat().st_mode & 0o777, passfile.stat().st_uid) == (0o600, server_account().uid)
    assert not [line for _, line in processes_with("word 7")]

    status = site.verb("status")
    (replica,) = status["replicas"]
    assert status["check"]["status"] == "passed"
    assert replica["state"]["receiver"] == "streaming" and replica["sender"]["state"] == "streaming"
    assert (replica["lag_bytes"], replica["state"]["timeline"]) == (0, 1)
    assert replica["state"]["system_identifier"] == status["primary"]["system_identifier"]

    forced = site.verb("promote", "spare", "--force")  # the primary is alive: there are two now
    assert (forced["forced"], forced["timeline"]) == (True, 2)
    assert {check["name"]: check["status"] for check in forced["checks"]}["primary_gone"] == "failed"
    assert site.spare("SELECT pg_is_in_recovery()") == site.primary.sql("SELECT pg_is_in_recovery()") == [(False,)]
    record = AuditLog(open_store(site.settings), "studio").records()[-1]
    assert (record.event, record.result, record.details["forced"]) == ("promote", "promoted", "true")


def test_a_name_or_a_folder_that_is_taken_is_refused_and_left_alone(site: Site) -> None:
    site.primary.sql("SELECT pg_create_physical_replication_slot('spare', true)")
    answer = site.verb("create", "--into", str(site.data), status=2)
    assert answer["error"]["code"] == "SLOT_EXISTS"
    assert site.primary.sql("SELECT slot_name FROM pg_replication_slots") == [("spare",)]
    assert not site.data.exists() and not list(site.folder.glob("spare*"))
    site.data.mkdir()
    (site.data / "precious").write_text("mine")
    answer = site.verb("create", "--into", str(site.data), "--name", "other", status=2)
    assert answer["error"]["code"] == "INTO_NOT_EMPTY"
    assert (site.data / "precious").read_text() == "mine"


def test_after_a_failure_neither_slot_nor_files_stay(site: Site) -> None:
    """pg_basebackup is through, and the server does not start: pg_hba.conf was broken since the primary read it."""
    hba = site.primary.data / "pg_hba.conf"
    text = hba.read_text(encoding="utf-8")
    hba.write_text(text + "nonsense\n", encoding="utf-8")
    try:
        answer = site.verb("create", "--into", str(site.data), "--port", str(site.port), "--start", status=4)
    finally:
        hba.write_text(text, encoding="utf-8")
    assert answer["error"]["code"] == "SERVER_NOT_STARTED"
    assert site.primary.sql("SELECT count(*) FROM pg_replication_slots") == [(0,)]
    assert not list(site.folder.glob("spare*"))


def test_a_port_that_is_in_use_is_told_before_anything_is_made(site: Site) -> None:
    """Without --port it is the primary's, which is on this machine."""
    answer = site.verb("create", "--into", str(site.data), "--start", status=2)
    assert answer["error"]["code"] == "PORT_TAKEN"
    assert str(site.primary.port) in answer["error"]["message"] and "--port" in answer["error"]["hint"]
    assert not list(site.folder.glob("spare*")) and not site.primary.sql("SELECT 1 FROM pg_replication_slots")


def test_killed_on_the_way_it_leaves_no_files_and_tells_of_the_slot(site: Site) -> None:
    create = ["create", "--into", str(site.data), "--port", str(site.port)]
    ((checkpointer,),) = site.primary.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    os.kill(checkpointer, signal.SIGSTOP)  # the copy waits for its checkpoint
    try:
        killed = subprocess.Popen(site.argv(*create), env={**os.environ, **site.environment})
        wait_until(lambda: processes_with(f"pg_basebackup -D {site.data}"), what="the copy")
        assert site.data.exists() and site.primary.sql("SELECT 1 FROM pg_replication_slots")
        killed.kill()
        killed.wait()
    finally:
        os.kill(checkpointer, signal.SIGCONT)
    wait_until(lambda: not list(site.folder.glob("spare*")), what="the guardian removed all of it")
    assert not processes_with(str(site.data))
    answer = site.verb(*create, status=2)
    assert answer["error"]["code"] == "SLOT_EXISTS" and "not in use" in answer["error"]["message"]
    site.primary.sql(answer["error"]["hint"].rpartition(": ")[2].rstrip("."))
    assert site.verb(*create)["started"] is False


def test_paused_replay_is_behind_in_time_and_in_bytes(site: Site) -> None:
    site.create()
    site.configure(max_lag="1s", max_lag_bytes="64k")
    wait_until(lambda: site.check().status is Status.PASSED, what="the replica is in its limits")
    site.spare("SELECT pg_wal_replay_pause()")
    assert site.check().status is Status.PASSED  # nothing was written: an idle primary is no lag
    site.primary.sql("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
    wait_until(lambda: site.codes() == {"REPLICA_LAG", "REPLICA_LAG_BYTES"}, what="both limits are broken")
    finding = next(f for f in site.check().findings if f.code == "REPLICA_LAG")
    assert "spare" in finding.message and "max_lag" in finding.message and "paused" in finding.hint
    assert site.verb("status", status=1)["check"]["status"] == "failed"
    site.spare("SELECT pg_wal_replay_resume()")
    wait_until(lambda: site.check().status is Status.PASSED, what="it has caught up")
    site.primary.sql("DROP TABLE big")


def test_a_stopped_standby_is_down_and_its_slot_retains(site: Site) -> None:
    site.create()
    site.stop_spare()
    site.configure(max_retained="1M")
    wait_until(lambda: site.codes() == {"REPLICA_DOWN"}, what="the replica is down")
    site.primary.sql("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    assert site.codes() == {"REPLICA_DOWN", "SLOT_RETAINS"}
    finding = next(f for f in site.check().findings if f.code == "SLOT_RETAINS")
    assert "spare" in finding.message and "not in use" in finding.message and "max_retained" in finding.message
    site.primary.sql("DROP TABLE big")


def test_a_slot_of_nobody_is_told_as_well(site: Site) -> None:
    site.create()
    site.configure(max_retained="1M")
    site.primary.sql("CHECKPOINT")  # from here on the slot retains
    site.primary.sql("SELECT pg_create_physical_replication_slot('forgotten', true)")
    assert site.check().status is Status.PASSED
    site.primary.sql("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    wait_until(lambda: site.codes() == {"SLOT_RETAINS"}, what="only the forgotten slot retains")
    assert "forgotten" in site.check().summary
    site.primary.sql("DROP TABLE big")


def test_what_cannot_be_asked_is_not_verified(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.create()
    wait_until(lambda: site.check().status is Status.PASSED, what="all is well")
    site.primary.sql(f"REVOKE pg_monitor FROM {ROLE}")
    wait_until(lambda: site.codes() == {"RIGHTS_MISSING"}, what="the rights are gone on both")
    assert site.check().status is Status.NOT_VERIFIED
    assert site.verb("status", status=3)["check"]["status"] == "not_verified"
    site.primary.sql(f"GRANT pg_monitor TO {ROLE}")
    wait_until(lambda: site.check().status is Status.PASSED, what="all is well again")
    monkeypatch.setenv("SPARE", f"postgresql://nobody_at_all@127.0.0.1:{free_port()}/x")
    check = site.check()  # the primary still sends to it: only the address is wrong
    assert (check.status, {f.code for f in check.findings}) == (Status.NOT_VERIFIED, {"REPLICA_UNREACHABLE"})


def test_another_cluster_is_no_replica(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with production(site.primary.toolchain.release.major) as other, other.standby() as standby:
        monkeypatch.setenv("SPARE", standby.url)
        assert "REPLICA_FOREIGN" in site.codes()
        monkeypatch.setenv("SPARE", other.url)
        assert "REPLICA_PROMOTED" in site.codes()


def test_from_a_base_backup_of_the_store_it_follows_as_well(server: Production, site: Site) -> None:
    """The files come from the store, tablespaces included; the primary only sends what was written since."""
    space = new_folder(server)
    server.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.sql("CREATE TABLE placed TABLESPACE fast AS SELECT 1 AS n")
    try:
        text = (site.folder / "backup.yaml").read_text(encoding="utf-8") + "wal: {}\nphysical: {}\n"
        (site.folder / "backup.yaml").write_text(text, encoding="utf-8")
        settings = site.settings
        week = WEEK.of(datetime.now(timezone.utc), settings.zone)
        take_base_backup(settings, server.target("postgres"), open_store(settings), week, Progress(), full=True)
        server.sql("INSERT INTO placed VALUES (2)")
        made = site.verb(
            "create", "--into", str(site.data), "--port", str(site.port), "--from-backup", "latest", "--start"
        )
        assert made["started"]
        wait_until(lambda: site.spare("SELECT count(*) FROM public.placed") == [(2,)], what="the row behind the backup")
        (command,) = site.spare("SELECT current_setting('restore_command')")[0]
        assert "wal fetch" in command and "%f %p" in command and str(site.folder / "backup.yaml") in command
        link = next((site.data / "pg_tblspc").iterdir())
        assert link.resolve().is_relative_to(site.folder / "spare.tablespaces")
        server.sql("INSERT INTO placed VALUES (3)")
        wait_until(lambda: site.spare("SELECT count(*) FROM public.placed") == [(3,)], what="what is written now")
    finally:
        site.stop_spare()
        server.sql("DROP TABLE placed")
        server.sql("DROP TABLESPACE fast")


def test_from_a_base_backup_only_with_an_archive(site: Site) -> None:
    answer = site.verb("create", "--into", str(site.data), "--from-backup", "latest", status=2)
    assert answer["error"]["code"] == "NO_ARCHIVE"
    assert not site.data.exists() and not site.primary.sql("SELECT 1 FROM pg_replication_slots")


def test_what_another_replica_left_beside_is_left_alone(site: Site) -> None:
    left = site.folder / "spare.tablespaces" / "16400"
    left.mkdir(parents=True)
    answer = site.verb("create", "--into", str(site.data), status=2)
    assert answer["error"]["code"] == "INTO_NOT_EMPTY"
    assert left.is_dir() and not site.data.exists()
    assert not site.primary.sql("SELECT 1 FROM pg_replication_slots")


def test_a_server_gets_only_what_its_restore_command_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "OLD_KEY", "AWS_PROFILE", "STORE_KEY", "STORE_SECRET", "DATABASE_URL"):
        monkeypatch.setenv(name, "x")
    raw = {"kind": "raw-aes-256", "key_env": "KEY", "previous": [{"kind": "raw-aes-256", "key_env": "OLD_KEY"}]}
    assert set(archive_environment(settings_in(tmp_path, encryption=raw))) == {"KEY", "OLD_KEY"}
    bucket = {"kind": "s3", "bucket": "bbb", "access_key_env": "STORE_KEY", "secret_key_env": "STORE_SECRET"}
    names = set(archive_environment(settings_in(tmp_path, stores={"primary": bucket})))
    assert {"STORE_KEY", "STORE_SECRET", "AWS_PROFILE"} <= names and not names & {"DATABASE_URL", "KEY"}
