"""Fixtures: real servers, PostgreSQL's and S3's, for a test session, and empty databases and buckets on them."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gs_backup_assets.postgres.cluster import Cluster, create_database, drop_database, running_cluster
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import Toolchain, discover
from gs_backup_assets_tests.faults import Proxy, proxy_before
from gs_backup_assets_tests.s3_server import MotoServer, S3Server, credentials_in_environment, running

# A shell starts background jobs with these ignored, and children inherit that: tests that interrupt them must not.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# As a production server would be set up, but quick to start and stop.
_SETTINGS = {"fsync": "off", "shared_buffers": "128MB", "max_connections": "60", "wal_level": "replica"}


def toolchain_of(major: int) -> Toolchain:
    """The newest programs of a major on this machine. A missing one fails the test: it must not look green."""
    for toolchain in discover():
        if toolchain.release.major == major and toolchain.capabilities.server:
            return toolchain
    pytest.fail(f"no PostgreSQL {major} on this machine: run `gs-backup toolchain add {major}` (make test does)")


@pytest.fixture(scope="session")
def server17() -> Iterator[Cluster]:
    """A PostgreSQL 17 server for the whole session."""
    with running_cluster(toolchain_of(17), purpose="test17", settings=_SETTINGS) as cluster:
        yield cluster


@contextmanager
def fresh_database(cluster: Cluster) -> Iterator[Target]:
    """An empty database on a cluster, dropped at the end."""
    name = f"test_{secrets.token_hex(4)}"
    with connect(cluster.target()) as connection:
        create_database(connection, name)
    try:
        yield cluster.target(name)
    finally:
        with connect(cluster.target()) as connection:
            drop_database(connection, name)


@pytest.fixture
def empty_database(server17: Cluster) -> Iterator[Target]:
    """An empty database on PostgreSQL 17; the role is a superuser."""
    with fresh_database(server17) as target:
        yield target


@pytest.fixture(scope="session", params=[14, 15, 16, 17, 18], ids=lambda major: f"pg{major}")
def any_server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One server of each supported major that programs are to be had for."""
    toolchain = toolchain_of(request.param)
    with running_cluster(toolchain, purpose=f"test{request.param}", settings=_SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="session", autouse=True)
def s3_credentials() -> Iterator[None]:
    """Credentials of the tests' own S3 servers in the environment, and no others."""
    with credentials_in_environment():
        yield


@pytest.fixture(scope="session")
def s3_server(s3_credentials: None) -> Iterator[S3Server]:
    """SeaweedFS for the whole session; those who kill it start one of their own: `running(S3Server)`."""
    with running(S3Server) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(s3_credentials: None) -> Iterator[MotoServer]:
    """moto for the whole session: KMS, and what SeaweedFS lacks of S3."""
    with running(MotoServer) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A new, empty bucket on SeaweedFS."""
    return s3_server.bucket()


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """A proxy before SeaweedFS, which does whatever goes wrong: `s3_server.store(bucket, endpoint=proxy.endpoint)`."""
    with proxy_before(s3_server.endpoint) as proxy:
        yield proxy


def release_of(cluster: Cluster) -> Release:
    """The release of a cluster's programs."""
    return cluster.toolchain.release


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
