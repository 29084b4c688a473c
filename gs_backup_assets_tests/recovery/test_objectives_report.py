"""Objectives measured from what lies in a store: proofs, drills, tests on staging, the audit log; and the alarm."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.alerts.staleness import stale_problems
from gs_backup_assets.catalogue.attainment import Attained
from gs_backup_assets.catalogue.audit import Author, note
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.drills import put_drill
from gs_backup_assets.catalogue.staging_tests import put_staging_test
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.objectives_report import CRITICAL_SECONDS, measure_objectives
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.drills import drill_of, staging_test_of
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of, put
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import NOW, shelve, taken

DAY = timedelta(days=1)
CLASSES = {
    "critical": {"rpo": "15m", "rto": "1h", "tables": ["users"]},
    "important": {"rpo": "25h", "rto": "4h"},
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "backups")


def settings(store: LocalStore, **sections: Any) -> DatabaseSettings:
    return settings_in(store.root.parent, **{"data_classes": CLASSES, **sections})


def prove(store: LocalStore, age: float, seconds: float, size: int = 10**9) -> None:
    """A backup of `age` days that was restored in so many seconds."""
    manifest = made_up(taken(age))
    manifest = manifest.model_copy(update={"source": manifest.source.model_copy(update={"total_bytes": size})})
    proof = proof_of(manifest, put(store, manifest), Verdict.PROVEN, taken(age))
    Catalogue(store, "shop").add_proof(proof.model_copy(update={"rto_seconds": seconds}), b"report")


def measured(settings: DatabaseSettings, store: LocalStore, now: datetime = NOW) -> dict[str, Attained]:
    return {one.data_class: one for one in measure_objectives(settings, store, now).classes}


def test_an_empty_store_measures_nothing(store: LocalStore) -> None:
    report = measure_objectives(settings(store), store, NOW)
    assert not report.measured and {one.rpo_status for one in report.classes} == {Status.NOT_VERIFIED}


def test_proofs_are_the_measure(store: LocalStore) -> None:
    for age in (0.1, 1.1, 2.1):
        prove(store, age, 600 + age)
    shelve(store, 0.05, Verdict.FAILED)
    report = measure_objectives(settings(store), store, NOW)
    critical, important = report.classes
    assert important.rpo is not None and important.rpo.seconds == pytest.approx(86400, abs=2)
    assert important.rto is not None and important.rto.seconds == pytest.approx(600.1)
    assert (critical.rpo_status, important.rpo_status) == (Status.FAILED, Status.PASSED)
    assert [point.rto_seconds for point in report.history] == [602.1, 601.1, 600.1]


def test_a_history_shorter_than_the_target_shows_nothing(store: LocalStore) -> None:
    """Nor does a single backup: until it is as old as the target, nothing could have been missed."""
    prove(store, 0.1, 600)
    one = measured(settings(store), store)
    assert one["important"].rpo_status is Status.NOT_VERIFIED and one["critical"].rpo_status is Status.FAILED
    assert one["important"].rpo is not None and "only proven backup" in one["important"].rpo.by
    prove(store, 0.2, 600)
    assert measured(settings(store), store)["important"].rpo_status is Status.NOT_VERIFIED
    prove(store, 1.1, 600)
    assert measured(settings(store), store)["important"].rpo_status is Status.PASSED


def test_a_day_that_failed_shows_in_the_rpo(store: LocalStore) -> None:
    for age in (0.1, 1.1):
        prove(store, age, 600)
    prove(store, 3.1, 600)
    assert measured(settings(store), store)["important"].rpo_status is Status.FAILED


def test_a_slower_test_on_staging_counts(store: LocalStore) -> None:
    prove(store, 0.1, 600)
    put_staging_test(store, staging_test_of(NOW - DAY, rto_seconds=900.0))
    assert measured(settings(store), store)["important"].rto == measured(settings(store), store)["critical"].rto
    found = measured(settings(store, staging={"url_env": "STAGING"}), store)["important"].rto
    assert found is not None and found.seconds == 900.0 and "staging" in found.by
    late = measured(settings(store, staging={"url_env": "STAGING"}), store, NOW + 101 * DAY)["important"].rto
    assert late is not None and late.seconds == 600, "what was measured long ago says little"


def test_a_restore_with_the_critical_tables_first_counts_for_them(store: LocalStore) -> None:
    prove(store, 0.1, 7200)
    by = Author.here("restore")
    note(store, "shop", by, "restore", ids={}, result="PROVEN", details={"seconds": 7100.0, CRITICAL_SECONDS: 300.0})
    note(store, "shop", by, "restore", ids={}, result="FAILED", details={CRITICAL_SECONDS: 1.0})
    note(store, "shop", by, "restore", ids={}, result="PROVEN", details={"seconds": 7000.0})
    found = measured(settings(store), store)
    assert found["critical"].rto is not None and found["critical"].rto.seconds == 300.0
    assert found["important"].rto is not None and found["important"].rto.seconds == 7200


def test_drills_measure_the_way_over_the_log(store: LocalStore) -> None:
    prove(store, 0.1, 600)
    configured = settings(store, physical={}, wal={})
    notes = measure_objectives(configured, store, NOW).notes
    assert any("no recovery drill" in note for note in notes) and any("no write-ahead log" in note for note in notes)
    put_drill(store, drill_of(NOW - DAY))
    put_drill(store, drill_of(NOW, Verdict.FAILED))
    assert not any("no recovery drill" in note for note in measure_objectives(configured, store, NOW).notes)


def test_growth_that_breaks_the_rto_within_90_days_is_a_warning(store: LocalStore) -> None:
    for day in range(10):
        prove(store, 9 - day + 0.01, 3000 + 30 * day, 10**9 + 10**7 * day)
    alarms = {problem.fingerprint: problem for problem in stale_problems(settings(store), NOW)}
    problem = alarms["shop:rto-forecast"]
    assert problem.severity == "warning" and "docs/objectives.md" in problem.hint
    relaxed = settings(store, data_classes={"important": {"rpo": "25h", "rto": "4h"}})
    assert "shop:rto-forecast" not in {problem.fingerprint for problem in stale_problems(relaxed, NOW)}


@pytest.mark.parametrize(("rpo", "status"), [("25h", 0), ("1h", 1), ("9d", 3)])
def test_the_verb(store: LocalStore, tmp_path: Path, rpo: str, status: int) -> None:
    prove(store, 0.2, 600)
    prove(store, 1.2, 600)
    file = tmp_path / "backup.yaml"
    file.write_text(
        f"databases: {{shop: {{url_env: X}}}}\ndata_classes: {{important: {{rpo: {rpo}, rto: 4h}}}}\n", encoding="utf-8"
    )
    argv: list[str | Path] = [Path(sys.executable).with_name("gs-backup"), "objectives", "--config", file]
    told = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode == status and "important" in told.stdout and "the proof of" in told.stdout, told.stderr
    plain = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False, timeout=120)
    document = json.loads(plain.stdout)
    assert document["check"]["status"] == {0: "passed", 1: "failed", 3: "not_verified"}[status]
    assert document["classes"][0]["forecast"]["outcome"] == "unknown"
