"""The catalogue: which backups a store holds, found by reading the store and nothing else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue import proof as proofs
from gs_backup_assets.catalogue.manifest import UNKNOWN_VERSION, Manifest, backup_folder
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.vault.store import Store

_ID = re.compile(r"\d{8}T\d{6}Z")
UNFINISHED_AFTER = timedelta(hours=24)


@dataclass(frozen=True)
class Entry:
    """A finished backup in the store. `damage` says why its manifest cannot be read; then `manifest` is None."""

    database: str
    partition: str
    id: str
    manifest: Manifest | None
    manifest_sha256: str
    damage: StoreError | None
    proof: ProofRecord | None

    @property
    def folder(self) -> str:
        return backup_folder(self.database, self.partition, self.id)

    @property
    def taken_at(self) -> datetime:
        """When the backup was started, read from its id; aware, in UTC."""
        return parse_id(self.id)

    @property
    def verdict(self) -> Verdict:
        """The newest proof's verdict; NOT_VERIFIED without one; FAILED for a damaged manifest, not for a newer one."""
        if self.damage is not None:
            return Verdict.NOT_VERIFIED if self.damage.code == UNKNOWN_VERSION else Verdict.FAILED
        return Verdict.NOT_VERIFIED if self.proof is None else self.proof.verdict

    def require_manifest(self) -> Manifest:
        """The manifest; StoreError (`MANIFEST_DAMAGED` and its like) when it cannot be read."""
        if self.manifest is None:
            raise self.require_damage()
        return self.manifest

    def require_damage(self) -> StoreError:
        """Why the manifest cannot be read."""
        assert self.damage is not None
        return self.damage


def parse_id(backup_id: str) -> datetime:
    """The moment that a backup id names."""
    return datetime.strptime(backup_id, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)


def _is_id(name: str) -> bool:
    """Whether a folder's name is a backup id, and names a moment that there is."""
    try:
        return bool(_ID.fullmatch(name) and parse_id(name))
    except ValueError:
        return False


class Catalogue:
    """Reads one database's backups from a store. Nothing is kept between calls: the store is the truth."""

    def __init__(self, store: Store, database: str) -> None:
        self.store = store
        self.database = database

    def entries(self) -> list[Entry]:
        """Every finished backup, newest first. Attempts without a manifest are not backups."""
        return [self._load(partition, backup_id) for partition, backup_id in self._finished()]

    def latest(self, partition: str | None = None) -> Entry | None:
        """The newest finished backup (of one partition), or None; reads no other manifest."""
        newest = next(self._finished(partition), None)
        return None if newest is None else self._load(*newest)

    def find(self, wanted: str) -> Entry:
        """A backup by id, by partition (its newest), or `latest`. ConfigError (`BACKUP_NOT_FOUND`)."""
        for partition, backup_id in self._finished():
            if wanted in ("latest", backup_id, partition):
                return self._load(partition, backup_id)
        raise ConfigError(
            "BACKUP_NOT_FOUND",
            f"{self.store.describe()} has no backup {wanted!r} of {self.database}.",
            "`gs-backup list` shows the backups that are there.",
        )

    def last_proven(self) -> Entry | None:
        """The newest backup whose newest proof says PROVEN."""
        return next((e for e in (self._load(*f) for f in self._finished()) if e.verdict is Verdict.PROVEN), None)

    def add_proof(self, record: ProofRecord, report_html: bytes) -> str:
        """Store a proof and its report beside the manifest; returns the report's key. The record is written last."""
        folder = backup_folder(record.database, record.partition, record.backup_id)
        stem = f"{folder}/proofs/{record.finished_at:%Y%m%dT%H%M%S%fZ}"
        self.store.put_bytes(report_html, f"{stem}.html")
        self.store.put_bytes(proofs.encode(record), f"{stem}.json")
        return f"{stem}.html"

    def sweep(self, now: datetime) -> list[str]:
        """Remove attempts that never got a manifest and were started more than 24 hours ago; returns their folders."""
        swept = []
        for partition in self.store.folders(f"{self.database}/logical"):
            for name in self.store.folders(f"{self.database}/logical/{partition}"):
                folder = backup_folder(self.database, partition, name)
                old = _is_id(name) and now - parse_id(name) > UNFINISHED_AFTER
                if old and not self.store.exists(f"{folder}/{manifests.NAME}"):
                    self.store.delete_tree(folder)
                    swept.append(folder)
        return swept

    def _finished(self, partition: str | None = None) -> Iterator[tuple[str, str]]:
        partitions = [partition] if partition else self.store.folders(f"{self.database}/logical")
        found = (
            (name, day)
            for day in partitions
            for name in self.store.folders(f"{self.database}/logical/{day}")
            if _is_id(name)
        )
        for name, day in sorted(found, reverse=True):
            if self.store.exists(f"{backup_folder(self.database, day, name)}/{manifests.NAME}"):
                yield day, name

    def _load(self, partition: str, backup_id: str) -> Entry:
        folder = backup_folder(self.database, partition, backup_id)
        with self.store.open(f"{folder}/{manifests.NAME}") as stream:
            data = stream.read()
        digest = hashlib.sha256(data).hexdigest()
        try:
            manifest, damage = manifests.decode(data, folder=folder), None
        except StoreError as error:
            manifest, damage = None, error
        return Entry(self.database, partition, backup_id, manifest, digest, damage, self._newest_proof(folder, digest))

    def _newest_proof(self, folder: str, manifest_sha256: str) -> ProofRecord | None:
        for key in sorted((k for k in self.store.keys(f"{folder}/proofs") if k.endswith(".json")), reverse=True):
            with self.store.open(key) as stream:
                try:
                    record = proofs.decode(stream.read(), key=key)
                except StoreError:
                    continue  # a damaged proof proves nothing; an older one may still stand
            if record.manifest_sha256 == manifest_sha256:
                return record
        return None
