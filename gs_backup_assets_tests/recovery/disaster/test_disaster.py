"""Complete losses of real servers: what comes back, from where, what is said of it, how it goes on after failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, Author
from gs_backup_assets.catalogue.catalogue import Catalogue, PhysicalCatalogue
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import BackupError, ConfigError, ProgramError, ProofFailed
from gs_backup_assets.postgres.cluster import running_cluster
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.disaster.state import StateFile
from gs_backup_assets.recovery.dumps.proving import prove_and_record
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.offsite.offsite import copy_backup
from gs_backup_assets.recovery.wal.offsite import mirror_wal
from gs_backup_assets_tests.conftest import toolchain_of
from gs_backup_assets_tests.processes import processes_with, wait_until
from gs_backup_assets_tests.recovery.disaster.disaster_site import TEN, Disaster, application, disaster, hook, insert
from gs_backup_assets_tests.recovery.point_in_time.recover_site import rows
from gs_backup_assets_tests.s3_server import S3Server

CLI = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]


def everything_below(folder: Path) -> dict[str, int]:
    """Files and their times."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if "new" not in path.parts}


@pytest.mark.parametrize("major", [15, 17], ids=lambda major: f"pg{major}")
def test_from_base_backup_and_log_to_the_last_commit(major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = 'import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], "w"))'
    with disaster(major) as lost, application() as app:
        seen = lost.folder / "seen.json"
        one = hook("repoint", facts)
        one["command"].append(str(seen))
        lost.configure(hooks=[one], health={"url": app.url, "expect": "ok", "deadline": "30s"})
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        monkeypatch.setenv("SECRET_OF_OURS", "word of mouth")
        lost.site.server.sql("CREATE TABLE child (id int REFERENCES t)")
        lost.site.archive()
        lost.site.server.kill()
        told: list[str] = []
        done = lost.recover(told)
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN
        assert lost.ask("SELECT pg_is_in_recovery()") == [(False,)]
        report = done.report
        assert (report.method, report.store, report.status) == ("base", "primary", Status.PASSED)
        assert [step.name for step in report.steps] == ["recover", "check", "start", "hook repoint", "health"]
        assert report.lost_seconds is not None and 0 <= report.lost_seconds < 60
        assert 0 < report.recovery_seconds < 120
        (check,) = report.steps[1].checks
        assert (check.name, check.status) == ("foreign_keys_hold", Status.PASSED) and "1 foreign" in check.summary
        environment = json.loads(seen.read_text())
        assert environment["GS_BACKUP_RECOVERY_PORT"] == str(lost.port)
        assert environment["GS_BACKUP_RECOVERY_DBNAME"] == "studio"
        assert environment["GS_BACKUP_RECOVERY_DATA_DIRECTORY"] == str(lost.into / "data")
        assert "SECRET_OF_OURS" not in environment and "TEST_DATABASE_URL" not in environment
        assert app.asked >= 1
        page = done.html.read_text(encoding="utf-8")
        assert "RECOVERED" in page and "hook repoint" in page and "Objectives" in page
        assert json.loads(done.json.read_text())["backup"] == report.backup
        (record,) = [r for r in AuditLog(lost.site.vault.primary, "shop").records() if r.event == "disaster_recovery"]
        assert (record.result, record.ids["backup"]) == ("recovered", report.backup)
        state = StateFile(lost.into)
        assert state.path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigError, match="ALREADY_RECOVERED"):
            lost.recover()
        with pytest.raises(ConfigError, match="INTO_NOT_EMPTY"):
            lost.recover(restart=True)
        assert lost.ask("SELECT count(*) FROM t") == [(10,)]  # neither of them touched it


def test_a_source_that_answers_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        with pytest.raises(ProofFailed, match="SOURCE_ALIVE"):
            lost.recover()
        refused = lost.site.server.url.replace("studio_owner", "nobody_we_know")
        monkeypatch.setenv("TEST_DATABASE_URL", refused)
        lost.site.server.sql("CREATE ROLE nobody_we_know NOLOGIN")
        with pytest.raises(ProofFailed, match=r"SOURCE_ALIVE.*refuses us"):
            lost.recover()
        assert not lost.into.exists() and not StateFile(lost.into).path.exists()
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url.replace("/studio", "/studio_is_gone"))
        lost.recover()  # the server is there, its database is not
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN


def test_a_dry_run_fills_the_runbook_in_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        lost.configure(hooks=[{"name": "repoint", "command": ["/bin/repoint", "--to", "new host"]}])
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        before = everything_below(lost.folder)
        argv = [*CLI, "disaster-recover", "--dry-run", "--config", str(lost.folder / "backup.yaml")]
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        backup = PhysicalCatalogue(lost.site.vault.primary, "shop").latest()
        assert backup is not None and backup.id in text
        assert f"gs-backup recover --to latest --into {lost.into}" in text and "/bin/repoint --to 'new host'" in text
        document = json.loads(subprocess.run([*argv, "--json"], capture_output=True, text=True, check=True).stdout)
        assert 0 <= document["expected_loss_minutes"] < 5
        assert [step["name"] for step in document["steps"]] == ["recover", "check", "start", "hook repoint"]
        assert "is gone" in document["source"]
        assert everything_below(lost.folder) == before
        assert not lost.into.exists()


def test_nothing_begins_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        argv = [*CLI, "disaster-recover", "--json", "--config", str(lost.folder / "backup.yaml")]
        refused = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (2, "NOT_CONFIRMED")
        assert not lost.into.exists() and not StateFile(lost.into).path.exists()
        refused = subprocess.run([*argv, "--resume"], capture_output=True, text=True, check=False)
        assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (2, "NOTHING_TO_RESUME")
        done = subprocess.run([*argv, "--yes"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["status"] == "passed"
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN


@pytest.mark.parametrize(
    "stage", ["fetch", "replay", "recover: done", "analyze", "check: done", "start: begins", "hook wait: begins"]
)
def test_killed_in_the_middle_it_goes_on(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        lost.configure(hooks=[hook("wait", "pass")])
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        argv = [sys.executable, "-m", "gs_backup_assets_tests.recovery.disaster.disaster_site", str(lost.folder), stage]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
            assert process.stdout is not None
            reached = next((line for line in process.stdout if line.startswith(stage)), None)
            assert reached is not None, "it was through before it was killed"
            process.send_signal(signal.SIGKILL)
        wait_until(
            lambda: not processes_with(str(lost.into / "data")) or stage.startswith(("start", "hook")),
            what="its servers are gone",
        )
        told: list[str] = []
        done = lost.recover(told)
        assert any("goes on after" in line for line in told)
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN
        assert [step.name for step in done.report.steps] == ["recover", "check", "start", "hook wait"]
        if stage in ("analyze", "start: begins"):
            assert sum("recover: begins" in f"{line.step}: {line.words}" for line in done.report.log) == 1
        assert len(os.listdir(lost.into)) >= 1 and not (lost.into / "UNFINISHED-RECOVERY.json").exists()


RULES = """
name: shop
tables: {t: [t], gone: [gone]}
rules:
  - {id: small, title: Ids are small, severity: critical, table: t, check: {kind: between, columns: [id], max: 9}}
  - {id: gone, title: Nothing is gone, severity: warning, table: gone, check: {kind: not_null, columns: [id]}}
"""


def test_broken_data_is_reported_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was broken before: the application had lived with it."""
    with disaster(rules="rules.yaml") as lost:
        (lost.folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.sql("CREATE TABLE child (id int REFERENCES t)")
        lost.site.server.sql("ALTER TABLE child DISABLE TRIGGER ALL")
        lost.site.server.sql("INSERT INTO child VALUES (77)")
        lost.site.archive()
        lost.site.server.kill()
        done = lost.recover()
        checks = {check.name: check for step in done.report.steps for check in step.checks}
        assert checks["foreign_keys_hold"].status is Status.FAILED
        assert checks["rules_hold"].status is Status.FAILED
        assert {f.code for f in checks["rules_hold"].findings} == {"RULE_BROKEN", "RULE_NOT_EVALUATED"}
        assert done.report.status is Status.FAILED
        assert "Ids are small" in done.html.read_text(encoding="utf-8")
        assert lost.ask("SELECT count(*) FROM t") == [(10,)]
        (analyzed,) = lost.ask("SELECT count(*) FROM pg_stats WHERE tablename = 't'")[0]
        assert analyzed == 2  # both columns


def test_two_at_a_time_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        with StateFile(lost.into).locked(), pytest.raises(ConfigError, match="DISASTER_RECOVERY_RUNNING"):
            lost.recover()


def test_a_state_that_somebody_changed_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        lost.configure(hooks=[hook("fail", "raise SystemExit(1)")])
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        with pytest.raises(ProgramError):
            lost.recover()
        state = StateFile(lost.into)
        state.path.write_bytes(state.path.read_bytes().replace(b"recover", b"reverse"))
        with pytest.raises(BackupError, match="STATE_DAMAGED"):
            lost.recover()


def test_with_the_primary_store_gone_the_copy_is_used(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsite = s3_server.config(bucket).model_dump(mode="json", exclude_defaults=True)
    with disaster(stores={"primary": {"path": "backups"}, "offsite": {"kind": "s3", **offsite}}) as lost:
        primary, other = lost.site.vault.primary, lost.site.vault.offsite
        assert other is not None
        for entry in PhysicalCatalogue(primary, "shop").entries():
            copy_backup(primary, other, entry, Progress())
        mirror_wal(primary, other, "shop", Progress())
        insert(lost.site.server, 11, 12)
        lost.site.archive()
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        shutil.rmtree(lost.folder / "backups")
        done = lost.recover()
        assert (done.report.store, done.report.method) == ("offsite", "base")
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN
        assert done.not_logged is None


def test_where_the_primary_copy_is_damaged_the_other_one_is_taken(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsite = s3_server.config(bucket).model_dump(mode="json", exclude_defaults=True)
    with disaster(stores={"primary": {"path": "backups"}, "offsite": {"kind": "s3", **offsite}}) as lost:
        primary, other = lost.site.vault.primary, lost.site.vault.offsite
        assert other is not None
        (entry,) = PhysicalCatalogue(primary, "shop").entries()
        copy_backup(primary, other, entry, Progress())
        mirror_wal(primary, other, "shop", Progress())
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        (base,) = (lost.folder / "backups").rglob("base.tar*")
        base.chmod(0o600)
        with open(base, "r+b") as stream:
            stream.seek(base.stat().st_size // 2)
            stream.write(b"\0" * 64)
        done = lost.recover()
        assert done.report.store == "offsite"
        assert "from the primary store" in done.report.refused[0]
        assert lost.ask("SELECT id FROM t ORDER BY 1") == TEN


def dumped(lost: Disaster) -> str:
    """Take a dump and prove it."""
    settings, store = lost.site.settings, lost.site.vault.primary
    day = DAY.of(datetime.now(timezone.utc), settings.zone)
    take_backup(settings, lost.site.server.target(), store, day, Progress())
    entry = Catalogue(store, settings.name).latest()
    assert entry is not None
    proved = prove_and_record(settings, lost.site.vault, entry, Progress(), by=Author("tester", "verify"))
    assert proved.record.verdict.value == "PROVEN"
    return entry.id


def test_without_a_physical_way_the_newest_proven_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {
        "critical": {"rpo": "15m", "rto": "1h", "tables": ["t"]},
        "important": {"rpo": "1s", "rto": "4h"},
    }
    with disaster(data_classes=classes) as lost, running_cluster(toolchain_of(17), purpose="empty") as empty:
        target = empty.target("studio")
        place = target.parameters
        url = f"postgresql://{place['user']}@/studio?host={place['host']}&port={place['port']}"
        monkeypatch.setenv("NEW_SERVER_URL", url)
        lost.configure(server_url_env="NEW_SERVER_URL", hooks=[hook("fail", "raise SystemExit(3)")])
        lost.site.server.sql("CREATE TABLE late (id int)")
        proven = dumped(lost)
        shutil.rmtree(lost.folder / "backups" / "shop" / "physical")
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        time.sleep(1.1)  # more than an RPO of a second
        told: list[str] = []
        with pytest.raises(ProgramError, match="HOOK_FAILED"):
            lost.recover(told)
        assert any("no way back: primary: NO_BASE_BACKUP" in line for line in told)
        lost.configure(server_url_env="NEW_SERVER_URL", hooks=[hook("fail", "pass")])
        done = lost.recover()
        report = done.report
        assert (report.method, report.backup) == ("dump", proven)
        assert [step.name for step in report.steps] == ["restore", "check", "hook fail"]
        objectives = {one.data_class: one for one in report.objectives}
        assert objectives["critical"].recovered < objectives["important"].recovered
        assert (objectives["critical"].rpo, objectives["important"].rpo) == (Status.PASSED, Status.FAILED)
        assert report.status is Status.FAILED and "missed" in done.html.read_text(encoding="utf-8")
        assert rows(target, "SELECT id FROM t ORDER BY 1") == TEN
        assert not lost.into.exists()


def test_with_nothing_left_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with disaster() as lost:
        monkeypatch.setenv("TEST_DATABASE_URL", lost.site.server.url)
        lost.site.server.kill()
        shutil.rmtree(lost.folder / "backups")
        with pytest.raises(ProofFailed, match="NOTHING_TO_RECOVER"):
            lost.recover()
