"""An object in several parts, put through a proxy: what the tests of broken uploads and downloads share."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.opening import open_configured
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.faults import Proxy
from gs_backup_assets_tests.s3_server import REGION, S3Server

PART = 8 << 20
PARTS = 3
KEY = "shop/dump/1.dat"
DATA = random.Random(2).randbytes((PARTS - 1) * PART + 5)
# What is read back in several ranges.
RANGES = 3
LONG = random.Random(3).randbytes((RANGES - 1) * (16 << 20) + 5)
SMALL = DATA[:100_000]


def hasty_store(config: S3StoreConfig, *, patience: float = 30) -> S3Store:
    """A store that repeats nothing: where a request fails for good, nobody waits for pauses.

    `patience` is for how many seconds it waits for an answer.
    """

    def client(config: S3StoreConfig) -> Any:
        import boto3
        from botocore.config import Config

        settings = Config(
            retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=patience, read_timeout=patience
        )
        return boto3.client("s3", endpoint_url=config.endpoint, region_name=REGION, config=settings)

    store = open_configured(config, Path("/"), client=client)
    assert isinstance(store, S3Store)
    store.pauses = ()
    return store


def put(store: S3Store, data: bytes = DATA, *, resume: bool = False) -> None:
    stored = store.put(BytesIO(data), KEY, size=len(data), resume=resume)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()


def read(store: S3Store, key: str = KEY) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def code_of(action: Callable[[], object]) -> str:
    """The code of the StoreError that calling `action` raises."""
    with pytest.raises(StoreError) as caught:
        action()
    return caught.value.code


def unfinished(server: S3Server, bucket: str) -> list[dict[int, int]]:
    """Numbers and sizes of the parts of every upload that was begun and neither completed nor ended."""
    client = server.client()
    found = []
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        parts = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", ())
        found.append({part["PartNumber"]: part["Size"] for part in parts})
    return found


def assert_nothing_is_there(server: S3Server, bucket: str) -> None:
    assert list(keys(server.store(bucket), "")) == []
    assert unfinished(server, bucket) == []


def sent(proxy: Proxy) -> list[int]:
    """The numbers of the parts that were sent, sorted."""
    found = (re.search(r"partNumber=(\d+)", seen.target) for seen in proxy.matching("PUT", r"\?.*partNumber="))
    return sorted(int(match[1]) for match in found if match)


def resume_sends_only_what_is_missing(server: S3Server, store: S3Store, proxy: Proxy) -> None:
    """Put again, to the end: exactly the parts that are not there yet are sent, and the object is right."""
    (present,) = unfinished(server, store.bucket)
    proxy.heal()
    put(store, resume=True)
    # A server that has just been started may refuse a part, which is then sent twice.
    assert sorted(set(sent(proxy))) == [number for number in range(1, PARTS + 1) if number not in present]
    assert read(store) == DATA
    assert unfinished(server, store.bucket) == []
