"""A dump in a folder: what is there is what was stored, in the clear, and nothing half-made gets the folder's name."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from gs_backup_assets.errors import ConfigError, NotVerifiable, ProofFailed
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.fetching import fetch_into
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.chain import Chain, chain_in
from gs_backup_assets_tests.conftest import fresh_database


@pytest.fixture
def chain(server17: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """An encrypted backup."""
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    made = chain_in(tmp_path, encryption={"kind": "raw-aes-256", "key_env": "TEST_KEY"})
    with fresh_database(server17) as source:
        made.take(source)
    return made


def fetch(chain: Chain, into: Path) -> int:
    return fetch_into(chain.settings, chain.store, chain.entry, into, Progress())


def test_every_file_is_there_as_it_was_dumped(chain: Chain, tmp_path: Path) -> None:
    into = tmp_path / "new" / "fetched"
    size = fetch(chain, into)
    files = chain.entry.require_manifest().files
    assert {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()} == {f.path for f in files}
    assert size == sum((into / file.path).stat().st_size for file in files) > 0
    assert [file.path for file in files if sha256((into / file.path).read_bytes()).hexdigest() != file.sha256] == []
    assert into.stat().st_mode & 0o077 == 0


def test_a_folder_that_exists_is_left_alone(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError) as refused:
        fetch(chain, tmp_path / "mine")
    assert refused.value.code == "INTO_EXISTS" and list((tmp_path / "mine").iterdir()) == []


def test_damage_or_a_missing_key_leaves_nothing(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into = tmp_path / "fetched"
    mine = tmp_path / "fetched.unfinished"
    mine.mkdir()
    left = tmp_path / "gs-backup-fetch-killed"  # with its guardian
    left.mkdir()
    (left / ".in-use").touch()
    victim = chain.store.root / chain.entry.folder / "globals.sql.enc"
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ProofFailed) as damaged:
        fetch(chain, into)
    assert damaged.value.code == "FILE_DIFFERS"
    victim.write_bytes(data)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(NotVerifiable) as missing:
        fetch(chain, into)
    assert missing.value.code == "KEY_MISSING"
    assert [*tmp_path.glob("fetched*"), *tmp_path.glob("gs-backup-*")] == [mine], "what is not ours is left alone"


def test_a_folder_that_cannot_be_made_or_was_made_meanwhile(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as refused:
        fetch(chain, tmp_path / "file" / "fetched")
    assert refused.value.code == "INTO_UNUSABLE"
    into = tmp_path / "fetched"

    class Other:
        """Somebody who makes the folder while the fetch is at work."""

        def stage_started(self, stage: str) -> None:
            (into / "theirs").mkdir(parents=True)

        def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None: ...

        def stage_ended(self, stage: str, seconds: float, ok: bool) -> None: ...

    with pytest.raises(ConfigError) as late:
        fetch_into(chain.settings, chain.store, chain.entry, into, Progress(Other()))
    assert late.value.code == "INTO_EXISTS"
    assert [path.name for path in into.iterdir()] == ["theirs"] and list(tmp_path.glob("gs-backup-*")) == []
