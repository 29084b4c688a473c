"""A store with two encrypted backups, taken once for all tests of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets_tests.chain import chain_in, execute, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.recovery.stored.encrypted_scene import (
    KEY,
    MARKER,
    OTHER,
    PLAIN_DUMP,
    RAW,
    Scene,
    next_second,
)


@pytest.fixture
def given_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_OTHER_KEY", OTHER)


@pytest.fixture(scope="package")
def source(server17: Cluster) -> Iterator[Target]:
    with fresh_database(server17) as target:
        execute(
            target,
            "CREATE TABLE lesson (id int PRIMARY KEY, title text)",
            f"INSERT INTO lesson VALUES (1, '{MARKER.decode()}')",
            "CREATE TABLE large (id int PRIMARY KEY, t text)",
            "INSERT INTO large SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 1000) AS n",
        )
        yield target


@pytest.fixture(scope="package")
def prover(server17: Cluster) -> Iterator[RestoreServer]:
    with throwaway_beside(server17) as server:
        yield server


@pytest.fixture(scope="package")
def taken(source: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two encrypted backups in it, to be copied by each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", KEY)
        chain = chain_in(tmp_path_factory.mktemp("taken"), encryption=RAW, logical=PLAIN_DUMP)
        for _ in range(2):
            manifest = chain.take(source)
            write_sums(chain.store, chain.entry)
            next_second(manifest)
    return chain.store.root


@pytest.fixture
def scene(taken: Path, tmp_path: Path) -> Scene:
    shutil.copytree(taken, tmp_path / "backups")
    return Scene(chain_in(tmp_path, encryption=RAW, logical=PLAIN_DUMP))
