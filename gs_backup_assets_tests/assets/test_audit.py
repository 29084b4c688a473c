"""The daily job in the audit log: what it did, in which run, also when it failed."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from gs_backup_assets.catalogue.audit import AuditLog, AuditRecord
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import open_vault
from gs_backup_assets_tests.assets.conftest import URL_VARIABLE, Project


def records(project: Project) -> list[AuditRecord]:
    return AuditLog(open_vault(project.settings).primary, "studio").records()


def test_a_run_is_on_record_in_both_stores(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(stores="{offsite: {path: elsewhere}}")
    result = project.run(instance)
    assert result.success
    backup, copy, proof = records(project)
    assert [record.event for record in (backup, copy, proof)] == ["backup", "copy", "proof"]
    assert {record.command for record in (backup, copy, proof)} == {f"dagster run {result.run_id[:8]}"}
    assert {record.ids["backup"] for record in (backup, copy, proof)} == {project.catalogue.entries()[0].id}
    assert (backup.result, proof.result) == ("stored", "PROVEN")
    vault = open_vault(project.settings)
    check = check_audit(vault.primary, "studio", other=vault.offsite)
    assert check.status is Status.PASSED, check.findings
    second = project.run(instance)
    assert second.success
    check = check_audit(vault.primary, "studio", other=vault.offsite)
    assert check.status is Status.PASSED, check.findings
    assert check.metrics["audit_records_copied"] >= 4


def test_a_backup_that_failed_is_on_record(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "postgresql://nobody:s3cret@127.0.0.1:1/nothing")
    assert not project.run(instance).success
    (failed,) = records(project)
    assert (failed.event, failed.result, failed.ids) == ("backup", "SERVER_UNREACHABLE", {"partition": project.today})
    assert "s3cret" not in AuditLog(open_vault(project.settings).primary, "studio").line(1).decode()


def test_a_log_that_cannot_be_written_fails_no_backup(
    project: Project, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    store = open_vault(project.settings).primary
    assert isinstance(store, LocalStore)
    in_the_way = Path(store.root, "studio", "audit")
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_bytes(b"")
    assert project.run(instance).success
    assert capfd.readouterr().err.count("The audit log could not be written. STORE_UNAVAILABLE") == 2
