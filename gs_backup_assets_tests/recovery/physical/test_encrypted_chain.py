"""The chain with encryption: what rests is sealed, what is restored is proved, keys are changed without losing any."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import Envelope, Manifest, StoredFile
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, StoreError
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.instructions import NAME as INSTRUCTIONS
from gs_backup_assets.recovery.stored.keyring import find_cipher, rewrap
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes, fetch, write_sums
from gs_backup_assets.vault.keys import load_key, new_raw_key, raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.chain import Chain, chain_in, codes, execute, failures, settings_in, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.processes import open_folder, wait_until
from gs_backup_assets_tests.s3_server import MotoServer, S3Server

KEY, OTHER = new_raw_key(), new_raw_key()
MARKER = b"the quick brown fox 5417"
RAW = {"kind": "raw-aes-256", "key_env": "TEST_KEY"}
RAW_OTHER = {"kind": "raw-aes-256", "key_env": "TEST_OTHER_KEY"}
PLAIN_DUMP = {"compression": "none"}  # so that the marker would be found


@pytest.fixture(autouse=True)
def given_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_OTHER_KEY", OTHER)


@pytest.fixture(scope="module")
def source(server17: Cluster) -> Iterator[Target]:
    with fresh_database(server17) as target:
        execute(
            target,
            "CREATE TABLE lesson (id int PRIMARY KEY, title text)",
            f"INSERT INTO lesson VALUES (1, '{MARKER.decode()}')",
            "CREATE TABLE large (id int PRIMARY KEY, t text)",
            "INSERT INTO large SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 1000) AS n",
        )
        yield target


@pytest.fixture(scope="module")
def prover(server17: Cluster) -> Iterator[RestoreServer]:
    with throwaway_beside(server17) as server:
        yield server


def next_second(manifest: Manifest) -> None:
    """Ids name seconds: the next backup must not have the same."""
    wait_until(lambda: manifests.backup_id(datetime.now(timezone.utc)) != manifest.id, what="another second")


@pytest.fixture(scope="module")
def taken(source: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two encrypted backups in it, to be copied by each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", KEY)
        chain = chain_in(tmp_path_factory.mktemp("taken"), encryption=RAW, logical=PLAIN_DUMP)
        for _ in range(2):
            manifest = chain.take(source)
            write_sums(chain.store, chain.entry)
            next_second(manifest)
    return chain.store.root


@dataclass(frozen=True)
class Scene:
    """A store of one's own with two encrypted backups; `settings` says which keys are given."""

    chain: Chain

    @property
    def store(self) -> LocalStore:
        return self.chain.store

    @property
    def manifest(self) -> Manifest:
        return self.chain.entry.require_manifest()

    @property
    def older(self) -> Manifest:
        return Catalogue(self.store, "shop").entries()[1].require_manifest()

    def given(self, encryption: Any) -> DatabaseSettings:
        """The same settings with other keys."""
        return settings_in(self.chain.settings.folder, encryption=encryption, logical=PLAIN_DUMP)

    def path(self, manifest: Manifest, name: str) -> Path:
        return self.store.root / manifest.folder / name

    def wrappings(self, manifest: Manifest | None = None) -> list[str]:
        folder = (manifest or self.manifest).folder
        return [key.removeprefix(f"{folder}/") for key in keys(self.store, f"{folder}/keys")]

    def largest(self) -> StoredFile:
        return max(self.manifest.files, key=lambda file: file.size)

    def fetched(self, settings: DatabaseSettings | None = None) -> CheckResult:
        with tempfile.TemporaryDirectory() as into, Progress().stage("fetch") as stage:
            return fetch(self.store, self.chain.entry, stage, Path(into), settings or self.chain.settings)

    def checked(self) -> CheckResult:
        with Progress().stage("checksum") as stage:
            return check_stored_bytes(self.store, self.chain.entry, stage)

    def reseal(self, manifest: Manifest) -> None:
        """Write a manifest anew, with the digests of what lies in its folder now, as somebody who can write might."""
        files = []
        for file in manifest.files:
            data = self.path(manifest, file.stored_path).read_bytes()
            envelope = Envelope(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            files.append(file.model_copy(update={"envelope": envelope}))
        path = self.path(manifest, "manifest.json")
        path.write_bytes(manifests.encode(manifest.model_copy(update={"files": tuple(files)})))
        self.path(manifest, "SHA256SUMS").unlink()
        write_sums(self.store, self.chain.entry)


@pytest.fixture
def scene(taken: Path, tmp_path: Path) -> Scene:
    shutil.copytree(taken, tmp_path / "backups")
    return Scene(chain_in(tmp_path, encryption=RAW, logical=PLAIN_DUMP))


def bytes_of(store: LocalStore) -> dict[str, bytes]:
    return {key: (store.root / key).read_bytes() for key in keys(store, "")}


def test_what_rests_in_the_store_is_sealed(scene: Scene, source: Target, tmp_path: Path) -> None:
    names = {file.stored_path for file in scene.manifest.files}
    assert all(name.endswith(".enc") for name in names)
    assert {"globals.sql.enc", "dump/toc.dat.enc"} <= names
    stored = bytes_of(scene.store)
    beside = {"manifest.json", "SHA256SUMS", *scene.wrappings()}
    assert {key for key in stored if key.startswith(scene.manifest.folder)} == {
        f"{scene.manifest.folder}/{name}" for name in names | beside
    }
    everything = b"".join(stored.values())
    assert MARKER not in everything
    for secret in (KEY.encode(), raw_key(KEY, "").secret, raw_key(KEY, "").secret.hex().encode()):
        assert secret not in everything
    assert b"CREATE TABLE" not in everything and b"CREATE ROLE" not in everything
    plain = chain_in(tmp_path / "plain", logical=PLAIN_DUMP)
    plain.take(source)
    unsealed = b"".join(bytes_of(plain.store).values())
    assert MARKER in unsealed and b"CREATE ROLE" in unsealed, "without encryption they are found"


def test_the_manifest_names_keys_and_holds_none(scene: Scene) -> None:
    record = scene.manifest.encryption
    assert record is not None
    assert record.algorithm == "AES_256_GCM_HKDF_SHA512_COMMIT_KEY" and record.frame_bytes == 1 << 20
    assert record.key_id == load_key(scene.chain.settings.encryption, Path()).id  # type: ignore[arg-type]
    assert scene.wrappings() == [f"keys/{record.key_id}.enc"]
    older = scene.older.encryption
    assert older is not None
    assert older.key_id == record.key_id and older.data_key_id != record.data_key_id


def test_an_encrypted_backup_is_proven(scene: Scene, prover: RestoreServer) -> None:
    record = scene.chain.prove(prover)
    assert record.verdict is Verdict.PROVEN, failures(record)


def test_the_stored_bytes_are_checked_without_any_key(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    assert scene.checked().status is Status.PASSED
    path = scene.path(scene.manifest, scene.largest().stored_path)
    path.write_bytes(path.read_bytes() + b"!")
    assert codes(scene.checked()) == {"FILE_EXTENDED"}


# Wrong key, missing key, damaged envelope: each has a code of its own.


@pytest.mark.parametrize(
    ("value", "code"),
    [(OTHER, "KEY_WRONG"), ("", "KEY_MISSING"), ("hunter2", "KEY_INVALID")],
    ids=["wrong", "missing", "invalid"],
)
def test_without_the_right_key_nothing_is_said_of_the_backup(
    scene: Scene, prover: RestoreServer, monkeypatch: pytest.MonkeyPatch, value: str, code: str
) -> None:
    monkeypatch.setenv("TEST_KEY", value)
    record = scene.chain.prove(prover)
    assert record.verdict is Verdict.NOT_VERIFIED
    assert {check.name: codes(check) for check in record.checks if check.status is Status.FAILED} == {}
    (finding,) = record.checks[0].findings
    assert finding.code == code
    told = f"{record.checks[0].summary} {finding.message}"
    assert scene.manifest.id in told and scene.wrappings()[0][5:-4] in told
    assert "hunter2" not in record.model_dump_json()


def test_a_backup_that_is_encrypted_and_no_key_at_all(scene: Scene) -> None:
    with pytest.raises(NotVerifiable) as caught:
        scene.fetched(scene.given(None))
    assert caught.value.code == "KEY_MISSING" and "GS_BACKUP_KEY" in caught.value.hint


def test_a_key_that_cannot_be_had_is_told_when_the_others_do_not_fit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(NotVerifiable) as caught:
        scene.fetched(scene.given({**RAW_OTHER, "previous": [RAW]}))
    assert caught.value.code == "KEY_MISSING", "not KEY_WRONG: the right one is named, but it is not there"
    assert "TEST_KEY" in caught.value.message and raw_key(OTHER, "").id in caught.value.message


def _flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "seen", "resealed"),
    [(_flip, "FILE_DIFFERS", "ENVELOPE_DAMAGED"), (_cut, "FILE_TRUNCATED", "ENVELOPE_DAMAGED")],
)
def test_damage_is_found_by_the_digest_and_by_the_envelope(
    scene: Scene, prover: RestoreServer, damage: Callable[[Path], None], seen: str, resealed: str
) -> None:
    damage(scene.path(scene.manifest, scene.largest().stored_path))
    record = scene.chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    assert codes(record.checks[0]) == {seen}
    scene.reseal(scene.manifest)
    assert scene.checked().status is Status.PASSED, "who cannot decrypt cannot tell"
    record = scene.chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    assert codes(record.checks[0]) == {resealed}


def test_the_envelope_of_another_backup_does_not_pass(scene: Scene, prover: RestoreServer) -> None:
    name = scene.largest().stored_path
    shutil.copy(scene.path(scene.older, name), scene.path(scene.manifest, name))
    scene.reseal(scene.manifest)
    record = scene.chain.prove(prover)
    assert record.verdict is Verdict.FAILED
    assert codes(record.checks[0]) == {"ENVELOPE_MISPLACED"}
    assert scene.older.id in record.checks[0].findings[0].message


def test_two_files_of_one_backup_cannot_be_exchanged(scene: Scene) -> None:
    one, other = (scene.path(scene.manifest, f.stored_path) for f in scene.manifest.files[:2])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    scene.reseal(scene.manifest)
    assert codes(scene.fetched()) == {"ENVELOPE_MISPLACED"}


def test_a_backup_cannot_take_the_place_of_another_whole(scene: Scene) -> None:
    """Even with its data key: what was taken yesterday cannot be passed off as today's."""
    for file in scene.manifest.files:
        shutil.copy(scene.path(scene.older, file.stored_path), scene.path(scene.manifest, file.stored_path))
    (wrapping,) = scene.wrappings()
    shutil.copy(scene.path(scene.older, wrapping), scene.path(scene.manifest, wrapping))
    scene.reseal(scene.manifest.model_copy(update={"encryption": scene.older.encryption}))
    assert codes(scene.fetched()) == {"ENVELOPE_MISPLACED"}


def test_a_damaged_or_exchanged_wrapping_is_the_backups_fault(scene: Scene) -> None:
    path = scene.path(scene.manifest, scene.wrappings()[0])
    good = path.read_bytes()
    _flip(path)
    assert codes(scene.fetched()) == {"ENVELOPE_DAMAGED"}
    shutil.copy(scene.path(scene.older, scene.wrappings()[0]), path)
    assert codes(scene.fetched()) == {"ENVELOPE_MISPLACED"}
    path.unlink()
    assert codes(scene.fetched()) == {"DATA_KEY_MISSING"}
    path.write_bytes(good)
    assert scene.fetched().status is Status.PASSED


def test_the_wrapped_key_of_another_key_does_not_pass_for_this_one(scene: Scene) -> None:
    """A key that the master key wrapped for this very backup, but not the one that the manifest names."""
    encryption = scene.manifest.encryption
    assert encryption is not None
    scene.reseal(
        scene.manifest.model_copy(update={"encryption": encryption.model_copy(update={"data_key_id": "0" * 16})})
    )
    assert codes(scene.fetched()) == {"ENVELOPE_DAMAGED"}


# Changing keys


def test_old_backups_are_readable_while_their_key_is_given(
    scene: Scene, source: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = scene.manifest
    rotated = scene.given({**RAW_OTHER, "previous": [RAW]})
    chain = Chain(rotated, scene.store)
    new = chain.take(source)
    assert new.encryption is not None and new.encryption.key_id == raw_key(OTHER, "").id
    assert scene.fetched(rotated).status is Status.PASSED
    assert find_cipher(scene.store, old, rotated.encryption, rotated.folder) is not None
    monkeypatch.delenv("TEST_KEY")
    assert scene.fetched(rotated).status is Status.PASSED, "the new backup needs the new key only"
    with pytest.raises(NotVerifiable) as caught:
        find_cipher(scene.store, old, rotated.encryption, rotated.folder)
    assert caught.value.code == "KEY_MISSING"


def moved(scene: Scene, encryption: Any) -> bool:
    settings = scene.given(encryption)
    assert settings.encryption is not None
    return rewrap(scene.store, scene.manifest, settings.encryption, settings.folder)


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


# Taking


def told_while_taking(chain: Chain, source: Target, progress: Progress) -> BackupError:
    with pytest.raises(BackupError) as caught:
        take_backup(chain.settings, source, chain.store, chain.today, progress)
    return caught.value


@pytest.mark.parametrize("value", ["", "hunter2"])
def test_without_its_key_a_backup_does_not_even_begin(
    source: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TEST_KEY", value)
    chain, progress = chain_in(tmp_path, encryption=RAW), Progress()
    error = told_while_taking(chain, source, progress)
    assert isinstance(error, ConfigError)
    assert error.code == ("KEY_INVALID" if value else "KEY_MISSING")
    assert progress.seconds == {}, "no stage was begun"
    assert not chain.store.root.exists()


def test_a_kms_key_that_cannot_be_used_is_told_before_the_dump(source: Target, tmp_path: Path) -> None:
    arn = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    kms = {"kind": "aws-kms", "key_id": arn, "endpoint": "http://127.0.0.1:9"}
    chain, progress = chain_in(tmp_path, encryption=kms), Progress()
    assert told_while_taking(chain, source, progress).code == "KEY_UNAVAILABLE"
    assert progress.seconds == {} and not chain.store.root.exists()


class Looking:
    """Looks at the private folders in the middle of every stage."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.modes: dict[str, set[int]] = {}
        self.plain: set[str] = set()

    def stage_started(self, stage: str) -> None: ...

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None: ...

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
        for folder in self.base.glob("gs-backup-spool-*"):
            self.modes.setdefault(stage, set()).add(folder.stat().st_mode & 0o777)
            if any(MARKER in path.read_bytes() for path in folder.rglob("*.dat")):
                self.plain.add(stage)


def test_plaintext_rests_in_private_spools_only(
    scene: Scene, source: Target, prover: RestoreServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_folder() as base:
        monkeypatch.setattr(tempfile, "tempdir", str(base))
        looking = Looking(base)
        take_backup(scene.chain.settings, source, scene.store, scene.chain.today, Progress(looking))
        assert looking.modes["store"] == {0o700}
        assert "store" in looking.plain, "it was there while at work"
        assert list(base.iterdir()) == []
        prove(scene.chain.settings, scene.store, scene.chain.entry, Progress(looking), server=prover)
        assert looking.modes["fetch"] == {0o700}
        assert list(base.iterdir()) == []
    left = [path for path in tmp_path.rglob("*") if path.is_file() and MARKER in path.read_bytes()]
    assert left == []


def test_the_instructions_are_left_once(scene: Scene, source: Target) -> None:
    """For whoever has nothing but the store; what somebody wrote there is not replaced."""
    text = (scene.store.root / INSTRUCTIONS).read_text()
    assert "sha256sum" in text and len(text.splitlines()) <= 64
    (scene.store.root / INSTRUCTIONS).write_text("ours")
    scene.chain.take(source)
    assert (scene.store.root / INSTRUCTIONS).read_text() == "ours"
    assert len(Catalogue(scene.store, "shop").entries()) == 3
    assert scene.checked().status is Status.PASSED


def test_a_store_that_takes_no_instructions_is_no_reason_to_lose_a_backup(source: Target, tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    chain.store.root.mkdir(mode=0o700)
    (chain.store.root / INSTRUCTIONS).symlink_to("/nowhere")  # a link leads out of the store: it is not followed
    manifest = chain.take(source)
    assert any(INSTRUCTIONS in warning for warning in manifest.warnings), manifest.warnings
    assert json.loads((chain.store.root / manifest.folder / "manifest.json").read_bytes())
