"""The asset of the replicas' state, and the sensor that reports it every 15 minutes without a run."""

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, evaluated, from_check, step
from gs_backup_assets.assets.logical import source_key
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.replicas.limits import CHECK, Observation
from gs_backup_assets.recovery.replicas.replicas import Observed, observe_replicas

_INTERVAL_SECONDS = 900


def replica_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "replica_status"])


def build_replica_status(settings: DatabaseSettings, listener: ListenerFactory) -> dg.AssetsDefinition:
    """Lag, slots, replay and conflicts of the replicas; materialise it to look at them now."""
    key = replica_key(settings)
    check = dg.AssetCheckSpec(
        CHECK,
        asset=key,
        blocking=False,
        description="Every replica is a standby of this primary, streams, and is within its limits; so are the slots.",
    )

    @dg.asset(
        key=key,
        deps=[source_key(settings)],
        group_name=settings.name,
        kinds={"postgres"},
        owners=list(settings.owners),
        check_specs=[check],
        description=(
            "What the primary and each **replica** of `backup.yaml` say: state, lag in bytes and seconds, replication "
            "slots, conflicts, timeline. A sensor reports it every 15 minutes without a run; materialise it to look "
            "now. It never fails by itself: `replicas_in_limits` fails when a replica is down, behind, or no standby "
            "any more, or a slot keeps too much, and is not verified where a server cannot be asked. "
            "`gs-backup replica status` shows the same; docs/replicas.md says what to do."
        ),
    )
    def replica_status(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress, progress.stage("ask"):
            observed = observe_replicas(settings, datetime.now(timezone.utc))
        yield from_check(key, observed.check, blocking=False)
        yield dg.MaterializeResult(asset_key=key, metadata=_metadata(observed))

    return replica_status


def build_replica_sensor(
    settings: DatabaseSettings, clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
) -> dg.SensorDefinition:
    """Asks the servers and reports what they say as events of the asset."""

    @dg.sensor(
        name=f"{settings.name}_replica_status",
        description="Asks the primary and its replicas every 15 minutes, and reports lag, slots and conflicts.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def replica_status_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        observed = observe_replicas(settings, clock())
        key = replica_key(settings)
        materialized = dg.AssetMaterialization(asset_key=key, metadata=_metadata(observed))
        return dg.SensorResult(asset_events=[materialized, evaluated(key, observed.check, blocking=False)])

    return replica_status_sensor


def _metadata(observed: Observed) -> dict[str, Any]:
    return {
        **observed.check.metrics,
        keys.STATUS: observed.check.status.value,
        keys.REPLICAS: dg.MetadataValue.md(_markdown(observed.observation)),
    }


def _markdown(observation: Observation) -> str:
    lines = [
        "| replica | state | sync | bytes behind | seconds behind | slot retains | conflicts | timeline |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for replica in observation.replicas:
        state, slot = replica.state, observation.slot(replica.slot)
        word = "does not answer"
        if state is not None:
            word = (state.receiver or "no connection") if state.in_recovery else "no standby"
            word += ", paused" if state.replay_paused else ""
        shown: list[object] = [
            replica.name,
            word,
            replica.sender.sync_state if replica.sender else None,
            replica.lag_bytes,
            None if replica.lag_seconds is None else round(replica.lag_seconds, 1),
            slot.retained_bytes if slot else None,
            state.all_conflicts if state else None,
            state.timeline if state else None,
        ]
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in shown) + " |")
    lines += ["", "| slot | kind | in use | WAL status | retains bytes |", "|---|---|---|---|---:|"]
    for one in observation.primary.slots if observation.primary else ():
        use = "yes" if one.active else "no"
        lines.append(f"| {one.name} | {one.kind} | {use} | {one.wal_status or '-'} | {one.retained_bytes or 0} |")
    return "\n".join(lines)
