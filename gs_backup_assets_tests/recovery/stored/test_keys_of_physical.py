"""Keys of base backups and of the write-ahead log: what the given ones open, and moving all of it to another key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.stored.key_survey import survey_keys
from gs_backup_assets.recovery.stored.keyring import begin_encryption, find_cipher, wrapping_by
from gs_backup_assets.recovery.stored.rewrapping import rewrap_backups
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.vault.keys import load_key, new_raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.catalogue.audit_logs import BY
from gs_backup_assets_tests.catalogue.physical import made_up_base, shelve_base
from gs_backup_assets_tests.catalogue.wal import SEGMENT_BYTES, SYSTEM, log_of, segment
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import taken

OLD = {"kind": "raw-aes-256", "key_env": "OLD_KEY"}
NEW = {"kind": "raw-aes-256", "key_env": "NEW_KEY"}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatabaseSettings:
    monkeypatch.setenv("OLD_KEY", new_raw_key())
    monkeypatch.setenv("NEW_KEY", new_raw_key())
    return settings_in(tmp_path, encryption=OLD)


@pytest.fixture
def store(tmp_path: Path, old: DatabaseSettings) -> LocalStore:
    """An encrypted base backup and a plain one, and log of two timelines."""
    made = LocalStore(tmp_path / "backups")
    manifest = made_up_base(taken(1))
    assert old.encryption is not None
    _, record = begin_encryption(made, load_key(old.encryption, old.folder), manifest)
    shelve_base(made, manifest.model_copy(update={"encryption": record}))
    shelve_base(made, made_up_base(taken(0)))
    log = open_archive(old, made, SYSTEM, writing=True, segment_bytes=SEGMENT_BYTES)
    for timeline in (1, 2):
        log.put(segment(3, timeline), log_of(segment(3, timeline)))
    return made


def settings_with(old: DatabaseSettings, **encryption: object) -> DatabaseSettings:
    return settings_in(old.folder, encryption={**NEW, **encryption})


def test_what_the_given_keys_open(store: LocalStore, old: DatabaseSettings) -> None:
    survey = survey_keys(store, old)
    assert (survey.encrypted, survey.plain, survey.timelines, survey.locked, survey.good) == (1, 1, 2, (), True)
    assert len(survey.keys[0].opens) == 3
    other = survey_keys(store, settings_with(old))
    encrypted = PhysicalCatalogue(store, "shop").entries()[1].id
    assert other.locked == (encrypted, f"{SYSTEM}/00000001", f"{SYSTEM}/00000002") and not other.good


def test_log_that_lost_its_key_is_opened_by_none(store: LocalStore, old: DatabaseSettings) -> None:
    (key,) = keys(store, f"shop/wal/{SYSTEM}/00000002/keys")
    store.delete(key)
    assert survey_keys(store, old).locked == (f"{SYSTEM}/00000002",)


def test_base_backups_and_log_move_to_the_new_key(store: LocalStore, old: DatabaseSettings) -> None:
    settings = settings_with(old, previous=[OLD])
    result = rewrap_backups(settings, {"primary": store}, Progress(), by=BY)["primary"]
    assert (len(result.moved), result.as_they_were, result.plain, result.failed) == (3, 0, 1, {})
    alone = settings_with(old)
    assert alone.encryption is not None
    wanted = wrapping_by(load_key(alone.encryption, alone.folder))
    wrapped = [key for key in keys(store, "shop") if "/keys/" in key]
    assert len(wrapped) == 3 and all(key.endswith(wanted) for key in wrapped)
    archive = open_archive(alone, store, SYSTEM, segment_bytes=SEGMENT_BYTES)
    for timeline in (1, 2):
        found = archive.find(segment(3, timeline))
        assert found is not None and archive.read(found) == log_of(segment(3, timeline))
    manifest = PhysicalCatalogue(store, "shop").entries()[1].require_manifest()
    assert find_cipher(store, manifest, alone.encryption, alone.folder) is not None
    assert [r.result for r in AuditLog(store, "shop").records() if r.event == "rewrap"] == ["started", "done"]
    again = rewrap_backups(settings, {"primary": store}, Progress(), by=BY)["primary"]
    assert (again.moved, again.as_they_were) == ((), 3)


def test_one_base_backup_is_moved_and_nothing_else(store: LocalStore, old: DatabaseSettings) -> None:
    settings = settings_with(old, previous=[OLD])
    plain, encrypted = (entry.id for entry in PhysicalCatalogue(store, "shop").entries())
    moved = rewrap_backups(settings, {"primary": store}, Progress(), by=BY, only=encrypted)["primary"]
    assert (moved.moved, moved.plain) == ((encrypted,), 0)
    left = rewrap_backups(settings, {"primary": store}, Progress(), by=BY, only=plain)["primary"]
    assert (left.moved, left.plain) == ((), 1)
