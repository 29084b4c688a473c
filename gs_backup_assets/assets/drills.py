"""The assets that prove what recovery rests on: the week's newest base backup, and a drill to a random moment."""

import random
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, check_result, failure, from_check, step
from gs_backup_assets.assets.physical import base_backup_key
from gs_backup_assets.assets.wal import wal_key
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.drills import DECISIVE_CHECKS, DrillRecord, read_drills
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.proof import ProofRecord, RuleOutcome
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, NotVerifiable, ProofFailed
from gs_backup_assets.integrity.rules import load_rules
from gs_backup_assets.recovery.point_in_time.pitr_drill import run_drill
from gs_backup_assets.recovery.point_in_time.prove_base import prove_base
from gs_backup_assets.recovery.point_in_time.recovered_proof import OF_THE_BASE
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.vault.store import Store

_DRILLS_SHOWN = 26
_DESCRIPTIONS = {
    "stored_bytes_match": "The bytes that were fetched are those that the manifests of the chain name.",
    "backup_manifest_matches": "Every unpacked file is as PostgreSQL's own backup_manifest says (pg_verifybackup).",
    "recovery_consistent": "A server came up from the backup and ended its recovery.",
    "page_checksums_valid": "Every page agrees with its checksum; not verified for a cluster without checksums.",
    "amcheck_clean": "pg_amcheck finds heaps and indexes of every database sound.",
    "foreign_keys_hold": "No row refers to a row that is not there.",
    "rto_met": "The recovered server could be used within the shortest RTO of the data classes.",
    "rpo_met": "What would have been lost at the time of the drill is within the RPO of every data class.",
    "target_reached": "The replay ended between the last commit before the moment and the first one after it.",
    "commits_before_present": "Transactions that the log has before the moment are committed in the recovered cluster.",
    "commits_after_absent": "Transactions that the log has behind the moment are not in the recovered cluster.",
}
_OF_THE_DRILL = ("target_reached", "commits_before_present", "commits_after_absent")
_BESIDE = ("foreign_keys_hold", "rto_met")
_RECOVERY_CHECKS = (*OF_THE_BASE, *_BESIDE)
_DRILL_CHECKS = (*OF_THE_BASE, *_OF_THE_DRILL, *_BESIDE, "rpo_met")


def recovery_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "verified_recovery"])


def drill_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "pitr_drill"])


def _specs(
    settings: DatabaseSettings, key: dg.AssetKey, weeks: dg.WeeklyPartitionsDefinition, names: tuple[str, ...]
) -> list[dg.AssetCheckSpec]:
    rules = load_rules(settings.rules, settings.folder).rules
    described = {name: _DESCRIPTIONS[name] for name in names}
    described |= {rule.id: f"{rule.title} ({rule.severity})" for rule in rules}
    return [
        dg.AssetCheckSpec(name, asset=key, blocking=_decides(name), partitions_def=weeks, description=words)
        for name, words in described.items()
    ]


def _decides(name: str) -> bool:
    return name in DECISIVE_CHECKS or name in OF_THE_BASE


def build_verified_recovery(
    settings: DatabaseSettings,
    weeks: dg.WeeklyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The proof of the week's newest base backup."""
    key = recovery_key(settings)

    @dg.asset(
        key=key,
        partitions_def=weeks,
        deps=[base_backup_key(settings)],
        group_name=settings.name,
        kinds={"postgres"},
        owners=list(settings.owners),
        retry_policy=retry,
        check_specs=_specs(settings, key, weeks, _RECOVERY_CHECKS),
        description=(
            "The week's newest base backup, unpacked with its chain from the store alone (from its **off-site copy** "
            "where there is one) and recovered on a server of its own, without any archived log: pg_verifybackup, page "
            "checksums, pg_amcheck, foreign keys and data rules. **A green partition means: a server came up from it, "
            "and it is sound inside.** It fails when any of that is not so; the findings have codes and say what to "
            "do. `gs-backup verify ID` does the same."
        ),
    )
    def verified_recovery(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress:
            stores = vault.open(settings)
            entry = _newest_of(settings, stores.store(), context.partition_key)
            proved = prove_base(settings, stores, entry, progress, by=author(context))
        for refusal in (*proved.not_kept, *((proved.not_logged,) if proved.not_logged else ())):
            context.log.warning(f"Not on record everywhere. {refusal}")
        if proved.not_reported is not None:
            context.log.warning(str(proved.not_reported))
        record = proved.record
        yield from _results(key, record.checks, record.rules, _RECOVERY_CHECKS)
        if record.verdict is not Verdict.PROVEN:
            raise _failure(record.verdict, record.checks)
        report = proved.report_path
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(f"sha256:{entry.manifest_sha256}"),
            metadata=_proof_metadata(record)
            | ({keys.REPORT: dg.MetadataValue.path(str(report))} if report is not None else {}),
        )

    return verified_recovery


def build_pitr_drill(
    settings: DatabaseSettings,
    weeks: dg.WeeklyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """The week's drill."""
    key = drill_key(settings)

    @dg.asset(
        key=key,
        partitions_def=weeks,
        deps=[base_backup_key(settings), wal_key(settings)],
        group_name=settings.name,
        kinds={"postgres", "pg_waldump"},
        owners=list(settings.owners),
        retry_policy=retry,
        check_specs=_specs(settings, key, weeks, _DRILL_CHECKS),
        description=(
            "Recovers the cluster to a **random moment** inside the covered window on a throwaway server, from the "
            "copy that one would use, and proves it: what the log's commit records have before the moment is there, "
            "what they have behind it is not; pg_verifybackup, page checksums, pg_amcheck, foreign keys and data "
            "rules; RTO and RPO against their targets. The week is this one. It fails when anything that decides is "
            "not so; `gs-backup drill` does the same, also for a moment of your choice; docs/drills.md."
        ),
    )
    def pitr_drill(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        now = datetime.now(timezone.utc)
        with step(context, listener) as progress:
            WEEK.require_current(context.partition_key, now, settings.zone)
            stores = vault.open(settings)
            drill = run_drill(settings, stores, progress, by=author(context), now=now, rng=random.Random())
            history = read_drills(stores.store(), settings.name, newest=_DRILLS_SHOWN)
        for refusal in (*drill.not_kept, *((drill.not_logged,) if drill.not_logged else ())):
            context.log.warning(f"Not on record everywhere. {refusal}")
        record = drill.record
        yield from _results(key, record.checks, record.rules, _DRILL_CHECKS)
        if record.verdict is not Verdict.PROVEN:
            raise _failure(record.verdict, record.checks)
        yield dg.MaterializeResult(asset_key=key, metadata=_drill_metadata(record, history))

    return pitr_drill


def _newest_of(settings: DatabaseSettings, store: Store, week: str) -> PhysicalEntry:
    entry = PhysicalCatalogue(store, settings.name).latest(week)
    if entry is None:
        raise ConfigError(
            "BACKUP_NOT_FOUND",
            f"{store.describe()} has no base backup of {settings.name} for the week of {week}.",
            "Materialise base_backup for this week; a past week without a base backup stays without one.",
        )
    return entry


def _results(
    key: dg.AssetKey, checks: tuple[CheckResult, ...], rules: tuple[RuleOutcome, ...], names: tuple[str, ...]
) -> Iterator[dg.AssetCheckResult]:
    for check in checks:
        if check.name in names:
            yield from_check(key, check, blocking=_decides(check.name))
    for rule in rules:
        metadata: dict[str, Any] = {keys.SUMMARY: rule.title, "severity": rule.severity}
        optional = {
            keys.UNEXPECTED_ROWS: rule.unexpected,
            keys.SAMPLE_KEYS: ", ".join(rule.sample_keys) or None,
            keys.FINDINGS: rule.reason,
        }
        metadata |= {name: value for name, value in optional.items() if value is not None}
        yield check_result(key, rule.id, rule.status, blocking=rule.severity == "critical", metadata=metadata)


def _failure(verdict: Verdict, checks: tuple[CheckResult, ...]) -> dg.Failure:
    worst = Status.FAILED if verdict is Verdict.FAILED else Status.NOT_VERIFIED
    check = next(check for check in checks if check.status is worst and _decides(check.name))
    code, hint = (check.findings[0].code, check.findings[0].hint) if check.findings else (verdict.value, "")
    kind = ProofFailed if verdict is Verdict.FAILED else NotVerifiable
    return failure(kind(code, f"{check.name}: {check.summary}.", hint or "See the checks."))


def _proof_metadata(record: ProofRecord) -> dict[str, Any]:
    return {
        keys.BACKUP_ID: record.backup_id,
        keys.VERDICT: record.verdict.value,
        keys.PROVED_COPY: record.store,
        keys.RECOVERY_SECONDS: round(record.rto_seconds or 0.0, 3),
        keys.PROOF_SECONDS: round((record.finished_at - record.started_at).total_seconds(), 3),
        keys.PROGRAMS_RELEASE: record.programs,
        **{keys.stage_seconds(name): round(seconds, 3) for name, seconds in record.stage_seconds.items()},
    }


def _drill_metadata(record: DrillRecord, history: tuple[DrillRecord, ...]) -> dict[str, Any]:
    window = None
    if record.window_start is not None and record.window_end is not None:
        window = (record.window_end - record.window_start).total_seconds()
    metadata: dict[str, Any] = {
        keys.BACKUP_ID: record.backups[-1],
        keys.CHAIN_LENGTH: len(record.backups),
        keys.VERDICT: record.verdict.value,
        keys.PROVED_COPY: record.store,
        keys.TARGET: record.target,
        keys.LSN: record.achieved_lsn,
        keys.ARCHIVED_SEGMENTS: record.segments,
        keys.RECOVERY_SECONDS: None if record.rto_seconds is None else round(record.rto_seconds, 3),
        keys.RECOVERABLE_AGE_SECONDS: record.recoverable_age_seconds,
        keys.WINDOW_SECONDS: window,
        keys.COVERAGE: dg.MetadataValue.md(coverage_map(history)),
        **{keys.stage_seconds(name): round(seconds, 3) for name, seconds in record.stage_seconds.items()},
    }
    return {name: value for name, value in metadata.items() if value is not None}


def coverage_map(history: tuple[DrillRecord, ...]) -> str:
    """The drills as a table, the newest first: which moments were covered, which was recovered to, what came of it."""
    lines = [
        "| drill | covered from | until | recovered to | in | lost at most | verdict |",
        "|---|---|---|---|---:|---:|---|",
    ]
    for record in reversed(history):
        cells = [
            f"{record.finished_at:%Y-%m-%d %H:%M}",
            f"{record.window_start:%Y-%m-%d %H:%M}" if record.window_start else "-",
            f"{record.window_end:%Y-%m-%d %H:%M}" if record.window_end else "-",
            re.sub(r"\.\d+Z$", "Z", record.target).replace("|", "\\|"),  # a narrow column: no fractions
            f"{record.rto_seconds:.1f} s" if record.rto_seconds is not None else "-",
            f"{record.recoverable_age_seconds:.0f} s" if record.recoverable_age_seconds is not None else "-",
            record.verdict.value,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
