"""The daily job on a real server: what turns green, what turns red, and what is said then."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg

from gs_backup_assets.catalogue.proof import DECISIVE_CHECKS
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.sample.sabotage import plant
from gs_backup_assets_tests.assets.conftest import Project

NAMES = ("logical_backup", "backup_checksum", "verified_restore", "integrity_report")


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["studio", name])


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {f"{e.asset_key.path[-1]}.{e.check_name}": e for e in result.get_asset_check_evaluations()}


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return " ".join(str(f.user_failure_data.description if f.user_failure_data else f.error) for f in failures)


def test_a_sound_database_turns_the_partition_green(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(rules="guitar_strategies")
    result = project.run(instance)
    assert result.success
    for name in NAMES:
        assert instance.get_materialized_partitions(key(name)) == {project.today}, name
    found = evaluations(result)
    assert all(e.passed for e in found.values()), [name for name, e in found.items() if not e.passed]
    assert {f"verified_restore.{name}" for name in DECISIVE_CHECKS} <= set(found)
    assert all(e.partition == project.today for e in found.values())
    entry = project.catalogue.latest()
    assert entry is not None and entry.verdict is Verdict.PROVEN

    restored = instance.get_latest_materialization_event(key("verified_restore"))
    assert restored is not None and restored.asset_materialization is not None
    metadata = restored.asset_materialization.metadata
    assert metadata["verdict"].value == "PROVEN" and metadata["backup_id"].value == entry.id
    assert isinstance(metadata["recovery_seconds"].value, float) and isinstance(metadata["rows"].value, int)
    backup = instance.get_latest_materialization_event(key("logical_backup"))
    assert backup is not None and backup.asset_materialization is not None
    assert backup.asset_materialization.metadata["stored_bytes"].value == entry.require_manifest().stored_bytes
    assert backup.asset_materialization.tags is not None
    assert backup.asset_materialization.tags["dagster/data_version"] == f"sha256:{entry.manifest_sha256}"
    observed = instance.fetch_observations(key("source_database"), limit=1).records
    assert observed and observed[0].asset_observation is not None
    assert observed[0].asset_observation.metadata["server_release"].value.startswith("17.")


def test_a_broken_rule_leaves_the_run_green_and_its_check_red(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(rules="guitar_strategies")
    with connect(project.source) as connection:
        planted = plant(connection, "empty-email")
    result = project.run(instance)
    assert result.success
    broken = {name for name, e in evaluations(result).items() if not e.passed}
    assert broken == {f"integrity_report.{planted.rule}"}
    evaluation = evaluations(result)[f"integrity_report.{planted.rule}"]
    assert evaluation.metadata["blame"].value == "already broken in production"
    assert evaluation.metadata["unexpected_rows"].value >= 1


def test_an_orphan_is_a_production_defect_and_not_the_backups(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(rules="guitar_strategies")
    with connect(project.source) as connection:
        planted = plant(connection, "orphaned-lesson")
    result = project.run(instance)
    assert result.success, failure_text(result)
    found = evaluations(result)
    assert not found[f"integrity_report.{planted.rule}"].passed
    assert not found["integrity_report.foreign_keys_hold"].passed
    assert found["verified_restore.restore_clean"].passed and found["verified_restore.schema_equal"].passed


def test_any_other_day_is_refused(project: Project, instance: dg.DagsterInstance) -> None:
    yesterday = (date.fromisoformat(project.today) - timedelta(days=1)).isoformat()
    result = project.run(instance, yesterday)
    assert not result.success
    assert "PARTITION_NOT_TODAY" in failure_text(result)
    assert project.catalogue.latest() is None


def test_damaged_bytes_fail_the_run_before_a_restore(project: Project, instance: dg.DagsterInstance) -> None:
    assert project.run(instance).success
    entry = project.catalogue.latest()
    assert entry is not None
    victim = project.folder / "backups" / entry.folder / "dump" / "toc.dat"
    victim.write_bytes(victim.read_bytes()[:-1])
    definitions = project.definitions()
    selection = [definitions.resolve_assets_def(key(name)) for name in ("backup_checksum", "verified_restore")]
    result = dg.materialize(selection, partition_key=project.today, instance=instance, raise_on_error=False)
    assert not result.success
    assert not evaluations(result)["backup_checksum.stored_bytes_match"].passed
    assert "FILE_TRUNCATED" in failure_text(result)
    assert "verified_restore.restore_clean" not in evaluations(result)


def test_past_partitions_can_be_proved_again(project: Project, instance: dg.DagsterInstance) -> None:
    """The same moment is an earlier day 26 hours of time zones further west."""
    project.configure(timezone="Etc/GMT+12")
    taken = project.run(instance)
    assert taken.success
    past = project.today
    project.configure(timezone="Pacific/Kiritimati")
    assert project.today > past
    proof = project.definitions().resolve_assets_def(key("verified_restore"))
    with dg.instance_for_test() as fresh:
        result = dg.materialize([proof], partition_key=past, instance=fresh, raise_on_error=False)
        assert result.success, failure_text(result)
        assert fresh.get_materialized_partitions(key("verified_restore")) == {past}
    entry = project.catalogue.latest()
    assert entry is not None and entry.partition == past


def test_a_day_without_a_backup_cannot_be_proved(project: Project, instance: dg.DagsterInstance) -> None:
    proof = project.definitions().resolve_assets_def(key("verified_restore"))
    result = dg.materialize([proof], partition_key=project.today, instance=instance, raise_on_error=False)
    assert not result.success and "NO_BACKUP_IN_PARTITION" in failure_text(result)


def test_what_could_not_be_verified_is_not_green(project: Project, instance: dg.DagsterInstance) -> None:
    project.configure(logical="{fingerprint: counts}")
    result = project.run(instance)
    assert not result.success and "NO_FINGERPRINT" in failure_text(result)
    assert instance.get_materialized_partitions(key("verified_restore")) == set()
    contents = evaluations(result)["verified_restore.contents_equal"]
    assert not contents.passed and contents.metadata["status"].value == "not_verified"
    assert contents.severity is dg.AssetCheckSeverity.WARN


def test_a_second_run_makes_a_second_backup(project: Project, instance: dg.DagsterInstance) -> None:
    assert project.run(instance).success
    assert project.run(instance).success
    entries = project.catalogue.entries()
    assert len(entries) == 2 and all(e.verdict is Verdict.PROVEN for e in entries)
    assert {e.partition for e in entries} == {project.today}


def test_secrets_do_not_reach_the_event_log(project: Project, instance: dg.DagsterInstance, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    password = "hunter2-not-in-any-log"
    host, port = project.source.parameters["host"], project.source.parameters["port"]
    monkeypatch.setenv("GS_BACKUP_TEST_URL", f"postgresql://nobody:{password}@/absent?host={host}&port={port}")
    result = project.run(instance)
    assert not result.success and "SERVER_UNREACHABLE" in failure_text(result)
    logged = [str(record) for record in instance.all_logs(result.run_id)]
    assert logged and not any(password in record for record in logged)
