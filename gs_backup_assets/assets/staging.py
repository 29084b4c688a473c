"""The asset of the monthly restore test on staging, and its checks."""

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.alerts.staging import MESSAGE_ACCEPTED, failed_message, staging_message, told
from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, failure, from_check, step
from gs_backup_assets.assets.proof import restore_key
from gs_backup_assets.catalogue.periods import MONTH
from gs_backup_assets.catalogue.staging_tests import StagingTestRecord
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ProofFailed
from gs_backup_assets.recovery.staging.staging_test import STEPS, run_staging_test
from gs_backup_assets.resources import VaultResource

_UI_URL = "GS_BACKUP_UI_URL"
_DESCRIPTIONS = {
    "staging_stopped": "The commands of `staging.stop` ended well.",
    "staging_restored": "The backup was restored without errors; rows, contents, schema, sequences are the source's.",
    "staging_anonymised": "No masked column holds an original value, its statistics included (Great Expectations).",
    "staging_started": "The copy got the staging database's name, and the commands of `staging.start` ended well.",
    "staging_healthy": "Every address of `staging.health` answered as it should before its deadline.",
    "rto_met": "From the stop until the application worked, without the masking, within the shortest RTO.",
    MESSAGE_ACCEPTED: "Every receiver took the message of what came of it.",
}


def staging_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "monthly_restore_test"])


def build_staging_test(
    settings: DatabaseSettings, months: dg.MonthlyPartitionsDefinition, listener: ListenerFactory
) -> dg.AssetsDefinition:
    """The month's test. It is not tried again by itself: an application was stopped for it."""
    key = staging_key(settings)
    names = [name for name in _DESCRIPTIONS if settings.anonymise is not None or name != "staging_anonymised"]

    @dg.asset(
        key=key,
        partitions_def=months,
        deps=[dg.AssetDep(restore_key(settings), partition_mapping=dg.AllPartitionMapping())],
        group_name=settings.name,
        kinds={"postgres"},
        owners=list(settings.owners),
        check_specs=[
            dg.AssetCheckSpec(
                name, asset=key, blocking=name in STEPS, partitions_def=months, description=_DESCRIPTIONS[name]
            )
            for name in names
        ],
        description=(
            "The newest **proven** backup becomes the staging database: the application is stopped, the backup (its "
            "off-site copy where there is one) restored beside the old database, proved equal, masked where `anonymise`"
            " is configured, swapped in by name; the application is started and its health addresses asked. **On any "
            "failure the old database is put back** and the application started again. People are told either way. "
            "For this month only. `gs-backup staging-test` does the same; docs/staging-test.md."
        ),
    )
    def monthly_restore_test(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        now = datetime.now(timezone.utc)
        link = _link(settings)
        with step(context, listener) as progress:
            MONTH.require_current(context.partition_key, now, settings.zone)
            try:
                test = run_staging_test(settings, vault.open(settings), progress, by=author(context), now=now)
            except BackupError as error:
                context.log.info(told(settings, failed_message(settings.name, error, link)).summary)
                raise
        for refusal in (*test.not_kept, *((test.not_logged,) if test.not_logged else ())):
            context.log.warning(f"Not on record everywhere. {refusal}")
        message = told(settings, staging_message(test.record, link))
        for check in (*test.record.checks, message):
            if check.name in names:
                yield from_check(key, check, blocking=check.name in STEPS)
        if test.record.verdict is not Verdict.PROVEN:
            raise _failure(test.record)
        yield dg.MaterializeResult(asset_key=key, metadata=_metadata(test.record))

    return monthly_restore_test


def _failure(record: StagingTestRecord) -> dg.Failure:
    wrong = record.first_failure
    assert wrong is not None
    hint = wrong.findings[0].hint if wrong.findings else ""
    code = wrong.findings[0].code if wrong.findings else record.verdict.value
    return failure(ProofFailed(code, f"{wrong.name}: {wrong.summary}.", hint or "See the checks."))


def _metadata(record: StagingTestRecord) -> dict[str, Any]:
    return {
        keys.BACKUP_ID: record.backup_id,
        keys.VERDICT: record.verdict.value,
        keys.PROVED_COPY: record.store,
        keys.RECOVERY_SECONDS: round(record.rto_seconds or 0.0, 3),
        **{keys.stage_seconds(name): round(seconds, 3) for name, seconds in record.stage_seconds.items()},
    }


def _link(settings: DatabaseSettings) -> str:
    base = os.environ.get(_UI_URL, "").rstrip("/")
    return f"{base}/assets/{settings.name}/monthly_restore_test" if base else ""
