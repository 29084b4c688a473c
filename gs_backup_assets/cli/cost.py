"""`gs-backup cost`: what the backups of a database take up and cost, now and in the coming twelve months."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, human_bytes, settings_of
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.costs import BudgetLine, Cost, CostReport

_BAR = 30
_SIGNS = {True: "[green]✔[/]", False: "[red]✘[/]", None: " "}


def cost(config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False) -> None:
    """Show what rests in the stores, what it costs, where that leads in a year, and what the rules save."""
    from gs_backup_assets.recovery.costing import cost_report
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    report = cost_report(settings, open_vault(settings), datetime.now(timezone.utc))
    emit(report.model_dump(mode="json"), json, lambda console: _show(console, report))


def _show(console: Console, report: CostReport) -> None:
    console.print(f"\n[bold]{report.database}[/] in {report.month}: costs in {report.currency} a month")
    _show_now(console, report)
    _show_growth(console, report)
    _show_forecast(console, report)
    _show_savings(console, report)
    _show_budget(console, report)
    console.print(f"\nNot in these figures: {'; '.join(report.not_included)}.", style="dim")


def _show_now(console: Console, report: CostReport) -> None:
    from rich.table import Table

    for store in report.stores:
        base_backups = f" {counted(store.base_backups, 'base backup')}," if store.base_backups else ""
        console.print(
            f"\n[bold]{store.store}[/] {store.address}: {counted(store.backups, 'backup')},{base_backups}"
            f" {counted(store.objects, 'object')}, {human_bytes(store.stored_bytes)}"
        )
        if not store.objects:
            continue
        table = Table("class", "age", box=None, pad_edge=False)
        for heading in ("objects", "stored", "cost"):
            table.add_column(heading, justify="right")
        for one in store.classes:
            for age in (age for age in store.ages if age.storage_class == one.storage_class):
                table.add_row(one.storage_class, age.age.value, str(age.objects), human_bytes(age.stored_bytes))
            table.add_row(one.storage_class, "all", str(one.objects), human_bytes(one.stored_bytes), _total(one.cost))
        console.print(table)
        kinds = (f"{kind.kind.value} {human_bytes(kind.stored_bytes)} in {kind.objects}" for kind in store.kinds)
        console.print(f"Of these: {', '.join(kinds)}")


def _show_growth(console: Console, report: CostReport) -> None:
    if report.backup_bytes is None or report.backups_per_day is None:
        console.print("\nThere is no backup yet: growth and forecast are unknown.")
        return
    growth = report.growth
    if growth is None:
        words = "its growth is not known before there are backups of five days in a week; the forecast has none"
    else:
        direction = "more" if growth.bytes_per_day >= 0 else "less"
        words = (
            f"each day {human_bytes(abs(growth.bytes_per_day))} {direction}"
            f" (seen on {growth.days} days in {growth.span_days:g})"
        )
    console.print(f"\nA backup is {human_bytes(report.backup_bytes)}, {words}; {report.backups_per_day:g} a day.")


def _show_forecast(console: Console, report: CostReport) -> None:
    from rich.table import Table

    if not report.forecast:
        return
    table = Table("end of", box=None, pad_edge=False)
    table.add_column("stored", justify="right")
    table.add_column("cost", justify="right")
    table.add_column("")
    most = max(month.stored_bytes for month in report.forecast) or 1
    for month in report.forecast:
        bar = "█" * max(1, round(_BAR * month.stored_bytes / most))
        table.add_row(month.month, human_bytes(month.stored_bytes), _total(month.cost), bar)
    console.print()
    console.print(table)


def _show_savings(console: Console, report: CostReport) -> None:
    console.print()
    for saving in report.savings:
        if not saving.configured:
            console.print(f"{saving.rule.capitalize()}: none configured.")
            continue
        freed = f"; {human_bytes(saving.stored_bytes)} less rest then" if saving.rule == "retention" else ""
        console.print(
            f"{saving.rule.capitalize()}: {_money(saving.all_months)} saved in these months,"
            f" {_money(saving.last_month)} of it in the last{freed}."
        )


def _show_budget(console: Console, report: CostReport) -> None:
    from rich.table import Table

    table = Table("budget of", box=None, pad_edge=False)
    for heading in ("a month", "now", "in 12 months"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for line in report.budget:
        table.add_row(
            line.name,
            "-" if line.budget is None else _money(line.budget),
            _total(line.cost_now),
            "?" if line.cost_after_12_months is None else _total(line.cost_after_12_months),
            _outcome(line),
        )
    console.print()
    console.print(table)
    if report.cost.unpriced:
        console.print(
            f"[yellow]![/] {', '.join(report.cost.unpriced)}: no price, so its cost is unknown and in no sum."
            " Add it to costs.prices."
        )


def _outcome(line: BudgetLine) -> str:
    words = f"over it from {line.over_from} on" if line.over_from and line.within is not False else ""
    return f"{_SIGNS[line.within]} {words}".rstrip()


def _total(cost: Cost) -> str:
    """What is known of it, with a question mark for the rest."""
    if not cost.unpriced:
        return _money(cost.known)
    return f"{_money(cost.known)} + ?" if cost.known else "?"


def _money(amount: float | None) -> str:
    """`12.35`; `<0.01` for what is not nothing, and `?` for what is unknown."""
    if amount is None:
        return "?"
    return "<0.01" if 0 < amount < 0.005 else f"{amount:.2f}"
