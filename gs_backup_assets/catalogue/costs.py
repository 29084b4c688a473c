"""What storage costs: the models of the cost report, prices applied to bytes, savings and the budget. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.growth import Growth
from gs_backup_assets.catalogue.usage import AgeUsage, KindUsage
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.config_watching import Costs

GB = 10**9
TOTAL = "total"
WITHIN_BUDGET = "within_budget"
NOT_INCLUDED = (
    "requests, retrieval and transfer",
    "what cold classes charge for small objects, for those that leave early, and for the records of each object",
    "what a versioned bucket keeps of deleted objects",
    "uploads that broke off and are not swept yet",
    "base backups and write-ahead log to come: in the forecast those of today stay as they are",
    "keys in a key service, replicas of the database, and everything else that is not one of the stores",
)
StoreName = Literal["primary", "offsite"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Record):
    """Money a month: `known` for all that has a price. What rests in the `unpriced` classes costs something as well."""

    known: float
    unpriced: tuple[str, ...] = ()

    @property
    def total(self) -> float | None:
        """The cost of everything; None when a part of it is unknown."""
        return None if self.unpriced else self.known

    def within(self, budget: float) -> bool | None:
        """Whether it is not over a budget; None when the unknown part decides."""
        if self.known > budget:
            return False
        return None if self.unpriced else True


class ClassUsage(_Record):
    """One storage class of a store. `price` is for 1 GB (10^9 bytes) and a month; None: there is none."""

    storage_class: str
    objects: int
    stored_bytes: int
    price: float | None
    cost: Cost


class StoreUsage(_Record):
    """What rests in one store now, of one database. `backups` are dumps."""

    store: StoreName
    address: str
    backups: int
    base_backups: int = 0
    objects: int
    stored_bytes: int
    classes: tuple[ClassUsage, ...]
    ages: tuple[AgeUsage, ...]
    kinds: tuple[KindUsage, ...]


class ClassForecast(_Record):
    """Bytes of one storage class in one store."""

    store: StoreName
    storage_class: str
    stored_bytes: int


class MonthForecast(_Record):
    """The end of a month such as `2026-12`: what rests then, and what that costs in a month."""

    month: str
    stored_bytes: int
    cost: Cost
    classes: tuple[ClassForecast, ...]

    def class_bytes(self, storage_class: str) -> int:
        """Bytes of a class in all stores."""
        return sum(one.stored_bytes for one in self.classes if one.storage_class == storage_class)


class Saving(_Record):
    """What a rule of the configuration saves from now on: the forecast with it, beside the same one without it.

    `stored_bytes` are the bytes that rest less at the end, `last_month` the money that the last month costs less, and
    `all_months` that of all months together. None: a price is missing.
    """

    rule: Literal["retention", "transitions"]
    configured: bool
    stored_bytes: int
    last_month: float | None
    all_months: float | None


class BudgetLine(_Record):
    """The monthly budget of a storage class, or of everything (`total`), next to what it costs now and after a year.

    `within` is about now; None when there is no budget, or when an unknown cost decides. `over_from` is the first month
    of the forecast that is over the budget.
    """

    name: str
    budget: float | None
    cost_now: Cost
    cost_after_12_months: Cost | None
    within: bool | None
    over_from: str | None


class CostReport(_Record):
    """The report on one database. Money is in `currency`; `month` is the one in which the report was made.

    `backup_bytes` is the expected size of the next backup's files. It and `backups_per_day` are None, and `forecast` is
    empty, when there is no backup to begin with; `growth` is None while it is not known.
    """

    database: str
    month: str
    generated_at: datetime
    currency: str
    stores: tuple[StoreUsage, ...]
    cost: Cost
    backup_bytes: int | None
    backups_per_day: float | None
    growth: Growth | None
    forecast: tuple[MonthForecast, ...]
    savings: tuple[Saving, ...]
    budget: tuple[BudgetLine, ...]
    not_included: tuple[str, ...] = NOT_INCLUDED

    @property
    def total(self) -> BudgetLine:
        """The line of the budget that is about everything."""
        return next(line for line in self.budget if line.name == TOTAL)


def cost_of(sizes: Mapping[str, int], prices: Mapping[str, float]) -> Cost:
    """What bytes by storage class cost in a month."""
    return Cost(
        known=sum(size / GB * prices[name] for name, size in sizes.items() if name in prices),
        unpriced=tuple(sorted(name for name, size in sizes.items() if size and name not in prices)),
    )


def class_usage(ages: Sequence[AgeUsage], prices: Mapping[str, float]) -> tuple[ClassUsage, ...]:
    """The classes of one store with what they cost."""
    usage = []
    for name in sorted({one.storage_class for one in ages}):
        groups = [one for one in ages if one.storage_class == name]
        size = sum(one.stored_bytes for one in groups)
        usage.append(
            ClassUsage(
                storage_class=name,
                objects=sum(one.objects for one in groups),
                stored_bytes=size,
                price=prices.get(name),
                cost=cost_of({name: size}, prices),
            )
        )
    return tuple(usage)


def saving(
    rule: Literal["retention", "transitions"],
    actual: Sequence[Mapping[str, int]],
    without: Sequence[Mapping[str, int]] | None,
    prices: Mapping[str, float],
) -> Saving:
    """What a rule saves, from bytes by class of each month with and without it; `without` is None: not configured."""
    if not actual or without is None:
        return Saving(rule=rule, configured=without is not None, stored_bytes=0, last_month=0.0, all_months=0.0)
    pairs = [
        (cost_of(more, prices).total, cost_of(less, prices).total) for more, less in zip(without, actual, strict=True)
    ]
    money = [more - less for more, less in pairs if more is not None and less is not None]
    return Saving(
        rule=rule,
        configured=True,
        stored_bytes=sum(without[-1].values()) - sum(actual[-1].values()),
        last_month=money[-1] if None not in pairs[-1] else None,
        all_months=sum(money) if len(money) == len(pairs) else None,
    )


def budget_lines(costs: Costs, now: Mapping[str, int], forecast: Sequence[MonthForecast]) -> tuple[BudgetLine, ...]:
    """Every class that has a budget or bytes, and the total, whose budget is the sum of all budgets."""
    used = {name for name, size in now.items() if size} | {c.storage_class for m in forecast for c in m.classes}
    lines = [_line(name, costs, now, forecast) for name in [*costs.budget, *sorted(used - costs.budget.keys())]]
    return (*lines, _line(TOTAL, costs, now, forecast))


def judge_budget(report: CostReport) -> CheckResult:
    """Whether what rests now costs no more than the budget, class by class and together."""
    over = [line for line in report.budget if line.within is False]
    open_lines = [line for line in report.budget if line.budget is not None and line.within is None]
    findings = [
        Finding(
            code="OVER_BUDGET",
            message=f"{line.name}: {line.cost_now.known:.2f} of {line.budget:.2f} {report.currency} a month.",
            hint="Keep fewer backups, move old ones to a colder class, or raise costs.budget; docs/costs.md.",
        )
        for line in over
    ]
    findings += [
        Finding(
            code="PRICE_MISSING",
            message=f"{line.name}: no price is known for {', '.join(line.cost_now.unpriced)}.",
            hint="Add it to costs.prices.",
        )
        for line in open_lines
    ]
    total = report.total
    budget = total.budget or 0.0
    later = f", over it from {total.over_from} on by the forecast" if total.over_from and total.within else ""
    return CheckResult(
        name=WITHIN_BUDGET,
        status=Status.FAILED if over else Status.NOT_VERIFIED if open_lines else Status.PASSED,
        summary=f"{report.cost.known:.2f} of {budget:.2f} {report.currency} a month{later}",
        findings=tuple(findings),
        metrics={"monthly_cost": report.cost.known, "monthly_budget": budget},
    )


def _line(name: str, costs: Costs, now: Mapping[str, int], forecast: Sequence[MonthForecast]) -> BudgetLine:
    if name == TOTAL:
        budget = sum(costs.budget.values()) if costs.budget else None
        current = cost_of(now, costs.prices)
        coming = [month.cost for month in forecast]
    else:
        budget = costs.budget.get(name)
        current = cost_of({name: now.get(name, 0)}, costs.prices)
        coming = [cost_of({name: month.class_bytes(name)}, costs.prices) for month in forecast]
    over = (m.month for m, cost in zip(forecast, coming, strict=True) if budget is not None and cost.known > budget)
    return BudgetLine(
        name=name,
        budget=budget,
        cost_now=current,
        cost_after_12_months=coming[-1] if coming else None,
        within=None if budget is None else current.within(budget),
        over_from=next(over, None),
    )
