"""Keys of encrypted backups are changed without losing any: raw keys, KMS, races, kills, an object lock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import NotVerifiable, StoreError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.keyring import find_cipher, rewrap
from gs_backup_assets.vault.keys import load_key, raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.chain import Chain, settings_in
from gs_backup_assets_tests.recovery.stored.encrypted_scene import KEY, OTHER, RAW, RAW_OTHER, Scene, bytes_of, moved
from gs_backup_assets_tests.s3_server import MotoServer, S3Server

pytestmark = pytest.mark.usefixtures("given_keys")


def test_rewrap_moves_a_backup_to_the_new_key_and_changes_nothing_else(
    scene: Scene, prover: RestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = scene.chain.prove(prover)
    Catalogue(scene.store, "shop").add_proof(record, b"<html>")
    before = bytes_of(scene.store)
    assert not moved(scene, RAW), "it is under the current key already"
    assert bytes_of(scene.store) == before
    (old,) = scene.wrappings()
    assert moved(scene, {**RAW_OTHER, "previous": [RAW]})
    (new,) = scene.wrappings()
    assert new == f"keys/{raw_key(OTHER, '').id}.enc" != old
    after = bytes_of(scene.store)
    changed = {f"{scene.manifest.folder}/{old}", f"{scene.manifest.folder}/{new}"}
    assert before.keys() ^ after.keys() == changed
    assert all(after[key] == before[key] for key in before.keys() & after.keys())
    assert not moved(scene, {**RAW_OTHER, "previous": [RAW]})
    assert scene.chain.entry.verdict is Verdict.PROVEN, "the proof still stands"
    monkeypatch.delenv("TEST_KEY")
    only_new = scene.given(RAW_OTHER)
    assert scene.fetched(only_new).status is Status.PASSED
    assert Chain(only_new, scene.store).prove(prover).verdict is Verdict.PROVEN


def test_rewrap_needs_the_old_key(scene: Scene) -> None:
    before = bytes_of(scene.store)
    with pytest.raises(NotVerifiable) as caught:
        moved(scene, RAW_OTHER)
    assert caught.value.code == "KEY_WRONG"
    assert bytes_of(scene.store) == before


class _Stopped(BaseException):
    """As a kill: nothing in between catches it."""


class StoppingStore(LocalStore):
    """A store whose process ends at the n-th change, right before or right after it."""

    def __init__(self, root: Path, stop_at: int, *, after: bool) -> None:
        super().__init__(root)
        self._left = stop_at
        self._after = after

    def _change(self, change: Callable[[], Any]) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise _Stopped
        done = change()
        if self._left == 0:
            raise _Stopped
        return done

    def put_bytes(self, data: bytes, key: str, *, locked: bool = True) -> Any:
        return self._change(lambda: LocalStore.put_bytes(self, data, key, locked=locked))

    def delete(self, key: str) -> None:
        self._change(lambda: LocalStore.delete(self, key))


@pytest.mark.parametrize("stop_at", [1, 2])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_rewrap_that_is_killed_loses_nothing(scene: Scene, stop_at: int, after: bool) -> None:
    settings = scene.given({**RAW_OTHER, "previous": [RAW]})
    assert settings.encryption is not None
    with pytest.raises(_Stopped):
        rewrap(
            StoppingStore(scene.store.root, stop_at, after=after),
            scene.manifest,
            settings.encryption,
            settings.folder,
        )
    assert scene.wrappings()
    assert scene.fetched(settings).status is Status.PASSED
    moved(scene, {**RAW_OTHER, "previous": [RAW]})
    assert scene.wrappings() == [f"keys/{raw_key(OTHER, '').id}.enc"]
    assert scene.fetched(scene.given(RAW_OTHER)).status is Status.PASSED


def test_a_damaged_new_wrapping_keeps_the_old_one(scene: Scene) -> None:
    """What does not open when it is read back is not what the last good one is given up for."""
    (old,) = scene.wrappings()
    path = scene.path(scene.manifest, f"keys/{raw_key(OTHER, '').id}.enc")
    path.write_bytes(b"half a wrapping")
    with pytest.raises(StoreError) as caught:
        moved(scene, {**RAW_OTHER, "previous": [RAW]})
    assert caught.value.code == "ENVELOPE_DAMAGED"
    assert old in scene.wrappings()
    assert scene.fetched(scene.given({**RAW_OTHER, "previous": [RAW]})).status is Status.PASSED


class RacingStore(LocalStore):
    """A store in which somebody else is at work when the first object is about to be removed."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def delete(self, key: str) -> None:
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        super().delete(key)


def test_two_that_rewrap_for_different_keys_leave_one(scene: Scene) -> None:
    settings = scene.given({**RAW_OTHER, "previous": [RAW]})
    assert settings.encryption is not None
    with pytest.raises(_Stopped):  # both wrappings are there
        rewrap(StoppingStore(scene.store.root, 1, after=True), scene.manifest, settings.encryption, settings.folder)
    assert len(scene.wrappings()) == 2
    racing = RacingStore(scene.store.root, lambda: moved(scene, {**RAW, "previous": [RAW_OTHER]}))
    rewrap(racing, scene.manifest, settings.encryption, settings.folder)
    assert scene.wrappings()
    assert scene.fetched(settings).status is Status.PASSED


def test_from_a_raw_key_to_kms_and_back(
    scene: Scene, moto_server: MotoServer, prover: RestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = moto_server.client("kms")
    arn = client.create_key()["KeyMetadata"]["Arn"]
    client.create_alias(AliasName="alias/chain", TargetKeyId=arn)
    kms = {"kind": "aws-kms", "key_id": arn, "endpoint": moto_server.endpoint}
    assert moved(scene, {**kms, "previous": [RAW]})
    (wrapping,) = scene.wrappings()
    assert wrapping == f"keys/{hashlib.sha256(arn.encode()).hexdigest()[:16]}.enc"
    monkeypatch.delenv("TEST_KEY")
    assert Chain(scene.given(kms), scene.store).prove(prover).verdict is Verdict.PROVEN
    by_alias = {**kms, "key_id": "alias/chain", "region": "us-east-1"}
    assert scene.fetched(scene.given(by_alias)).status is Status.PASSED
    with pytest.raises(StoreError) as caught:
        scene.fetched(scene.given({**kms, "endpoint": "http://127.0.0.1:9"}))
    assert caught.value.code == "KEY_UNAVAILABLE", "it is not the backup's fault, nor a missing key"
    monkeypatch.setenv("TEST_KEY", KEY)
    assert moved(scene, {**RAW, "previous": [kms]})
    assert scene.wrappings() == [f"keys/{raw_key(KEY, '').id}.enc"]
    assert scene.fetched().status is Status.PASSED


def test_a_kms_key_is_found_by_what_the_backup_says_of_it(
    scene: Scene, source: Target, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No configuration names it any more: the alias points to another key, or there is no configuration at all."""
    client = moto_server.client("kms")
    first, second = (client.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    client.create_alias(AliasName="alias/rotated", TargetKeyId=first)
    kms = {"kind": "aws-kms", "key_id": "alias/rotated", "endpoint": moto_server.endpoint, "region": "us-east-1"}
    chain = Chain(scene.given(kms), scene.store)
    manifest = chain.take(source)
    assert manifest.encryption is not None and manifest.encryption.key_id == first
    client.update_alias(AliasName="alias/rotated", TargetKeyId=second)
    assert scene.fetched(chain.settings).status is Status.PASSED
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto_server.endpoint)
    for given in (None, RAW_OTHER):
        assert scene.fetched(scene.given(given)).status is Status.PASSED
    assert moved(scene, kms), "it moves to the key that the alias means now"
    assert scene.wrappings() == [f"keys/{hashlib.sha256(second.encode()).hexdigest()[:16]}.enc"]
    assert scene.fetched(scene.given(RAW)).status is Status.PASSED


def test_in_a_bucket_with_object_lock(source: Target, tmp_path: Path, s3_server: S3Server) -> None:
    """Wrapped keys are locked like the files, which are worth nothing without them; a rewrap hides, and loses none."""
    name = s3_server.bucket(lock=True)
    config = s3_server.config(name, object_lock_days=1).model_dump(exclude_unset=True)
    there = settings_in(tmp_path, stores={"primary": config}, encryption=RAW)
    store = open_store(there)
    day = DAY.of(datetime.now(timezone.utc), there.zone)
    manifest = take_backup(there, source, store, day, Progress())

    def wrappings() -> list[str]:
        return list(keys(store, f"{manifest.folder}/keys"))

    (old,) = wrappings()
    assert store.locked_until(old) is not None
    for wanted, previous in ((RAW_OTHER, RAW), (RAW, RAW_OTHER), (RAW_OTHER, RAW)):
        settings = settings_in(tmp_path, encryption={**wanted, "previous": [previous]})
        assert settings.encryption is not None
        assert rewrap(store, manifest, settings.encryption, settings.folder)
        (new,) = wrappings()
        assert new.endswith(f"{load_key(settings.encryption, settings.folder).name}.enc")
        assert store.locked_until(new) is not None
        assert find_cipher(store, manifest, settings.encryption.model_copy(update={"previous": ()}), Path()) is not None
    versions = s3_server.client().list_object_versions(Bucket=name, Prefix=old)["Versions"]
    assert len(versions) == 2, "what a rewrap removed is still there for whoever asks for versions"
