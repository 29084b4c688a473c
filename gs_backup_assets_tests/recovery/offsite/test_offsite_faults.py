"""Copies to S3 that break off at any request, servers that die, two copies at once, bytes that rot, and a full disk."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.manifest import Manifest, StoredFile
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.errors import ProgramError, StoreError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite import Copied, copy_backup
from gs_backup_assets.recovery.offsite.offsite_check import compare_copy
from gs_backup_assets.recovery.stored.stored_bytes import fetch, write_sums
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.catalogue.manifests import made_up, put
from gs_backup_assets_tests.chain import codes, settings_in
from gs_backup_assets_tests.faults import ANSWER_LOST, NEVER_ARRIVES, Break, Proxy, proxy_before
from gs_backup_assets_tests.processes import open_folder, wait_until
from gs_backup_assets_tests.recovery.dumps.test_disk_full import CLI, ROOT, small_disk, spool_on
from gs_backup_assets_tests.s3_server import S3Server, running
from gs_backup_assets_tests.vault.s3_parts import PART, hasty_store, unfinished

_bytes = random.Random(3).randbytes
FILES = {
    "dump/1.dat": _bytes(PART + 5),
    "dump/2.dat": _bytes(PART + 1),
    "dump/3.dat": _bytes(1000),
    "dump/4.dat": _bytes(1000),
    "dump/toc.dat": _bytes(10_000),
    "globals.sql": b"",
}


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A store with one backup: two files of two parts each, and some small ones."""
    store = LocalStore(tmp_path_factory.mktemp("primary"))
    shelve(store)
    return store


def shelve(store: LocalStore) -> Manifest:
    manifest = made_up()
    files = []
    for path, data in FILES.items():
        stored = store.put(BytesIO(data), f"{manifest.folder}/{path}", size=len(data))
        files.append(StoredFile(path=path, size=stored.size, sha256=stored.sha256, parts=stored.parts))
    manifest = manifest.model_copy(update={"files": tuple(files)})
    put(store, manifest)
    write_sums(store, Catalogue(store, "shop").find("latest"))
    return manifest


def entry_of(store: Store) -> Entry:
    return Catalogue(store, "shop").find("latest")


def copy(primary: Store, offsite: Store) -> Copied:
    return copy_backup(primary, offsite, entry_of(primary), Progress())


def compare(primary: Store, offsite: Store, *, read_back: bool = False) -> CheckResult:
    with Progress().stage("compare") as stage:
        return compare_copy(primary, offsite, entry_of(primary), stage, read_back=read_back)


def assert_whole(server: S3Server, primary: Store, offsite: Store) -> None:
    assert isinstance(offsite, S3Store)
    for read_back in (False, True):
        found = compare(primary, offsite, read_back=read_back)
        assert found.status is Status.PASSED, found
    assert unfinished(server, offsite.bucket) == []


def assert_nothing_shows(primary: Store, offsite: Store) -> None:
    assert Catalogue(offsite, "shop").entries() == []
    assert codes(compare(primary, offsite)) == {"OFFSITE_MISSING"}


def bodies(proxy: Proxy) -> list[str]:
    """What was sent of files: the object, and the number of the part where it has parts."""
    sent = (
        re.search(r"/(dump/.*?|globals\.sql)(?:\?.*partNumber=(\d+))?$", s.target) for s in proxy.matching("PUT", "")
    )
    return sorted(f"{match[1]} {match[2] or ''}".strip() for match in sent if match)


ALL_BODIES = ["dump/1.dat 1", "dump/1.dat 2", "dump/2.dat 1", "dump/2.dat 2", "dump/3.dat", "dump/4.dat"]
ALL_BODIES += ["dump/toc.dat", "globals.sql"]


def there(server: S3Server, bucket: str, folder: str) -> list[str]:
    """What lies in the bucket of files, whole or in parts of uploads, written as `bodies` does."""
    client = server.client()
    found = []
    for key in (key.removeprefix(f"{folder}/") for key in keys(server.store(bucket), folder)):
        found += [body for body in ALL_BODIES if body.split(" ")[0] == key]
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        parts = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", ())
        key = upload["Key"].removeprefix(f"{folder}/")
        found += [f"{key} {part['PartNumber']}" for part in parts]
    return sorted(found)


# begin, two parts and complete for each of two files; four small ones; SHA256SUMS, the instructions, the manifest
REQUESTS = 2 * 4 + 4 + 3


@pytest.mark.parametrize("number", range(REQUESTS))
def test_a_copy_that_breaks_at_any_request_is_gone_on_with(
    primary: LocalStore, s3_server: S3Server, bucket: str, proxy: Proxy, number: int
) -> None:
    offsite = hasty_store(s3_server.config(bucket, endpoint=proxy.endpoint))
    # Every second one arrives, and only its answer is lost.
    fault = ANSWER_LOST if number % 2 else NEVER_ARRIVES
    proxy.on("PUT|POST", "", fault, skip=number)
    with pytest.raises(StoreError, match="STORE_UNAVAILABLE"):
        copy(primary, offsite)
    manifest_arrived = number == REQUESTS - 1 and fault is ANSWER_LOST
    if not manifest_arrived:
        assert_nothing_shows(primary, offsite)
    present = there(s3_server, bucket, entry_of(primary).folder)
    proxy.heal()
    copy(primary, offsite)
    assert bodies(proxy) == [body for body in ALL_BODIES if body not in present]
    assert_whole(s3_server, primary, offsite)
    assert copy(primary, offsite).copied_bytes == 0


def test_every_request_of_a_copy_was_broken_once(
    primary: LocalStore, s3_server: S3Server, bucket: str, proxy: Proxy
) -> None:
    copy(primary, s3_server.store(bucket, endpoint=proxy.endpoint))
    assert proxy.count("PUT|POST", "") == REQUESTS
    assert bodies(proxy) == ALL_BODIES


def test_a_server_that_dies_in_the_middle(primary: LocalStore) -> None:
    with running(S3Server) as server, proxy_before(server.endpoint) as proxy:
        bucket = server.bucket()
        hasty = hasty_store(server.config(bucket, endpoint=proxy.endpoint))
        proxy.on("PUT", "partNumber=1$", Break("close", "request", 1_000_000, meanwhile=server.kill))
        with pytest.raises(StoreError, match="STORE_UNAVAILABLE"):
            copy(primary, hasty)
        server.start()
        offsite = server.store(bucket, endpoint=proxy.endpoint)
        assert_nothing_shows(primary, offsite)
        copy(primary, offsite)
        assert_whole(server, primary, offsite)


def test_a_server_that_is_started_again_in_the_middle(primary: LocalStore) -> None:
    """It is away for a second or two: the copy waits and goes on."""
    with running(S3Server) as server, proxy_before(server.endpoint) as proxy:
        offsite = server.store(server.bucket(), endpoint=proxy.endpoint)

        def restart() -> None:
            server.kill()
            server.start()

        proxy.on("PUT", "partNumber=2$", Break("close", "request", 0, meanwhile=restart))
        copy(primary, offsite)
        assert_whole(server, primary, offsite)


@pytest.mark.parametrize("begun", [False, True], ids=["from nothing", "after a broken one"])
def test_two_copies_at_once(primary: LocalStore, s3_server: S3Server, bucket: str, proxy: Proxy, begun: bool) -> None:
    if begun:
        proxy.on("PUT", "partNumber=2$", NEVER_ARRIVES, times=2)
        with pytest.raises(StoreError, match="STORE_UNAVAILABLE"):
            copy(primary, hasty_store(s3_server.config(bucket, endpoint=proxy.endpoint)))
    gate = threading.Barrier(2)

    def one(_: int) -> None:
        store = s3_server.store(bucket)
        gate.wait()
        copy(primary, store)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(2)))
    assert_whole(s3_server, primary, s3_server.store(bucket))


def test_a_way_that_damages_brings_no_backup(
    primary: LocalStore, s3_server: S3Server, bucket: str, proxy: Proxy
) -> None:
    offsite = s3_server.store(bucket, endpoint=proxy.endpoint)
    offsite.pauses = (0.05,)
    proxy.on("PUT", "3.dat", Break("flip", "request", 500), times=None)
    with pytest.raises(StoreError, match="TRANSFER_DAMAGED"):
        copy(primary, offsite)
    assert_nothing_shows(primary, offsite)
    proxy.heal()
    copy(primary, offsite)
    assert_whole(s3_server, primary, offsite)


class TestDamageAtRest:
    @pytest.fixture
    def offsite(self, primary: LocalStore, s3_server: S3Server, bucket: str) -> S3Store:
        store = s3_server.store(bucket)
        copy(primary, store)
        return store

    def test_exchanged_objects(self, primary: LocalStore, offsite: S3Store) -> None:
        """Two of the same size: only what is in them tells."""
        folder = entry_of(primary).folder
        for path in ("dump/3.dat", "dump/4.dat"):
            offsite.delete(f"{folder}/{path}")
        offsite.put_bytes(FILES["dump/3.dat"], f"{folder}/dump/4.dat")
        offsite.put_bytes(FILES["dump/4.dat"], f"{folder}/dump/3.dat")
        told = compare(primary, offsite)
        assert (told.status, codes(told), len(told.findings)) == (Status.FAILED, {"OFFSITE_DIFFERS"}, 2)
        read = compare(primary, offsite, read_back=True)
        assert (read.status, codes(read), len(read.findings)) == (Status.FAILED, {"FILE_SWAPPED"}, 2)

    def test_an_object_that_another_tool_stored_is_read(
        self, primary: LocalStore, offsite: S3Store, s3_server: S3Server
    ) -> None:
        """In other parts, or without a SHA-256: the server's word cannot be compared, and the bytes are."""
        folder = entry_of(primary).folder
        client = s3_server.client()
        for path in ("dump/1.dat", "dump/3.dat"):
            offsite.delete(f"{folder}/{path}")
        client.put_object(Bucket=offsite.bucket, Key=f"{folder}/dump/3.dat", Body=FILES["dump/3.dat"])
        offsite.put_bytes(b"", f"{folder}/dump/1.dat")
        offsite.delete(f"{folder}/dump/1.dat")
        begun = client.create_multipart_upload(
            Bucket=offsite.bucket, Key=f"{folder}/dump/1.dat", ChecksumAlgorithm="SHA256"
        )
        names = {"Bucket": offsite.bucket, "Key": f"{folder}/dump/1.dat", "UploadId": begun["UploadId"]}
        parts = []
        for number, start in enumerate(range(0, len(FILES["dump/1.dat"]), 5 << 20), 1):
            body = FILES["dump/1.dat"][start : start + (5 << 20)]
            sent = client.upload_part(**names, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256")
            parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": sent["ChecksumSHA256"]})
        client.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
        told = compare(primary, offsite)
        assert told.status is Status.PASSED, told
        assert told.metrics["read_back_bytes"] == len(FILES["dump/1.dat"]) + len(FILES["dump/3.dat"])

    def test_a_byte_that_is_damaged_on_its_way_back(
        self, primary: LocalStore, offsite: S3Store, s3_server: S3Server, proxy: Proxy
    ) -> None:
        proxy.on("GET", "2.dat", Break("flip", "response", 500))
        reading = s3_server.store(offsite.bucket, endpoint=proxy.endpoint)
        assert codes(compare(primary, reading, read_back=True)) == {"FILE_DIFFERS"}
        assert compare(primary, reading, read_back=True).status is Status.PASSED

    def test_bytes_that_rot_on_the_servers_disk(self, primary: LocalStore) -> None:
        """The server repeats the checksum of what once came in. Only reading back finds it, and is never a pass."""
        with running(S3Server) as server:
            offsite = hasty_store(server.config(server.bucket()))
            copy(primary, offsite)
            server.kill()
            assert sum(rot(volume, FILES["dump/3.dat"]) for volume in server.folder.glob("*.dat")) == 1
            server.start()
            assert compare(primary, server.store(offsite.bucket)).status is Status.PASSED
            with pytest.raises(StoreError, match=r"STORE_UNAVAILABLE.*dump/3\.dat"):
                compare(primary, offsite, read_back=True)


def rot(volume: Path, data: bytes) -> bool:
    """Flip a bit of `data` where it lies in a file; whether it lies there."""
    contents = volume.read_bytes()
    at = contents.find(data)
    if at < 0:
        return False
    volume.write_bytes(contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1 :])
    return True


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


def test_a_full_disk_while_fetching_blames_nobody(
    folder: Path, primary: LocalStore, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsite = s3_server.store(bucket)
    copy(primary, offsite)
    settings = settings_in(folder)
    with small_disk(folder / "disk", "6m") as disk:
        with (
            spool_on(disk, monkeypatch),
            pytest.raises(ProgramError, match="NO_SPACE"),
            workspace("fetch") as into,
            Progress().stage("fetch") as stage,
        ):
            fetch(offsite, entry_of(offsite), stage, into, settings)
        assert list(disk.iterdir()) == []
    with workspace("fetch") as into, Progress().stage("fetch") as stage:
        assert fetch(offsite, entry_of(offsite), stage, into, settings).status is Status.PASSED
        assert {path: (into / path).read_bytes() for path in FILES} == FILES


def assert_ctrl_c_ends(argv: list[str], environment: dict[str, str], stuck: Callable[[], None]) -> None:
    """Run the program until it is `stuck`; then Ctrl-C ends it within seconds, with its own words and status."""
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        try:
            stuck()
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, words = process.communicate(timeout=60)
        finally:
            process.kill()
    assert time.monotonic() - started < 30
    assert process.returncode == 128 + signal.SIGINT, words
    assert words.rstrip().endswith("nothing half-made was kept."), words


def test_ctrl_c_in_a_copy_to_a_stuck_server(folder: Path, s3_server: S3Server, bucket: str, proxy: Proxy) -> None:
    """`gs-backup copy` is gone within seconds, and the next one goes on where it was."""
    primary = LocalStore(folder / "backups")
    shelve(primary)
    (folder / "backup.yaml").write_text(
        "databases: {shop: {url_env: TEST_DATABASE_URL}}\n"
        f"stores: {{offsite: {{kind: s3, bucket: {bucket}, endpoint: '{proxy.endpoint}'}}}}\n"
    )
    argv = [*CLI, "copy", "--config", str(folder / "backup.yaml")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    proxy.on("PUT", "partNumber=2$", Break("stall", "request", 1), times=None)

    def stuck() -> None:
        proxy.wait_until_stalled()
        wait_until(lambda: proxy.count("PUT", "partNumber=2$") == 2, what="both files are stuck")

    assert_ctrl_c_ends(argv, environment, stuck)
    assert_nothing_shows(primary, s3_server.store(bucket))
    present = there(s3_server, bucket, entry_of(primary).folder)
    proxy.heal()
    finished = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert bodies(proxy) == [body for body in ALL_BODIES if body not in present]
    assert_whole(s3_server, primary, s3_server.store(bucket))


def test_ctrl_c_in_a_backup_to_a_stuck_server(
    folder: Path, empty_database: Target, s3_server: S3Server, bucket: str, proxy: Proxy
) -> None:
    """`gs-backup run`: neither the removal of what was stored nor the audit log's record waits for the server."""
    (folder / "backup.yaml").write_text(
        "databases: {shop: {url_env: TEST_DATABASE_URL}}\n"
        f"stores: {{primary: {{kind: s3, bucket: {bucket}, endpoint: '{proxy.endpoint}'}}}}\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"}
    environment["TEST_DATABASE_URL"] = " ".join(f"{key}={value}" for key, value in empty_database.parameters.items())
    proxy.on("PUT|POST", "/dump/", Break("stall", "request"), times=None)

    def stuck() -> None:
        proxy.wait_until_stalled()
        proxy.on("PUT|POST|DELETE|GET|HEAD", "", Break("stall", "request"), times=None)

    assert_ctrl_c_ends([*CLI, "run", "--config", str(folder / "backup.yaml")], environment, stuck)
    assert Catalogue(s3_server.store(bucket), "shop").entries() == []
