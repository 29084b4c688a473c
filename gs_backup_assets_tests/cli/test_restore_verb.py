"""`gs-backup restore` and `verify` at the worst hour: no source, no Dagster, and no password in sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import Cluster, drop_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets_tests.chain import chain_in, execute
from gs_backup_assets_tests.cli.test_main import TELLING
from gs_backup_assets_tests.processes import open_folder

ROOT = Path(__file__).parents[2]
PASSWORD = "s3cret/with:odd@signs"
ENCODED = "s3cret%2Fwith%3Aodd%40signs"


@dataclass
class Scene:
    folder: Path
    cluster: Cluster
    backup: str

    def url(self, database: str, password: str = ENCODED) -> str:
        return f"postgresql://restorer:{password}@127.0.0.1:{self.cluster.port}/{database}"

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a verb where neither a source nor a Dagster instance is to be had."""
        clean = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "DAGSTER_HOME")}
        return subprocess.run(
            [sys.executable, "-c", TELLING, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**clean, "PYTHONPATH": str(ROOT), **environment},
            timeout=200,
            check=False,
        )

    def databases(self) -> list[str]:
        with connect(self.cluster.target()) as connection:
            rows = query(connection, "SELECT datname FROM pg_database WHERE datname ~ '^back' ORDER BY 1")
        return [name for (name,) in rows]


def modules(result: subprocess.CompletedProcess[str]) -> set[str]:
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("MODULES"))
    return set(line.split()[1:])


@pytest.fixture(scope="module")
def whole_scene(server17: Cluster) -> Iterator[Scene]:
    """A store with one backup whose source is gone, and a server that wants a password."""
    with open_folder() as folder:
        chain = chain_in(folder)
        with running_cluster(server17.toolchain, purpose="gone") as source:
            with connect(source.target()) as connection:
                load_sample(connection, scale=0.05)
            manifest = chain.take(source.target())
        (folder / "backup.yaml").write_text(
            "databases: {shop: {url_env: DATABASE_URL}}\n"
            'data_classes: {critical: {rpo: 15m, rto: 1h, tables: ["User", "Lesson"]}}\n'
        )
        with running_cluster(server17.toolchain, purpose="target", port=free_port()) as cluster:
            execute(cluster.target(), f"CREATE ROLE restorer LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
            hba = cluster.folder / "data" / "pg_hba.conf"
            hba.write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
            execute(cluster.target(), "SELECT pg_reload_conf()")
            yield Scene(folder, cluster, manifest.id)


@pytest.fixture
def scene(whole_scene: Scene) -> Iterator[Scene]:
    yield whole_scene
    with connect(whole_scene.cluster.target()) as connection:
        for name in whole_scene.databases():
            drop_database(connection, name)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_no_password(result: subprocess.CompletedProcess[str]) -> None:
    for secret in (PASSWORD, ENCODED, "s3cret"):
        assert secret not in result.stdout + result.stderr


def test_restore_with_nothing_but_the_store(scene: Scene) -> None:
    result = scene.call("restore", "latest", "--into", "INTO_URL", "--json", INTO_URL=scene.url("back"))
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["backup_id"], document["database"], document["verdict"]) == (scene.backup, "back", "PROVEN")
    assert document["replaced"] is None and document["full_seconds"] > 0
    assert not {"dagster", "great_expectations", "boto3", "pandas"} & modules(result)
    assert_no_password(result)
    assert scene.databases() == ["back"]


def test_verify_with_nothing_but_the_store(scene: Scene) -> None:
    result = scene.call("verify", "latest", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["verdict"] == "PROVEN"
    assert not {"dagster", "boto3"} & modules(result)


def test_into_takes_an_address_as_well(scene: Scene) -> None:
    result = scene.call("restore", scene.backup, "--into", scene.url("back"))
    assert result.returncode == 0, result.stderr
    assert "PROVEN" in result.stdout and "in the database back" in " ".join(result.stdout.split())
    assert_no_password(result)


def test_critical_first_tells_both_times(scene: Scene) -> None:
    result = scene.call("restore", "latest", "--into", scene.url("back"), "--critical-first", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert 0 < document["core_seconds"] < document["full_seconds"]


def test_an_existing_database_needs_replace(scene: Scene) -> None:
    execute(scene.cluster.target(), "CREATE DATABASE back")
    refused = scene.call("restore", "latest", "--into", scene.url("back"), "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "DATABASE_EXISTS"
    assert_no_password(refused)
    replaced = scene.call("restore", "latest", "--into", scene.url("back"), "--replace")
    assert replaced.returncode == 0, replaced.stderr
    (back, kept) = scene.databases()
    assert back == "back" and kept.startswith("back_replaced_2")
    assert kept in replaced.stdout


@pytest.mark.parametrize(
    ("into", "code", "status"),
    [
        ("NO_SUCH_VARIABLE", "URL_MISSING", 2),
        ("restorer:s3cret@127.0.0.1/back", "INTO_INVALID", 2),
        ("postgresql://restorer:s3cret@127.0.0.1/back?no_such_parameter=1", "URL_INVALID", 2),
        ("postgresql://restorer:s3cret@127.0.0.1:1/back", "SERVER_UNREACHABLE", 4),
    ],
)
def test_addresses_that_do_not_work_are_not_repeated(scene: Scene, into: str, code: str, status: int) -> None:
    result = scene.call("restore", "latest", "--into", into, "--json")
    assert result.returncode == status, result.stderr
    assert json.loads(result.stdout)["error"]["code"] == code
    assert_no_password(result)


def test_a_wrong_password_is_told_without_it(scene: Scene) -> None:
    result = scene.call("restore", "latest", "--into", scene.url("back", "s3cret"), "--json")
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["code"] == "SERVER_UNREACHABLE"
    assert "password authentication failed" in result.stdout
    assert_no_password(result)


def test_a_damaged_backup_is_status_1_for_both(scene: Scene) -> None:
    (toc,) = scene.folder.glob("backups/shop/logical/*/*/dump/toc.dat")
    whole = toc.read_bytes()
    toc.write_bytes(whole[:-1])
    try:
        restored = scene.call("restore", "latest", "--into", scene.url("back"), "--json")
        verified = scene.call("verify", "latest", "--json")
    finally:
        toc.write_bytes(whole)
    assert restored.returncode == verified.returncode == 1
    assert json.loads(restored.stdout)["error"]["code"] == "FILE_TRUNCATED"
    assert json.loads(verified.stdout)["verdict"] == "FAILED"
    assert scene.databases() == []


def test_a_backup_that_is_not_there(scene: Scene) -> None:
    result = scene.call("restore", "2020-01-01", "--into", scene.url("back"), "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["code"] == "BACKUP_NOT_FOUND"
