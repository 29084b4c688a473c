"""Retention in a store: plans what goes, looks again whether what it goes for is there, and deletes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from zoneinfo import ZoneInfo

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.audit import AuditLog, Author, failure_noted
from gs_backup_assets.catalogue.catalogue import AnyEntry, Catalogue, PhysicalCatalogue, catalogue_of
from gs_backup_assets.catalogue.holds import hold_key
from gs_backup_assets.catalogue.manifest import UNKNOWN_VERSION, BackupManifest, Kind
from gs_backup_assets.catalogue.retention import Candidate, Decision, deletion_order, plan, relied_on
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Retention
from gs_backup_assets.errors import ConfigError, ProofFailed, StoreError
from gs_backup_assets.progress import Progress
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.store import Store

_ASKED_AT_A_TIME = 8


@dataclass(frozen=True)
class PrunePlan:
    """What stays and what goes of a database's backups of one kind in one store, newest first."""

    database: str
    policy: Retention
    planned_at: datetime
    decisions: tuple[Decision, ...]
    kind: Kind = "logical"

    @property
    def going(self) -> tuple[Candidate, ...]:
        """What goes, in the order in which it is deleted."""
        return deletion_order(self.decisions)

    @property
    def kept(self) -> int:
        return sum(decision.keep for decision in self.decisions)

    @property
    def freed_bytes(self) -> int:
        return sum(decision.candidate.stored_bytes for decision in self.decisions if not decision.keep)


@dataclass(frozen=True)
class Pruned:
    """What was done: ids of deleted backups, and swept folders of unfinished ones.

    `left` are ids of those that were held, or deleted by somebody else, after the plan was made; and what they need.
    """

    deleted: tuple[str, ...]
    freed_bytes: int
    left: tuple[str, ...]
    swept: tuple[str, ...]


def make_plan(store: Store, settings: DatabaseSettings, now: datetime, kind: Kind = "logical") -> PrunePlan:
    """Decide about every backup of one kind in a store, by itself. Raises ConfigError (`NO_RETENTION`) and StoreError.

    A base backup counts for the day on which it was taken, and not for the week that its folder is named after.
    """
    policy = settings.retention
    if policy is None:
        raise ConfigError(
            "NO_RETENTION",
            f"backup.yaml has no `retention` for {settings.name}: nothing is ever deleted.",
            "Add a line such as retention: {daily: 30, weekly: 8, monthly: 12, keep_proven: 2}; docs/retention.md.",
        )
    found = catalogue_of(store, settings.name, kind).summaries()
    candidates = [_candidate(summary, settings.zone) for summary in found]
    decisions = plan(candidates, policy, now)
    # A lock only makes more stay: what is asked about now is all that can go.
    locks = _locks(store, deletion_order(decisions))
    if locks:
        locked = [replace(candidate, locked_until=locks.get(candidate)) for candidate in candidates]
        decisions = plan(locked, policy, now)
    return PrunePlan(settings.name, policy, now, decisions, kind)


def apply(store: Store, prune: PrunePlan, *, by: Author, progress: Progress, now: datetime) -> Pruned:
    """Delete what goes, each backup's manifest first, and sweep unfinished attempts.

    It may break off anywhere: what is left is whole backups and unfinished attempts, and the next time goes on. Raises
    ProofFailed (`RETENTION_UNSAFE`) before anything is deleted, and StoreError: when the audit log cannot be written,
    before anything is deleted, or when the store refuses.
    """
    catalogue = catalogue_of(store, prune.database, prune.kind)
    going = prune.going
    deleted: list[Candidate] = []
    left: list[str] = []
    with pruners_rights(store):
        if going:
            _require_replacements(catalogue, prune)
            log = AuditLog(store, prune.database)
            ids = {"backups": " ".join(candidate.id for candidate in going)}
            if prune.kind != "logical":
                ids["kind"] = prune.kind
            log.append(by, "prune", ids, "started", {"backups": len(going), "stored_bytes": prune.freed_bytes})
            with failure_noted(store, prune.database, by, "prune", ids=ids), progress.stage("prune") as stage:
                for candidate in _still_going(store, going, left):
                    deleted.append(candidate)
                    stage.advance(candidate.stored_bytes, prune.freed_bytes)
            log.append(by, "prune", ids, "done", _details(deleted, left))
        swept = catalogue.sweep(now)
        for folder in swept:
            AuditLog(store, prune.database).append(by, "sweep", {"folder": folder}, "removed")
    freed = sum(candidate.stored_bytes for candidate in deleted)
    return Pruned(tuple(candidate.id for candidate in deleted), freed, tuple(left), tuple(swept))


def _candidate(summary: Summary, zone: ZoneInfo) -> Candidate:
    newer = summary.damage == UNKNOWN_VERSION
    return Candidate(
        id=summary.id,
        partition=_day(summary, zone),
        verdict=summary.verdict,
        held=summary.held,
        stored_bytes=summary.stored_bytes or 0,
        base=summary.base,
        folder=summary.folder,
        stays="a newer release of this software wrote it" if newer else None,
    )


def _day(summary: Summary, zone: ZoneInfo) -> str:
    """The day for which a backup counts; the folder's name where that is no day or week."""
    if summary.kind == "logical":
        return summary.partition
    try:
        date.fromisoformat(summary.partition)
    except ValueError:
        return summary.partition
    return summary.taken_at.astimezone(zone).date().isoformat()


def _locks(store: Store, going: Sequence[Candidate]) -> dict[Candidate, datetime]:
    """Those that the store refuses to delete, and until when."""

    def ask(candidate: Candidate) -> datetime | None:
        try:
            return store.locked_until(f"{candidate.folder}/{manifests.NAME}")
        except StoreError as error:
            if error.code == "OBJECT_MISSING":  # somebody else deleted it this moment
                return None
            raise

    def locked(some: Sequence[Candidate]) -> list[tuple[Candidate, datetime]]:
        return [(candidate, until) for candidate in some if (until := ask(candidate)) is not None]

    shares = [going[start::_ASKED_AT_A_TIME] for start in range(_ASKED_AT_A_TIME)]
    with Threads(_ASKED_AT_A_TIME, "locks") as pool:
        return dict(pair for share in pool.map(locked, shares) for pair in share)


def _require_replacements(catalogue: Catalogue | PhysicalCatalogue, prune: PrunePlan) -> None:
    """Read the proven backups that others go for once more, from the store and not from what is remembered of it."""
    reasons = []
    for candidate in relied_on(prune.decisions, prune.policy, prune.planned_at):
        reason = _lost(catalogue, candidate)
        if reason is not None:
            reasons.append(f"{candidate.id} {reason}")
    if reasons:
        raise ProofFailed(
            "RETENTION_UNSAFE",
            f"Nothing was deleted in {catalogue.store.describe()}: of the proven backups that stay for others,"
            f" {'; '.join(reasons)}.",
            "Find out who changed it; `gs-backup verify` proves it again, and the next `gs-backup prune` plans anew.",
        )


def _lost(catalogue: Catalogue | PhysicalCatalogue, candidate: Candidate) -> str | None:
    """Why a backup is no longer one that others may go for."""
    entry: AnyEntry | None = catalogue.entry(candidate.folder.split("/")[2], candidate.id)
    if entry is None:
        return "is no longer there"
    if entry.manifest is None:
        return f"cannot be read ({entry.require_damage().code})"
    if entry.verdict is not Verdict.PROVEN:
        return f"is {entry.verdict.value}"
    return incomplete(catalogue.store, entry.manifest) or _chain_lost(catalogue, entry.manifest)


def _chain_lost(catalogue: Catalogue | PhysicalCatalogue, manifest: BackupManifest) -> str | None:
    """What is missing of the backups that an incremental one is based on. The plan has no circles of proven ones."""
    while manifest.needs is not None:
        try:
            base: AnyEntry = catalogue.find(manifest.needs)
        except ConfigError:
            return f"lacks its base {manifest.needs}"
        if base.manifest is None:
            return f"has a base {base.id} that cannot be read ({base.require_damage().code})"
        manifest = base.manifest
        if lack := incomplete(catalogue.store, manifest):
            return f"has a base {manifest.id} that {lack}"
    return None


def incomplete(store: Store, manifest: BackupManifest) -> str | None:
    """What a listing shows to be missing of a backup. Only a proof reads the bytes."""
    there = {listed.key.removeprefix(f"{manifest.folder}/"): listed.size for listed in store.objects(manifest.folder)}
    for file in manifest.files:
        if there.get(file.stored_path) != file.stored.size:
            return f"lacks {file.stored_path}" if file.stored_path not in there else f"has {file.stored_path} cut"
    if manifest.encryption is not None and not any(path.startswith(f"{manifests.KEYS}/") for path in there):
        return "lacks its key"
    return None


def _still_going(store: Store, going: Sequence[Candidate], left: list[str]) -> Iterator[Candidate]:
    """Delete one after the other, and tell of each. What was held meanwhile stays, with everything that it needs."""
    needed: set[str | None] = set()
    for candidate in going:
        if candidate.id not in needed and _delete(store, candidate.folder):
            yield candidate
        else:
            left.append(candidate.id)
            needed.add(candidate.base)


def _delete(store: Store, folder: str) -> bool:
    """Delete a backup, its manifest first; False when it is held, or somebody else is at it."""
    key = f"{folder}/{manifests.NAME}"
    if store.exists(hold_key(folder)):
        return False
    try:
        with store.open(key) as stream:
            data = stream.read()
    except StoreError as error:
        if error.code == "OBJECT_MISSING":
            return False
        raise
    store.delete(key)
    # Whoever places a hold looks for the manifest after it: one of the two sees the other.
    if store.exists(hold_key(folder)):
        store.put_bytes(data, key)
        return False
    store.delete_tree(folder)
    return True


def _details(deleted: Sequence[Candidate], left: Sequence[str]) -> dict[str, str | int | float]:
    freed = sum(candidate.stored_bytes for candidate in deleted)
    return {"deleted": len(deleted), "freed_bytes": freed, "left": len(left)}


@contextmanager
def pruners_rights(store: Store) -> Iterator[None]:
    """A store that refuses is told with what retention needs there: the role that takes backups may not delete."""
    try:
        yield
    except StoreError as error:
        if error.code != "STORE_ACCESS_DENIED":
            raise
        raise StoreError(
            error.code,
            f"Retention in {store.describe()} stopped. {error.message}",
            "Run it as a role with the pruner's policy: docs/retention.md shows it.",
        ) from error
