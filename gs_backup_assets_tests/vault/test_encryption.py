"""Envelopes: what goes in comes out; whatever was changed, cut off or moved does not; and keys are never told."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
import traceback
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gs_backup_assets.config_stores import KmsKeyConfig
from gs_backup_assets.errors import BackupError, StoreError
from gs_backup_assets.vault.encryption import FRAME_BYTES, BackupCipher, Identity, kms_key_of
from gs_backup_assets.vault.keys import RawKey, load_key, raw_key
from gs_backup_assets.vault.pipeline import Hashing, drain
from gs_backup_assets.vault.store import Source
from gs_backup_assets_tests.s3_server import MotoServer

HERE = Identity("shop", "20261122T080003Z")
PATH = "dump/3456.dat.zst"
MASTER = RawKey(secrets.token_bytes(32))


@pytest.fixture(scope="module")
def cipher() -> BackupCipher:
    return BackupCipher.new(HERE)


def whole(source: Source, block: int = 1 << 20) -> bytes:
    return b"".join(iter(lambda: source.read(block), b""))


def sealed(cipher: BackupCipher, data: bytes, path: str = PATH) -> bytes:
    return whole(cipher.encrypting(BytesIO(data), path))


def opened(cipher: BackupCipher, envelope: bytes, path: str = PATH) -> bytes:
    return whole(cipher.decrypting(BytesIO(envelope), path))


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        action()
    assert caught.value.exit_status == 4
    return caught.value.code


SIZES = (0, 1, 15, 16, 17, 1000, *(n * FRAME_BYTES + d for n in (1, 2, 3) for d in (-1, 0, 1)), 5_000_000)


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(cipher: BackupCipher, size: int) -> None:
    data = os.urandom(size)
    envelope = sealed(cipher, data)
    assert opened(cipher, envelope) == data
    assert 0 < len(envelope) - size <= cipher.sealed_size(size) - size, "the estimate is not too small"
    assert data[:64] not in envelope or size < 16


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 4000), st.integers(1, 4000))
def test_however_it_is_read(data: bytes, one: int, other: int) -> None:
    cipher = BackupCipher.new(HERE)
    envelope = whole(cipher.encrypting(BytesIO(data), PATH), one)
    assert whole(cipher.decrypting(BytesIO(envelope), PATH), other) == data


class Trickle:
    """A source that gives a few bytes at a time, as sockets do."""

    def __init__(self, data: bytes) -> None:
        self._stream = BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, 777))


def test_sources_that_give_little_at_a_time(cipher: BackupCipher) -> None:
    data = os.urandom(FRAME_BYTES + 5)
    envelope = whole(cipher.encrypting(Trickle(data), PATH))
    assert whole(cipher.decrypting(Trickle(envelope), PATH)) == data


def test_equal_files_have_different_envelopes(cipher: BackupCipher) -> None:
    assert sealed(cipher, b"x" * 100)[-116:] != sealed(cipher, b"x" * 100)[-116:]


SMALL = b"Attack at dawn. " * 4


@pytest.mark.parametrize("pattern", [0x01, 0x80, 0xFF])
def test_any_byte_changed(cipher: BackupCipher, pattern: int) -> None:
    """The header with the context and the wrapped key, the frame, the tag: every byte is authenticated."""
    envelope = sealed(cipher, SMALL)
    for position in range(len(envelope)):
        bad = bytearray(envelope)
        bad[position] ^= pattern
        code = code_of(lambda bad=bad: opened(cipher, bytes(bad)))  # type: ignore[misc]
        assert code in ("ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED"), position


def test_any_end_cut_off(cipher: BackupCipher) -> None:
    envelope = sealed(cipher, SMALL)
    for length in range(len(envelope)):
        assert code_of(lambda n=length: opened(cipher, envelope[:n])) == "ENVELOPE_DAMAGED", length  # type: ignore[misc]


def test_a_missing_byte_anywhere(cipher: BackupCipher) -> None:
    envelope = sealed(cipher, SMALL)
    for position in range(len(envelope)):
        bad = envelope[:position] + envelope[position + 1 :]
        code = code_of(lambda bad=bad: opened(cipher, bad))  # type: ignore[misc]
        assert code in ("ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED"), position


def test_frames_cannot_be_cut_off_left_out_or_exchanged(cipher: BackupCipher) -> None:
    """Only frames that are proved come out; the end is an end only where it was written."""
    data = os.urandom(4 * FRAME_BYTES)
    envelope = sealed(cipher, data)
    frame = FRAME_BYTES + 4 + 12 + 16
    header = len(envelope) - 4 * frame - (8 + 12 + 4 + 16)  # the last frame, here empty, has a mark and a length more
    frames = [envelope[header + n * frame : header + (n + 1) * frame] for n in range(4)]
    head, tail = envelope[:header], envelope[header + 4 * frame :]
    assert head + b"".join(frames) + tail == envelope
    for bad in (
        head + b"".join(frames),
        head + tail,
        head + frames[0] + frames[2] + frames[3] + tail,
        head + frames[1] + frames[0] + frames[2] + frames[3] + tail,
        head + frames[0] + frames[0] + frames[1] + frames[2] + frames[3] + tail,
        sealed(cipher, data)[:header] + envelope[header:],
    ):
        source = cipher.decrypting(BytesIO(bad), PATH)
        came_out = BytesIO()
        with pytest.raises(StoreError) as caught:
            while block := source.read(FRAME_BYTES):
                came_out.write(block)
        assert caught.value.code == "ENVELOPE_DAMAGED"
        assert data.startswith(came_out.getvalue())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_no_bytes_at_all_make_it_stumble(junk: bytes) -> None:
    cipher = BackupCipher.new(HERE)
    assert code_of(lambda: opened(cipher, junk)) in ("ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED")
    assert code_of(lambda: BackupCipher.unwrapped(junk, MASTER, HERE)) in ("ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED")
    kms_key_of(junk)


def test_what_is_appended_is_seen_by_the_digest_of_what_is_stored(cipher: BackupCipher) -> None:
    """The envelope knows its end and does not look behind it; who reads it to the end hashes that as well."""
    envelope = sealed(cipher, SMALL)
    stored = Hashing(BytesIO(envelope + b"!"))
    assert whole(cipher.decrypting(stored, PATH)) == SMALL
    drain(stored)
    assert stored.size == len(envelope) + 1
    assert stored.sha256 != hashlib.sha256(envelope).hexdigest()


@pytest.mark.parametrize(
    ("identity", "path"),
    [
        (HERE, "dump/3457.dat.zst"),
        (HERE, ""),
        (HERE, "globals.sql"),
        (Identity("shop", "20261122T080004Z"), PATH),
        (Identity("shop2", "20261122T080003Z"), PATH),
    ],
)
def test_what_was_moved_does_not_open(identity: Identity, path: str) -> None:
    """Not even with its own data key."""
    key = secrets.token_bytes(32)
    envelope = sealed(BackupCipher(key, HERE), SMALL)
    with pytest.raises(StoreError) as caught:
        opened(BackupCipher(key, identity), envelope, path)
    assert caught.value.code == "ENVELOPE_MISPLACED"
    assert "database shop, id 20261122T080003Z, path dump/3456.dat.zst" in caught.value.message


def test_a_wrapped_key_that_was_moved_does_not_open() -> None:
    cipher = BackupCipher.new(HERE)
    wrapped = cipher.wrapped_by(MASTER)
    for identity in (Identity("shop", "20261122T080004Z"), Identity("other", HERE.backup_id)):
        assert code_of(lambda i=identity: BackupCipher.unwrapped(wrapped, MASTER, i)) == "ENVELOPE_MISPLACED"  # type: ignore[misc]
    assert code_of(lambda: opened(cipher, wrapped)) == "ENVELOPE_MISPLACED"
    assert BackupCipher.unwrapped(wrapped, MASTER, HERE).data_key_id == cipher.data_key_id


def test_another_key_opens_nothing(cipher: BackupCipher) -> None:
    envelope = sealed(cipher, SMALL)
    assert code_of(lambda: opened(BackupCipher.new(HERE), envelope)) == "ENVELOPE_DAMAGED"
    wrapped = cipher.wrapped_by(MASTER)
    other = RawKey(secrets.token_bytes(32))
    assert code_of(lambda: BackupCipher.unwrapped(wrapped, other, HERE)) == "ENVELOPE_DAMAGED"


def test_a_wrapped_key_with_any_byte_changed_or_cut(cipher: BackupCipher) -> None:
    wrapped = cipher.wrapped_by(MASTER)
    for position in range(len(wrapped)):
        bad = bytearray(wrapped)
        bad[position] ^= 1
        for broken in (bytes(bad), wrapped[:position]):
            code = code_of(lambda b=broken: BackupCipher.unwrapped(b, MASTER, HERE))  # type: ignore[misc]
            assert code in ("ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED"), position


@pytest.mark.parametrize("size", [0, 16, 31, 33, 4096])
def test_what_was_wrapped_must_be_a_key(size: int) -> None:
    """A master key may have wrapped other things."""
    short = BackupCipher(b"k" * 32, HERE)
    object.__setattr__(short._key, "secret", b"k" * size)
    wrapped = short.wrapped_by(MASTER)
    assert code_of(lambda: BackupCipher.unwrapped(wrapped, MASTER, HERE)) == "ENVELOPE_DAMAGED"


class Endless:
    """So many zero bytes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int, /) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def test_memory_holds_frames_and_never_the_file(cipher: BackupCipher) -> None:
    size = 96 * FRAME_BYTES
    tracemalloc.start()
    try:
        source = cipher.decrypting(Hashing(cipher.encrypting(Endless(size), PATH)), PATH)
        total = 0
        while block := source.read(FRAME_BYTES):
            total += len(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 16 * FRAME_BYTES


def forms_of(secret: bytes) -> list[str]:
    """What a secret may look like in text."""
    return [secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1], repr(bytearray(secret))[12:-2]]


def told(error: BaseException) -> str:
    return f"{error} {error!r} {''.join(traceback.format_exception(error))}"


def test_keys_are_never_told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """At the lowest level of every logger, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    master, data_key = RawKey(secrets.token_bytes(32)), secrets.token_bytes(32)
    cipher = BackupCipher(data_key, HERE)
    words = [repr(cipher), repr(master), str(master), repr(cipher._key), repr(master.provider()), cipher.data_key_id]
    envelope, wrapped = sealed(cipher, SMALL), cipher.wrapped_by(master)
    BackupCipher.unwrapped(wrapped, master, HERE)
    text = base64.b64encode(data_key).decode()
    failures: list[Callable[[], Any]] = [
        lambda: opened(cipher, envelope[:-1]),
        lambda: opened(cipher, envelope[:100] + b"x" + envelope[101:]),
        lambda: opened(BackupCipher(data_key, Identity("a", "b")), envelope),
        lambda: BackupCipher.unwrapped(wrapped[:-1], master, HERE),
        lambda: BackupCipher.unwrapped(wrapped, RawKey(data_key), HERE),
        lambda: raw_key(text[:-1], "here"),
        lambda: raw_key(text + "AA", "here"),
    ]
    for failure in failures:
        with pytest.raises(BackupError) as caught:
            failure()
        words.append(told(caught.value))
    output = capfd.readouterr()
    heard = "\n".join([*words, caplog.text, output.out, output.err])
    for secret in (master.secret, data_key):
        for form in forms_of(secret):
            assert form not in heard
    assert "Traceback" in heard, "this test sees what it looks at"


def test_what_kms_hands_out_is_never_told(
    moto_server: MotoServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """boto3 logs whole answers at DEBUG, and those of KMS hold keys."""
    caplog.set_level(logging.DEBUG)
    arn = moto_server.client("kms").create_key()["KeyMetadata"]["Arn"]
    config = KmsKeyConfig(kind="aws-kms", key_id=arn, endpoint=moto_server.endpoint)
    key = load_key(config, Path())
    handed: list[bytes] = []
    key.client.meta.events.register(  # type: ignore[attr-defined]
        "after-call.kms", lambda parsed, **_: handed.append(parsed["Plaintext"]) if "Plaintext" in parsed else None
    )
    cipher = BackupCipher.new(HERE)
    wrapped = cipher.wrapped_by(key)
    assert BackupCipher.unwrapped(wrapped, key, HERE).data_key_id == cipher.data_key_id
    output = capfd.readouterr()
    heard = "\n".join([caplog.text, output.out, output.err])
    assert "botocore" in heard, "the loggers are on"
    assert len(handed) == 2
    for secret in (*handed, cipher._key.secret):
        for form in forms_of(secret):
            assert form not in heard
