"""The asset of the retention: after each proven daily run, what was replaced by something proven is deleted."""

from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, step
from gs_backup_assets.assets.proof import report_key
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.retention.pruning import Pruned, PrunePlan
from gs_backup_assets.recovery.retention.pruning_store import StorePlan, StorePruned, plan_store, prune_store
from gs_backup_assets.recovery.retention.wal_pruning import range_of
from gs_backup_assets.resources import VaultResource

_ROWS_SHOWN = 200


def retention_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "retention"])


def build_retention(
    settings: DatabaseSettings, listener: ListenerFactory, retry: dg.RetryPolicy | None
) -> dg.AssetsDefinition:
    """The retention of every store of a database, as `gs-backup prune --apply` carries it out."""

    @dg.asset(
        key=retention_key(settings),
        deps=[report_key(settings)],
        group_name=settings.name,
        kinds={"retention"},
        owners=list(settings.owners),
        retry_policy=retry,
        description=(
            "Deletes the backups that the retention of `backup.yaml` lets go, in every store, and sweeps attempts "
            "that never became backups. A backup goes only when a newer one that is **PROVEN** stays; what is held "
            "or locked stays too. Base backups go as dumps do, never one before those that are based on it, and of the "
            "write-ahead log all that no base backup that stays can need. It has no partitions: it decides about all "
            "backups. In the daily job it comes after the proof, which fails when the day's backup is not proven: "
            "**it only runs after a proven run**, and not in a backfill of older proofs. It fails, and deletes "
            "nothing, when the proven backups that it counts on are no longer there (`RETENTION_UNSAFE`) or the audit "
            "log cannot be written; it stops when a store refuses to delete. `gs-backup prune` shows the plan; "
            "docs/retention.md explains it."
        ),
    )
    def retention(context: dg.AssetExecutionContext, vault: VaultResource) -> dg.MaterializeResult:
        metadata: dict[str, Any] = {}
        with step(context, listener) as progress:
            now = datetime.now(timezone.utc)
            stores = vault.open(settings).named()
            # All plans come first: when one store cannot be read, nothing is deleted in the other.
            plans = {which: plan_store(store, settings, now) for which, store in stores.items()}
            for which, store in stores.items():
                done = prune_store(store, plans[which], by=author(context), progress=progress, now=now)
                metadata.update({f"{which}_{name}": value for name, value in _metadata(plans[which], done).items()})
                if left := (*done.dumps.left, *done.base_backups.left):
                    context.log.warning(f"{which}: held or deleted meanwhile, and left: {', '.join(left)}")
        return dg.MaterializeResult(metadata=metadata)

    return retention


def _metadata(plan: StorePlan, done: StorePruned) -> dict[str, Any]:
    metadata = _of_kind(plan.dumps, done.dumps)
    if plan.base_backups.decisions or done.base_backups.swept:
        of_base_backups = _of_kind(plan.base_backups, done.base_backups)
        metadata.update({f"base_backups_{name}": value for name, value in of_base_backups.items()})
    if plan.wal.decisions:
        metadata.update(
            {
                f"wal_{keys.KEPT}": sum(d.segments for d in plan.wal.decisions) - done.wal.segments,
                f"wal_{keys.DELETED}": done.wal.segments,
                f"wal_{keys.FREED_BYTES}": done.wal.freed_bytes,
                f"wal_{keys.PLAN}": dg.MetadataValue.md(_wal_table(plan)),
            }
        )
    return metadata


def _of_kind(plan: PrunePlan, done: Pruned) -> dict[str, Any]:
    return {
        keys.KEPT: len(plan.decisions) - len(done.deleted),
        keys.DELETED: len(done.deleted),
        keys.FREED_BYTES: done.freed_bytes,
        keys.SWEPT: len(done.swept),
        keys.PLAN: dg.MetadataValue.md(_table(plan)),
    }


def _wal_table(plan: StorePlan) -> str:
    rows = [
        f"| {range_of(d)} | {'all' if d.timeline is None else d.timeline} | {d.segments} | {d.stored_bytes}"
        f" | {'stays' if d.keep else '**goes**'} | {d.reason} |"
        for d in plan.wal.decisions[:_ROWS_SHOWN]
    ]
    head = "| segments | timeline | number | stored bytes | | why |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def _table(plan: PrunePlan) -> str:
    rows = [
        f"| {d.candidate.id} | {d.candidate.partition} | {d.candidate.verdict.value} | {d.candidate.stored_bytes}"
        f" | {'stays' if d.keep else '**goes**'} | {'; '.join(d.reasons)} |"
        for d in plan.decisions[:_ROWS_SHOWN]
    ]
    more = len(plan.decisions) - len(rows)
    head = "| backup | day | verdict | stored bytes | | why |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows, *([f"\nand {more} more"] if more else [])])
