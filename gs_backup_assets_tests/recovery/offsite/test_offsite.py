"""The off-site copy: what it brings, in which order, what the comparison finds, and that it is what is proved."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.manifest import NAME
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.errors import NotVerifiable, ProofFailed
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.proving import prove_and_record
from gs_backup_assets.recovery.offsite.offsite import copy_backup, due_for_reading_back, mirror_beside, uncopied
from gs_backup_assets.recovery.offsite.offsite_check import compare_copy, read_back_copies
from gs_backup_assets.recovery.stored.keyring import rewrap
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import Vault, open_vault
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.chain import Chain, chain_in, codes, execute
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.s3_server import S3Server

BY = Author(actor="tester", command="test")
LARGE = 20_000_000  # bytes in one file of the dump: more than two parts of S3's


@dataclass(frozen=True)
class Scene:
    """A chain with an off-site store, and a backup in its primary one."""

    chain: Chain
    vault: Vault

    @property
    def offsite(self) -> Store:
        return self.vault.store("offsite")

    @property
    def entry(self) -> Entry:
        return self.chain.entry

    def copy(self) -> None:
        copy_backup(self.vault.primary, self.offsite, self.entry, Progress())

    def compare(self, *, read_back: bool = False) -> CheckResult:
        with Progress().stage("compare") as stage:
            return compare_copy(self.vault.primary, self.offsite, self.entry, stage, read_back=read_back)

    def offsite_keys(self) -> set[str]:
        return set(keys(self.offsite, ""))


KEY = new_raw_key()
ENCRYPTED = {
    "encryption": {"kind": "raw-aes-256", "key_env": "TEST_KEY"},
    "logical": {"compression": "none"},
}


@pytest.fixture(scope="module")
def taken(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an encrypted backup in it, to be copied by each test."""
    with fresh_database(server17) as target, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", KEY)
        execute(
            target,
            "CREATE TABLE small (id int PRIMARY KEY)",
            "INSERT INTO small SELECT generate_series(1, 10)",
            "CREATE TABLE large (id int PRIMARY KEY, t text)",
            f"INSERT INTO large SELECT n, repeat(md5(n::text), 1000) FROM generate_series(1, {LARGE // 32_000}) AS n",
        )
        chain = chain_in(tmp_path_factory.mktemp("taken"), **ENCRYPTED)
        chain.take(target)
        write_sums(chain.store, chain.entry)
        return chain.store.root


@pytest.fixture(params=["local", "s3"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    taken: Path,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    monkeypatch.setenv("TEST_KEY", KEY)
    offsite = (
        {"kind": "local", "path": str(tmp_path / "elsewhere")}
        if request.param == "local"
        else s3_server.config(s3_server.bucket(), prefix="prod").model_dump(exclude_unset=True)
    )
    shutil.copytree(taken, tmp_path / "here" / "backups")
    chain = chain_in(tmp_path / "here", stores={"primary": {"path": "backups"}, "offsite": offsite}, **ENCRYPTED)
    return Scene(chain, open_vault(chain.settings))


def test_a_copy_is_the_same_objects_and_its_second_time_does_nothing(scene: Scene) -> None:
    scene.copy()
    assert scene.offsite_keys() == set(keys(scene.chain.store, ""))
    assert scene.compare().status is Status.PASSED
    assert scene.compare(read_back=True).status is Status.PASSED
    again = copy_backup(scene.vault.primary, scene.offsite, scene.entry, Progress())
    assert (again.files, again.copied_bytes) == (0, 0) and again.present == len(scene.entry.require_manifest().files)
    assert uncopied(scene.vault.primary, scene.offsite, "shop") == []


def test_the_stores_own_checksums_are_enough_where_there_are_any(scene: Scene) -> None:
    """Of what lies on S3 nothing is read back, however many parts it has; a folder keeps no checksums: all is read."""
    scene.copy()
    manifest = scene.entry.require_manifest()
    assert any(file.stored.parts is not None for file in manifest.files), "one file is large enough for parts"
    read = scene.compare().metrics["read_back_bytes"]
    assert read == (manifest.stored_bytes if isinstance(scene.offsite, LocalStore) else 0)


def test_until_the_manifest_is_there_nothing_is(scene: Scene) -> None:
    """The copy breaks off at every file in turn; each time the catalogue shows nothing, and the next try goes on."""
    files = scene.entry.require_manifest().files
    for number in range(1, len(files)):
        left = len([k for k in scene.offsite_keys() if "/dump/" in k or k.endswith(".sql.enc")])
        with pytest.raises(Broken):
            copy_backup(scene.vault.primary, BreaksAfter(scene.offsite, 1), scene.entry, Progress())
        assert Catalogue(scene.offsite, "shop").entries() == []
        assert scene.compare().status is Status.FAILED
        assert codes(scene.compare()) == {"OFFSITE_MISSING"}
        now = len([k for k in scene.offsite_keys() if "/dump/" in k or k.endswith(".sql.enc")])
        assert now > left, f"try {number} brought nothing"
        if now == len(files):
            break
    scene.copy()
    assert scene.compare().status is Status.PASSED


class Broken(Exception):
    """The line went dead."""


class BreaksAfter:
    """A store on the other end of a line that goes dead after some objects have gone over it."""

    def __init__(self, store: Store, objects: int) -> None:
        self._store = store
        self._left = objects
        self._line = threading.Lock()  # one at a time, so that what is under way arrives before the line goes dead

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, *arguments: object, **options: object) -> object:
        with self._line:
            if self._left <= 0:
                raise Broken
            self._left -= 1
            return self._store.put(*arguments, **options)  # type: ignore[arg-type]

    def put_bytes(self, *arguments: object, **options: object) -> object:
        raise Broken


def test_damage_in_the_primary_store_is_not_spread(scene: Scene) -> None:
    manifest = scene.entry.require_manifest()
    victim = max(manifest.files, key=lambda file: file.stored.size)
    path = scene.chain.store.root / manifest.folder / victim.stored_path
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ProofFailed, match="PRIMARY_DAMAGED"):
        scene.copy()
    assert f"{manifest.folder}/{victim.stored_path}" not in scene.offsite_keys()
    assert Catalogue(scene.offsite, "shop").entries() == []
    path.write_bytes(data)
    scene.copy()
    assert scene.compare(read_back=True).status is Status.PASSED


def replaced(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda data: None, "OFFSITE_MISSING", id="removed"),
        pytest.param(lambda data: data[:-1], "OFFSITE_DIFFERS", id="cut"),
        pytest.param(lambda data: data + b"x", "OFFSITE_DIFFERS", id="longer"),
        pytest.param(replaced, "OFFSITE_DIFFERS", id="another byte"),
    ],
)
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_a_changed_copy_is_found_without_reading_it(
    scene: Scene, change: Callable[[bytes], bytes | None], code: str, which: str
) -> None:
    scene.copy()
    manifest = scene.entry.require_manifest()
    choose = max if which == "largest" else min
    victim = f"{manifest.folder}/{choose(manifest.files, key=lambda f: f.stored.size).stored_path}"
    with scene.offsite.open(victim) as stream:
        data = change(stream.read())
    scene.offsite.delete(victim)
    if data is not None:
        scene.offsite.put_bytes(data, victim)
    found = scene.compare()
    assert found.status is Status.FAILED and codes(found) == {code}
    read = scene.compare(read_back=True)
    assert read.status is Status.FAILED and codes(read) <= {
        "FILE_MISSING",
        "FILE_TRUNCATED",
        "FILE_EXTENDED",
        "FILE_DIFFERS",
    }
    scene.offsite.delete(victim)
    scene.copy()
    assert scene.compare().status is Status.PASSED, "what was removed is brought again"


@pytest.mark.parametrize("change", [lambda data: None, replaced], ids=["removed", "another byte"])
@pytest.mark.parametrize("read_back", [False, True], ids=["asked", "read back"])
def test_a_copy_without_its_key_is_no_copy(
    scene: Scene, change: Callable[[bytes], bytes | None], read_back: bool
) -> None:
    scene.copy()
    (key,) = keys(scene.offsite, f"{scene.entry.folder}/keys")
    with scene.offsite.open(key) as stream:
        data = change(stream.read())
    scene.offsite.delete(key)
    if data is not None:
        scene.offsite.put_bytes(data, key)
    found = scene.compare(read_back=read_back)
    assert found.status is Status.FAILED
    assert codes(found) == {"OFFSITE_MISSING" if data is None else "OFFSITE_DIFFERS"}


def test_copies_are_read_back_whether_or_not_the_primary_has_them_still(scene: Scene) -> None:
    scene.copy()
    scene.chain.store.delete_tree(scene.entry.folder)
    day = scene.chain.today

    def read() -> CheckResult:
        with Progress().stage("read back") as stage:
            return read_back_copies(scene.offsite, "shop", day, stage)

    assert read().status is Status.PASSED and read().metrics["read_back_bytes"] > LARGE // 2
    (there,) = Catalogue(scene.offsite, "shop").entries()
    victim = f"{there.folder}/{there.require_manifest().files[0].stored_path}"
    with scene.offsite.open(victim) as stream:
        data = stream.read()
    scene.offsite.delete(victim)
    scene.offsite.put_bytes(replaced(data), victim)
    assert codes(read()) == {"FILE_DIFFERS"}
    with Progress().stage("read back") as stage:
        nothing = read_back_copies(scene.offsite, "shop", "2001-01-01", stage)
    assert nothing.status is Status.NOT_VERIFIED


def test_another_manifest_and_strange_objects_are_found(scene: Scene) -> None:
    scene.copy()
    folder = scene.entry.folder
    scene.offsite.put_bytes(b"x", f"{folder}/dump/stranger")
    assert codes(scene.compare()) == {"FILE_UNEXPECTED"}
    assert codes(scene.compare(read_back=True)) == {"FILE_UNEXPECTED"}
    scene.offsite.delete(f"{folder}/dump/stranger")
    with scene.offsite.open(f"{folder}/{NAME}") as stream:
        data = stream.read()
    scene.offsite.delete(f"{folder}/{NAME}")
    scene.offsite.put_bytes(data.replace(b'"UTC"', b'"UCT"'), f"{folder}/{NAME}")
    assert "OFFSITE_MANIFEST_DIFFERS" in codes(scene.compare())


def test_the_off_site_copy_is_proved_and_both_stores_know(scene: Scene, server17: Cluster) -> None:
    scene.copy()
    for path in (scene.chain.store.root / scene.entry.folder / "dump").iterdir():
        path.unlink()  # the primary copy cannot be what is restored
    offsite = Catalogue(scene.offsite, "shop")
    record = prove_and_record(scene.chain.settings, scene.vault, scene.entry, Progress(), by=BY).record
    assert (record.verdict, record.store) == (Verdict.PROVEN, "offsite")
    (there,), (here,) = offsite.entries(), Catalogue(scene.chain.store, "shop").entries()
    assert there.verdict is here.verdict is Verdict.PROVEN
    failed = prove_and_record(scene.chain.settings, scene.vault, scene.entry, Progress(), by=BY, which="primary").record
    assert (failed.verdict, failed.store) == (Verdict.FAILED, "primary")


def test_without_its_key_a_proof_says_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was proven stays proven: that somebody has no key is nothing that the backup could be blamed for."""
    scene.copy()
    prove_and_record(scene.chain.settings, scene.vault, scene.entry, Progress(), by=BY)
    for value, code in (("", "KEY_MISSING"), (new_raw_key(), "KEY_WRONG")):
        monkeypatch.setenv("TEST_KEY", value)
        with pytest.raises(NotVerifiable, match=code):
            prove_and_record(scene.chain.settings, scene.vault, scene.entry, Progress(), by=BY)
        assert scene.entry.verdict is Verdict.PROVEN


def test_what_comes_later_follows(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs, holds and wrapped keys that are made after the copy; of a backup that has no copy nothing is brought."""
    assert mirror_beside(scene.vault.primary, scene.offsite, "shop") == 0
    scene.copy()
    alone = Vault(scene.vault.primary, None)
    prove_and_record(scene.chain.settings, alone, scene.entry, Progress(), by=BY)
    scene.chain.store.put_bytes(b"{}", f"{scene.entry.folder}/hold.json")
    monkeypatch.setenv("TEST_NEW_KEY", new_raw_key())
    settings = scene.chain.settings.model_validate(
        {
            **scene.chain.settings.model_dump(exclude_unset=True),
            "encryption": {
                "kind": "raw-aes-256",
                "key_env": "TEST_NEW_KEY",
                "previous": [{"kind": "raw-aes-256", "key_env": "TEST_KEY"}],
            },
        }
    )
    assert settings.encryption is not None
    assert rewrap(scene.vault.primary, scene.entry.require_manifest(), settings.encryption, settings.folder)
    assert Catalogue(scene.offsite, "shop").entries()[0].verdict is Verdict.NOT_VERIFIED
    assert mirror_beside(scene.vault.primary, scene.offsite, "shop") == 4  # report, record, hold, key
    (there,) = Catalogue(scene.offsite, "shop").entries()
    assert there.verdict is Verdict.PROVEN and there.held
    monkeypatch.delenv("TEST_KEY")
    assert prove_and_record(settings, scene.vault, there, Progress(), by=BY).record.verdict is Verdict.PROVEN


@given(st.sets(st.integers(0, 400)), st.integers(1, 60))
def test_every_copy_has_its_turn_once_in_so_many_days(days: set[int], every: int) -> None:
    start = date(2026, 1, 1)
    partitions = [(start + timedelta(days=n)).isoformat() for n in sorted(days)]
    today = date(2027, 3, 1)
    turns = [day for n in range(every) for day in due_for_reading_back(partitions, today + timedelta(days=n), every)]
    assert sorted(turns) == partitions


def test_progress_counts_the_bytes_of_the_copy(scene: Scene) -> None:
    told: list[tuple[int, int | None]] = []

    class Listener:
        def stage_started(self, stage: str) -> None: ...

        def stage_ended(self, stage: str, seconds: float, ok: bool) -> None: ...

        def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
            told.append((done, total))

    copy_backup(scene.vault.primary, scene.offsite, scene.entry, Progress(Listener()))
    stored = scene.entry.require_manifest().stored_bytes
    assert max(done for done, _ in told) == stored and {total for _, total in told} == {stored}
