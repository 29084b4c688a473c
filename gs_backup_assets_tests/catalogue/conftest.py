"""What tests of the catalogue share: two stores in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_backup_assets.vault.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "other")
