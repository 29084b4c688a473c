"""What tests of encrypted backups share: keys, a store with two of them, and what can be done to it."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import Envelope, Manifest, StoredFile
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.stored.keyring import rewrap
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes, fetch, write_sums
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.chain import Chain, settings_in
from gs_backup_assets_tests.processes import wait_until

KEY = new_raw_key()
OTHER = new_raw_key()
MARKER = b"the quick brown fox 5417"
RAW = {"kind": "raw-aes-256", "key_env": "TEST_KEY"}
RAW_OTHER = {"kind": "raw-aes-256", "key_env": "TEST_OTHER_KEY"}
PLAIN_DUMP = {"compression": "none"}  # so that the marker would be found


def next_second(manifest: Manifest) -> None:
    """Ids name seconds: the next backup must not have the same."""
    wait_until(lambda: manifests.backup_id(datetime.now(timezone.utc)) != manifest.id, what="another second")


@dataclass(frozen=True)
class Scene:
    """A store of one's own with two encrypted backups; `settings` says which keys are given."""

    chain: Chain

    @property
    def store(self) -> LocalStore:
        return self.chain.store

    @property
    def manifest(self) -> Manifest:
        return self.chain.entry.require_manifest()

    @property
    def older(self) -> Manifest:
        return Catalogue(self.store, "shop").entries()[1].require_manifest()

    def given(self, encryption: Any) -> DatabaseSettings:
        """The same settings with other keys."""
        return settings_in(self.chain.settings.folder, encryption=encryption, logical=PLAIN_DUMP)

    def path(self, manifest: Manifest, name: str) -> Path:
        return self.store.root / manifest.folder / name

    def wrappings(self, manifest: Manifest | None = None) -> list[str]:
        folder = (manifest or self.manifest).folder
        return [key.removeprefix(f"{folder}/") for key in keys(self.store, f"{folder}/keys")]

    def largest(self) -> StoredFile:
        return max(self.manifest.files, key=lambda file: file.size)

    def fetched(self, settings: DatabaseSettings | None = None) -> CheckResult:
        with tempfile.TemporaryDirectory() as into, Progress().stage("fetch") as stage:
            return fetch(self.store, self.chain.entry, stage, Path(into), settings or self.chain.settings)

    def checked(self) -> CheckResult:
        with Progress().stage("checksum") as stage:
            return check_stored_bytes(self.store, self.chain.entry, stage)

    def reseal(self, manifest: Manifest) -> None:
        """Write a manifest anew, with the digests of what lies in its folder now, as somebody who can write might."""
        files = []
        for file in manifest.files:
            data = self.path(manifest, file.stored_path).read_bytes()
            envelope = Envelope(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            files.append(file.model_copy(update={"envelope": envelope}))
        path = self.path(manifest, "manifest.json")
        path.write_bytes(manifests.encode(manifest.model_copy(update={"files": tuple(files)})))
        self.path(manifest, "SHA256SUMS").unlink()
        write_sums(self.store, self.chain.entry)


def bytes_of(store: LocalStore) -> dict[str, bytes]:
    return {key: (store.root / key).read_bytes() for key in keys(store, "")}


def moved(scene: Scene, encryption: Any) -> bool:
    settings = scene.given(encryption)
    assert settings.encryption is not None
    return rewrap(scene.store, scene.manifest, settings.encryption, settings.folder)
