"""What tests of the doctor share: a server that can be made to lie."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gs_backup_assets_tests.faults import Proxy, proxy_before
from gs_backup_assets_tests.s3_server import MotoServer


@pytest.fixture
def moto_proxy(moto_server: MotoServer) -> Iterator[Proxy]:
    """moto, which lets strangers in unless a fault of this proxy refuses them."""
    with proxy_before(moto_server.endpoint) as proxy:
        yield proxy
