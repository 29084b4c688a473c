"""`gs-backup fetch`: which backup `latest` is, and addresses of stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.cli.test_main import call
from gs_backup_assets_tests.recovery.retention.shelves import fill, id_of


def test_the_latest_is_none_of_a_clock_that_was_ahead(tmp_path: Path) -> None:
    fill(LocalStore(tmp_path / "store"), (-30, 1, 2))
    done = call(
        "fetch", "latest", "--into", "new", "--store", "file://" + str(tmp_path / "store"), "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["backup"] == id_of(1) and (tmp_path / "new" / "globals.sql").is_file()
    assert f"{id_of(-30)} is dated after now" in done.stderr
    listed = call("list", "--store", "store", cwd=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines() if "dated ahead" in line] == [id_of(-30)]


@pytest.mark.parametrize("address", ["", "https://store", "S3://bucket", "s3://[::1/prefix", "s3://"])
def test_an_address_of_no_store(address: str, tmp_path: Path) -> None:
    done = call("fetch", "latest", "--into", "new", "--store", address, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "STORE_ADDRESS_INVALID")
