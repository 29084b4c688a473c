"""Tests of the drill on real clusters: what it proves, and each of its checks failing for the right reason."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, Author
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.drills import DrillRecord, read_drills
from gs_backup_assets.catalogue.manifest import NAME, encode
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.restore_points import RestorePointRecord, put_point
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config_watching import DataClass
from gs_backup_assets.errors import ExitStatus, NotVerifiable
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.postgres.waldump import Commit
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite import copy_backup
from gs_backup_assets.recovery.physical.unpacking import Unpacked
from gs_backup_assets.recovery.point_in_time.boundaries import (
    Boundaries,
    commits_after_absent,
    commits_before_present,
    target_reached,
)
from gs_backup_assets.recovery.point_in_time.drill_moment import covered_now
from gs_backup_assets.recovery.point_in_time.pitr_drill import Drill, run_drill
from gs_backup_assets.recovery.point_in_time.prove_base import prove_base
from gs_backup_assets.recovery.point_in_time.recover import Recovered, recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import plan_recovery
from gs_backup_assets.recovery.point_in_time.recovered_checks import page_checksums_valid
from gs_backup_assets.recovery.point_in_time.restore_points import create_restore_point
from gs_backup_assets.recovery.wal.offsite import mirror_wal
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.compression import compress, decompress
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.archived import Site, site
from gs_backup_assets_tests.s3_server import S3Server

BY = Author("tester", "drill")


def _drill(place: Site, target: str | None = None, *, seed: int = 1) -> Drill:
    wanted = RecoveryTarget.parse(target) if target else None
    return run_drill(
        place.settings, place.vault, Progress(), by=BY, now=place.now(), rng=random.Random(seed), target=wanted
    )


def _statuses(record: DrillRecord) -> dict[str, str]:
    return {check.name: check.status.value for check in record.checks}


def _codes(record: DrillRecord, name: str) -> set[str]:
    return {finding.code for finding in record.check(name).findings}


@contextmanager
def _history(major: int, folder: Path, **changes: object) -> Iterator[Site]:
    """A base backup, commits over several segments behind it, and all of it archived."""
    with site(major, folder, **changes) as place:  # type: ignore[arg-type]
        place.server.sql("CREATE TABLE teacher (id int PRIMARY KEY)")
        place.server.sql("INSERT INTO teacher SELECT generate_series(1, 2000)")
        place.server.sql("CREATE TABLE course (id int PRIMARY KEY, teacher int REFERENCES teacher)")
        place.server.sql("INSERT INTO course SELECT n, n FROM generate_series(1, 2000) AS n")
        place.commit(0)
        place.base_backup()
        for number in range(1, 13):
            place.commit(number)
            if number % 3 == 0:
                place.switch()
        yield place


@pytest.mark.parametrize("major", [15, 17])
def test_a_drill_proves_a_random_moment_and_the_base_backup(major: int, tmp_path: Path) -> None:
    with _history(major, tmp_path) as place:
        place.heartbeat(place.now(), server=place.archive_all())
        drill = _drill(place)
        record = drill.record
        assert {n: s for n, s in _statuses(record).items() if s != "passed"} == {}
        assert record.verdict is Verdict.PROVEN and record.exit_status is ExitStatus.GOOD
        assert record.chosen == "random" and drill.not_kept == () and drill.not_logged is None
        assert record.window_start is not None and record.window_end is not None
        moment = datetime.fromisoformat(record.target.replace("Z", "+00:00"))
        assert record.window_start <= moment <= record.window_end
        assert record.last_before is not None and record.first_after is not None
        assert record.last_before.at <= moment < record.first_after.at
        assert record.check("commits_before_present").metrics["commits_before"] > 0
        assert record.check("commits_after_absent").metrics["commits_after"] > 0
        assert record.check("page_checksums_valid").metrics["pages_checked"] > 100
        assert record.rto_seconds is not None and record.recoverable_age_seconds is not None
        (entry,) = PhysicalCatalogue(place.store, "studio").entries()
        assert entry.verdict is Verdict.PROVEN and record.backups == (entry.id,)
        assert read_drills(place.store, "studio", newest=5) == (record,)
        events = [(one.event, one.result) for one in AuditLog(place.store, "studio").records()]
        assert events[-1] == ("drill", "PROVEN")
        latest = _drill(place, "latest").record
        assert latest.verdict is Verdict.PROVEN and latest.first_after is None
        assert latest.recoverable_age_seconds is not None


def test_a_quiet_database_is_drilled_where_it_has_commits(tmp_path: Path) -> None:
    """Most of what is covered lies before the first commit, or in stretches of the log without any."""

    def quiet(place: Site) -> None:
        for _ in range(6):
            place.server.sql("CHECKPOINT", database="postgres")
            place.switch()

    with site(17, tmp_path) as place:
        place.base_backup()
        time.sleep(1.5)
        first = place.now()
        place.commit(1)
        quiet(place)
        place.commit(2)
        place.base_backup()
        between = place.now()
        quiet(place)
        place.commit(3)
        place.archive_all()
        covered = covered_now(place.settings, place.store)
        assert covered.starts_at is not None and (first - covered.starts_at).total_seconds() > 1
        drawn = [at for seed in range(4) if (at := covered.draw(random.Random(seed)).at) is not None]
        assert min(drawn) >= first and len(set(drawn)) == 4
        # Far behind a commit and far before the next one, with nothing but a base backup between.
        record = _drill(place, f"{between:%Y-%m-%dT%H:%M:%S.%fZ}").record
        assert record.verdict is Verdict.PROVEN, record.checks
        assert record.last_before is not None and record.last_before.at < between
        assert record.first_after is not None and record.first_after.at > between


@pytest.mark.parametrize("major", [15, 17])
def test_a_restore_point_is_compared_row_by_row(major: int, tmp_path: Path) -> None:
    with _history(major, tmp_path) as place:
        place.server.sql("SELECT nextval('lesson_id_seq')")
        target = place.server.target()
        point = create_restore_point(place.settings, target, place.store, "before-migration", Progress())
        assert point.fingerprint is not None and point.reason is None
        place.server.sql("SELECT nextval('lesson_id_seq')")
        place.server.sql("DELETE FROM lesson WHERE value > 5")
        place.server.sql("ALTER TABLE course ADD COLUMN title text")
        place.commit(99)
        place.archive_all()
        record = _drill(place, "before-migration").record
        equal = {name: status for name, status in _statuses(record).items() if name.endswith("_equal")}
        assert equal == dict.fromkeys(("rows_equal", "contents_equal", "schema_equal", "sequences_equal"), "passed")
        assert record.target == "name:before-migration" and record.verdict is Verdict.PROVEN, record.checks
        # A fingerprint of something else, and a point without one.
        other = point.fingerprint.tables[0].model_copy(update={"content": "12345", "rows": 7})
        wrong = point.fingerprint.model_copy(update={"tables": (other, *point.fingerprint.tables[1:])})
        _put(place, point, "wrong", fingerprint=wrong, schema_objects=point.schema_objects[1:])
        record = _drill(place, "wrong").record
        assert record.verdict is Verdict.FAILED
        assert _codes(record, "contents_equal") == {"CONTENTS_DIFFER"} and _codes(record, "rows_equal") == {
            "ROWS_DIFFER"
        }
        assert _codes(record, "schema_equal") == {"OBJECT_UNEXPECTED"}
        (entry,) = PhysicalCatalogue(place.store, "studio").entries()
        assert entry.verdict is Verdict.PROVEN  # the base backup is not to blame
        _put(place, point, "bare", fingerprint=None, reason="busy")
        record = _drill(place, "bare").record
        assert record.verdict is Verdict.NOT_VERIFIED and _codes(record, "rows_equal") == {"NO_FINGERPRINT"}


def _put(place: Site, point: RestorePointRecord, name: str, **changes: object) -> None:
    put_point(place.store, point.model_copy(update={"name": name, **changes}))


@contextmanager
def _recovered(place: Site, target: RecoveryTarget) -> Iterator[Recovered]:
    account = server_account()
    plan = plan_recovery(place.settings, place.vault, target, now=place.now())
    with (
        workspace("test", owner=account) as folder,
        recovered(plan, place.settings, place.vault, folder / "cluster", Progress(), durable=False) as running,
    ):
        yield running


def test_commits_on_the_wrong_side_are_found(tmp_path: Path) -> None:
    with _history(17, tmp_path) as place:
        middle = place.now()
        for number in range(20, 25):
            place.commit(number)
        place.archive_all()
        record = _drill(place, "latest").record
        assert record.verdict is Verdict.PROVEN
        assert record.last_before is not None
        newest = Commit(record.last_before.xid, Lsn.parse(record.last_before.lsn), record.last_before.at)
        with _recovered(place, RecoveryTarget(at=middle)) as running, connect(running.server) as connection:
            older = Commit(newest.xid - 10, Lsn(0x28), middle)
            present = commits_before_present(connection, [older, newest])
            assert present.status is Status.FAILED and present.metrics["commits_missing"] == 1
            assert [f.code for f in present.findings] == ["COMMIT_MISSING"] and str(newest.xid) in present.findings[
                0
            ].message
            absent = commits_after_absent(connection, [older, newest])
            assert absent.status is Status.FAILED and [f.code for f in absent.findings] == ["COMMIT_UNEXPECTED"]
            assert commits_before_present(connection, [older]).status is Status.PASSED
            assert commits_after_absent(connection, [newest]).status is Status.PASSED
            assert commits_before_present(connection, []).status is Status.NOT_VERIFIED
            short = target_reached(Boundaries((newest,), ()), running.achieved)
            assert {f.code for f in short.findings} == {"TARGET_NOT_REACHED"}
            far = target_reached(Boundaries((), (older,)), running.achieved)
            assert {f.code for f in far.findings} == {"TARGET_PASSED"} and far.status is Status.FAILED


def test_a_damaged_page_is_found_by_its_checksum(tmp_path: Path) -> None:
    with site(17, tmp_path) as place:
        place.server.sql("CREATE TABLE teacher AS SELECT generate_series(1, 5000) AS id")
        ((path,),) = place.server.sql("SELECT pg_relation_filepath('teacher')")
        place.server.sql("CHECKPOINT")
        entry = place.base_backup()
        place.server.stop()
        unpacked = Unpacked(place.server.data, {}, place.server.toolchain, server_account(), entry.require_manifest())
        assert page_checksums_valid(unpacked).status is Status.PASSED
        file = place.server.data / str(path)
        data = bytearray(file.read_bytes())
        data[8192 + 5000] ^= 0xFF
        file.write_bytes(data)
        found = page_checksums_valid(unpacked)
        assert found.status is Status.FAILED and found.metrics["pages_damaged"] == 1
        assert found.findings[0].code == "PAGE_DAMAGED" and str(path) in found.findings[0].message


def test_damage_inside_of_a_cluster_without_checksums_is_found_by_amcheck(tmp_path: Path) -> None:
    with _history(15, tmp_path, checksums=False) as place:
        ((path,),) = place.server.sql("SELECT pg_relation_filepath('teacher_pkey')")
        place.server.stop()
        file = place.server.data / str(path)
        data = bytearray(file.read_bytes())
        data[8192 + 24 : 8192 + 32] = bytes(8)  # line pointers of the first leaf
        file.write_bytes(data)
        place.server.start()
        place.base_backup()
        place.commit(50)
        place.commit(51)
        place.archive_all()
        record = _drill(place, "latest").record
        assert record.check("page_checksums_valid").status is Status.NOT_VERIFIED
        assert _codes(record, "page_checksums_valid") == {"CHECKSUMS_OFF"}
        assert record.check("amcheck_clean").status is Status.FAILED and _codes(record, "amcheck_clean") == {
            "CORRUPTION"
        }
        assert record.verdict is Verdict.FAILED
        assert PhysicalCatalogue(place.store, "studio").find(record.backups[-1]).verdict is Verdict.FAILED


def test_orphans_are_told_and_do_not_decide(tmp_path: Path) -> None:
    with _history(17, tmp_path) as place:
        place.server.sql("SET session_replication_role = replica; DELETE FROM teacher WHERE id = 7")
        place.commit(60)
        place.archive_all()
        record = _drill(place, "latest").record
        assert record.check("foreign_keys_hold").status is Status.FAILED
        assert record.verdict is Verdict.PROVEN and record.exit_status is ExitStatus.FAILED


def test_damaged_bytes_of_the_base_backup_fail_it(tmp_path: Path) -> None:
    with _history(17, tmp_path) as place:
        place.archive_all()
        (entry,) = PhysicalCatalogue(place.store, "studio").entries()
        (key,) = [o.key for o in place.store.objects(entry.folder) if "base.tar" in o.key]
        path = tmp_path / "backups" / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        record = _drill(place, "latest").record
        assert record.verdict is Verdict.FAILED and record.check("stored_bytes_match").status is Status.FAILED
        assert record.check("amcheck_clean").status is Status.NOT_VERIFIED
        assert PhysicalCatalogue(place.store, "studio").find(entry.id).verdict is Verdict.FAILED


def test_objectives_that_are_missed_are_told(tmp_path: Path) -> None:
    at_once = DataClass(rpo=timedelta(minutes=1), rto=timedelta(milliseconds=1))
    with _history(17, tmp_path) as place:
        place.heartbeat(place.now(), server=place.archive_all())
        later = place.now() + timedelta(minutes=10)
        strict = place.settings.model_copy(update={"data_classes": {"critical": at_once}})
        drill = run_drill(
            strict, place.vault, Progress(), by=BY, now=later, rng=random.Random(2), target=RecoveryTarget()
        )
        assert (
            _codes(drill.record, "rpo_met") == {"RPO_EXCEEDED"} and "critical" in drill.record.check("rpo_met").summary
        )
        assert _codes(drill.record, "rto_met") == {"RTO_EXCEEDED"}
        assert drill.record.verdict is Verdict.PROVEN and drill.record.exit_status is ExitStatus.FAILED


def test_a_chain_is_proved_without_any_archived_log(tmp_path: Path) -> None:
    with site(17, tmp_path, server={"summarize_wal": "on"}) as place:
        place.commit(1)
        full = place.base_backup()
        place.commit(2)
        added = place.base_backup()
        assert added.require_manifest().base == full.id
        proved = prove_base(place.settings, place.vault, added, Progress(), by=BY)
        assert proved.record.verdict is Verdict.PROVEN, proved.record.checks
        assert proved.on_record and b"PROVEN" in proved.report_path.read_bytes()
        catalogue = PhysicalCatalogue(place.store, "studio")
        assert [entry.verdict for entry in catalogue.entries()] == [Verdict.PROVEN, Verdict.PROVEN]
        assert AuditLog(place.store, "studio").records()[-1].result == "PROVEN"


def test_a_drill_uses_the_encrypted_copy_in_a_bucket(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    bucket = s3_server.config(s3_server.bucket(), prefix="prod").model_dump(exclude_unset=True)
    stores = {"primary": {"path": "backups"}, "offsite": bucket}
    encryption = {"kind": "raw-aes-256", "key_env": "TEST_KEY"}
    with _history(17, tmp_path, stores=stores, encryption=encryption) as place:
        place.heartbeat(place.now(), server=place.archive_all())
        (entry,) = PhysicalCatalogue(place.store, "studio").entries()
        copy_backup(place.vault.primary, place.vault.store("offsite"), entry, Progress())
        mirror_wal(place.vault.primary, place.vault.store("offsite"), "studio", Progress())
        (tmp_path / "backups").rename(tmp_path / "lost")
        record = _drill(place, "latest").record
        assert record.store == "offsite" and record.verdict is Verdict.PROVEN, record.checks
        assert record.check("rpo_met").status is Status.PASSED
        offsite = place.vault.store("offsite")
        assert PhysicalCatalogue(offsite, "studio").find(entry.id).verdict is Verdict.PROVEN
        assert read_drills(offsite, "studio", newest=1) == (record,)
        assert all(o.key.endswith(".enc") for o in offsite.objects("studio/physical") if "/base/" in o.key)
        monkeypatch.setenv("TEST_KEY", new_raw_key())
        with pytest.raises(NotVerifiable, match="KEY_WRONG"):
            _drill(place, "latest")
        assert len(read_drills(offsite, "studio", newest=9)) == 1  # that says nothing of the backups


def test_files_that_were_changed_behind_the_manifests_back_are_found(tmp_path: Path) -> None:
    """What is stored has the SHA-256 of our manifest, and is not what PostgreSQL wrote into its own."""
    with _history(17, tmp_path) as place:
        place.server.sql("CHECKPOINT")
        ((path,),) = place.server.sql("SELECT pg_relation_filepath('teacher')")
        entry = place.base_backup()
        place.commit(1)
        place.archive_all()
        _replace_in_base(tmp_path / "backups", entry, str(path))
        record = _drill(place, "latest").record
        assert record.check("stored_bytes_match").status is Status.PASSED
        assert _codes(record, "backup_manifest_matches") == {"BACKUP_MANIFEST_DIFFERS"}
        assert _codes(record, "page_checksums_valid") == {"PAGE_DAMAGED"}
        assert record.verdict is Verdict.FAILED
        assert PhysicalCatalogue(place.store, "studio").find(entry.id).verdict is Verdict.FAILED


def _replace_in_base(root: Path, entry: PhysicalEntry, member: str) -> None:
    """Change a byte of a file inside of the backup's archive, and write archive and manifest anew."""
    manifest = entry.require_manifest()
    (file,) = [file for file in manifest.files if "/base.tar" in file.path]
    stored = root / entry.folder / file.stored_path
    tar = bytearray(decompress(stored.read_bytes(), file.path))
    with tarfile.open(fileobj=BytesIO(bytes(tar))) as archive:
        place = archive.getmember(member).offset_data + 8192 + 4000
    tar[place] ^= 0xFF
    data = compress(bytes(tar))
    stored.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    changed = file.model_copy(update={"size": len(data), "sha256": digest, "parts": None})
    files = tuple(changed if one == file else one for one in manifest.files)
    (root / entry.folder / NAME).write_bytes(encode(manifest.model_copy(update={"files": files})))


def test_the_verbs_drill_and_verify(tmp_path: Path) -> None:
    with _history(15, tmp_path) as place:
        place.archive_all()
        environment = {**os.environ, "GS_BACKUP_TEST_URL": place.server.url}
        (entry,) = PhysicalCatalogue(place.store, "studio").entries()
        place.server.stop()  # the prover needs no source
        for verb in (["drill", "--to", "latest"], ["verify", entry.id]):
            argv = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()", *verb]
            done = subprocess.run(
                [*argv, "--config", str(tmp_path / "backup.yaml"), "--json"],
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
            document = json.loads(done.stdout)
            assert document["verdict"] == "PROVEN", done.stdout
            failed = [check["name"] for check in document.get("checks", []) if check["status"] != "passed"]
            # Nobody streams: it is not known what would be lost.
            assert done.returncode == 0 and failed in ([], ["rpo_met"]), (failed, done.stderr)
        place.server.start()
