"""Master keys from the environment, from files and from KMS: what is taken, what is refused, and that nothing leaks."""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.config_stores import KmsKeyConfig, RawKeyConfig
from gs_backup_assets.errors import BackupError, ConfigError, ExitStatus, StoreError
from gs_backup_assets.vault.encryption import BackupCipher, Identity, kms_key_of
from gs_backup_assets.vault.keys import MasterKey, RawKey, load_key, new_raw_key, raw_key
from gs_backup_assets_tests.faults import ANSWER_LOST, Break, proxy_before
from gs_backup_assets_tests.s3_server import MotoServer, running

HERE = Identity("shop", "20261122T080003Z")


def from_env(name: str = "TEST_KEY") -> RawKeyConfig:
    return RawKeyConfig(kind="raw-aes-256", key_env=name)


def from_file(path: Path) -> RawKeyConfig:
    return RawKeyConfig(kind="raw-aes-256", key_file=path)


def refused(config: RawKeyConfig | KmsKeyConfig, folder: Path = Path()) -> BackupError:
    with pytest.raises(BackupError) as caught:
        load_key(config, folder)
    return caught.value


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(new_raw_key() + "\n")
    return path


def test_new_keys_are_random_and_taken_as_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {new_raw_key() for _ in range(100)}
    assert len(keys) == 100
    for text in keys:
        assert len(base64.b64decode(text, validate=True)) == 32
    monkeypatch.setenv("TEST_KEY", min(keys))
    assert load_key(from_env(), Path()) == raw_key(min(keys), "here")


@pytest.mark.parametrize("around", ["{}", "{}\n", " {} ", "\t{}\r\n", "\n\n{}\n\n"])
def test_whitespace_around_a_key_does_not_matter(around: str, monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    text = new_raw_key()
    monkeypatch.setenv("TEST_KEY", around.format(text))
    key_file.write_text(around.format(text))
    assert load_key(from_env(), Path()) == load_key(from_file(key_file), Path()) == raw_key(text, "here")


def test_a_key_file_is_meant_from_the_folder_of_the_configuration(key_file: Path) -> None:
    assert load_key(from_file(Path("key")), key_file.parent) == load_key(from_file(key_file), Path("/nowhere"))


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_place_is_a_missing_key(text: str, monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setenv("TEST_KEY", text)
    key_file.write_text(text)
    for config in (from_env(), from_file(key_file), from_env("TEST_KEY_THAT_IS_NOT_SET")):
        error = refused(config)
        assert (error.code, error.exit_status) == ("KEY_MISSING", ExitStatus.USAGE)
    assert "TEST_KEY_THAT_IS_NOT_SET" in error.message, "it says where it looked"


def test_a_file_that_cannot_be_read_is_a_missing_key(tmp_path: Path) -> None:
    assert "No such file" in refused(from_file(tmp_path / "none")).message
    assert "Is a directory" in refused(from_file(tmp_path)).message
    assert refused(from_file(tmp_path)).code == "KEY_MISSING"


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        base64.b64encode(b"x" * 31).decode(),
        base64.b64encode(b"x" * 33).decode(),
        base64.b64encode(b"x" * 16).decode(),
        b"x".hex() * 32,
        base64.b64encode(b"x" * 32).decode()[:-1],
        "\n".join(base64.b64encode(half * 8).decode() for half in (b"xxx", b"x")),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "ключ",
    ],
    ids=["word", "31 bytes", "33 bytes", "16 bytes", "hex", "cut", "line break", "URL-safe", "letters"],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str, monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setenv("TEST_KEY", text)
    key_file.write_text(text, encoding="utf-8")
    for config in (from_env(), from_file(key_file)):
        error = refused(config)
        assert (error.code, error.exit_status) == ("KEY_INVALID", ExitStatus.USAGE)
        assert text not in str(error) and repr(text) not in repr(error)


@given(st.text())
def test_any_text_is_a_key_or_an_error(text: str) -> None:
    try:
        key = raw_key(text, "here")
    except ConfigError as error:
        assert error.code in ("KEY_MISSING", "KEY_INVALID")
    else:
        assert len(key.secret) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o601])
def test_a_file_of_ours_that_is_open_to_others_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    error = refused(from_file(key_file))
    assert (error.code, error.exit_status) == ("KEY_EXPOSED", ExitStatus.USAGE)
    assert f"{mode:04o}" in error.message and f"chmod 600 {key_file}" in error.hint
    key_file.chmod(0o400)
    load_key(from_file(key_file), Path())


def test_a_secret_that_somebody_else_mounted_is_taken_as_it_is(key_file: Path) -> None:
    """Kubernetes and Docker mount secrets as files of root with 0644 or 0444; their reader cannot change that."""
    key_file.chmod(0o444)
    if os.geteuid() == 0:
        os.chown(key_file, 65534, 65534)
        load_key(from_file(key_file), Path())
    else:
        assert refused(from_file(Path("/etc/passwd"))).code == "KEY_INVALID", "root's, 0644: looked at, not refused"


def test_ids_name_keys_and_tell_nothing(key_file: Path) -> None:
    key = load_key(from_file(key_file), Path())
    assert isinstance(key, RawKey)
    assert len(key.id) == 16 and int(key.id, 16) >= 0
    assert key.id == key.name
    text = key_file.read_text().strip()
    for secret in (text, key.secret.hex(), repr(key.secret)[2:-1]):
        assert secret not in f"{key!r} {key} {key.id} {key.provider()!r}"


# KMS, at moto


@pytest.fixture(scope="module")
def arn(moto_server: MotoServer) -> str:
    answer: str = moto_server.client("kms").create_key()["KeyMetadata"]["Arn"]
    return answer


def kms(server: MotoServer, key_id: str, **extra: Any) -> KmsKeyConfig:
    return KmsKeyConfig(kind="aws-kms", key_id=key_id, **{"endpoint": server.endpoint, "region": "us-east-1", **extra})


def opens_what_it_wrapped(master: MasterKey) -> bytes:
    cipher = BackupCipher.new(HERE)
    wrapped = cipher.wrapped_by(master)
    assert BackupCipher.unwrapped(wrapped, master, HERE).data_key_id == cipher.data_key_id
    return wrapped


def test_a_kms_key_by_arn_id_and_alias(moto_server: MotoServer, arn: str) -> None:
    alias = f"alias/{secrets.token_hex(4)}"
    moto_server.client("kms").create_alias(AliasName=alias, TargetKeyId=arn)
    for key_id in (arn, arn.split("/")[1], alias, f"{arn.rsplit(':', 1)[0]}:{alias}"):
        key = load_key(kms(moto_server, key_id), Path())
        assert key.id == arn
        assert kms_key_of(opens_what_it_wrapped(key)) == arn
    assert load_key(kms(moto_server, arn, region=None), Path()).id == arn, "the ARN says the region"


def test_a_raw_wrapping_names_no_kms_key() -> None:
    assert kms_key_of(opens_what_it_wrapped(RawKey(secrets.token_bytes(32)))) is None
    assert kms_key_of(b"") is None
    assert kms_key_of(b"no envelope at all") is None


def test_what_another_kms_key_wrapped_does_not_open(moto_server: MotoServer, arn: str) -> None:
    other = moto_server.client("kms").create_key()["KeyMetadata"]["Arn"]
    wrapped = BackupCipher.new(HERE).wrapped_by(load_key(kms(moto_server, arn), Path()))
    with pytest.raises(StoreError) as caught:
        BackupCipher.unwrapped(wrapped, load_key(kms(moto_server, other), Path()), HERE)
    assert caught.value.code == "ENVELOPE_DAMAGED"


def test_a_wrapping_of_kms_with_any_byte_changed(moto_server: MotoServer, arn: str) -> None:
    key = load_key(kms(moto_server, arn), Path())
    wrapped = BackupCipher.new(HERE).wrapped_by(key)
    name = wrapped.rindex(arn.split("/")[1].encode())  # in its blob moto names the key; KMS does not
    for position in set(range(len(wrapped))) - set(range(name, name + 36)):
        bad = bytearray(wrapped)
        bad[position] ^= 1
        with pytest.raises(StoreError) as caught:
            BackupCipher.unwrapped(bytes(bad), key, HERE)
        assert caught.value.code in ("ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED"), position


def test_a_kms_key_that_is_not_there(moto_server: MotoServer) -> None:
    error = refused(kms(moto_server, "alias/none"))
    assert (error.code, error.exit_status) == ("KEY_REFUSED", ExitStatus.PROGRAM)
    assert "alias/none" in error.message and "NotFoundException" in error.message


@pytest.mark.parametrize(
    "extra", [{"region": None, "key_id": "alias/x"}, {"endpoint": "nonsense"}, {"profile": "none"}], ids=str
)
def test_kms_that_cannot_be_addressed(moto_server: MotoServer, extra: dict[str, Any]) -> None:
    error = refused(kms(moto_server, **{"key_id": "alias/x", **extra}))
    assert (error.code, error.exit_status) == ("KEY_INVALID", ExitStatus.USAGE)
    assert "region, endpoint and profile" in error.hint


def test_kms_without_credentials(moto_server: MotoServer, arn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert refused(kms(moto_server, "alias/x")).code == "KEY_REFUSED"
    with pytest.raises(StoreError) as caught:
        BackupCipher.new(HERE).wrapped_by(load_key(kms(moto_server, arn), Path()))
    assert caught.value.code == "KEY_REFUSED"
    assert "credentials" in caught.value.message


def test_kms_denies_a_role_without_the_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto with its own IAM: a user that may describe the key, and do nothing else with it."""
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:DescribeKey", "Resource": "*"}]}
    with running(MotoServer) as server:
        arn = server.client("kms").create_key()["KeyMetadata"]["Arn"]
        wrapped = BackupCipher.new(HERE).wrapped_by(load_key(kms(server, arn), Path()))
        iam = server.client("iam")
        iam.create_user(UserName="weak")
        iam.put_user_policy(UserName="weak", PolicyName="weak", PolicyDocument=json.dumps(policy))
        login = iam.create_access_key(UserName="weak")["AccessKey"]
        plain = {"Content-Type": "text/plain"}
        urlopen(Request(f"{server.endpoint}/moto-api/reset-auth", b"0", plain)).close()  # rights count from now on
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", login["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", login["SecretAccessKey"])
        weak = load_key(kms(server, arn.split("/")[1]), tmp_path)
        for error in errors_of_use(weak, wrapped):
            assert error.code == "KEY_REFUSED"
            assert arn in error.message and "kms:GenerateDataKey" in error.hint


def errors_of_use(key: MasterKey, wrapped: bytes) -> list[StoreError]:
    """What wrapping and unwrapping with a key raise."""
    errors = []
    for use in (lambda: BackupCipher.new(HERE).wrapped_by(key), lambda: BackupCipher.unwrapped(wrapped, key, HERE)):
        with pytest.raises(StoreError) as caught:
            use()
        errors.append(caught.value)
    return errors


@contextmanager
def kms_that_says(code: str, status: int) -> Iterator[str]:
    """A server that answers every request with one of KMS's errors; moto does not know these."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"__type": code, "message": "because"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("code", "status", "ours"),
    [
        ("DisabledException", 400, "KEY_REFUSED"),
        ("KMSInvalidStateException", 400, "KEY_REFUSED"),  # it waits for its deletion
        ("InvalidKeyUsageException", 400, "KEY_REFUSED"),
        ("AccessDeniedException", 400, "KEY_REFUSED"),
        ("UnrecognizedClientException", 400, "KEY_REFUSED"),
        ("ExpiredTokenException", 400, "KEY_REFUSED"),
        ("ThrottlingException", 400, "KEY_UNAVAILABLE"),
        ("KeyUnavailableException", 500, "KEY_UNAVAILABLE"),
        ("KMSInternalException", 500, "KEY_UNAVAILABLE"),
    ],
)
def test_what_kms_says_is_told(moto_server: MotoServer, arn: str, code: str, status: int, ours: str) -> None:
    wrapped = BackupCipher.new(HERE).wrapped_by(load_key(kms(moto_server, arn), Path()))
    with kms_that_says(code, status) as endpoint:
        assert refused(kms(moto_server, "alias/x", endpoint=endpoint)).code == ours
        for error in errors_of_use(load_key(kms(moto_server, arn, endpoint=endpoint), Path()), wrapped):
            assert (error.code, error.exit_status) == (ours, ExitStatus.PROGRAM)
            assert code in error.message and arn in error.message


def test_kms_that_is_away(moto_server: MotoServer, arn: str) -> None:
    wrapped = BackupCipher.new(HERE).wrapped_by(load_key(kms(moto_server, arn), Path()))
    nobody = "http://127.0.0.1:9"
    for error in errors_of_use(load_key(kms(moto_server, arn, endpoint=nobody), Path()), wrapped):
        assert error.code == "KEY_UNAVAILABLE"
    assert refused(kms(moto_server, "alias/x", endpoint=nobody)).code == "KEY_UNAVAILABLE"


def test_kms_that_stumbles_once_is_asked_again(moto_server: MotoServer, arn: str) -> None:
    with proxy_before(moto_server.endpoint) as proxy:
        key = load_key(kms(moto_server, arn, endpoint=proxy.endpoint), Path())
        proxy.on("POST", "/", ANSWER_LOST)
        opens_what_it_wrapped(key)


def test_kms_that_never_answers_is_given_up_in_half_a_minute(moto_server: MotoServer, arn: str) -> None:
    with proxy_before(moto_server.endpoint) as proxy:
        proxy.on("POST", "/", Break("stall", "request"), times=None)
        started = time.monotonic()
        assert refused(kms(moto_server, arn.split("/")[1], endpoint=proxy.endpoint)).code == "KEY_UNAVAILABLE"
        assert time.monotonic() - started < 30
