"""Fixtures of the Dagster tests: a configured project with a small sample database on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import DefsStateStorage

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.config import BackupConfig, DatabaseSettings, load_config
from gs_backup_assets.factory import build_definitions
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets_tests.conftest import fresh_database

URL_VARIABLE = "GS_BACKUP_TEST_URL"
ALERTS_VARIABLE = "GS_BACKUP_TEST_ALERTS"


def url_of(target: Target) -> str:
    """A URL for a target on a private socket."""
    p = target.parameters
    return f"postgresql://{p['user']}@/{p['dbname']}?host={p['host']}&port={p['port']}"


@dataclass(frozen=True)
class Project:
    """A folder with a backup.yaml, and the database that it names."""

    folder: Path
    source: Target

    @property
    def file(self) -> Path:
        return self.folder / "backup.yaml"

    @property
    def config(self) -> BackupConfig:
        return load_config(self.file)

    @property
    def settings(self) -> DatabaseSettings:
        return self.config.database()

    @property
    def today(self) -> str:
        return DAY.of(datetime.now(timezone.utc), self.settings.zone)

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(open_store(self.settings), self.settings.name)

    def configure(self, **changes: str) -> None:
        """Write backup.yaml; `changes` replace or add top-level lines."""
        lines = {
            "databases": f"{{studio: {{url_env: {URL_VARIABLE}}}}}",
            "timezone": "America/Chicago",
            "rules": "none",
            "alerts": f"{{urls_env: {ALERTS_VARIABLE}}}",
            **changes,
        }
        self.file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()), encoding="utf-8")

    def definitions(self) -> dg.Definitions:
        return build_definitions(self.config, retry=None)

    def run(self, instance: dg.DagsterInstance, partition: str | None = None) -> dg.ExecuteInProcessResult:
        """The daily job in this process, as the schedule's run would do it."""
        job = self.definitions().resolve_job_def("studio_daily_backup")
        day = partition or self.today
        return job.execute_in_process(partition_key=day, instance=instance, raise_on_error=False)


@pytest.fixture
def project(server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose database holds a small sample."""
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.05)
        monkeypatch.setenv(URL_VARIABLE, url_of(target))
        made = Project(tmp_path, target)
        made.configure()
        yield made


@pytest.fixture(autouse=True)
def no_context_stays_open() -> Iterator[None]:
    """A tick's context that was not closed leaves its instance behind as Dagster's own, and later tests fail."""
    yield
    assert DefsStateStorage.get() is None, "use the context of a tick in a `with` statement"


@pytest.fixture
def instance(no_context_stays_open: None) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made
