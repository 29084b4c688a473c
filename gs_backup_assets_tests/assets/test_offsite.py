"""The off-site copy in Dagster: part of the daily job, proved instead of the primary copy, read back by turns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest

from gs_backup_assets.alerts.staleness import stale_problems
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.s3_client import ATTEMPTS
from gs_backup_assets_tests.assets.conftest import Project
from gs_backup_assets_tests.assets.test_daily_job import evaluations, failure_text, key
from gs_backup_assets_tests.s3_server import S3Server

COPY = "offsite_copy"


@pytest.fixture
def copied(project: Project, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with an S3 bucket off-site, and encryption."""
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    settings = f"{{kind: s3, bucket: {s3_server.bucket()}, prefix: prod, endpoint: '{s3_server.endpoint}'}}"
    project.configure(
        stores=f"{{offsite: {settings}, read_back_days: 1}}", encryption="{kind: raw-aes-256, key_env: TEST_KEY}"
    )
    return project


def offsite(project: Project) -> Catalogue:
    return Catalogue(open_store(project.settings, "offsite"), project.settings.name)


def test_the_daily_job_copies_compares_and_proves_the_copy(copied: Project, instance: dg.DagsterInstance) -> None:
    result = copied.run(instance)
    assert result.success, failure_text(result)
    found = evaluations(result)
    assert found[f"{COPY}.offsite_matches"].passed and found[f"{COPY}.audit_log_continues"].passed
    (made,) = [e for e in result.get_asset_materialization_events() if e.asset_key == key(COPY)]
    metadata = made.materialization.metadata
    assert metadata["copied_bytes"].value == metadata["stored_bytes"].value > 0
    assert metadata["uncopied_backups"].value == 0
    (restored,) = [e for e in result.get_asset_materialization_events() if e.asset_key == key("verified_restore")]
    assert restored.materialization.metadata["proved_copy"].value == "offsite"
    (there,) = offsite(copied).entries()
    assert there.verdict is Verdict.PROVEN and there.manifest_sha256 == copied.catalogue.entries()[0].manifest_sha256


def test_the_copy_stands_between_checksum_and_proof(copied: Project) -> None:
    graph = copied.definitions().resolve_asset_graph()
    assert graph.get(key(COPY)).parent_keys == {key("backup_checksum")}
    assert graph.get(key("verified_restore")).parent_keys == {key(COPY)}


def test_a_changed_copy_fails_the_run_and_is_not_proved(
    copied: Project, instance: dg.DagsterInstance, s3_server: S3Server
) -> None:
    assert copied.run(instance).success
    entry = copied.catalogue.entries()[0]
    store = open_store(copied.settings, "offsite")
    victim = f"{entry.folder}/globals.sql.enc"
    with store.open(victim) as stream:
        data = stream.read()
    store.delete(victim)
    store.put_bytes(data[:-1] + b"x", victim)
    definitions = copied.definitions()
    selection = [definitions.resolve_assets_def(key(name)) for name in (COPY, "verified_restore")]
    result = dg.materialize(selection, partition_key=copied.today, instance=instance, raise_on_error=False)
    assert not result.success and "OFFSITE_DIFFERS" in failure_text(result)
    assert not evaluations(result)[f"{COPY}.offsite_matches"].passed
    assert "verified_restore.restore_clean" not in evaluations(result)


def test_a_server_that_is_gone_fails_the_copy_and_is_told(
    copied: Project, instance: dg.DagsterInstance, s3_server: S3Server
) -> None:
    gone = s3_server.config("gone-for-good", prefix="prod", endpoint="http://127.0.0.1:9").model_dump(
        exclude_unset=True
    )
    copied.configure(stores=f"{{offsite: {gone}}}")
    result = copied.run(instance)
    assert not result.success and "STORE_UNAVAILABLE" in failure_text(result)
    assert copied.catalogue.entries()[0].verdict is Verdict.NOT_VERIFIED, "taken, but no proof of the other copy"
    told = {problem.fingerprint for problem in stale_problems(copied.settings, datetime.now(timezone.utc))}
    assert told == {"studio:stale-proof", "studio:offsite-store"}


def test_a_missing_or_old_copy_is_told(copied: Project, instance: dg.DagsterInstance) -> None:
    now = datetime.now(timezone.utc)
    assert "studio:stale-offsite" in {problem.fingerprint for problem in stale_problems(copied.settings, now)}
    assert copied.run(instance).success
    assert stale_problems(copied.settings, now) == ()
    later = {problem.fingerprint for problem in stale_problems(copied.settings, now + timedelta(hours=26))}
    assert later == {"studio:stale-backup", "studio:stale-proof", "studio:stale-offsite"}


def test_copies_are_read_back_by_turns(copied: Project, instance: dg.DagsterInstance) -> None:
    """With `read_back_days: 1` every copy has its turn every day."""
    definitions = copied.definitions()
    schedule = definitions.resolve_schedule_def("studio_offsite_read_back_schedule")

    def tick() -> tuple[Sequence[dg.RunRequest], str]:
        with dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime.now(timezone.utc),
            repository_def=definitions.get_repository_def(),
        ) as context:
            data = schedule.evaluate_tick(context)
        return data.run_requests or [], str(data.skip_message)

    requests, reason = tick()
    assert requests == [] and "none has its turn" in reason
    assert copied.run(instance).success
    ((request,), _) = tick()
    assert request.partition_key == copied.today
    job = definitions.resolve_job_def("studio_offsite_read_back")
    result = job.execute_in_process(partition_key=copied.today, instance=instance, raise_on_error=False)
    assert result.success, failure_text(result)
    evaluation = evaluations(result)[f"{COPY}.offsite_matches"]
    assert evaluation.metadata["read_back_bytes"].value == evaluation.metadata["offsite_bytes"].value > 0


def test_what_an_outage_left_behind_is_brought_later(copied: Project, instance: dg.DagsterInstance) -> None:
    """Up to three older backups a run; one that is damaged by now keeps neither the others nor today's."""
    text = copied.file.read_text()
    copied.configure(encryption="{kind: raw-aes-256, key_env: TEST_KEY}")
    for _ in range(2):
        assert copied.run(instance).success
    newer, older = copied.catalogue.entries()
    victim = copied.folder / "backups" / older.folder / "globals.sql.enc"
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    copied.file.write_text(text)
    result = copied.run(instance)
    assert result.success, failure_text(result)
    (made,) = [e for e in result.get_asset_materialization_events() if e.asset_key == key(COPY)]
    assert made.materialization.metadata["uncopied_backups"].value == 1
    today = copied.catalogue.entries()[0]
    assert {entry.id for entry in offsite(copied).entries()} == {today.id, newer.id}


def test_s3_is_reached_with_sessions_of_dagster_aws(copied: Project, s3_server: S3Server) -> None:
    from gs_backup_assets.resources import VaultResource

    vault = VaultResource().open(copied.settings)
    client = vault.store("offsite").client  # type: ignore[attr-defined]
    assert client.meta.endpoint_url == s3_server.endpoint
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": ATTEMPTS}


def test_the_daily_job_with_nothing_but_buckets(
    project: Project, instance: dg.DagsterInstance, s3_server: S3Server
) -> None:
    buckets = {name: s3_server.config(s3_server.bucket()) for name in ("primary", "offsite")}
    project.configure(stores=str({name: bucket.model_dump(exclude_unset=True) for name, bucket in buckets.items()}))
    result = project.run(instance)
    assert result.success, failure_text(result)
    for catalogue in (project.catalogue, offsite(project)):
        (entry,) = catalogue.entries()
        assert entry.verdict is Verdict.PROVEN
    assert not (project.folder / "backups").exists()
