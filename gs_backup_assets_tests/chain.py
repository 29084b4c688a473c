"""Takes and proves backups in a test's own folder: the chain's plain functions, called as assets and CLI call them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.servers import RestoreServer, throwaway_server
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import open_store


def settings_in(folder: Path, **overrides: Any) -> DatabaseSettings:
    """Settings of one database whose store is `folder`/backups."""
    return DatabaseSettings.model_validate(
        {"name": "shop", "url_env": "TEST_DATABASE_URL", "timezone": "UTC", "folder": folder, **overrides}
    )


@dataclass(frozen=True)
class Chain:
    """One store and the settings that go with it."""

    settings: DatabaseSettings
    store: LocalStore

    @property
    def today(self) -> str:
        return DAY.of(datetime.now(timezone.utc), self.settings.zone)

    def take(self, target: Target, **options: Any) -> Manifest:
        return take_backup(self.settings, target, self.store, self.today, Progress(), **options)

    @property
    def entry(self) -> Entry:
        """The newest backup."""
        entry = Catalogue(self.store, self.settings.name).latest()
        assert entry is not None, "the store holds no backup"
        return entry

    def prove(self, server: RestoreServer | None = None) -> ProofRecord:
        return prove(self.settings, self.store, self.entry, Progress(), server=server)

    def take_and_prove(
        self, target: Target, server: RestoreServer | None = None, **options: Any
    ) -> tuple[Manifest, ProofRecord]:
        """Back up and prove at once; without `server` a throwaway one is made."""
        manifest = self.take(target, **options)
        return manifest, self.prove(server)


def chain_in(folder: Path, **overrides: Any) -> Chain:
    """A chain whose store is new and empty."""
    settings = settings_in(folder, **overrides)
    store = open_store(settings)
    assert isinstance(store, LocalStore)
    return Chain(settings, store)


@contextmanager
def throwaway_beside(cluster: Cluster) -> Iterator[RestoreServer]:
    """A throwaway server with the programs of `cluster`, for the proofs of one module."""
    with throwaway_server(cluster.toolchain, cluster.superuser) as server:
        yield server


def execute(target: Target, *statements: str) -> None:
    """Run statements, each on its own, with the session's own search path."""
    with connect(target, settings={"search_path": "public"}) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def failures(record: ProofRecord) -> list[str]:
    """What is not green, as readable lines for assertion messages."""
    return [f"{check.name} {check.status.value}: {check.summary} {finding_lines(check)}" for check in record.checks]


def finding_lines(check: CheckResult) -> list[str]:
    return [f"{finding.code}: {finding.message}" for finding in check.findings]


def codes(check: CheckResult) -> set[str]:
    """The codes of a check's findings."""
    return {finding.code for finding in check.findings}
