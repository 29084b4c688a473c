"""`gs-backup copy`: bring backups to the off-site store, and compare what is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    emit,
    finish,
    human_bytes,
    terminal_progress,
)
from gs_backup_assets.errors import ConfigError, ExitStatus, ProofFailed
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.verdict import CheckResult

BackupsArgument = Annotated[
    list[str] | None, typer.Argument(help="Backup ids, days, or latest.", show_default="all that are missing off-site")
]
ReadBackOption = Annotated[
    bool, typer.Option("--read-back", help="Read every byte of the copies, instead of asking the store.")
]


def copy(
    backups: BackupsArgument = None,
    read_back: ReadBackOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Bring backups and the write-ahead log to the off-site store, and compare them there. Broken off, it goes on."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.catalogue.catalogue import all_summaries, catalogue_of, find_any
    from gs_backup_assets.config import load_config
    from gs_backup_assets.recovery.offsite.copying import copy_and_compare, copy_log
    from gs_backup_assets.recovery.offsite.offsite import Copied, mirror_beside, mirror_log, uncopied
    from gs_backup_assets.vault.opening import open_vault

    settings = load_config(config).database(database)
    vault = open_vault(settings)
    primary, offsite = vault.primary, vault.store("offsite")
    if not all_summaries(primary, settings.name):
        raise ConfigError(
            "NO_BACKUPS",
            f"{primary.describe()} holds no backup of {settings.name}: there is nothing to copy.",
            "If it is lost, the copies are still there: `gs-backup list --from offsite`.",
        )
    if backups:
        entries = [find_any(primary, settings.name, name) for name in backups]
    else:
        missing = reversed(uncopied(primary, offsite, settings.name))
        entries = [catalogue_of(primary, settings.name, summary.kind).find(summary.id) for summary in missing]
    progress = terminal_progress()
    results: list[dict[str, Any]] = []
    for entry in entries:
        try:
            copied, check = copy_and_compare(
                vault, entry, progress, by=Author.here("copy"), told=_warn, read_back=read_back
            )
        except ProofFailed as error:  # one that is damaged here must not keep the others from their copies
            copied, check = Copied(0, 0, 0), _refused(error)
        results.append(
            {
                "id": entry.id,
                "kind": entry.kind,
                "partition": entry.partition,
                "copied_files": copied.files,
                "copied_bytes": copied.copied_bytes,
                "present_files": copied.present,
                "status": check.status.value,
                "summary": check.summary,
                "findings": [finding.model_dump() for finding in check.findings],
            }
        )
    wal = copy_log(vault, settings.name, progress, by=Author.here("copy"), told=_warn, read_back=read_back)
    beside = mirror_beside(primary, offsite, settings.name)
    log = mirror_log(primary, offsite, settings.name, by=Author.here("copy"))
    document: dict[str, Any] = {
        "database": settings.name,
        "store": offsite.describe(),
        "backups": results,
        "wal": {
            "copied_objects": wal.brought,
            "copied_bytes": wal.copied_bytes,
            "segments": wal.segments,
            "status": wal.check.status.value,
            "summary": wal.check.summary,
            "findings": [finding.model_dump() for finding in wal.findings],
        },
        "proofs_copied": beside,
        "audit_log": {"status": log.status.value, "summary": log.summary},
    }
    emit(document, json, lambda console: _show(console, document))
    good = all(result["status"] == "passed" for result in (*results, document["wal"], document["audit_log"]))
    finish(ExitStatus.GOOD if good else ExitStatus.FAILED)


def _warn(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def _refused(error: ProofFailed) -> CheckResult:
    from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
    from gs_backup_assets.recovery.offsite.offsite_check import CHECK

    finding = Finding(code=error.code, message=error.message, hint=error.hint)
    return CheckResult(name=CHECK, status=Status.FAILED, summary=f"not copied: {error.code}", findings=(finding,))


def _show(console: Console, document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    wal = document["wal"]
    if wal["segments"] or wal["findings"]:
        sign = "[green]✔[/]" if wal["status"] == "passed" else "[red]✘[/]"
        console.print(f"{sign} write-ahead log: {escape(wal['summary'])}")
        _show_findings(console, wal["findings"])
    if document["audit_log"]["status"] != "passed":
        console.print(f"[red]✘[/] {escape(document['audit_log']['summary'])}")
    if not document["backups"]:
        console.print(f"Every backup of {document['database']} has its copy in {document['store']}.", markup=False)
        return
    table = Table("backup", "brought", "there before", "compared", box=None, pad_edge=False)
    for result in document["backups"]:
        sign = "[green]✔[/]" if result["status"] == "passed" else "[red]✘[/]"
        brought = f"{counted(result['copied_files'], 'file')}, {human_bytes(result['copied_bytes'])}"
        there = counted(result["present_files"], "file")
        table.add_row(result["id"], brought, there, f"{sign} {escape(result['summary'])}")
    console.print(table)
    for result in document["backups"]:
        _show_findings(console, result["findings"])


def _show_findings(console: Console, findings: list[dict[str, Any]]) -> None:
    from rich.markup import escape

    for finding in findings[:10]:
        console.print(f"  [bold]{finding['code']}[/] {escape(finding['message'])} {escape(finding['hint'])}")
