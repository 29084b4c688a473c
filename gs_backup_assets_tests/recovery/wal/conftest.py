"""Fixtures of the tests of the write-ahead log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets_tests.processes import open_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path
