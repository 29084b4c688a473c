"""`gs-backup coverage`: the points in time that can be recovered to, where they end, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    finish,
    human_age,
    settings_of,
)
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from gs_backup_assets.catalogue.coverage import Base, Window
    from gs_backup_assets.recovery.point_in_time.coverage_survey import Surveyed


def coverage(
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Show the windows that `recover` can reach, by cluster and timeline. Needs the store and nothing else."""
    from datetime import datetime, timezone

    from gs_backup_assets.recovery.point_in_time.coverage_survey import survey
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    which = chosen_copy(copy) or vault.best
    clusters = [_cluster(surveyed) for surveyed in survey(settings, vault.store(which))]
    now = datetime.now(timezone.utc)
    problem = _problem(clusters)
    loss = _loss(clusters, now)
    document: dict[str, Any] = {
        "database": settings.name,
        "store": which,
        "clusters": clusters,
        "loss_if_recovered_now_seconds": loss,
        "problem": problem,
    }
    emit(document, json, lambda console: _show(console, document))
    finish(ExitStatus.GOOD if problem is None else ExitStatus.FAILED)


def _cluster(surveyed: Surveyed) -> dict[str, Any]:
    from gs_backup_assets.catalogue.coverage import gaps
    from gs_backup_assets.recovery.point_in_time.coverage_survey import windows_with_times

    cluster = surveyed.cluster
    return {
        "system_identifier": cluster.system_identifier,
        "windows": [_window(window) for window in windows_with_times(surveyed)],
        "gaps": [
            {"timeline": gap.timeline, "start": str(gap.start), "end": str(gap.end), "missing": gap.missing}
            for gap in gaps(cluster)
        ],
        "unusable": [{"id": base.id, "why": base.unusable} for base in cluster.bases if base.unusable is not None],
    }


def _window(window: Window) -> dict[str, Any]:
    return {
        "timeline": window.timeline,
        "start": {"at": window.starts_at, "lsn": str(window.start)},
        "end": {"at": window.ends_at, "lsn": str(window.end)},
        "bases": [_base(base) for base in window.bases],
        "ends_because": _ends_because(window),
        "gap_behind": window.gap is not None or window.damage is not None,
        "left_at": None if window.left_at is None else str(window.left_at),
    }


def _base(base: Base) -> dict[str, Any]:
    return {"id": base.id, "verdict": base.verdict.value, "lsn": str(base.stop), "at": base.consistent_at}


def _ends_because(window: Window) -> str:
    if window.damage is not None:
        return f"{window.damage.code}: {window.damage.message}"
    if window.gap is not None:
        return f"{window.gap.missing} is missing or not whole; log goes on at {window.gap.end}"
    if window.left_at is not None:
        return f"an abandoned tail: a newer timeline branched off at {window.left_at}"
    if window.at_switch:
        return f"the switch to timeline {window.timeline}, of whose log nothing is there yet"
    return "the newest log, in an unfinished segment" if window.partial else "the newest log"


def _newest(clusters: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The window of the newest base backup on the newest timeline of the cluster in use."""
    windows = [window for cluster in clusters[:1] for window in cluster["windows"]]
    return max(windows, key=lambda window: (window["timeline"], window["bases"][-1]["at"]), default=None)


def _problem(clusters: list[dict[str, Any]]) -> str | None:
    newest = _newest(clusters)
    if newest is None:
        return "nothing can be recovered to a point in time: there is no base backup that can be used"
    if newest["gap_behind"]:
        return f"log is missing behind the newest base backup: {newest['ends_because']}; take a new one"
    return None


def _loss(clusters: list[dict[str, Any]], now: datetime) -> float | None:
    newest = _newest(clusters)
    return None if newest is None else max(0.0, (now - newest["end"]["at"]).total_seconds())


def _show(console: Console, document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gs_backup_assets.catalogue.recovery_target import moment_text

    for cluster in document["clusters"]:
        where = f"cluster {cluster['system_identifier']}, as the {document['store']} store has it"
        console.print(f"[bold]{escape(document['database'])}[/], {where}")
        table = Table("timeline", "from", "to", "base backups", "ends", box=None, pad_edge=False)
        for window in cluster["windows"]:
            newest = window["bases"][-1]
            table.add_row(
                str(window["timeline"]),
                f"{moment_text(window['start']['at'])}\n{window['start']['lsn']}",
                f"{moment_text(window['end']['at'])}\n{window['end']['lsn']}",
                f"{len(window['bases'])}, newest {newest['id']} {newest['verdict']}",
                escape(window["ends_because"]),
            )
        console.print(table)
        for gap in cluster["gaps"]:
            console.print(
                f"[yellow]![/] Log is missing from {gap['start']} to {gap['end']} on timeline {gap['timeline']}"
                f" ({gap['missing']})."
            )
        for base in cluster["unusable"]:
            console.print(f"[yellow]![/] {base['id']} is not used: {escape(base['why'])}.")
    loss = document["loss_if_recovered_now_seconds"]
    if loss is not None:
        console.print(f"Recovered now, at most what was committed in the last {human_age(loss)} would be lost.")
    if document["problem"] is not None:
        console.print(f"[red]✘[/] {escape(document['problem'])}")
