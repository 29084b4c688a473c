"""The asset of the monthly cost report, and its check."""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.assets.common import ListenerFactory, from_check, step
from gs_backup_assets.assets.logical import backup_key
from gs_backup_assets.catalogue.costs import WITHIN_BUDGET, Cost, CostReport, judge_budget
from gs_backup_assets.catalogue.periods import MONTH
from gs_backup_assets.catalogue.usage import Kind
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.costing import cost_report
from gs_backup_assets.resources import VaultResource


def cost_key(settings: DatabaseSettings) -> dg.AssetKey:
    return dg.AssetKey([settings.name, "cost_report"])


def build_cost_report(
    settings: DatabaseSettings,
    months: dg.MonthlyPartitionsDefinition,
    listener: ListenerFactory,
    retry: dg.RetryPolicy | None,
) -> dg.AssetsDefinition:
    """What the database's backups take up and cost."""
    key = cost_key(settings)
    check = dg.AssetCheckSpec(
        WITHIN_BUDGET,
        asset=key,
        blocking=False,
        partitions_def=months,
        description="What rests now costs no more in a month than `costs.budget` allows, by class and in total.",
    )

    @dg.asset(
        key=key,
        partitions_def=months,
        deps=[dg.AssetDep(backup_key(settings), partition_mapping=dg.AllPartitionMapping())],
        group_name=settings.name,
        kinds={"costs"},
        owners=list(settings.owners),
        retry_policy=retry,
        check_specs=[check] if settings.costs.budget else [],
        description=(
            "What rests in **every store** of the database: bytes and objects by class and age, growth, a forecast for "
            "12 months, the cost from `costs.prices`, what retention and lifecycle rules save, and the budget. Stores "
            "can be listed only as they are now: any other month than this one is refused. It fails when a store "
            "cannot be read; the message has a code and says what to do. `gs-backup cost` shows the same at any time."
        ),
    )
    def cost_report_asset(
        context: dg.AssetExecutionContext, vault: VaultResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with step(context, listener) as progress:
            now = datetime.now(timezone.utc)
            MONTH.require_current(context.partition_key, now, settings.zone)
            with progress.stage("list"):
                report = cost_report(settings, vault.open(settings), now)
        if settings.costs.budget:
            yield from_check(key, judge_budget(report), blocking=False)
        yield dg.MaterializeResult(asset_key=key, metadata=_metadata(report))

    return cost_report_asset


def _metadata(report: CostReport) -> dict[str, Any]:
    """Numbers for plots, in bytes and in money a month; what is not known has none."""
    numbers: dict[str, float | int | None] = {
        keys.OBJECTS: sum(store.objects for store in report.stores),
        keys.STORED_BYTES: sum(store.stored_bytes for store in report.stores),
        **{keys.store_bytes(store.store): store.stored_bytes for store in report.stores},
        keys.BASE_BACKUP_BYTES: _of_kind(report, Kind.BASE_BACKUP),
        keys.WAL_BYTES: _of_kind(report, Kind.WAL),
        keys.MONTHLY_COST: report.cost.total,
        keys.MONTHLY_BUDGET: report.total.budget,
        keys.GROWTH_BYTES_PER_DAY: report.growth.bytes_per_day if report.growth else None,
        **{keys.rule_saves(saving.rule): saving.last_month for saving in report.savings if saving.configured},
    }
    if report.forecast:
        last = report.forecast[-1]
        numbers[keys.STORED_BYTES_IN_12_MONTHS] = last.stored_bytes
        numbers[keys.MONTHLY_COST_IN_12_MONTHS] = last.cost.total
    return {
        **{name: number for name, number in numbers.items() if number is not None},
        keys.CURRENCY: report.currency,
        keys.COSTS: dg.MetadataValue.md(_markdown(report)),
    }


def _of_kind(report: CostReport, wanted: Kind) -> int | None:
    sizes = [kind.stored_bytes for store in report.stores for kind in store.kinds if kind.kind is wanted]
    return sum(sizes) if sizes else None


def _markdown(report: CostReport) -> str:
    lines = [f"| store | class | objects | MB | {report.currency} a month |", "|---|---|---:|---:|---:|"]
    for store in report.stores:
        for one in store.classes:
            size = f"{one.stored_bytes / 1e6:.1f}"
            lines.append(f"| {store.store} | {one.storage_class} | {one.objects} | {size} | {_money(one.cost)} |")
    lines += ["", "| end of | MB | a month |", "|---|---:|---:|"]
    lines += [f"| {m.month} | {m.stored_bytes / 1e6:.1f} | {_money(m.cost)} |" for m in report.forecast]
    lines += ["", "| budget of | a month | now | in 12 months | over it from |", "|---|---:|---:|---:|---|"]
    for line in report.budget:
        budget = "-" if line.budget is None else f"{line.budget:.2f}"
        now, later = _money(line.cost_now), _money(line.cost_after_12_months)
        lines.append(f"| {line.name} | {budget} | {now} | {later} | {line.over_from or '-'} |")
    return "\n".join([*lines, "", f"Not in these figures: {'; '.join(report.not_included)}."])


def _money(cost: Cost | None) -> str:
    """What is known of a cost, with a question mark for what is not."""
    if cost is None:
        return "?"
    return f"{cost.known:.2f} + ?" if cost.unpriced else f"{cost.known:.2f}"
