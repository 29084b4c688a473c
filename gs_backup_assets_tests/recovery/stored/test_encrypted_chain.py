"""The chain with encryption: what rests is sealed, what is restored is proved, damage and exchange are found."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.instructions import NAME as INSTRUCTIONS
from gs_backup_assets.recovery.stored.keyring import find_cipher
from gs_backup_assets.vault.keys import load_key, raw_key
from gs_backup_assets_tests.chain import Chain, chain_in, codes, failures
from gs_backup_assets_tests.processes import open_folder
from gs_backup_assets_tests.recovery.stored.encrypted_scene import (
    KEY,
    MARKER,
    OTHER,
    PLAIN_DUMP,
    RAW,
    RAW_OTHER,
    Scene,
    bytes_of,
)

pytestmark = pytest.mark.usefixtures("given_keys")


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
