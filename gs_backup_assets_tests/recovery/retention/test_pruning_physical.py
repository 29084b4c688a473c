"""Retention of base backups and of the write-ahead log in real stores: chains, holds, locks, what is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProofFailed, StoreError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.retention.pruning_store import StorePlan, StorePruned, plan_store, prune_store
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.catalogue.audit_logs import BY
from gs_backup_assets_tests.catalogue.physical import made_up_base, shelve_base, sunday_of
from gs_backup_assets_tests.catalogue.wal import SYSTEM, archive, put_history, put_segments, segment
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import NOW, fill, id_of, taken
from gs_backup_assets_tests.s3_server import S3Server

POLICY = {"daily": 2, "weekly": 0, "monthly": 0}
FRESH = timedelta(hours=1)  # after what was stored a moment ago


@pytest.fixture
def settings(tmp_path: Path) -> DatabaseSettings:
    return settings_in(tmp_path, retention=POLICY)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "backups")
    return s3_server.store(s3_server.bucket(), prefix="prod")


def chain(store: Store, ages: Sequence[float], *, start: int, verdict: Verdict = Verdict.PROVEN) -> list[str]:
    """A full base backup and incremental ones after it, each ten segments further; their ids."""
    ids: list[str] = []
    for number, age in enumerate(ages):
        base = made_up_base(taken(age), start=start + 10 * number, base=ids[-1] if ids else None)
        ids.append(shelve_base(store, base, verdict).id)
    return ids


def plan(store: Store, settings: DatabaseSettings) -> StorePlan:
    return plan_store(store, settings, NOW + FRESH)


def prune(store: Store, settings: DatabaseSettings, made: StorePlan | None = None) -> StorePruned:
    made = made or plan(store, settings)
    return prune_store(store, made, by=BY, progress=Progress(), now=NOW + FRESH)


def base_backups(store: Store) -> set[str]:
    return {entry.id for entry in PhysicalCatalogue(store, "shop").entries()}


def segments(store: Store, timeline: int = 1) -> list[int]:
    return [found.segment.number for found in archive(store).segments(timeline)]


def test_chains_go_as_a_whole_and_the_log_before_what_stays(store: Store, settings: DatabaseSettings) -> None:
    old = chain(store, (9, 8, 7), start=10)
    new = chain(store, (2, 1, 0), start=50)
    put_segments(store, range(10, 75))
    put_history(store, 2, (1, 74))
    made = plan(store, settings)
    assert [candidate.id for candidate in made.base_backups.going] == old[::-1], "dependents first"
    assert segments(store)[0] == 10, "a plan deletes nothing"
    done = prune(store, settings, made)
    assert done.base_backups.deleted == tuple(old[::-1]) and base_backups(store) == set(new)
    assert (done.wal.segments, done.wal.left) == (40, 0) and segments(store) == list(range(50, 75))
    assert archive(store).history_bytes(2) is not None
    told = [(r.event, r.result, r.ids) for r in AuditLog(store, "shop").records()]
    assert [("prune", result) for _, result, ids in told if ids.get("kind") == "physical"] == [
        ("prune", "started"),
        ("prune", "done"),
    ]
    wanted = f"{SYSTEM}: {segment(10).name} - {segment(49).name}"
    assert [(event, result) for event, result, ids in told if ids.get("wal") == wanted] == [
        ("prune", "started"),
        ("prune", "done"),
    ]
    again = prune(store, settings)
    assert (again.base_backups.deleted, again.wal.objects) == ((), 0)


def test_a_full_one_stays_for_an_incremental_one_and_so_does_its_log(store: Store, settings: DatabaseSettings) -> None:
    """Days are counted by when a backup was taken: all of these lie in one or two folders of weeks."""
    ids = chain(store, (4, 3, 2, 1, 0), start=10)
    put_segments(store, range(5, 55))
    made = plan(store, settings)
    reasons = {d.candidate.id: "; ".join(d.reasons) for d in made.base_backups.decisions}
    assert made.base_backups.going == () and f"base of {ids[1]}" in reasons[ids[0]]
    assert "newest proven of" in reasons[ids[4]]
    prune(store, settings, made)
    assert segments(store) == list(range(10, 55))


def test_without_a_proven_base_backup_nothing_goes(store: Store, settings: DatabaseSettings) -> None:
    ids = chain(store, (9, 0), start=10, verdict=Verdict.NOT_VERIFIED)
    put_segments(store, range(25))
    done = prune(store, settings)
    assert (done.base_backups.deleted, done.wal.objects) == ((), 0)
    assert base_backups(store) == set(ids) and segments(store) == list(range(25))


def test_dumps_and_base_backups_are_counted_by_themselves(store: Store, settings: DatabaseSettings) -> None:
    fill(store, (0, 1, 2, 3))
    chain(store, (5,), start=10)
    made = plan(store, settings)
    assert [c.id for c in made.dumps.going] == [id_of(3), id_of(2)]
    assert made.base_backups.going == () and made.wal.decisions == ()


def test_a_base_backup_that_is_held_after_the_plan_keeps_its_log(store: Store, settings: DatabaseSettings) -> None:
    """Its dependents have gone by then, what it needs stays."""
    old = chain(store, (9, 8), start=10)
    chain(store, (1, 0), start=50)
    put_segments(store, range(10, 65))
    made = plan(store, settings)
    folder = next(e.folder for e in PhysicalCatalogue(store, "shop").entries() if e.id == old[0])
    store.put_bytes(b"held", f"{folder}/hold.json", locked=False)
    done = prune(store, settings, made)
    assert done.base_backups.deleted == (old[1],) and done.base_backups.left == (old[0],)
    assert done.wal.objects == 0 and done.wal.left == 40 and segments(store) == list(range(10, 65))


def test_a_proven_chain_that_lost_a_file_lets_nothing_go(store: Store, settings: DatabaseSettings) -> None:
    """The newest proven one is whole itself: it is the full one below it that is cut."""
    chain(store, (9,), start=10)
    new = chain(store, (1, 0), start=50)
    put_segments(store, range(10, 65))
    made = plan(store, settings)
    full = next(e for e in PhysicalCatalogue(store, "shop").entries() if e.id == new[0])
    store.delete(f"{full.folder}/base/base.tar.zst")
    with pytest.raises(ProofFailed, match="RETENTION_UNSAFE"):
        prune(store, settings, made)
    assert len(base_backups(store)) == 3 and segments(store) == list(range(10, 65))


def test_a_proven_one_that_is_gone_keeps_the_log(store: Store, settings: DatabaseSettings) -> None:
    """No base backup goes by this plan, only log; it is looked again all the same."""
    (only,) = chain(store, (1,), start=50)
    put_segments(store, range(10, 60))
    made = plan(store, settings)
    assert len(made.wal.going) == 1
    entry = PhysicalCatalogue(store, "shop").find(only)
    store.delete(f"{entry.folder}/base/pg_wal.tar.zst")
    done = prune(store, settings, made)
    assert (done.wal.segments, done.wal.left) == (0, 40) and len(segments(store)) == 50


def test_unfinished_attempts_are_swept(store: Store, settings: DatabaseSettings) -> None:
    manifest = made_up_base(taken(0))
    store.put_bytes(b"x", f"{manifest.folder}/base/base.tar.zst")
    done = prune_store(store, plan(store, settings), by=BY, progress=Progress(), now=NOW + timedelta(hours=30))
    assert done.base_backups.swept == (manifest.folder,)
    assert list(keys(store, manifest.folder)) == []


def test_the_week_of_a_base_backup_is_its_folders_and_not_its_day(store: Store, settings: DatabaseSettings) -> None:
    manifest: PhysicalManifest = shelve_base(store, made_up_base(taken(3)))
    (decision,) = plan(store, settings).base_backups.decisions
    assert decision.candidate.partition == taken(3).date().isoformat()
    assert decision.candidate.folder == manifest.folder and sunday_of(taken(3)) in manifest.folder


def test_locks_on_the_log_are_found_at_the_edge(s3_server: S3Server, settings: DatabaseSettings) -> None:
    """What was stored without a lock is older; of the rest the first one that is locked is found by halves."""
    bucket = s3_server.bucket(lock=True)
    put_segments(s3_server.store(bucket, prefix="prod"), range(10, 40))
    store = s3_server.store(bucket, prefix="prod", object_lock_days=1)
    put_segments(store, range(40, 60))
    shelve_base(store, made_up_base(taken(0), start=55))
    asked: list[str] = []
    events = store.client.meta.events

    def count(params: dict[str, str], **_: object) -> None:
        asked.append(params["Key"])

    events.register("before-parameter-build.s3.HeadObject", count)
    made = plan(store, settings)
    assert [(d.keep, d.segments, d.reason) for d in made.wal.decisions][:1] == [(True, 15, "object lock")]
    assert sum("/wal/" in key for key in asked) <= 8
    done = prune(store, settings, made)
    assert done.wal.segments == 30 and segments(store) == list(range(40, 60))


def test_a_store_that_refuses_is_told_with_the_pruners_rights(
    tmp_path: Path, settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Refuses(LocalStore(tmp_path / "backups"))
    chain(store, (0,), start=50)  # type: ignore[arg-type]
    put_segments(store, range(45, 55))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="docs/retention"):
        prune(store, settings)  # type: ignore[arg-type]
    last = AuditLog(store, "shop").records()[-1]  # type: ignore[arg-type]
    assert (last.event, last.result) == ("prune", "STORE_ACCESS_DENIED")


class Refuses:
    """A store that deletes nothing."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def delete(self, key: str) -> None:
        raise StoreError("STORE_ACCESS_DENIED", f"{key} may not be deleted.", "Ask for the right.")
