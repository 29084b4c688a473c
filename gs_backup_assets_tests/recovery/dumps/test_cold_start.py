"""On an empty machine: the cold-start page's own commands with public programs alone, and `gs-backup` by an address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import KmsEncryption, RawEncryption
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.fingerprint import take_fingerprint
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.schema import read_schema
from gs_backup_assets.postgres.settings import read_settings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps import equality
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.chain import settings_in, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.recovery.dumps.test_stock_programs import runbook
from gs_backup_assets_tests.s3_server import CREDENTIALS, MotoServer, S3Server

_PAGE = Path(__file__).parents[3] / "docs" / "cold-start.md"
_TOOLS = Path(sys.executable).parent.parent / "coldstart" / "bin"
KEY = new_raw_key()


def commands() -> str:
    """What the page tells to type, and from the next page what follows its first step."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *runbook()[1:]])


@dataclass(frozen=True)
class Bucket:
    """A bucket with one encrypted backup of the sample in it; `environment` holds the key, or where KMS is."""

    address: str
    settings: DatabaseSettings
    manifest: Manifest
    environment: dict[str, str]

    @property
    def store(self) -> Store:
        return open_store(self.settings)


@pytest.fixture(scope="module")
def source(server17: Cluster) -> Iterator[Target]:
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.05)
            query(connection, f"ALTER DATABASE {target.database} SET app.greeting TO 'it''s :me'")
        yield target


@pytest.fixture(scope="module")
def machine(server17: Cluster) -> Iterator[RestoreServer]:
    """A new server, which knows nothing of the source."""
    with throwaway_beside(server17) as server:
        yield server


@pytest.fixture(scope="module", params=["raw", "kms"])
def bucket(
    request: pytest.FixtureRequest,
    source: Target,
    machine: RestoreServer,
    s3_server: S3Server,
    moto_server: MotoServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bucket]:
    name = s3_server.bucket()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "raw":
            patch.setenv("GS_BACKUP_KEY", KEY)
            encryption: object = RawEncryption(kind="raw-aes-256", key_env="GS_BACKUP_KEY")
            environment = {"GS_BACKUP_KEY": KEY}
        else:
            arn = moto_server.client("kms").create_key()["KeyMetadata"]["Arn"]
            encryption = KmsEncryption(kind="aws-kms", key_id=arn, endpoint=moto_server.endpoint)
            environment = {"AWS_ENDPOINT_URL_KMS": moto_server.endpoint}
        folder = tmp_path_factory.mktemp(request.param)
        stores = {"primary": s3_server.config(name, prefix="prod").model_dump(exclude_unset=True)}
        settings = settings_in(folder, stores=stores, encryption=encryption)
        store = open_store(settings)
        day = DAY.of(datetime.now(timezone.utc), settings.zone)
        manifest = take_backup(settings, source, store, day, Progress())
        catalogue = Catalogue(store, settings.name)
        write_sums(store, catalogue.find("latest"))
        proof = prove(settings, store, catalogue.find("latest"), Progress(), server=machine)
        assert proof.verdict is Verdict.PROVEN
        catalogue.add_proof(proof, b"<html>")
        yield Bucket(f"s3://{name}/prod", settings, manifest, environment)


def environment_of(bucket: Bucket, machine: RestoreServer, server: S3Server, home: Path) -> dict[str, str]:
    """All that the empty machine has: the public programs, the address, the credentials, the key."""
    for name in ("aws", "aws-encryption-cli", "python3"):
        if not (_TOOLS / name).exists():
            pytest.fail(f"{_TOOLS / name} is missing: `make .venv/coldstart/installed`, which `make test` does")
    return {
        "PATH": f"{_TOOLS}{os.pathsep}{machine.toolchain.bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(home),
        "LC_ALL": "C",
        "AWS_ACCESS_KEY_ID": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "STORE": f"{bucket.address}/{bucket.settings.name}",
        "DATABASE": "restored",
        "PGHOST": machine.admin.host,
        "PGPORT": machine.admin.parameters["port"],
        "PGUSER": machine.admin.parameters["user"],
        **bucket.environment,
    }


def follow(script: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def nothing_restored(machine: RestoreServer) -> Iterator[None]:
    yield
    with connect(machine.admin) as connection:
        drop_database(connection, "restored")


def assert_equal(manifest: Manifest, machine: RestoreServer, folder: Path) -> None:
    """Rows, contents, sequences and schema of the restored database are those of the source's snapshot."""
    target = machine.admin.with_database("restored")
    with connect(target) as connection:
        inventory, settings = take_inventory(connection), read_settings(connection)
    restored = take_fingerprint(target, inventory, level=manifest.fingerprint.level, jobs=1)
    objects = read_schema(machine.toolchain, target.write_service_file(folder))
    tables = equality.compare_tables(manifest.fingerprint, restored)
    checks = (
        equality.rows_equal(manifest.fingerprint, tables),
        equality.contents_equal(manifest.fingerprint, restored, tables),
        equality.sequences_equal(manifest.fingerprint, restored),
        equality.schema_equal(manifest.schema_objects, objects, manifest.source.settings, settings, owners=True),
    )
    assert {check.name: check.status for check in checks} == {check.name: Status.PASSED for check in checks}, checks
    assert manifest.fingerprint.rows > 1000


def test_the_page_restores_with_public_programs_alone(
    bucket: Bucket, machine: RestoreServer, s3_server: S3Server, empty: Path, tmp_path: Path
) -> None:
    environment = environment_of(bucket, machine, s3_server, empty)
    ours = follow("python3 -c 'import gs_backup_assets'; command -v gs-backup", environment, empty)
    assert ours.returncode != 0 and "No module named 'gs_backup_assets'" in ours.stderr
    done = follow(commands(), environment, empty)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"{bucket.manifest.partition}/{bucket.manifest.id}/manifest.json" in done.stdout
    assert '"verdict": "PROVEN"' in done.stdout
    assert done.stdout.count(": OK\n") == len(bucket.manifest.files) + 1
    assert_equal(bucket.manifest, machine, tmp_path)
    exposed = [path for path in empty.rglob("*") if path.stat().st_mode & 0o077]
    assert exposed == [], "what was decrypted is nobody else's to read"


def test_what_changed_in_the_bucket_stops_it(
    bucket: Bucket, machine: RestoreServer, s3_server: S3Server, empty: Path
) -> None:
    """By its digest; and where somebody has made the digests right, by the envelope, which knows its place."""
    environment = environment_of(bucket, machine, s3_server, empty)
    fetching, rest = commands().split("sha256sum --check", 1)
    fetched = follow(fetching, environment, empty)
    assert fetched.returncode == 0, fetched.stderr
    folder, checking = empty / "backup", f"sha256sum --check{rest}"
    exchange = "mv globals.sql.enc aside; mv dump/toc.dat.enc globals.sql.enc; mv aside dump/toc.dat.enc"
    done = follow(f"{exchange}\n{checking}", environment, folder)
    assert done.returncode != 0 and "globals.sql.enc: FAILED" in done.stdout
    assert not (folder / "globals.sql").exists()
    resum = "sha256sum manifest.json *.enc dump/*.enc > SHA256SUMS"
    done = follow(f"{resum}\n{checking}", environment, folder)
    assert done.returncode != 0 and "belongs to another place" in done.stderr
    assert "gs-backup-path': 'dump/toc.dat'" in done.stderr or "gs-backup-path': 'globals.sql'" in done.stderr
    with connect(machine.admin) as connection:
        assert query(connection, "SELECT 1 FROM pg_database WHERE datname = 'restored'") == []


def gs_backup_restore(
    bucket: Bucket, machine: RestoreServer, server: S3Server, folder: Path, **others: str
) -> subprocess.CompletedProcess[str]:
    """In an empty folder, without a backup.yaml, with what the page exports and nothing else; `others` override it."""
    everything = environment_of(bucket, machine, server, folder)
    given = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *bucket.environment)
    parameters = {**machine.admin.parameters, "dbname": "restored"}
    return subprocess.run(
        [
            Path(sys.executable).with_name("gs-backup"),
            *("restore", "latest", "--store", f"{bucket.address}?endpoint={server.endpoint}"),
            *("--into", "RESTORE_URL"),
        ],
        env={
            **{name: everything[name] for name in given},
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "RESTORE_URL": " ".join(f"{name}={value}" for name, value in parameters.items()),
            **others,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_gs_backup_restores_by_the_stores_address_alone(
    bucket: Bucket, machine: RestoreServer, s3_server: S3Server, empty: Path, tmp_path: Path
) -> None:
    done = gs_backup_restore(bucket, machine, s3_server, empty)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines()[-1] == "PROVEN"
    assert_equal(bucket.manifest, machine, tmp_path)
    assert KEY not in done.stdout + done.stderr


def test_without_the_key_it_says_so_and_restores_nothing(
    bucket: Bucket, machine: RestoreServer, s3_server: S3Server, empty: Path
) -> None:
    if "GS_BACKUP_KEY" in bucket.environment:
        cases = [("GS_BACKUP_KEY", "", 3, "KEY_MISSING"), ("GS_BACKUP_KEY", new_raw_key(), 3, "KEY_WRONG")]
    else:
        cases = [("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9", 4, "KEY_UNAVAILABLE")]
    for name, value, status, code in cases:
        done = gs_backup_restore(bucket, machine, s3_server, empty, **{name: value})
        assert (done.returncode, done.stderr.splitlines()[-2].split(":")[0]) == (status, code), done.stderr
    with connect(machine.admin) as connection:
        assert query(connection, "SELECT datname FROM pg_database WHERE datname ~ '^restored'") == []


def test_the_store_itself_says_how(bucket: Bucket) -> None:
    assert "RESTORE.txt" in set(keys(bucket.store, ""))
    with bucket.store.open("RESTORE.txt") as stream:
        text = stream.read().decode()
    assert _PAGE.name in text and "gs-backup restore latest --store" in text
    for program in ("aws s3 sync", "sha256sum", "aws-encryption-cli", "psql", "pg_restore", "vacuumdb"):
        assert program in text
    assert "RESTORE.txt" in _PAGE.read_text(encoding="utf-8")
