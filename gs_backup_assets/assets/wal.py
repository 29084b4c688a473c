"""The asset of the archived write-ahead log, and the sensor that reports it every five minutes without a run."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, evaluated, from_check, step
from gs_backup_assets.assets.logical import source_key
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.wal.checks import CHECKS, Surveyed, not_surveyed, survey_and_judge
from gs_backup_assets.recovery.wal.survey import WalSurvey
from gs_backup_assets.resources import VaultResource

_INTERVAL_SECONDS = 300
_DESCRIPTIONS = {
    "wal_continuous": "The log goes on without a gap from the newest base backup to the newest segment.",
    "wal_lag": "The archive is not farther behind the server than wal.max_lag.",
    "rpo_met": "What would be lost now is within the RPO of every data class, by the last commit that is archived.",
}


def wal_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "wal_archive"])


def build_wal_archive(
    settings: DatabaseSettings, days: dg.DailyPartitionsDefinition, listener: ListenerFactory
) -> dg.AssetsDefinition:
    """What is archived of the log; materialise today's partition to look at it now."""
    key = wal_key(settings)
    # Not partitioned: of one partition Dagster's storage takes only one evaluation that belongs to no run (the columns
    # asset_key, check_name, run_id, partition are unique), and there is one every five minutes.
    checks = [dg.AssetCheckSpec(name, asset=key, blocking=False, description=_DESCRIPTIONS[name]) for name in CHECKS]

    @dg.asset(
        key=key,
        partitions_def=days,
        deps=[source_key(settings)],
        group_name=settings.name,
        kinds={"postgres", "pg_waldump"},
        owners=list(settings.owners),
        check_specs=checks,
        description=(
            "The archived **write-ahead log**: continuity of every timeline, gaps, lag, and the *last recoverable "
            "commit*, read from the archived bytes themselves with pg_waldump and not from the counters of a server. "
            "A sensor reports it every five minutes without a run. It never fails by itself: `wal_continuous` fails "
            "where log is missing behind the newest base backup (the sensor starts a full one), "
            "`wal_lag` where the archive is behind the server or the stream is silent, `rpo_met` where more would be "
            "lost now than a data class allows. `gs-backup wal status` shows the same; docs/wal.md says what to do."
        ),
    )
    def wal_archive(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        now = datetime.now(timezone.utc)
        with step(context, listener) as progress, progress.stage("survey"):
            DAY.require_current(context.partition_key, now, settings.zone)
            surveyed = survey_and_judge(settings, vault.open(settings).primary, now=now)
        for check in surveyed.checks:
            yield from_check(key, check, blocking=check.name != "wal_lag")
        yield dg.MaterializeResult(asset_key=key, metadata=_metadata(surveyed.survey))

    return wal_archive


@dataclass(frozen=True)
class Replacement:
    """The job that takes a base backup, and its run for an archive that needs a new one; None where it needs none."""

    job: Any
    plan: Callable[[WalSurvey, datetime], dg.RunRequest | None]


def build_wal_sensor(
    settings: DatabaseSettings,
    replacement: Replacement | None,
    clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> dg.SensorDefinition:
    """Looks at the archive and reports it for the day, if anything is other than at the last look.

    With a gap behind the newest base backup, what comes now can be recovered to only from a new one: it is asked for.
    """

    @dg.sensor(
        name=f"{settings.name}_wal_archive",
        job=replacement.job if replacement else None,
        description="Looks at the archived log every five minutes, and reports it when something has changed. Where "
        "log is missing behind the newest base backup, it starts a full one, once for each gap. It reads the store "
        "only, and asks no server.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def wal_archive_sensor(
        context: dg.SensorEvaluationContext, vault: VaultResource
    ) -> dg.SensorResult | dg.SkipReason:
        now = clock()
        day = DAY.of(now, settings.zone)
        try:
            surveyed = survey_and_judge(settings, vault.open(settings).primary, now=now)
        except BackupError as error:  # people must be told that nothing is known, be it for missing credentials
            surveyed = not_surveyed(error)
        state = _state(day, surveyed)
        if context.cursor == state:
            return dg.SkipReason(f"nothing new: {surveyed.checks[0].summary}")
        events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
        if surveyed.survey is not None:
            metadata = _metadata(surveyed.survey)
            events.append(dg.AssetMaterialization(wal_key(settings), partition=day, metadata=metadata))
        key = wal_key(settings)
        events += [evaluated(key, check, blocking=check.name != "wal_lag") for check in surveyed.checks]
        request = replacement.plan(surveyed.survey, now) if replacement and surveyed.survey else None
        return dg.SensorResult(run_requests=[request] if request else [], asset_events=events, cursor=state)

    return wal_archive_sensor


def _state(day: str, surveyed: Surveyed) -> str:
    """Differs when there is something to report: another day, more log, another outcome."""
    parts = [
        day,
        *(f"{check.name}={check.status.value} {[f.code for f in check.findings]}" for check in surveyed.checks),
    ]
    survey = surveyed.survey
    if survey is not None:
        parts += [str(survey.end), str(survey.commit), str(survey.segments), survey.base.id if survey.base else "-"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _metadata(survey: WalSurvey | None) -> dict[str, Any]:
    if survey is None:
        return {keys.ARCHIVED_SEGMENTS: 0, keys.ARCHIVED_BYTES: 0}
    metadata: dict[str, Any] = {
        keys.SYSTEM_IDENTIFIER: survey.system_identifier,
        keys.ARCHIVED_SEGMENTS: survey.segments,
        keys.ARCHIVED_BYTES: survey.stored_bytes,
        keys.GAP_SEGMENTS: survey.gap_segments,
        keys.TIMELINES: dg.MetadataValue.md(_table(survey)),
    }
    optional = {
        keys.LSN: str(survey.end) if survey.end else None,
        keys.LAG_BYTES: survey.lag_bytes,
        keys.RECOVERABLE_AGE_SECONDS: None if survey.age_seconds is None else round(survey.age_seconds, 3),
        keys.RECOVERABLE_UNTIL: survey.recoverable_until.isoformat() if survey.recoverable_until else None,
        keys.LAST_COMMIT: survey.commit.at.isoformat() if survey.commit else None,
    }
    return metadata | {name: value for name, value in optional.items() if value is not None}


def _table(survey: WalSurvey) -> str:
    lines = ["| timeline | first | last | segments | stored bytes |", "|---:|---|---|---:|---:|"]
    lines += [f"| {t.timeline} | {t.first} | {t.last} | {t.segments} | {t.stored_bytes} |" for t in survey.timelines]
    lines += [f"\nmissing: {gap.start} to {gap.end}, from {gap.missing} on" for gap in survey.gaps]
    return "\n".join(lines)
