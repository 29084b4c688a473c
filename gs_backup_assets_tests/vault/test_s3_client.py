"""One client for all who have the same place and the same credentials, another as soon as either differs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.vault.s3_client import make_client, shared_client


def bucket(name: str, **more: str) -> S3StoreConfig:
    return S3StoreConfig.model_validate({"kind": "s3", "bucket": name, "endpoint": "http://127.0.0.1:1", **more})


def test_buckets_in_one_place_share_a_client_and_other_places_do_not() -> None:
    one = shared_client(bucket("first"))
    assert shared_client(bucket("second", prefix="prod")) is one
    assert shared_client(bucket("first", endpoint="http://127.0.0.1:2")) is not one
    assert make_client(bucket("first")) is not one, "one of one's own is never shared"


def test_other_credentials_are_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shared_client(bucket("first"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    after = shared_client(bucket("first"))
    assert after is not before
    monkeypatch.setenv("THEIR_KEY", "key")
    monkeypatch.setenv("THEIR_SECRET", "secret")
    own = shared_client(bucket("first", access_key_env="THEIR_KEY", secret_key_env="THEIR_SECRET"))
    assert own is not after
    monkeypatch.setenv("THEIR_SECRET", "changed")
    assert shared_client(bucket("first", access_key_env="THEIR_KEY", secret_key_env="THEIR_SECRET")) is not own


def test_many_who_ask_at_once_get_one() -> None:
    config = bucket("first", endpoint="http://127.0.0.1:3")
    with ThreadPoolExecutor(16) as pool:
        assert len({id(client) for client in pool.map(lambda _: shared_client(config), range(64))}) == 1


def test_a_profile_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError) as raised:
        shared_client(bucket("first", profile="nobody-has-this"))
    assert raised.value.code == "PROFILE_UNKNOWN"
