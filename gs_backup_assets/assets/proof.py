"""The assets of the proof: the verified restore and the integrity report, made in one step."""

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg

from gs_backup_assets.alerts.heartbeat import beat_after_proof
from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, check_result, failure, from_check, step
from gs_backup_assets.assets.logical import backup_of_partition, checksum_key
from gs_backup_assets.assets.offsite import offsite_key
from gs_backup_assets.catalogue.proof import DECISIVE_CHECKS, ProofRecord, RuleOutcome
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import NotVerifiable, ProofFailed
from gs_backup_assets.integrity.rules import load_rules
from gs_backup_assets.recovery.dumps.proving import prove_and_record
from gs_backup_assets.recovery.dumps.recording import Proved
from gs_backup_assets.resources import VaultResource

_DESCRIPTIONS = {
    "stored_bytes_match": "The bytes that were fetched for the restore are those that the manifest names.",
    "everything_included": "No rows of the source were left out of the dump for want of rights.",
    "restore_clean": "pg_restore ended without an error that the backup is to blame for.",
    "rows_equal": "Every table has as many rows as in the source's snapshot.",
    "contents_equal": "Every table and large object has the same contents as in the source's snapshot.",
    "schema_equal": "Every object is defined as in the source: tables, indexes, constraints, triggers, owners, grants.",
    "sequences_equal": "Every sequence stands where it stood in the source.",
    "amcheck_clean": "pg_amcheck finds heaps and indexes of the restored database sound.",
    "rto_met": "The restored database could be used within the shortest RTO of the data classes.",
    "foreign_keys_hold": "No row of the restored database refers to a row that is not there.",
}


def restore_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "verified_restore"])


def report_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "integrity_report"])


def build_proof(
    settings: DatabaseSettings,
    days: dg.DailyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The proof of the day's newest backup."""
    restored, reported = restore_key(settings), report_key(settings)
    rules = load_rules(settings.rules, settings.folder)

    def spec(asset: dg.AssetKey, name: str, description: str, *, blocking: bool) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(name, asset=asset, blocking=blocking, partitions_def=days, description=description)

    check_specs = [spec(restored, name, _DESCRIPTIONS[name], blocking=True) for name in DECISIVE_CHECKS]
    check_specs.append(spec(restored, "rto_met", _DESCRIPTIONS["rto_met"], blocking=False))
    check_specs.append(spec(reported, "foreign_keys_hold", _DESCRIPTIONS["foreign_keys_hold"], blocking=False))
    check_specs += [spec(reported, rule.id, f"{rule.title} ({rule.severity})", blocking=False) for rule in rules.rules]

    @dg.multi_asset(
        name=f"{settings.name}__proof",
        partitions_def=days,
        group_name=settings.name,
        retry_policy=retry,
        check_specs=check_specs,
        specs=[
            dg.AssetSpec(
                restored,
                deps=[offsite_key(settings) if settings.stores.offsite is not None else checksum_key(settings)],
                kinds={"postgres", "pg_restore"},
                owners=list(settings.owners),
                freshness_policy=dg.FreshnessPolicy.time_window(fail_window=settings.alerts.stale_after),
                description=(
                    "The day's newest backup, restored from the store alone (from its **off-site copy** where there is "
                    "one: that is what one would use) on a server of its own, and compared with "
                    "the fingerprint that was taken with it. **A green partition means: restored, and equal to the "
                    "source's snapshot.** It fails when anything differs, and is not verified when a check could not "
                    "run; the findings have codes and say what to do."
                ),
            ),
            dg.AssetSpec(
                reported,
                deps=[restored],
                kinds={"greatexpectations", "html"},
                owners=list(settings.owners),
                description=(
                    "The report on the restored data: every foreign key and every rule of the rules file, with counts "
                    "and sample keys. A broken rule does not fail the run: in a database that equals its source it was "
                    "**already broken in production**, and it is to be corrected there."
                ),
            ),
        ],
    )
    def proof(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress:
            stores = vault.open(settings)
            entry = backup_of_partition(settings, stores.store(), context.partition_key)
            proved = prove_and_record(settings, stores, entry, progress, by=author(context))
        for refusal in proved.not_kept:
            context.log.warning(f"The proof is not on record in every store. {refusal}")
        if proved.not_logged is not None:
            context.log.warning(f"The audit log could not be written. {proved.not_logged}")
        if proved.not_reported is not None:
            context.log.warning(str(proved.not_reported))
        record = proved.record
        silence = beat_after_proof(settings, record, datetime.now(timezone.utc), on_record=proved.on_record)
        if silence is not None:
            context.log.warning(str(silence))
        for check in record.checks:
            if check.name != "foreign_keys_hold":
                yield from_check(restored, check, blocking=check.name in DECISIVE_CHECKS)
        if record.verdict is Verdict.PROVEN:
            yield dg.MaterializeResult(
                asset_key=restored,
                data_version=dg.DataVersion(f"sha256:{entry.manifest_sha256}"),
                metadata=_restore_metadata(record),
            )
        yield dg.MaterializeResult(asset_key=reported, metadata=_report_metadata(proved))
        yield from_check(reported, record.check("foreign_keys_hold"), blocking=False)
        for rule in record.rules:
            yield _rule_result(reported, rule, record)
        if record.verdict is not Verdict.PROVEN:
            raise _not_proven(record, proved.report_path)

    return proof


def _not_proven(record: ProofRecord, report: Path | None) -> dg.Failure:
    worst = Status.FAILED if record.verdict is Verdict.FAILED else Status.NOT_VERIFIED
    finding = next((f for check in record.checks if check.status is worst for f in check.findings), None)
    code = finding.code if finding else record.verdict.value
    message = finding.message if finding else f"The backup is {record.verdict.value}."
    hint = finding.hint if finding else "See the checks."
    if report is not None:
        hint += f" Report: {report}"
    kind = ProofFailed if record.verdict is Verdict.FAILED else NotVerifiable
    return failure(kind(code, message, hint))


def _restore_metadata(record: ProofRecord) -> dict[str, Any]:
    return {
        keys.BACKUP_ID: record.backup_id,
        keys.VERDICT: record.verdict.value,
        keys.PROVED_COPY: record.store,
        keys.ROWS: sum(table.restored_rows or 0 for table in record.tables),
        keys.TABLES: len(record.tables),
        keys.RECOVERY_SECONDS: round(record.rto_seconds or 0.0, 3),
        keys.PROOF_SECONDS: round((record.finished_at - record.started_at).total_seconds(), 3),
        keys.PROGRAMS_RELEASE: record.programs,
        **{keys.stage_seconds(name): round(seconds, 3) for name, seconds in record.stage_seconds.items()},
    }


def _report_metadata(proved: Proved) -> dict[str, Any]:
    statuses = [rule.status for rule in proved.record.rules]
    places: dict[str, Any] = {}
    if proved.report_path is not None and proved.docs_path is not None:
        places = {
            keys.REPORT: dg.MetadataValue.path(str(proved.report_path)),
            keys.DATA_DOCS: dg.MetadataValue.path(str(proved.docs_path / "index.html")),
        }
    return {
        keys.BACKUP_ID: proved.record.backup_id,
        keys.VERDICT: proved.record.verdict.value,
        keys.RULES_PASSED: statuses.count(Status.PASSED),
        keys.RULES_FAILED: statuses.count(Status.FAILED),
        keys.RULES_NOT_VERIFIED: statuses.count(Status.NOT_VERIFIED),
        keys.FOREIGN_KEYS_VIOLATED: proved.record.check("foreign_keys_hold").metrics.get("foreign_keys_violated", 0),
        **places,
    }


def _rule_result(asset: dg.AssetKey, rule: RuleOutcome, record: ProofRecord) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {keys.SUMMARY: rule.title, "severity": rule.severity}
    if rule.unexpected is not None:
        metadata[keys.UNEXPECTED_ROWS] = rule.unexpected
    if rule.sample_keys:
        metadata[keys.SAMPLE_KEYS] = ", ".join(rule.sample_keys)
    if rule.status is Status.FAILED:
        metadata[keys.BLAME] = record.blame.value
    if rule.reason:
        metadata[keys.FINDINGS] = rule.reason
    # Not blocking, but a critical rule shows as an error: the colour is for people.
    return check_result(asset, rule.id, rule.status, blocking=rule.severity == "critical", metadata=metadata)
