"""The catalogue: which folders of a store are backups, which proof counts, and what may be swept."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gs_backup_assets.catalogue import proof as proofs
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry, all_summaries
from gs_backup_assets.catalogue.manifest import backup_id, encode, parse_id
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, proof_of, put

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(LocalStore(tmp_path / "store"), "shop")


def at(catalogue: Catalogue, key: str) -> Path:
    """The file of a key, for tests that do damage."""
    assert isinstance(catalogue.store, LocalStore)
    return catalogue.store.root / key


def written_at(path: Path, moment: datetime) -> None:
    """Make a file look as if it had been written then."""
    os.utime(path, (moment.timestamp(), moment.timestamp()))


def newest(catalogue: Catalogue) -> Entry:
    entry = catalogue.latest()
    assert entry is not None
    return entry


def test_an_empty_store_has_no_backups(catalogue: Catalogue) -> None:
    assert catalogue.entries() == []
    assert catalogue.latest() is None
    assert catalogue.last_proven() is None
    assert catalogue.sweep(NOW) == []
    with pytest.raises(ConfigError, match="BACKUP_NOT_FOUND") as caught:
        catalogue.find("latest")
    assert caught.value.exit_status == 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True))
def test_entries_come_newest_first(seconds: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        for number in seconds:
            put(store, made_up(NOW + timedelta(seconds=number)))
        catalogue = Catalogue(store, "shop")
        ids = [entry.id for entry in catalogue.entries()]
        assert ids == sorted((backup_id(NOW + timedelta(seconds=number)) for number in seconds), reverse=True)
        assert newest(catalogue).id == ids[0]


def test_the_id_decides_and_not_the_partition(catalogue: Catalogue) -> None:
    """In a zone behind UTC the partition's day can be before the id's; two partitions may interleave."""
    put(catalogue.store, made_up(NOW, partition="2026-11-21"))
    put(catalogue.store, made_up(NOW + HOUR, partition="2026-11-20"))
    assert newest(catalogue).partition == "2026-11-20"


def test_other_databases_are_not_seen(catalogue: Catalogue) -> None:
    put(catalogue.store, made_up(database="other"))
    assert catalogue.entries() == []


def test_attempts_and_strangers_are_no_backups(catalogue: Catalogue) -> None:
    put(catalogue.store, made_up())
    for key in (
        f"shop/logical/2026-11-22/{backup_id(NOW + HOUR)}/dump/toc.dat",  # no manifest: not finished
        f"shop/logical/2026-11-22/{backup_id(NOW + HOUR)}/.partial-abc",
        "shop/logical/2026-11-22/20269999T999999Z/manifest.json",  # no such moment
        "shop/logical/2026-11-22/20261122T080003Z\n/manifest.json",
        "shop/logical/2026-11-22/20261122T080003Z.bak/manifest.json",
        "shop/logical/lost+found/x",
        "shop/logical/stray",
    ):
        catalogue.store.put_bytes(b"x", key)
    assert [entry.id for entry in catalogue.entries()] == [backup_id(NOW)]
    assert newest(catalogue).id == backup_id(NOW)
    assert catalogue.sweep(NOW + HOUR) == []


def test_damage_is_shown_and_hides_nothing(catalogue: Catalogue) -> None:
    good, bad = made_up(NOW), made_up(NOW + HOUR)
    put(catalogue.store, good)
    data = encode(bad)
    catalogue.store.put_bytes(data[:50] + b"!" + data[51:], f"{bad.folder}/manifest.json")
    catalogue.store.put_bytes(encode(good), f"shop/logical/2026-11-22/{backup_id(NOW + 2 * HOUR)}/manifest.json")
    catalogue.store.put_bytes(b"", f"shop/logical/2026-11-22/{backup_id(NOW + 3 * HOUR)}/manifest.json")
    empty, moved, damaged, intact = catalogue.entries()
    assert [entry.verdict for entry in (empty, moved, damaged)] == [Verdict.FAILED] * 3
    assert [entry.manifest for entry in (empty, moved, damaged)] == [None] * 3
    for entry, code in ((empty, "MANIFEST_DAMAGED"), (moved, "MANIFEST_MISPLACED"), (damaged, "MANIFEST_DAMAGED")):
        assert entry.damage is not None and entry.damage.code == code
        with pytest.raises(StoreError):
            entry.require_manifest()
    assert (intact.manifest, intact.damage, intact.verdict) == (good, None, Verdict.NOT_VERIFIED)


def test_a_damaged_manifest_is_failed_whatever_a_proof_said(catalogue: Catalogue) -> None:
    manifest = made_up()
    digest = put(catalogue.store, manifest)
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, NOW + HOUR), b"")
    assert newest(catalogue).verdict is Verdict.PROVEN
    path = at(catalogue, f"{manifest.folder}/manifest.json")
    path.write_bytes(path.read_bytes() + b" ")
    assert newest(catalogue).verdict is Verdict.FAILED
    assert catalogue.last_proven() is None


def test_the_newest_proof_of_exactly_this_manifest_counts(catalogue: Catalogue) -> None:
    manifest = made_up()
    digest = put(catalogue.store, manifest)
    assert newest(catalogue).verdict is Verdict.NOT_VERIFIED
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, NOW + HOUR), b"report")
    assert newest(catalogue).verdict is Verdict.PROVEN
    catalogue.add_proof(proof_of(manifest, digest, Verdict.FAILED, NOW + 2 * HOUR), b"report")
    assert newest(catalogue).verdict is Verdict.FAILED
    catalogue.add_proof(proof_of(manifest, "00" * 32, Verdict.PROVEN, NOW + 3 * HOUR), b"report")
    assert newest(catalogue).verdict is Verdict.FAILED, "a proof of another manifest proves nothing about this one"
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, NOW + 2 * HOUR - timedelta(seconds=1)), b"report")
    assert newest(catalogue).verdict is Verdict.FAILED, "an older proof that was stored later is still older"


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json", b"\xff\xfe"])
def test_a_damaged_proof_proves_nothing(catalogue: Catalogue, damage: bytes) -> None:
    manifest = made_up()
    digest = put(catalogue.store, manifest)
    record = proof_of(manifest, digest, Verdict.PROVEN, NOW + HOUR)
    catalogue.add_proof(record, b"report")
    (path,) = at(catalogue, f"{manifest.folder}/proofs").glob("*.json")
    path.write_bytes(damage or proofs.encode(record)[:-40])
    assert newest(catalogue).proof is None
    assert newest(catalogue).verdict is Verdict.NOT_VERIFIED


def test_the_failure_of_one_copy_stands_until_the_same_copy_passes(catalogue: Catalogue) -> None:
    """That the other copy is sound does not mend this one; retention must not take it for a replacement."""
    manifest = made_up()
    digest = put(catalogue.store, manifest)

    def proved(which: str, verdict: Verdict, hours: int) -> Verdict:
        record = proof_of(manifest, digest, verdict, NOW + hours * HOUR).model_copy(update={"store": which})
        catalogue.add_proof(record, b"")
        (summary,) = catalogue.summaries()
        assert newest(catalogue).verdict is summary.verdict
        return summary.verdict

    assert proved("primary", Verdict.PROVEN, 1) is Verdict.PROVEN
    assert proved("offsite", Verdict.FAILED, 2) is Verdict.FAILED
    assert proved("primary", Verdict.PROVEN, 3) is Verdict.FAILED
    assert proved("offsite", Verdict.NOT_VERIFIED, 4) is Verdict.NOT_VERIFIED
    assert proved("offsite", Verdict.PROVEN, 5) is Verdict.PROVEN
    assert proved("primary", Verdict.FAILED, 6) is Verdict.FAILED


def test_a_newest_proof_that_cannot_be_read_leaves_it_open(catalogue: Catalogue) -> None:
    """It may have been a failure: an older pass does not stand again when somebody cuts it."""
    manifest = made_up()
    digest = put(catalogue.store, manifest)
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, NOW + HOUR), b"")
    catalogue.add_proof(proof_of(manifest, digest, Verdict.FAILED, NOW + 2 * HOUR), b"")
    path = sorted(at(catalogue, f"{manifest.folder}/proofs").glob("*.json"))[-1]
    path.write_bytes(path.read_bytes()[:-9])
    assert newest(catalogue).verdict is Verdict.NOT_VERIFIED
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, NOW + 3 * HOUR), b"")
    assert newest(catalogue).verdict is Verdict.PROVEN


def test_a_pass_from_a_clock_that_is_ahead_outweighs_nothing(catalogue: Catalogue) -> None:
    manifest = made_up()
    digest = put(catalogue.store, manifest)
    ahead = datetime.now(timezone.utc) + 2 * DAY
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, ahead), b"")
    assert newest(catalogue).verdict is Verdict.NOT_VERIFIED
    catalogue.add_proof(proof_of(manifest, digest, Verdict.FAILED, NOW + HOUR), b"")
    assert newest(catalogue).verdict is Verdict.FAILED


def test_a_report_without_its_record_is_no_proof(catalogue: Catalogue) -> None:
    """The record is written last: killed before that, nothing is claimed."""
    manifest = made_up()
    put(catalogue.store, manifest)
    catalogue.store.put_bytes(b"PROVEN", f"{manifest.folder}/proofs/20261122T090000000000Z.html")
    assert newest(catalogue).verdict is Verdict.NOT_VERIFIED


def test_last_proven_looks_past_newer_ones(catalogue: Catalogue) -> None:
    proven = made_up(NOW)
    catalogue.add_proof(proof_of(proven, put(catalogue.store, proven), Verdict.PROVEN, NOW + HOUR), b"")
    failed = made_up(NOW + DAY)
    catalogue.add_proof(proof_of(failed, put(catalogue.store, failed), Verdict.FAILED, NOW + DAY), b"")
    put(catalogue.store, made_up(NOW + 2 * DAY))
    found = catalogue.last_proven()
    assert found is not None and found.id == proven.id


def test_find_by_id_by_day_and_latest(catalogue: Catalogue) -> None:
    for moment in (NOW, NOW + HOUR, NOW + DAY):
        put(catalogue.store, made_up(moment))
    assert catalogue.find("latest").id == backup_id(NOW + DAY)
    assert catalogue.find("2026-11-22").id == backup_id(NOW + HOUR)
    assert catalogue.find(backup_id(NOW)).id == backup_id(NOW)
    today = catalogue.latest("2026-11-22")
    assert today is not None and today.id == backup_id(NOW + HOUR)
    assert catalogue.latest("2026-11-20") is None
    for wanted in ("2026-11-20", "", "20261122", "Latest", "../shop", backup_id(NOW + 2 * DAY)):
        with pytest.raises(ConfigError, match="BACKUP_NOT_FOUND"):
            catalogue.find(wanted)


def test_what_is_dated_after_now_is_not_the_latest(catalogue: Catalogue) -> None:
    """A clock that was a year ahead would hide all that was taken since, from a restore as well."""
    now = datetime.now(timezone.utc)
    for moment in (now - DAY, now - HOUR, now + 365 * DAY):
        manifest = made_up(moment)
        digest = put(catalogue.store, manifest)
        catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, now), b"")
    ahead, wanted, _ = (entry.id for entry in catalogue.entries())
    proven = catalogue.last_proven()
    assert catalogue.find("latest").id == wanted and proven is not None and proven.id == wanted
    assert catalogue.find(ahead).id == ahead
    for entry in catalogue.entries()[1:]:
        catalogue.store.delete_tree(entry.folder)
    assert catalogue.find("latest").id == ahead, "this machine's clock is behind: better than nothing"


def test_a_copy_in_another_folder_hides_nothing(catalogue: Catalogue) -> None:
    """Such as one that somebody makes before work on the store."""
    manifest = made_up()
    put(catalogue.store, manifest)
    for day in ("2026-11-22.old", "2026-11-23"):
        shutil.copytree(at(catalogue, manifest.folder), at(catalogue, f"shop/logical/{day}/{manifest.id}"))
    for _ in range(2):  # read, and remembered
        summaries = catalogue.summaries()
        assert [(s.partition, s.damage) for s in summaries] == [
            ("2026-11-23", "MANIFEST_MISPLACED"),
            ("2026-11-22", None),
            ("2026-11-22.old", "MANIFEST_MISPLACED"),
        ]
        assert all_summaries(catalogue.store, "shop") == summaries
    catalogue.store.delete_tree(f"shop/logical/2026-11-23/{manifest.id}")
    assert catalogue.find("latest").manifest == catalogue.find(manifest.id).manifest == manifest


@settings(max_examples=20, deadline=None)
@given(st.integers(-100, 100), st.booleans())
def test_only_old_attempts_are_swept(hours: int, finished: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        manifest = made_up(NOW - timedelta(hours=hours))
        store.put_bytes(b"x", f"{manifest.folder}/dump/1.dat")
        if finished:
            put(store, manifest)
        written_at(store.root / manifest.folder / "dump" / "1.dat", parse_id(manifest.id))
        swept = Catalogue(store, "shop").sweep(NOW)
        assert swept == ([manifest.folder] if hours > 24 and not finished else [])
        assert store.exists(f"{manifest.folder}/dump/1.dat") == (not swept)


def test_a_copy_of_an_old_backup_is_not_swept_under_way(catalogue: Catalogue) -> None:
    """Its id is old, but its objects are being written now."""
    old = made_up(NOW - 30 * DAY)
    catalogue.store.put_bytes(b"x", f"{old.folder}/dump/1.dat")
    catalogue.store.put_bytes(b"x", f"{old.folder}/dump/2.dat")
    for name, age in (("1", 30 * DAY), ("2", 23 * HOUR)):
        written_at(at(catalogue, f"{old.folder}/dump/{name}.dat"), NOW - age)
    assert catalogue.sweep(NOW) == []
    assert catalogue.sweep(NOW + 2 * HOUR) == [old.folder]


def test_a_held_backup_that_lost_its_manifest_is_not_swept(catalogue: Catalogue) -> None:
    held = made_up(NOW - 30 * DAY)
    for name in ("dump/1.dat", "hold.json"):
        catalogue.store.put_bytes(b"x", f"{held.folder}/{name}")
        written_at(at(catalogue, f"{held.folder}/{name}"), NOW - 30 * DAY)
    assert catalogue.sweep(NOW) == []
    catalogue.store.delete(f"{held.folder}/hold.json")
    assert catalogue.sweep(NOW) == [held.folder]


def test_summaries_say_what_entries_say_and_notice_every_change(catalogue: Catalogue) -> None:
    manifest = made_up()
    digest = put(catalogue.store, manifest)
    put(catalogue.store, made_up(NOW + HOUR))

    def same() -> list[Verdict]:
        entries, summaries = catalogue.entries(), catalogue.summaries()
        assert [(s.id, s.partition, s.verdict, s.manifest_sha256, s.held) for s in summaries] == [
            (e.id, e.partition, e.verdict, e.manifest_sha256, e.held) for e in entries
        ]
        assert summaries == Catalogue(catalogue.store, "shop").summaries(), "what is remembered is what was read"
        return [s.verdict for s in summaries]

    assert same() == [Verdict.NOT_VERIFIED, Verdict.NOT_VERIFIED]
    catalogue.add_proof(proof_of(manifest, digest, Verdict.PROVEN, NOW + HOUR), b"")
    assert same() == [Verdict.NOT_VERIFIED, Verdict.PROVEN]
    catalogue.add_proof(proof_of(manifest, digest, Verdict.FAILED, NOW + 2 * HOUR), b"")
    assert same() == [Verdict.NOT_VERIFIED, Verdict.FAILED]
    at(catalogue, f"{manifest.folder}/proofs/{NOW + 2 * HOUR:%Y%m%dT%H%M%S%fZ}.json").unlink()
    assert same() == [Verdict.NOT_VERIFIED, Verdict.PROVEN]
    catalogue.store.put_bytes(b"{}", f"{manifest.folder}/hold.json")
    assert same() == [Verdict.NOT_VERIFIED, Verdict.PROVEN] and catalogue.summaries()[1].held
    path = at(catalogue, f"{manifest.folder}/manifest.json")
    data = path.read_bytes()
    path.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    assert same() == [Verdict.NOT_VERIFIED, Verdict.FAILED]
    catalogue.store.delete_tree(manifest.folder)
    assert same() == [Verdict.NOT_VERIFIED]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"x": 1}', b"\xff", b'{"20261122T080003Z": ["t", [1]]}'])
def test_a_damaged_memory_is_forgotten(
    catalogue: Catalogue, damage: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GS_BACKUP_CACHE", str(tmp_path / "cache"))
    put(catalogue.store, made_up())
    before = catalogue.summaries()
    (memory,) = (tmp_path / "cache" / "catalogue").iterdir()
    memory.write_bytes(damage)
    assert catalogue.summaries() == before


def test_a_cache_that_cannot_be_written_is_no_failure(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("GS_BACKUP_CACHE", str(tmp_path / "cache"))
    put(catalogue.store, made_up())
    assert [summary.id for summary in catalogue.summaries()] == [backup_id(NOW)]


def test_sweeping_leaves_strangers_and_other_databases_alone(catalogue: Catalogue) -> None:
    keys = ("shop/logical/2026-01-01/notes/x", "other/logical/2026-01-01/20260101T000000Z/dump/x", "shop/wal/1/x")
    for key in keys:
        catalogue.store.put_bytes(b"x", key)
    assert catalogue.sweep(NOW) == []
    assert all(map(catalogue.store.exists, keys))
