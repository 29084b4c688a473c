"""Fixtures: the store in a bucket behind a proxy."""

from __future__ import annotations

import pytest

from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets_tests.faults import Proxy
from gs_backup_assets_tests.s3_server import S3Server
from gs_backup_assets_tests.vault.s3_parts import LONG, hasty_store, put


@pytest.fixture
def store(s3_server: S3Server, bucket: str, proxy: Proxy) -> S3Store:
    """The store through the proxy, with the client that the program uses, and shorter pauses."""
    store = s3_server.store(bucket, endpoint=proxy.endpoint)
    store.pauses = (0.05, 0.05, 0.05)
    return store


@pytest.fixture(scope="module")
def bucket_with_an_object(s3_server: S3Server) -> str:
    bucket = s3_server.bucket()
    put(s3_server.store(bucket), LONG)
    return bucket


@pytest.fixture
def there(s3_server: S3Server, bucket_with_an_object: str, proxy: Proxy) -> S3Store:
    """As `store`, with an object of several ranges in it; for those who only read."""
    store = s3_server.store(bucket_with_an_object, endpoint=proxy.endpoint)
    store.pauses = (0.05, 0.05, 0.05)
    return store


@pytest.fixture
def hasty(s3_server: S3Server, bucket: str, proxy: Proxy) -> S3Store:
    """The store through the proxy, which repeats nothing."""
    return hasty_store(s3_server.config(bucket, endpoint=proxy.endpoint))
