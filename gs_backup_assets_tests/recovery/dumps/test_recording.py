"""What is kept of a proof: nothing counts as on record that no store has taken."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.recovery.dumps.recording import keep_record
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import Vault
from gs_backup_assets_tests.recovery.retention.shelves import fill


def test_a_proof_that_the_only_store_with_the_backup_refuses_is_on_no_record(tmp_path: Path) -> None:
    primary, offsite = LocalStore(tmp_path / "primary"), LocalStore(tmp_path / "offsite")
    fill(primary, (1,))
    (entry,) = Catalogue(primary, "shop").entries()
    assert entry.proof is not None
    vault = Vault(primary, offsite)  # the off-site store has no such backup: it refuses nothing, and keeps nothing
    refused = keep_record(vault, entry, entry.proof, b"<html>")
    assert not refused.on_record and [error.code for error in refused.refusals] == ["OBJECT_EXISTS"]
    later = entry.proof.model_copy(update={"finished_at": datetime.now(timezone.utc) + timedelta(seconds=1)})
    assert keep_record(vault, entry, later, b"<html>").on_record
    fill(offsite, (1,))
    again = keep_record(vault, entry, later, b"<html>")
    assert again.on_record and len(again.refusals) == 1
