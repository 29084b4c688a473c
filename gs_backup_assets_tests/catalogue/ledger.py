"""Listings and summaries of made-up stores, of any size, for tests of the cost report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from gs_backup_assets.catalogue.cost_report import StoreContents, build_report
from gs_backup_assets.catalogue.costs import CostReport, StoreName
from gs_backup_assets.catalogue.forecast import Rules
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config_backups import Retention
from gs_backup_assets.config_watching import Costs
from gs_backup_assets.vault.store import Listed

GB = 10**9
DAY = timedelta(days=1)
# The first of a month, after that day's backup.
NOW = datetime(2026, 12, 1, 6, 0, 0, tzinfo=timezone.utc)
NEWEST = NOW.replace(hour=2)
LOCAL = Rules("local", None, {})
UTC = ZoneInfo("UTC")
DEFAULTS = Costs()
ONLY_DAYS = Retention(daily=7, weekly=0, monthly=0, keep_proven=1)
GLACIER = Rules("STANDARD", None, {"GLACIER": 30 * DAY})


def listed(key: str, size: int, modified: datetime = NEWEST, storage_class: str = "local") -> Listed:
    """One object of the database `shop`."""
    return Listed(f"shop/{key}", size, modified, storage_class, "tag")


def summary(
    taken: datetime, size: int | None = GB, *, verdict: Verdict = Verdict.PROVEN, held: bool = False
) -> Summary:
    """One backup, with files of `size` bytes."""
    return Summary(
        database="shop",
        partition=taken.date().isoformat(),
        id=backup_id(taken),
        manifest_sha256="ab" * 32,
        damage=None if size is not None else "MANIFEST_DAMAGED",
        stored_bytes=size,
        source_bytes=size,
        key_id=None,
        verdict=verdict,
        proved_at=None,
        rto_seconds=None,
        broken_rules=(),
        held=held,
    )


def daily(sizes: Sequence[int]) -> list[Summary]:
    """One backup a day, the last one on the day of NOW."""
    return [summary(NEWEST - DAY * back, size) for back, size in zip(range(len(sizes) - 1, -1, -1), sizes, strict=True)]


def contents(
    summaries: Iterable[Summary],
    *,
    name: StoreName = "primary",
    rules: Rules = LOCAL,
    classes: Mapping[str, str] | None = None,
    more: Sequence[Listed] = (),
) -> StoreContents:
    """A store with these backups: each one file of the dump and an empty manifest. `classes` by backup id."""
    found = list(summaries)
    listing = list(more)
    for one in found:
        kind = (classes or {}).get(one.id, rules.storage_class)
        folder = one.folder.removeprefix("shop/")
        listing.append(listed(f"{folder}/dump/1.dat", one.stored_bytes or 0, one.taken_at, kind))
        listing.append(listed(f"{folder}/manifest.json", 0, one.taken_at, kind))
    return StoreContents(name, f"the {name} store", sorted(listing, key=lambda o: o.key), found, rules)


def report(
    *stores: StoreContents, costs: Costs = DEFAULTS, retention: Retention | None = None, now: datetime = NOW
) -> CostReport:
    """The report of these stores, in UTC."""
    return build_report("shop", stores, costs=costs, retention=retention, zone=UTC, now=now)


def stored(made: CostReport) -> list[float]:
    """The forecast in GB."""
    return [month.stored_bytes / GB for month in made.forecast]
