"""`gs-backup cost`: tables for people, one document for programs."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.costs import CostReport
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.cli.test_main import call
from gs_backup_assets_tests.recovery.test_costing import bytes_below, put_backup
from gs_backup_assets_tests.s3_server import S3Server


def configure(folder: Path, more: str = "") -> None:
    (folder / "backup.yaml").write_text(f"databases: {{shop: {{url_env: NO_SUCH_URL}}}}\n{more}", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, s3_server: S3Server, bucket: str) -> Path:
    """Backups of nine days, of which the newest has a copy in a bucket."""
    configure(
        tmp_path,
        f"stores: {{offsite: {{kind: s3, bucket: {bucket}, endpoint: '{s3_server.endpoint}',"
        " storage_class: STANDARD_IA, transitions: {GLACIER_IR: 90d}}}\n"
        "retention: {daily: 7, weekly: 4, monthly: 12}\n"
        "costs: {currency: EUR, prices: {local: 1000, GLACIER_IR: 1}, budget: {local: 3}}\n",
    )
    now = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    for back in range(9):
        put_backup(LocalStore(tmp_path / "backups"), now - timedelta(days=back), 500_000 - 10_000 * back)
    put_backup(s3_server.store(bucket, storage_class="STANDARD_IA"), now, 500_000)
    return tmp_path


def test_the_document_is_the_report(folder: Path) -> None:
    result = call("cost", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    report = CostReport.model_validate_json(result.stdout)
    primary, offsite = report.stores
    assert (primary.store, primary.backups, primary.objects) == ("primary", 9, 36)
    assert primary.stored_bytes == bytes_below(folder / "backups" / "shop")
    assert [one.storage_class for one in offsite.classes] == ["STANDARD_IA"]
    assert report.cost.known == pytest.approx(primary.stored_bytes / 1e6)
    assert report.cost.unpriced == ("STANDARD_IA",)
    assert report.growth is not None and report.growth.bytes_per_day == pytest.approx(10_000)
    assert len(report.forecast) == 12 and report.forecast[-1].class_bytes("GLACIER_IR") > 0
    assert report.total.within is False


def test_people_see_tables_a_chart_and_what_is_unknown(folder: Path) -> None:
    result = call("cost", cwd=folder)
    assert result.returncode == 0, result.stderr  # over the budget, and no failure: the report says so
    words = result.stdout
    assert "shop in 20" in words and "EUR" in words
    assert words.count("█") > 12
    assert "each day 10.0 kB more (seen on 9 days in 8)" in words
    assert "STANDARD_IA: no price" in words and "+ ?" in words
    assert "Retention:" in words and "Transitions: ?" in words
    (local,) = (line for line in words.splitlines() if line.startswith("local") and "3.00" in line)
    assert "✘" in local
    assert "Not in these figures: requests" in words


def test_an_empty_store_has_no_forecast(tmp_path: Path) -> None:
    configure(tmp_path)
    words = call("cost", cwd=tmp_path).stdout
    assert "0 backups, 0 objects, 0 B" in words and "There is no backup yet" in words
    document = json.loads(call("cost", "--json", cwd=tmp_path).stdout)
    assert document["growth"] is None and document["forecast"] == []
    assert document["cost"] == {"known": 0.0, "unpriced": []}


def test_a_store_that_cannot_be_read_is_an_error(tmp_path: Path, s3_server: S3Server) -> None:
    configure(tmp_path, f"stores: {{primary: {{kind: s3, bucket: not-made, endpoint: '{s3_server.endpoint}'}}}}\n")
    result = call("cost", "--json", cwd=tmp_path)
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["code"] == "BUCKET_MISSING"
