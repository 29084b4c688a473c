"""The doctor over a network: TLS, passwords, and poolers between it and the server."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote as percent

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.recovery.doctor.doctor import Diagnosis
from gs_backup_assets.system.account import server_account
from gs_backup_assets_tests.conftest import toolchain_of
from gs_backup_assets_tests.postgres.pgbouncer import free_port, pgbouncer
from gs_backup_assets_tests.recovery.doctor.doctor_site import (
    examined,
    execute,
    unhealthy,
    url_of,
)


def own_address() -> str:
    """An address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def network_server() -> Iterator[tuple[Cluster, Path]]:
    """A server over TCP with TLS and passwords, and the file of its certificate."""
    account = server_account()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        subprocess.run([*argv, "-keyout", folder / "key", "-out", folder / "crt"], check=True, capture_output=True)
        (folder / "hba").write_text("local all all trust\nhost all all all scram-sha-256\n")
        for path in folder.iterdir():
            os.chown(path, account.uid, account.gid)
            path.chmod(0o600 if path.name == "key" else 0o644)
        settings = {
            "ssl": "on",
            "ssl_cert_file": str(folder / "crt"),
            "ssl_key_file": str(folder / "key"),
            "hba_file": str(folder / "hba"),
            "listen_addresses": "*",
        }
        with running_cluster(toolchain_of(17), purpose="tls", settings=settings, port=free_port()) as cluster:
            execute(cluster.target(), "CREATE ROLE app LOGIN SUPERUSER PASSWORD 's3cret/+'", "CREATE DATABASE shop")
            yield cluster, folder / "crt"


def over_network(server: tuple[Cluster, Path], host: str, options: str, *, password: str = "s3cret/+") -> str:
    return f"postgresql://app:{percent(password, safe='')}@{host}:{server[0].port}/shop?{options}"


def test_encryption_is_seen_and_explained(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(monkeypatch, over_network(network_server, "localhost", "sslmode=require"), tmp_path)
    assert unhealthy(found) == set()
    assert "TLSv1" in found["tls"].summary and "sslmode=require does not check" in found["tls"].details[0]
    full = f"sslmode=verify-full&sslrootcert={network_server[1]}"
    found = examined(monkeypatch, over_network(network_server, "localhost", full), tmp_path)
    assert unhealthy(found) == set()
    assert found["tls"].details == ()


def test_a_certificate_that_does_not_hold_is_a_matter_of_tls(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = over_network(network_server, "127.0.0.1", f"sslmode=verify-full&sslrootcert={network_server[1]}")
    found = examined(monkeypatch, url, tmp_path)
    assert found["address"].status is Status.PASSED
    assert found["tls"].status is Status.FAILED and "127.0.0.1" in found["tls"].summary
    assert found["login"].status is Status.NOT_VERIFIED


def test_an_open_session_over_a_network_fails_unless_it_is_asked_for(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = examined(monkeypatch, over_network(network_server, "127.0.0.1", "sslmode=disable"), tmp_path)
    assert "stays on this machine" in here["tls"].summary
    address = own_address()
    asked = examined(monkeypatch, over_network(network_server, address, "sslmode=disable"), tmp_path)
    assert unhealthy(asked) == set()
    assert "password" in asked["tls"].details[0]
    execute(network_server[0].target(), "ALTER SYSTEM SET ssl = off", "SELECT pg_reload_conf()")
    try:
        found: dict[str, Diagnosis] = {}
        for _ in range(50):  # the reload takes a moment
            found = examined(monkeypatch, over_network(network_server, address, ""), tmp_path)
            if "encrypted (" not in found["tls"].summary:
                break
        assert unhealthy(found) == {"tls"}
        assert found["tls"].status is Status.FAILED
    finally:
        execute(network_server[0].target(), "ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()")


def test_a_wrong_password_is_told_without_the_password(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = over_network(network_server, "127.0.0.1", "", password="hunter2")
    found = examined(monkeypatch, url, tmp_path)
    assert found["address"].status is Status.PASSED
    assert found["login"].status is Status.FAILED
    assert "password authentication failed" in found["login"].summary
    assert "percent-encoded" in found["login"].hint
    assert found["rights"].status is Status.NOT_VERIFIED
    assert "hunter2" not in str(found)


def test_a_database_that_is_not_there_is_told(
    network_server: tuple[Cluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = over_network(network_server, "127.0.0.1", "").replace("/shop?", "/Shop?")
    found = examined(monkeypatch, url, tmp_path)
    assert found["login"].status is Status.FAILED and "case" in found["login"].hint


# Poolers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["", "?pgbouncer=true"])
def test_a_transaction_pooler_is_found_out(
    server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameter: str
) -> None:
    with pgbouncer(server17, "transaction") as port:
        found = examined(monkeypatch, f"postgresql://app@127.0.0.1:{port}/postgres{parameter}", tmp_path)
    assert unhealthy(found) == {"pooler", "snapshot", "lock"}
    assert found["pooler"].status is Status.FAILED and "DIRECT_URL" in found["pooler"].hint
    with connect(server17.target()) as connection:
        held = query(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert held == [(0,)], "no lock is left behind in a pooled process"


def test_a_pooler_that_keeps_sessions_does_no_harm(
    server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer(server17, "session") as port:
        found = examined(monkeypatch, f"postgresql://app@127.0.0.1:{port}/postgres", tmp_path)
    assert unhealthy(found) == set()
    assert "proxy" in found["pooler"].summary


def test_a_direct_address_that_claims_a_pooler_is_seen_through(
    empty_database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examined(monkeypatch, url_of(empty_database, extra="&pgbouncer=true"), tmp_path)
    assert found["pooler"].status is Status.PASSED
    assert found["pooler"].details == ("the URL says pgbouncer=true",)
