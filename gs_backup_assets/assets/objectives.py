"""The asset of the objectives, and the sensor that reports it each day for all databases, without a run."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from gs_backup_assets.alerts.staleness import read_dumps
from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, evaluated, from_check, step
from gs_backup_assets.assets.proof import report_key
from gs_backup_assets.catalogue.attainment import OBJECTIVES_MET, Attained, ObjectivesReport, objectives_met
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.objectives_report import measure_objectives
from gs_backup_assets.resources import VaultResource
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.opening import open_store

_INTERVAL_SECONDS = 300
_READERS = 16
_A_TICK = 20  # databases measured in one tick: it has to end within seconds
_PATIENCE_SECONDS = 20.0


def objectives_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "objectives"])


def build_objectives(settings: DatabaseSettings, listener: ListenerFactory) -> dg.AssetsDefinition:
    """RPO and RTO by data class; materialise it to measure them now."""
    key = objectives_key(settings)
    check = dg.AssetCheckSpec(
        OBJECTIVES_MET,
        asset=key,
        blocking=False,
        description="RPO and RTO of every data class are reached, by what was measured and not by what is configured.",
    )

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(report_key(settings), partition_mapping=dg.AllPartitionMapping())],
        group_name=settings.name,
        kinds={"objectives"},
        owners=list(settings.owners),
        check_specs=[check],
        description=(
            "**RPO and RTO by data class**: what is promised, what is reached, by which evidence (proofs, drills, tests"
            " on staging, the archived log), and the day on which growth breaks the RTO. A sensor reports"
            " it every day and after each proven backup, also when the day's backup failed; the plots are its history."
            " It fails only when the store cannot be read. `objectives_met` fails when a class gets less than is"
            " promised, and is not verified where nothing was measured. `gs-backup objectives` shows the same;"
            " docs/objectives.md says what to do."
        ),
    )
    def objectives(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress, progress.stage("measure"):
            report = measure_objectives(settings, vault.open(settings).primary, datetime.now(timezone.utc))
        yield from_check(key, objectives_met(report), blocking=False)
        yield dg.MaterializeResult(asset_key=key, metadata=_metadata(report))

    return objectives


class Reported(BaseModel):
    """A cursor: of each database the day and the newest proven backup that it was reported for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reported: dict[str, str] = {}


def build_objectives_sensor(
    databases: Sequence[DatabaseSettings], clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
) -> dg.SensorDefinition:
    """Measures without a run: two hundred databases would otherwise be two hundred runs a day."""

    @dg.sensor(
        name="objectives",
        description="Measures RPO and RTO of every database each day, and after each proven backup, and reports them "
        "as events of the asset. It reads the stores only.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def objectives_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = clock()
        known = _read(context.cursor)
        pool = Threads(_READERS, "objectives")
        asked = {pool.submit(_occasion, one, now): one for one in databases}
        found = {asked[one].name: one.result() for one in wait(asked, timeout=_PATIENCE_SECONDS).done}
        due = [one for one in databases if found.get(one.name) not in (None, known.get(one.name))]
        measuring = {pool.submit(_measure, one, now): one for one in due[:_A_TICK]}
        reports = {measuring[one].name: one.result() for one in wait(measuring, timeout=_PATIENCE_SECONDS).done}
        events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
        reported = {one.name: known[one.name] for one in databases if one.name in known}
        for settings in due:
            report, occasion = reports.get(settings.name), found[settings.name]
            if report is None or occasion is None:  # its store is away: what is stale is told elsewhere
                continue
            events += _events(settings, report)
            reported[settings.name] = occasion
        if not events:
            return dg.SkipReason("nothing new" if not due else f"{len(due)} databases cannot be measured")
        return dg.SensorResult(asset_events=events, cursor=Reported(reported=reported).model_dump_json())

    return objectives_sensor


def _read(cursor: str | None) -> dict[str, str]:
    """What was reported. A damaged cursor makes a second report of the day, and nothing worse."""
    try:
        return Reported.model_validate_json(cursor).reported if cursor else {}
    except ValueError:
        return {}


def _occasion(settings: DatabaseSettings, now: datetime) -> str | None:
    """The day and the newest proven backup; None without any, which the sensor of what is stale tells."""
    dumps = read_dumps(settings)
    if isinstance(dumps, BackupError):
        return None
    proven = next((dump for dump in dumps if dump.verdict is Verdict.PROVEN), None)
    return f"{DAY.of(now, settings.zone)} {proven.id}" if proven else None


def _measure(settings: DatabaseSettings, now: datetime) -> ObjectivesReport | None:
    try:
        return measure_objectives(settings, open_store(settings), now)
    except BackupError:  # nothing is known then; the sensor of what is stale tells it
        return None


def _events(
    settings: DatabaseSettings, report: ObjectivesReport
) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    key = objectives_key(settings)
    return [
        dg.AssetMaterialization(key, metadata=_metadata(report)),
        evaluated(key, objectives_met(report), blocking=False),
    ]


def _metadata(report: ObjectivesReport) -> dict[str, Any]:
    """Numbers of each class for plots; what was not measured has none."""
    metadata: dict[str, Any] = {}
    for one in report.classes:
        numbers = {
            "rpo_seconds": one.rpo.seconds if one.rpo else None,
            "rpo_target_seconds": one.rpo_target_seconds,
            "rpo_met": _met(one.rpo_status),
            "rto_seconds": one.rto.seconds if one.rto else None,
            "rto_target_seconds": one.rto_target_seconds,
            "rto_met": _met(one.rto_status),
            "rto_breaks_in_days": (one.forecast.on - report.at.date()).days if one.forecast.on else None,
        }
        metadata |= {
            keys.of_class(one.data_class, name): round(number, 3)
            for name, number in numbers.items()
            if number is not None
        }
    return metadata | {keys.OBJECTIVES: dg.MetadataValue.md(_table(report))}


def _met(status: Status) -> int | None:
    return None if status is Status.NOT_VERIFIED else int(status is Status.PASSED)


def _table(report: ObjectivesReport) -> str:
    lines = ["| class | | promised, s | reached, s | | by |", "|---|---|---:|---:|---|---|"]
    for one in report.classes:
        lines += [_row(one, "RPO"), _row(one, "RTO")]
    lines += [""] + [f"- {one.data_class}: {_forecast(one)}" for one in report.classes]
    return "\n".join([*lines, *(f"- {note}" for note in report.notes)])


def _row(one: Attained, goal: str) -> str:
    rpo = goal == "RPO"
    evidence, status = (one.rpo, one.rpo_status) if rpo else (one.rto, one.rto_status)
    target = one.rpo_target_seconds if rpo else one.rto_target_seconds
    sign = {Status.PASSED: "met", Status.FAILED: "**missed**", Status.NOT_VERIFIED: "not verified"}[status]
    reached, by = (f"{evidence.seconds:.0f}", evidence.by) if evidence else ("?", "-")
    return f"| {one.data_class} | {goal} | {target:.0f} | {reached} | {sign} | {by} |"


def _forecast(one: Attained) -> str:
    when = f" {one.forecast.on}" if one.forecast.on else ""
    words = {"breaks": "growth breaks the RTO on", "broken": "the RTO is broken", "holds": "the RTO holds"}
    return f"{words.get(one.forecast.outcome, 'no forecast')}{when}: {one.forecast.why}"
