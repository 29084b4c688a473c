"""Retention in a folder: what goes is gone and what stays is whole, whatever happens meanwhile, wherever it ends."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.holds import hold, hold_key, read_hold, release
from gs_backup_assets.catalogue.proof import encode as encode_proof
from gs_backup_assets.catalogue.retention import plan
from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import ConfigError, ExitStatus, ProofFailed, StoreError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.retention.pruning import apply, make_plan
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of, put
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.recovery.retention.shelves import (
    BY,
    NOW,
    Keeper,
    fill,
    finished,
    id_of,
    keeper,
    shelve,
    taken,
)


@pytest.fixture
def shop(tmp_path: Path) -> Keeper:
    """Two days are kept, in a store that is empty yet."""
    return keeper(settings_in(tmp_path), LocalStore(tmp_path / "backups"))


def root(shop: Keeper) -> Path:
    assert isinstance(shop.store, LocalStore)
    return shop.store.root


def entry(shop: Keeper, age: float) -> Entry:
    return Catalogue(shop.store, "shop").find(id_of(age))


def records(shop: Keeper) -> list[tuple[str, str]]:
    return [(record.event, record.result) for record in AuditLog(shop.store, "shop").records()]


def test_what_goes_is_gone_and_what_stays_is_whole(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2, 3))
    shelve(shop.store, 2.1, Verdict.FAILED)
    shelve(shop.store, 0.1, Verdict.NOT_VERIFIED)
    done = shop.apply()
    assert done.deleted == (id_of(3), id_of(2.1), id_of(2), id_of(0.1)), "the oldest first"
    assert finished(shop.store) == {id_of(0), id_of(1)}
    assert done.freed_bytes == 4 * 15 and not done.left and not done.swept
    assert {key.split("/")[3] for key in keys(shop.store, "shop/logical")} == {id_of(0), id_of(1)}
    assert shop.apply().deleted == ()
    assert records(shop) == [("prune", "started"), ("prune", "done")], "nothing to delete is nothing to tell"


def test_the_audit_log_tells_what_was_to_go_and_what_went(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2, 3))
    shop.apply()
    started, done = AuditLog(shop.store, "shop").records()
    assert started.ids == done.ids == {"backups": f"{id_of(3)} {id_of(2)}"}
    assert started.details == {"backups": 2, "stored_bytes": 30}
    assert done.details == {"deleted": 2, "freed_bytes": 30, "left": 0}
    assert (done.actor, done.command) == ("tester", "verify")
    assert check_audit(shop.store, "shop").status is Status.PASSED


def test_without_a_policy_nothing_is_planned(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    fill(store, (0, 900))
    with pytest.raises(ConfigError) as caught:
        make_plan(store, settings_in(tmp_path), NOW)
    assert (caught.value.code, caught.value.exit_status) == ("NO_RETENTION", ExitStatus.USAGE)
    assert "retention: {daily:" in caught.value.hint


def test_a_plan_deletes_nothing(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2))
    before = list(keys(shop.store, ""))
    assert shop.going() == [id_of(2)]
    assert list(keys(shop.store, "")) == before


def test_unfinished_attempts_are_swept_after_a_day(shop: Keeper) -> None:
    for age, written in ((3, 25), (2, 23)):
        manifest = made_up(taken(age))
        shop.store.put_bytes(b"x", f"{manifest.folder}/dump/1.dat")
        moment = (NOW - timedelta(hours=written)).timestamp()
        os.utime(root(shop) / manifest.folder / "dump" / "1.dat", (moment, moment))
    progress = Progress()
    done = apply(shop.store, shop.plan(NOW), by=BY, progress=progress, now=NOW)
    assert done.swept == (made_up(taken(3)).folder,)
    assert progress.seconds == {}, "no stage tells of nothing that goes"
    (swept,) = AuditLog(shop.store, "shop").records()
    assert (swept.event, swept.result, swept.ids) == ("sweep", "removed", {"folder": made_up(taken(3)).folder})


def test_what_a_newer_release_wrote_is_left_alone(shop: Keeper) -> None:
    fill(shop.store, (0, 1))
    old = made_up(taken(9))
    contents = unseal("manifest", manifests.encode(old))
    shop.store.put_bytes(seal("manifest", {**contents, "schema_version": 99}), f"{old.folder}/manifest.json")
    assert shop.going() == []
    assert shop.reason(9) == "a newer release of this software wrote it"


def test_a_damaged_manifest_goes_when_it_is_replaced(shop: Keeper) -> None:
    fill(shop.store, (0, 1))
    old = made_up(taken(9))
    shop.store.put_bytes(b"{}", f"{old.folder}/manifest.json")
    done = shop.apply()
    assert (done.deleted, done.freed_bytes) == ((old.id,), 0)


def change_manifest(shop: Keeper) -> None:
    path = root(shop) / entry(shop, 0).folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"zstd:1", b"zstd:2"))


def fail_again(shop: Keeper) -> None:
    found = entry(shop, 0)
    record = proof_of(found.require_manifest(), found.manifest_sha256, Verdict.FAILED, NOW + timedelta(hours=1))
    Catalogue(shop.store, "shop").add_proof(record, b"")


def damage_proof(shop: Keeper) -> None:
    (path,) = (root(shop) / entry(shop, 0).folder / "proofs").glob("*.json")
    path.write_bytes(path.read_bytes()[:-9])


def remove(path: str) -> Callable[[Keeper], None]:
    def act(shop: Keeper) -> None:
        victim = root(shop) / entry(shop, 0).folder / path
        shutil.rmtree(victim) if victim.is_dir() else victim.unlink()

    return act


def cut(shop: Keeper) -> None:
    path = root(shop) / entry(shop, 0).folder / "dump" / "1.dat"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("lose", "words"),
    [
        (change_manifest, "cannot be read (MANIFEST_DAMAGED)"),
        (fail_again, "is FAILED"),
        (damage_proof, "is NOT_VERIFIED"),
        (remove("proofs"), "is NOT_VERIFIED"),
        (remove("dump/1.dat"), "lacks dump/1.dat"),
        (cut, "has dump/1.dat cut"),
        (remove("manifest.json"), "is no longer there"),
        (remove("."), "is no longer there"),
    ],
)
def test_nothing_goes_when_what_it_goes_for_is_lost(shop: Keeper, lose: Callable[[Keeper], None], words: str) -> None:
    """Between plan and deletion, or behind the back of what is remembered."""
    fill(shop.store, (0, 1, 2, 3))
    planned = shop.plan()
    assert [c.id for c in planned.going] == [id_of(3), id_of(2)]
    lose(shop)
    before = sorted(keys(shop.store, ""))
    with pytest.raises(ProofFailed) as caught:
        shop.apply(planned)
    assert (caught.value.code, caught.value.exit_status) == ("RETENTION_UNSAFE", ExitStatus.FAILED)
    assert f"{id_of(0)} {words}" in caught.value.message
    assert sorted(keys(shop.store, "")) == before, "nothing was deleted, and nothing was promised in the log"
    assert id_of(1) in {d.candidate.id for d in shop.plan().decisions if d.keep}, "the next plan does without it"


def test_an_encrypted_backup_without_its_key_replaces_nothing(shop: Keeper) -> None:
    fill(shop.store, (1, 2))
    encryption = manifests.EncryptionRecord(algorithm="a", frame_bytes=1, key_id="k", data_key_id="d")
    newest = made_up(taken(0)).model_copy(update={"files": (), "encryption": encryption})
    digest = put(shop.store, newest)
    Catalogue(shop.store, "shop").add_proof(proof_of(newest, digest, Verdict.PROVEN, NOW), b"")
    with pytest.raises(ProofFailed, match="lacks its key"):
        shop.apply()
    shop.store.put_bytes(b"wrapped", f"{newest.folder}/keys/0123456789abcdef.enc")
    assert shop.apply().deleted == (id_of(2),)


def test_without_the_audit_log_nothing_goes(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2))
    (root(shop) / "shop" / "audit").write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        shop.apply()
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(2)}


def test_held_ones_stay_until_they_are_released(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2, 3))
    placed = hold(shop.store, entry(shop, 3), by="anna", reason="law suit", now=NOW)
    assert shop.going() == [id_of(2)] and shop.reason(3) == "held"
    assert read_hold(shop.store, entry(shop, 3)) == placed
    again = hold(shop.store, entry(shop, 3), by="ben", reason="other", now=NOW)
    assert again == placed, "the first hold stands"
    shop.apply()
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(3)}
    assert release(shop.store, entry(shop, 3)) == placed
    assert release(shop.store, entry(shop, 3)) is None and read_hold(shop.store, entry(shop, 3)) is None
    assert shop.apply().deleted == (id_of(3),)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"digest": "x", "hold": {}}'])
def test_a_hold_that_cannot_be_read_holds(shop: Keeper, damage: bytes) -> None:
    fill(shop.store, (0, 1, 2))
    key = hold_key(entry(shop, 2).folder)
    shop.store.put_bytes(damage, key)
    assert shop.going() == []
    with pytest.raises(StoreError) as caught:
        read_hold(shop.store, entry(shop, 2))
    assert caught.value.code == "HOLD_DAMAGED"
    assert release(shop.store, entry(shop, 2)) is None
    assert not shop.store.exists(key)


def test_a_hold_that_was_placed_after_the_plan_is_respected(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2, 3))
    planned = shop.plan()
    hold(shop.store, entry(shop, 3), by="anna", reason="law suit", now=NOW)
    done = shop.apply(planned)
    assert (done.deleted, done.left) == ((id_of(2),), (id_of(3),))
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(3)}
    assert AuditLog(shop.store, "shop").records()[-1].details["left"] == 1


class Meanwhile(LocalStore):
    """A store in whose folder something happens the moment before a manifest is deleted."""

    def __init__(self, root: Path, act: Callable[[str], object]) -> None:
        super().__init__(root)
        self.act = act

    def delete(self, key: str) -> None:
        if key.endswith("/manifest.json"):
            self.act(key.rpartition("/")[0])
        super().delete(key)


def test_a_hold_at_the_very_moment_of_the_deletion_is_respected(shop: Keeper) -> None:
    """Whoever was told that the backup is held must find it."""
    fill(shop.store, (0, 1, 2))
    backup = entry(shop, 2)
    store = Meanwhile(root(shop), lambda _: hold(shop.store, backup, by="anna", reason="law suit", now=NOW))
    done = Keeper(shop.settings, store).apply()
    assert (done.deleted, done.left) == ((), (id_of(2),))
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(2)}
    assert entry(shop, 2) == replace(backup, held=True)


def test_a_hold_that_comes_too_late_says_so(shop: Keeper) -> None:
    fill(shop.store, (0, 1, 2))
    backup = entry(shop, 2)
    shop.store.delete(f"{backup.folder}/manifest.json")
    with pytest.raises(StoreError) as caught:
        hold(shop.store, backup, by="anna", reason="law suit", now=NOW)
    assert caught.value.code == "BACKUP_GONE"
    assert not shop.store.exists(hold_key(backup.folder)), "a hold beside nothing would promise something"


def test_two_at_a_time_do_not_disturb_each_other(shop: Keeper) -> None:
    """Another one deletes the same backup at the same moment."""
    fill(shop.store, (0, 1, 2, 3))
    planned = shop.plan()
    store = Meanwhile(root(shop), lambda _: shop.apply(planned))
    done = Keeper(shop.settings, store).apply(planned)
    assert (done.deleted, done.left) == ((id_of(3),), (id_of(2),))
    assert finished(shop.store) == {id_of(0), id_of(1)}


def test_what_a_held_backup_needs_stays_with_it(shop: Keeper) -> None:
    """A dependent that is held after the plan keeps the bases that were to go with it."""
    fill(shop.store, (0, 1, 5, 6, 7, 8))
    bases = {id_of(5): id_of(6), id_of(6): id_of(7)}
    planned = shop.plan()
    chained = [replace(d.candidate, base=bases.get(d.candidate.id)) for d in planned.decisions]
    planned = replace(planned, decisions=plan(chained, planned.policy, NOW))
    assert [c.id for c in planned.going] == [id_of(8), id_of(5), id_of(6), id_of(7)]
    hold(shop.store, entry(shop, 5), by="anna", reason="law suit", now=NOW)
    done = shop.apply(planned)
    assert done.deleted == (id_of(8),) and done.left == (id_of(5), id_of(6), id_of(7))
    assert finished(shop.store) == {id_of(age) for age in (0, 1, 5, 6, 7)}


def prune_and_die(root: Path, number: int, now: datetime) -> None:
    """Carry the retention out; killed just before the `number`-th change to the file system."""
    changes = 0

    def count(event: str, _: object) -> None:
        nonlocal changes
        if event in ("os.remove", "os.rmdir", "os.link", "os.mkdir"):
            changes += 1
            if changes == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    keeper(settings_in(root.parent), LocalStore(root)).apply(now=now)


def test_killed_at_any_moment_it_leaves_whole_backups_and_goes_on(shop: Keeper, tmp_path: Path) -> None:
    """SIGKILL before each single change that it makes, one after the other, until it comes to its end."""
    fill(shop.store, (0, 1, 2, 3))
    shelve(shop.store, 4, Verdict.NOT_VERIFIED)
    attempt = made_up(taken(5))
    shop.store.put_bytes(b"x", f"{attempt.folder}/dump/1.dat")
    for path in root(shop).rglob("*.dat"):
        os.utime(path, (taken(5).timestamp(),) * 2)
    stay, all_of_them = {id_of(0), id_of(1)}, {id_of(age) for age in range(5)}
    processes = multiprocessing.get_context("fork")
    seen = set()
    for number in range(1, 1000):
        copy = tmp_path / str(number) / "backups"
        shutil.copytree(root(shop), copy)
        process = processes.Process(target=prune_and_die, args=(copy, number, NOW))
        process.start()
        process.join()
        store = LocalStore(copy)
        left = finished(store)
        assert stay <= left <= all_of_them, number
        seen.add(frozenset(left))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        # A day later everything that was half-deleted is swept as well.
        keeper(settings_in(copy.parent), store).apply(now=NOW + timedelta(hours=25))
        assert finished(store) == stay
        assert {key.split("/")[3] for key in keys(store, "shop/logical")} == stay, number
        assert check_audit(store, "shop").status is Status.PASSED
        shutil.rmtree(copy.parent)
    else:
        pytest.fail("it never came to its end")
    assert number > 20, "it was killed many times"
    steps = [all_of_them, all_of_them - {id_of(4)}, stay | {id_of(2)}, stay]
    assert seen == set(map(frozenset, steps)), "before, between and after every deletion"


class Counting(LocalStore):
    """A store that counts what is asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened = 0
        self.asked = 0

    def open(self, key: str) -> BinaryIO:
        self.opened += 1
        return super().open(key)

    def locked_until(self, key: str) -> datetime | None:
        self.asked += 1
        return super().locked_until(key)


def test_ten_thousand_backups_are_planned_from_what_is_remembered(tmp_path: Path) -> None:
    store = Counting(tmp_path / "backups")
    shop = keeper(settings_in(tmp_path), store, daily=30, weekly=8, monthly=12)
    for number in range(10_000):
        manifest = made_up(taken(number / 4))
        data = manifests.encode(manifest)
        folder = store.root / manifest.folder
        (folder / "proofs").mkdir(parents=True)
        (folder / "manifest.json").write_bytes(data)
        if number % 10 == 0:
            record = proof_of(manifest, hashlib.sha256(data).hexdigest(), Verdict.PROVEN, taken(number / 4))
            (folder / "proofs" / "20261122T080003000000Z.json").write_bytes(encode_proof(record))
    first = shop.plan()
    assert len(first.decisions) == 10_000 and store.opened == 11_000
    assert store.asked == len(first.going) > 9_800, "only what would go is asked for its lock"
    store.opened = 0
    again = shop.plan(NOW + timedelta(minutes=1))
    assert store.opened == 0, "nothing that is remembered is read again"
    assert again.decisions == first.decisions
