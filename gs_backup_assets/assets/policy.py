"""The asset of the retention: after each proven daily run, what was replaced by something proven is deleted."""

from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, author, step
from gs_backup_assets.assets.proof import report_key
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.pruning import Pruned, PrunePlan, apply, make_plan
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
            "or locked stays too. It has no partitions: it decides about all backups. In the daily job it comes "
            "after the proof, which fails when the day's backup is not proven: **it only runs after a proven run**, "
            "and not in a backfill of older proofs. It fails, and deletes nothing, when the proven backups that it "
            "counts on are no longer there (`RETENTION_UNSAFE`) or the audit log cannot be written; it stops when a "
            "store refuses to delete. `gs-backup prune` shows the plan; docs/retention.md explains it."
        ),
    )
    def retention(context: dg.AssetExecutionContext, vault: VaultResource) -> dg.MaterializeResult:
        metadata: dict[str, Any] = {}
        with step(context, listener) as progress:
            now = datetime.now(timezone.utc)
            stores = vault.open(settings).named()
            # All plans come first: when one store cannot be read, nothing is deleted in the other.
            plans = {which: make_plan(store, settings, now) for which, store in stores.items()}
            for which, store in stores.items():
                done = apply(store, plans[which], by=author(context), progress=progress, now=now)
                metadata.update({f"{which}_{name}": value for name, value in _metadata(plans[which], done).items()})
                if done.left:
                    context.log.warning(f"{which}: held or deleted meanwhile, and left: {', '.join(done.left)}")
        return dg.MaterializeResult(metadata=metadata)

    return retention


def _metadata(plan: PrunePlan, done: Pruned) -> dict[str, Any]:
    return {
        keys.KEPT: len(plan.decisions) - len(done.deleted),
        keys.DELETED: len(done.deleted),
        keys.FREED_BYTES: done.freed_bytes,
        keys.SWEPT: len(done.swept),
        keys.PLAN: dg.MetadataValue.md(_table(plan)),
    }


def _table(plan: PrunePlan) -> str:
    rows = [
        f"| {d.candidate.id} | {d.candidate.partition} | {d.candidate.verdict.value} | {d.candidate.stored_bytes}"
        f" | {'stays' if d.keep else '**goes**'} | {'; '.join(d.reasons)} |"
        for d in plan.decisions[:_ROWS_SHOWN]
    ]
    more = len(plan.decisions) - len(rows)
    head = "| backup | day | verdict | stored bytes | | why |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows, *([f"\nand {more} more"] if more else [])])
