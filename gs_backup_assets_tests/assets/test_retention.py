"""The retention in Dagster: only after a proven run, once for all days, and what it says about it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.config import load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.vault.opening import open_vault
from gs_backup_assets_tests.assets.conftest import Project
from gs_backup_assets_tests.catalogue.manifests import made_up
from gs_backup_assets_tests.recovery.retention.shelves import fill, shelve, taken

RETENTION = dg.AssetKey(["studio", "retention"])
ONE_DAY = "{daily: 1, weekly: 0, monthly: 0, keep_proven: 1}"


def materialization(instance: dg.DagsterInstance) -> dg.AssetMaterialization:
    event = instance.get_latest_materialization_event(RETENTION)
    assert event is not None and event.asset_materialization is not None
    return event.asset_materialization


def ran(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.step_key for event in result.all_events if event.is_step_start and event.step_key}


def test_a_proven_run_lets_the_replaced_backups_go(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(retention=ONE_DAY, stores="{primary: {path: backups}, offsite: {path: offsite}}")
    vault = open_vault(project.settings)
    assert vault.offsite is not None
    old, _ = (shelve(store, 9, database="studio") for store in vault.named().values())
    assert project.run(instance).success
    (entry,) = project.catalogue.entries()
    assert entry.partition == project.today
    made = materialization(instance)
    assert made.partition is None, "it decides about all days"
    values = {key: value.value for key, value in made.metadata.items()}
    for which in ("primary", "offsite"):
        assert (values[f"{which}_kept"], values[f"{which}_deleted"], values[f"{which}_freed_bytes"]) == (1, 1, 15)
        assert values[f"{which}_swept"] == 0
        table = str(values[f"{which}_plan"])
        assert f"| {old.id} |" in table and f"**goes** | replaced by {entry.id} (proven) |" in table
        assert f"| {entry.id} | {project.today} | PROVEN |" in table
    for store in vault.named().values():
        pruned = [r for r in AuditLog(store, "studio").records() if r.event == "prune"]
        assert [record.result for record in pruned] == ["started", "done"]
        assert pruned[0].command.startswith("dagster run ")


def test_a_run_that_proves_nothing_lets_nothing_go(project: Project, instance: dg.DagsterInstance) -> None:
    """The proof without contents to compare is NOT_VERIFIED and fails: the retention does not even start."""
    project.configure(retention=ONE_DAY, logical="{fingerprint: counts}")
    result = project.run(instance)
    assert not result.success
    assert "studio__proof" in ran(result) and "studio__retention" not in ran(result)
    assert instance.get_latest_materialization_event(RETENTION) is None


def test_proving_a_day_again_does_not_run_it(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(retention=ONE_DAY)
    job = project.definitions().resolve_job_def("studio_daily_backup")
    assert project.run(instance).success
    before = materialization(instance)
    proofs = [dg.AssetKey(["studio", name]) for name in ("verified_restore", "integrity_report")]
    again = job.execute_in_process(asset_selection=proofs, partition_key=project.today, instance=instance)
    assert again.success and ran(again) == {"studio__proof"}
    assert materialization(instance) == before


def test_what_it_relies_on_must_be_there(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(retention=ONE_DAY)
    store = open_vault(project.settings).primary
    fill(store, (0, 1, 2), database="studio")
    (Path(store.describe()) / made_up(taken(0), database="studio").folder / "dump" / "toc.dat").unlink()
    definitions = project.definitions()
    result = definitions.resolve_job_def("studio_daily_backup").execute_in_process(
        asset_selection=[RETENTION], partition_key=project.today, instance=instance, raise_on_error=False
    )
    assert not result.success
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failed.user_failure_data is not None
    assert "RETENTION_UNSAFE" in str(failed.user_failure_data.description)
    assert len(project.catalogue.entries()) == 3


def test_without_a_policy_there_is_no_such_asset(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text("databases: {one: {url_env: X, retention: {daily: 9}}, two: {url_env: Y}}\n", encoding="utf-8")
    graph = build_definitions(load_config(path)).resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert "one/retention" in keys and "two/retention" not in keys
    node = graph.get(dg.AssetKey(["one", "retention"]))
    assert node.partitions_def is None and node.automation_condition is None, "a proof of its own does not start it"
    assert node.parent_keys == {dg.AssetKey(["one", "integrity_report"])}
    assert node.description and "fail" in node.description and "only runs after a proven run" in node.description
    assert node.owners and node.kinds and node.group_name == "one"
