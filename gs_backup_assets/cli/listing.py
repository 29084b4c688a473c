"""`gs-backup list` and `gs-backup show`: the catalogue, and one backup with its proof."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from gs_backup_assets.cli.common import (
    BackupArgument,
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    human_age,
    human_bytes,
    settings_of,
)
from gs_backup_assets.cli.hold import hold_document, hold_words
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gs_backup_assets.catalogue.catalogue import Entry, PhysicalEntry
    from gs_backup_assets.catalogue.manifest import BackupManifest
    from gs_backup_assets.catalogue.proof import ProofRecord
    from gs_backup_assets.catalogue.summary import Summary
    from gs_backup_assets.catalogue.verdict import Verdict
    from gs_backup_assets.vault.opening import Vault

_STYLES = {"PROVEN": "bold green", "FAILED": "bold red", "NOT_VERIFIED": "bold yellow"}
_SIGNS = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}


def list_backups(
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """List the backups in the primary store, newest first, with the verdict of each, and whether it has a copy."""
    from gs_backup_assets.catalogue.catalogue import all_summaries
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    which = chosen_copy(copy) or "primary"
    every = all_summaries(vault.store(which), settings.name)
    summaries = [summary for summary in every if summary.kind == "logical"]
    base_backups = [summary for summary in every if summary.kind == "physical"]
    copies = _copies(vault, settings.name) if which == "primary" else None
    holds = {s.folder: document for s in every if s.held and (document := hold_document(vault.store(which), s))}

    def show_table(console: Console) -> None:
        if not every:
            where = vault.store(which).describe()
            hint = "`gs-backup run` takes one."
            if copies:
                hint = f"{counted(len(copies), 'copy', 'copies')} off-site: `gs-backup list --from offsite`."
            console.print(f"{where} holds no backup of {settings.name}. {hint}", markup=False)
            return
        if summaries:
            console.print(_table(summaries, copies, "backup", "day", "database"))
        if base_backups:
            console.print(("\n" if summaries else "") + "[bold]Base backups[/]")
            console.print(_table(base_backups, copies, "backup", "week", "cluster"))
        for summary in every:
            if summary.folder in holds:
                console.print(f"{summary.id}: {hold_words(holds[summary.folder])}", markup=False)

    def documents(some: list[Summary]) -> list[dict[str, Any]]:
        return [{**_summary_document(summary, copies), "hold": holds.get(summary.folder)} for summary in some]

    document = {
        "database": settings.name,
        "store": vault.store(which).describe(),
        "backups": documents(summaries),
        "base_backups": documents(base_backups),
    }
    emit(document, json, show_table)


def _table(summaries: list[Summary], copies: set[str] | None, name: str, partition: str, source: str) -> Table:
    from rich.table import Table

    physical = summaries[0].kind == "physical"
    headings = [name, partition, "age", *(["kind"] if physical else []), "stored", source, "verdict"]
    table = Table(*headings, *(["off-site"] if copies is not None else []), box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    now = datetime.now(timezone.utc)
    for summary in summaries:
        stored, size = (
            "?" if size is None else human_bytes(size) for size in (summary.stored_bytes, summary.source_bytes)
        )
        ahead = summary.taken_at > now
        age = "[yellow]dated ahead[/]" if ahead else human_age((now - summary.taken_at).total_seconds())
        kind = ["?" if summary.damage else "incremental" if summary.base else "full"] if physical else []
        has_copy = [] if copies is None else ["yes" if summary.folder in copies else "[yellow]no[/]"]
        verdict = verdict_text(summary.verdict, len(summary.broken_rules))
        table.add_row(summary.id, summary.partition, age, *kind, stored, size, verdict, *has_copy)
    return table


def show(  # noqa: PLR0917 - Typer makes its options of them
    backup: BackupArgument,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Show one backup: what it is, what was proved about it, and what was not."""
    from gs_backup_assets.catalogue.catalogue import find_any
    from gs_backup_assets.vault.opening import open_store

    settings = settings_of(config, database, store)
    chosen = open_store(settings, chosen_copy(copy) or "primary")
    entry = find_any(chosen, settings.name, backup)
    hold = hold_document(chosen, entry) if entry.held else None

    def tell(console: Console) -> None:
        show_entry(console, entry)
        if hold is not None:
            console.print(f"\n{hold_words(hold)}", markup=False)

    emit({**entry_document(entry, detailed=True), "hold": hold}, json, tell)


def _copies(vault: Vault, database: str) -> set[str] | None:
    """Folders of the backups off-site; None where there is no such store, or it cannot be asked, which is told."""
    from gs_backup_assets.catalogue.catalogue import all_summaries
    from gs_backup_assets.errors import StoreError

    if vault.offsite is None:
        return None
    try:
        return {summary.folder for summary in all_summaries(vault.offsite, database)}
    except StoreError as error:
        sys.stderr.write(f"What is off-site is not known. {error}\n")
        return None


def _summary_document(summary: Summary, copies: set[str] | None) -> dict[str, Any]:
    return {
        "id": summary.id,
        "kind": summary.kind,
        "database": summary.database,
        "partition": summary.partition,
        "taken_at": summary.taken_at.isoformat(),
        "verdict": summary.verdict.value,
        "proved_at": summary.proved_at.isoformat() if summary.proved_at else None,
        "stored_bytes": summary.stored_bytes,
        "source_bytes": summary.source_bytes,
        "damage": summary.damage,
        "broken_rules": list(summary.broken_rules),
        "held": summary.held,
        "encryption_key": summary.key_id,
        "offsite": None if copies is None else summary.folder in copies,
        **({"base": summary.base} if summary.kind == "physical" else {}),
    }


def entry_document(entry: Entry | PhysicalEntry, *, detailed: bool = False) -> dict[str, Any]:
    """A backup as JSON; `detailed` adds the manifest (without the list of schema objects) and the newest proof."""
    manifest, proof = entry.manifest, entry.proof
    document: dict[str, Any] = {
        "id": entry.id,
        "kind": entry.kind,
        "database": entry.database,
        "partition": entry.partition,
        "taken_at": entry.taken_at.isoformat(),
        "verdict": entry.verdict.value,
        "proved_at": proof.finished_at.isoformat() if proof else None,
        "stored_bytes": manifest.stored_bytes if manifest else None,
        "source_bytes": manifest.source_bytes if manifest else None,
        "damage": entry.damage.code if entry.damage else None,
        "broken_rules": [rule.id for rule in proof.broken_rules] if proof else [],
        "held": entry.held,
        "encryption_key": manifest.encryption.key_id if manifest and manifest.encryption else None,
    }
    if detailed:
        document["manifest"] = _manifest_document(manifest) if manifest else None
        document["proof"] = proof.model_dump(mode="json") if proof else None
    return document


def _manifest_document(manifest: BackupManifest) -> dict[str, Any]:
    from gs_backup_assets.catalogue.manifest import Manifest

    shown = manifest.shown if isinstance(manifest, Manifest) else manifest
    return shown.model_dump(mode="json", exclude={"schema_objects"})


def _facts(manifest: BackupManifest) -> str:
    """What a backup is, in one line: of a dump its rows, of a base backup its log and what it adds to."""
    from gs_backup_assets.catalogue.manifest import Manifest
    from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest

    sizes = f"{human_bytes(manifest.source_bytes)} -> {human_bytes(manifest.stored_bytes)} stored"
    words = f"PostgreSQL {manifest.server.release}, {sizes}"
    if isinstance(manifest, Manifest):
        return f"{words}, {manifest.fingerprint.rows} rows in {len(manifest.fingerprint.tables)} tables"
    if isinstance(manifest, PhysicalManifest):
        words += f", adds to {manifest.base}" if manifest.base else ", full"
        return f"{words}, log from {manifest.start_lsn} on timeline {manifest.timeline}"
    return words


def show_entry(console: Console, entry: Entry | PhysicalEntry) -> None:
    """Draw a backup for people: facts, stages, checks, broken rules, verdict."""
    from gs_backup_assets.catalogue.manifest import Manifest

    manifest = entry.manifest
    if manifest is None:
        console.print(f"[bold red]FAILED[/]  {entry.id}: {entry.require_damage()}")
        return
    partition = "day" if entry.kind == "logical" else "base backup, week"
    console.print(f"\n[bold]{entry.database}[/] {entry.id} ({partition} {entry.partition}): {_facts(manifest)}")
    if manifest.encryption is not None:
        console.print(f"encrypted with AES-256-GCM; the key when it was taken: {manifest.encryption.key_id}")
    for warning in manifest.warnings:
        console.print(f"[yellow]![/] {warning}")
    for omission in manifest.omissions if isinstance(manifest, Manifest) else ():
        console.print(f"[yellow]![/] left out: {omission.name}: {omission.reason}", markup=False)
    if entry.proof is None:
        console.print(f"\n{verdict_text(entry.verdict)}: it was never restored. `gs-backup verify {entry.id}` does.")
        return
    sound = "equal to the source's snapshot" if entry.kind == "logical" else "sound in every check that decides"
    _show_proof(console, entry.proof, manifest.stages, sound)


def _show_proof(console: Console, proof: ProofRecord, backup_stages: tuple[tuple[str, float], ...], sound: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gs_backup_assets.catalogue.verdict import Status, Verdict

    stages = Table("stage", "seconds", "", box=None, pad_edge=False)
    rows = [
        *((f"backup: {name}", s) for name, s in backup_stages),
        *((f"proof: {name}", s) for name, s in proof.stages),
    ]
    longest = max((value for _, value in rows), default=1.0) or 1.0
    for name, value in rows:
        stages.add_row(name, f"{value:8.2f}", "━" * max(1, round(30 * value / longest)))
    checks = Table("", "check", "result", box=None, pad_edge=False)
    for check in proof.checks:
        checks.add_row(_SIGNS[check.status.value], check.name, escape(check.summary))
    passed = sum(rule.status.value == "passed" for rule in proof.rules)
    if proof.rules:
        open_rules = sum(rule.status.value == "not_verified" for rule in proof.rules)
        sign = "failed" if proof.broken_rules else "not_verified" if open_rules else "passed"
        checks.add_row(
            _SIGNS[sign], "data rules", f"{passed} of {len(proof.rules)} hold, {open_rules} could not be verified"
        )
    console.print()
    console.print(stages)
    console.print()
    console.print(checks)
    # One cause can leave many checks open: it is told once.
    findings = [finding for check in proof.checks for finding in check.findings[:10]]
    for finding in dict.fromkeys(findings):
        console.print(f"  [bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")
    console.print()
    for rule in proof.broken_rules:
        shown = ", ".join(rule.sample_keys[:3]) + (", ..." if len(rule.sample_keys) > 3 else "")
        keys = f" ({shown})" if shown else ""
        number = counted(rule.unexpected or 0, "row")
        console.print(
            f"[red]✘[/] rule [bold]{rule.id}[/]: {escape(rule.title)}: {number}{escape(keys)}:"
            f" [bold]{proof.blame.value}[/]"
        )
    style = _STYLES[proof.verdict.value]
    meaning = {
        "PROVEN": f"restored from the {proof.store} store alone, and {sound}",
        "FAILED": "this backup must not be relied on",
        "NOT_VERIFIED": "something could not be checked: this is not a pass",
    }[proof.verdict.value]
    console.print(f"[{style}]{proof.verdict.value.replace('_', ' ')}[/]: {meaning}")
    beside = [check.name for check in proof.checks if check.status is not Status.PASSED]
    if proof.verdict is Verdict.PROVEN and beside:
        console.print(f"[bold yellow]BUT[/] not passed, beside the verdict: {', '.join(beside)}")
    if proof.broken_rules:
        broken = counted(len(proof.broken_rules), "data rule")
        console.print(f"[bold red]BUT[/] broken in the data: {broken}: {proof.blame.value}")


def verdict_text(verdict: Verdict, broken: int = 0) -> str:
    """A verdict in its colour, with the number of broken data rules."""
    text = f"[{_STYLES[verdict.value]}]{verdict.value.replace('_', ' ')}[/]"
    return f"{text}, {broken} data rules broken" if broken else text
