"""Makes the cost report of what was read of the stores. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from gs_backup_assets.catalogue.costs import (
    ClassForecast,
    CostReport,
    MonthForecast,
    StoreName,
    StoreUsage,
    budget_lines,
    class_usage,
    cost_of,
    saving,
)
from gs_backup_assets.catalogue.forecast import Coming, Holdings, Rules, coming_backups, holdings_of, simulate
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.usage import Inventory, bytes_by_class, take_inventory
from gs_backup_assets.config_backups import Retention
from gs_backup_assets.config_watching import Costs
from gs_backup_assets.vault.store import Listed

MONTHS = 12
_ByStore = Mapping[StoreName, Sequence[Mapping[str, int]]]  # for each month the bytes by storage class


@dataclass(frozen=True)
class StoreContents:
    """What was read of one store: the listing of everything in the database's folder, and its dumps."""

    name: StoreName
    address: str
    listing: Sequence[Listed]
    summaries: Sequence[Summary]
    rules: Rules
    base_backups: int = 0


def build_report(
    database: str,
    stores: Sequence[StoreContents],
    *,
    costs: Costs,
    retention: Retention | None,
    zone: ZoneInfo,
    now: datetime,
) -> CostReport:
    """The cost report of one database from what was read of all its stores."""
    inventories = {
        store.name: take_inventory(store.listing, database, now, smallest_moved=store.rules.smallest_moved)
        for store in stores
    }
    holdings = {s.name: holdings_of(inventories[s.name].lots, s.summaries, s.rules) for s in stores}
    months = month_ends(now, zone)
    summaries = [summary for store in stores for summary in store.summaries]
    coming = coming_backups(list(holdings.values()), summaries, now, months[-1][1], zone)

    def outlook(*, policy: Retention | None = retention, moved: bool = True) -> _ByStore:
        return {} if coming is None else _outlook(holdings, coming, months, policy=policy, moved=moved)

    actual = outlook()
    forecast = _forecast(actual, months, costs)
    moving = any(store.rules.transitions for store in stores)
    savings = (
        saving("retention", _together(actual), _together(outlook(policy=None)) if retention else None, costs.prices),
        saving("transitions", _together(actual), _together(outlook(moved=False)) if moving else None, costs.prices),
    )
    sizes = _added(bytes_by_class(inventory.by_age) for inventory in inventories.values())
    return CostReport(
        database=database,
        month=f"{now.astimezone(zone):%Y-%m}",
        generated_at=now,
        currency=costs.currency,
        stores=tuple(_usage(store, inventories[store.name], costs) for store in stores),
        cost=cost_of(sizes, costs.prices),
        backup_bytes=round(coming.trend.expected(now)) if coming else None,
        backups_per_day=coming.per_day if coming else None,
        growth=coming.trend.growth if coming else None,
        forecast=forecast,
        savings=savings,
        budget=budget_lines(costs, sizes, forecast),
    )


def month_ends(now: datetime, zone: ZoneInfo) -> list[tuple[str, datetime]]:
    """This month and the eleven after it, such as `2026-12`, each with the moment at which it ends in the zone."""
    local = now.astimezone(zone)
    ends = []
    for number in range(local.year * 12 + local.month - 1, local.year * 12 + local.month - 1 + MONTHS):
        following = datetime((number + 1) // 12, (number + 1) % 12 + 1, 1, tzinfo=zone)
        ends.append((f"{number // 12}-{number % 12 + 1:02}", following))
    return ends


def _outlook(
    holdings: Mapping[StoreName, Holdings],
    coming: Coming,
    months: Sequence[tuple[str, datetime]],
    *,
    policy: Retention | None,
    moved: bool,
) -> _ByStore:
    ends = [end for _, end in months]
    return {
        name: simulate(store, coming, ends, retention=policy, transitions=moved) for name, store in holdings.items()
    }


def _forecast(outlook: _ByStore, months: Sequence[tuple[str, datetime]], costs: Costs) -> tuple[MonthForecast, ...]:
    return tuple(
        MonthForecast(
            month=month,
            stored_bytes=sum(sizes.values()),
            cost=cost_of(sizes, costs.prices),
            classes=tuple(
                ClassForecast(store=store, storage_class=name, stored_bytes=size)
                for store, totals in outlook.items()
                for name, size in sorted(totals[number].items())
            ),
        )
        for number, ((month, _), sizes) in enumerate(zip(months, _together(outlook), strict=False))
    )


def _together(outlook: _ByStore) -> list[dict[str, int]]:
    """For each month the bytes by class of all stores."""
    return [_added(sizes) for sizes in zip(*outlook.values(), strict=True)]


def _added(totals: Iterable[Mapping[str, int]]) -> dict[str, int]:
    added: dict[str, int] = defaultdict(int)
    for sizes in totals:
        for name, size in sizes.items():
            added[name] += size
    return dict(added)


def _usage(store: StoreContents, inventory: Inventory, costs: Costs) -> StoreUsage:
    return StoreUsage(
        store=store.name,
        address=store.address,
        backups=len(store.summaries),
        base_backups=store.base_backups,
        objects=len(store.listing),
        stored_bytes=sum(listed.size for listed in store.listing),
        classes=class_usage(inventory.by_age, costs.prices),
        ages=inventory.by_age,
        kinds=inventory.by_kind,
    )
