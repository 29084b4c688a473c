"""`gs-backup keys` as it is typed: making a key, trying the given ones on the backups, moving to another key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.cli import keys as keys_verbs
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite import copy_backup
from gs_backup_assets.vault.keys import new_raw_key, raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.chain import chain_in, execute
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.s3_server import MotoServer

app = typer.Typer()
app.add_typer(keys_verbs.app, name="keys")

OLD, NEW = new_raw_key(), new_raw_key()
OLD_ID, NEW_ID = raw_key(OLD, "").id, raw_key(NEW, "").id


def gs_backup(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> BackupError:
    error = gs_backup(*arguments).exception
    assert isinstance(error, BackupError), error
    return error


def documents(done: Result) -> list[dict[str, Any]]:
    stores: list[dict[str, Any]] = json.loads(done.stdout)["stores"]
    return stores


@pytest.fixture(scope="module")
def taken(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a plain backup and two encrypted ones, the newer of which has a copy in another store."""
    folder = tmp_path_factory.mktemp("taken")
    with fresh_database(server17) as source, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OLD_KEY", OLD)
        execute(source, "CREATE TABLE t (id int PRIMARY KEY)")
        chain_in(folder).take(source)
        for _ in range(2):
            _next_second(folder)
            chain_in(folder, encryption={"kind": "raw-aes-256", "key_env": "OLD_KEY"}).take(source)
        chain = chain_in(folder)
        copy_backup(chain.store, LocalStore(folder / "offsite"), chain.entry, Progress())
        yield folder


def _next_second(folder: Path) -> None:
    newest = chain_in(folder).entry.id
    wait_until(lambda: backup_id(datetime.now(timezone.utc)) != newest, what="another second")


class Place:
    """A folder with a configuration, a store and its off-site copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.primary, self.offsite = LocalStore(folder / "backups"), LocalStore(folder / "offsite")

    def configure(self, encryption: Any) -> None:
        document = {
            "databases": {"shop": {"url_env": "TEST_DATABASE_URL"}},
            "stores": {"primary": {"path": "backups"}, "offsite": {"path": "offsite"}},
            "encryption": encryption,
        }
        (self.folder / "backup.yaml").write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}))

    def encrypted(self) -> list[str]:
        """Ids of the encrypted backups, newest first."""
        return [one.id for one in Catalogue(self.primary, "shop").summaries() if one.key_id is not None]

    def wrappings(self, store: LocalStore) -> set[str]:
        return {path.stem for path in store.root.rglob("keys/*.enc")}

    def log(self, store: LocalStore) -> list[tuple[str, str, dict[str, str], dict[str, Any]]]:
        records = AuditLog(store, "shop").records()
        return [(r.command, r.result, r.ids, r.details) for r in records if r.event == "rewrap"]


ENV_OLD = {"kind": "raw-aes-256", "key_env": "OLD_KEY"}
ENV_NEW = {"kind": "raw-aes-256", "key_env": "NEW_KEY"}


@pytest.fixture
def place(taken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copytree(taken, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GS_BACKUP_CONFIG", raising=False)
    monkeypatch.setenv("OLD_KEY", OLD)
    monkeypatch.setenv("NEW_KEY", NEW)
    made = Place(tmp_path)
    made.configure(ENV_OLD)
    return made


# keys new


def test_a_new_key_is_printed_alone_and_explained_beside_it() -> None:
    done = gs_backup("keys", "new")
    assert done.exit_code == 0
    key = raw_key(done.stdout, "standard output")
    assert done.stdout == done.stdout.strip() + "\n"
    assert key.id in done.stderr and done.stdout.strip() not in done.stderr
    assert "encryption: {kind: raw-aes-256, key_env: GS_BACKUP_KEY}" in done.stderr
    assert "loses every backup" in done.stderr
    document = json.loads(gs_backup("keys", "new", "--json").stdout)
    assert raw_key(document["key"], "").id == document["id"] != key.id


def test_a_new_key_in_a_file_is_private_and_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "key"
    done = gs_backup("keys", "new", "--file", str(path))
    assert done.exit_code == 0 and done.stdout.strip() == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert raw_key(text, "").id in done.stderr and text.strip() not in done.output
    assert f"key_file: {path}" in done.stderr
    error = refused("keys", "new", "--file", str(path))
    assert (error.code, error.exit_status) == ("FILE_EXISTS", ExitStatus.USAGE)
    assert path.read_text() == text
    assert refused("keys", "new", "--file", str(tmp_path / "none" / "key")).code == "FILE_UNUSABLE"
    document = json.loads(gs_backup("keys", "new", "--file", str(tmp_path / "other"), "--json").stdout)
    assert set(document) == {"id", "file"}


def test_what_it_says_of_the_configuration_works(place: Place) -> None:
    done = gs_backup("keys", "new", "--file", "key")
    (line,) = [line for line in done.stderr.splitlines() if line.strip().startswith("encryption:")]
    place.configure(yaml.safe_load(line)["encryption"])
    assert documents(gs_backup("keys", "show", "--json"))[0]["keys"][0]["problem"] is None


# keys show


def test_the_given_keys_and_what_they_open(place: Place) -> None:
    done = gs_backup("keys", "show", "--json")
    assert done.exit_code == 0, done.output
    primary, offsite = documents(done)
    assert (primary["store"], primary["encrypted"], primary["plain"]) == ("primary", 2, 1)
    assert (offsite["store"], offsite["encrypted"], offsite["plain"]) == ("offsite", 1, 0)
    (key,) = primary["keys"]
    assert key == {
        "role": "new backups",
        "place": "the environment variable OLD_KEY",
        "id": OLD_ID,
        "opens": 2,
        "problem": None,
    }
    assert primary["locked"] == offsite["locked"] == []
    text = gs_backup("keys", "show")
    assert OLD_ID in text.stdout and "2 backups encrypted, 1 not" in text.stdout
    assert OLD not in text.output + done.output


def test_backups_that_no_given_key_opens(place: Place) -> None:
    place.configure(ENV_NEW)
    done = gs_backup("keys", "show", "--json")
    assert done.exit_code == 1
    primary, _ = documents(done)
    assert primary["locked"] == place.encrypted()
    assert primary["keys"][0]["opens"] == 0
    text = gs_backup("keys", "show")
    assert text.exit_code == 1 and f"No given key opens: {', '.join(place.encrypted())}" in text.stdout


def test_a_damaged_or_missing_wrapping_is_opened_by_none(place: Place) -> None:
    """It is tried, not told from names."""
    newest, oldest = place.encrypted()
    (path,) = place.primary.root.glob(f"shop/logical/*/{newest}/keys/*.enc")
    path.write_bytes(path.read_bytes()[:-1])
    shutil.rmtree(next(place.primary.root.glob(f"shop/logical/*/{oldest}/keys")))
    done = gs_backup("keys", "show", "--json")
    assert done.exit_code == 1
    primary, offsite = documents(done)
    assert primary["encrypted"] == 2 and primary["locked"] == [newest, oldest]
    assert offsite["locked"] == []


def test_keys_that_cannot_be_loaded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.configure({**ENV_NEW, "previous": [ENV_OLD, {"kind": "raw-aes-256", "key_file": "none"}]})
    done = gs_backup("keys", "show", "--json")
    assert done.exit_code == 0, "an older key that nothing needs does no harm"
    assert [(k["role"], k["opens"], k["problem"]) for k in documents(done)[0]["keys"]] == [
        ("new backups", 0, None),
        ("older backups", 2, None),
        ("older backups", 0, "KEY_MISSING"),
    ]
    monkeypatch.delenv("NEW_KEY")
    assert gs_backup("keys", "show").exit_code == 1, "no new backup could be encrypted"


def test_without_encryption(place: Place) -> None:
    place.configure(None)
    assert gs_backup("keys", "show").exit_code == 1, "there are encrypted backups, and no key is given"
    shutil.rmtree(place.folder / "backups")
    shutil.rmtree(place.folder / "offsite")
    done = gs_backup("keys", "show")
    assert done.exit_code == 0 and "No key is given" in done.stdout


def test_a_store_without_a_configuration(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "backup.yaml").unlink()
    monkeypatch.setenv("GS_BACKUP_KEY", OLD)
    done = gs_backup("keys", "show", "--store", "backups", "--json")
    assert done.exit_code == 0 and documents(done)[0]["keys"][0]["opens"] == 2


# keys rewrap


def test_all_backups_move_to_the_new_key_in_every_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.configure({**ENV_NEW, "previous": [ENV_OLD]})
    done = gs_backup("keys", "rewrap", "--json")
    assert done.exit_code == 0, done.output
    primary, offsite = documents(done)
    assert primary["key"] == NEW_ID and sorted(primary["moved"], reverse=True) == place.encrypted()
    assert (primary["as_they_were"], primary["plain"], primary["failed"]) == (0, 1, [])
    assert offsite["moved"] == place.encrypted()[:1]
    assert place.wrappings(place.primary) == place.wrappings(place.offsite) == {NEW_ID}
    assert place.log(place.primary) == [
        ("keys rewrap", "started", {"key": NEW_ID}, {"backups": 2}),
        ("keys rewrap", "done", {"key": NEW_ID}, {"moved": 2, "failed": 0}),
    ]
    assert [one[1] for one in place.log(place.offsite)] == ["started", "done"]
    monkeypatch.delenv("OLD_KEY")
    place.configure(ENV_NEW)
    assert gs_backup("keys", "show").exit_code == 0
    again = gs_backup("keys", "rewrap")
    assert again.exit_code == 0 and "0 backups moved" in again.stdout
    assert len(place.log(place.primary)) == 2, "what does nothing is not on record"


def test_one_backup_or_one_store_only(place: Place) -> None:
    place.configure({**ENV_NEW, "previous": [ENV_OLD]})
    newest, oldest = place.encrypted()
    primary, offsite = documents(gs_backup("keys", "rewrap", oldest, "--json"))
    assert (primary["moved"], offsite["moved"]) == ([oldest], [])
    assert place.log(place.primary)[0][2] == {"key": NEW_ID, "backup": oldest}
    (only,) = documents(gs_backup("keys", "rewrap", "latest", "--from", "offsite", "--json"))
    assert (only["store"], only["moved"]) == ("offsite", [newest])
    assert place.wrappings(place.primary) == {NEW_ID, OLD_ID}
    assert refused("keys", "rewrap", "20200101T000000Z").code == "BACKUP_NOT_FOUND"
    assert refused("keys", "rewrap", "--from", "nowhere").code == "FROM_INVALID"


def test_a_backup_that_no_given_key_opens_stays_as_it_is(place: Place) -> None:
    place.configure(ENV_NEW)
    done = gs_backup("keys", "rewrap", "--json")
    assert done.exit_code == int(ExitStatus.NOT_VERIFIED)
    assert {one["code"] for one in documents(done)[0]["failed"]} == {"KEY_WRONG"}
    assert place.wrappings(place.primary) == {OLD_ID}
    assert [one[1] for one in place.log(place.primary)] == ["started", "incomplete"]
    assert "stays as it is: KEY_WRONG" in gs_backup("keys", "rewrap").stdout


def test_a_damaged_one_does_not_keep_the_others(place: Place) -> None:
    place.configure({**ENV_NEW, "previous": [ENV_OLD]})
    newest, oldest = place.encrypted()
    (path,) = place.primary.root.glob(f"shop/logical/*/{newest}/keys/*.enc")
    path.write_bytes(path.read_bytes()[:-1])
    done = gs_backup("keys", "rewrap", "--json")
    assert done.exit_code == int(ExitStatus.PROGRAM)
    primary, offsite = documents(done)
    assert primary["moved"] == [oldest] and primary["failed"][0]["code"] == "ENVELOPE_DAMAGED"
    assert offsite["moved"] == [newest]


def test_the_new_key_must_be_there_before_anything_is_touched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.configure({**ENV_NEW, "previous": [ENV_OLD]})
    monkeypatch.delenv("NEW_KEY")
    assert refused("keys", "rewrap").code == "KEY_MISSING"
    place.configure(None)
    assert refused("keys", "rewrap").code == "NO_ENCRYPTION"
    assert place.wrappings(place.primary) == {OLD_ID} and place.log(place.primary) == []


def test_to_kms_and_what_is_said_of_it(place: Place, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = moto_server.client("kms").create_key()["KeyMetadata"]["Arn"]
    kms = {"kind": "aws-kms", "key_id": arn, "endpoint": moto_server.endpoint}
    place.configure({**kms, "previous": [ENV_OLD]})
    assert documents(gs_backup("keys", "rewrap", "--json"))[0]["key"] == arn
    shown = documents(gs_backup("keys", "show", "--json"))[0]["keys"]
    assert [(k["id"], k["opens"]) for k in shown] == [(arn, 2), (OLD_ID, 0)]
    place.configure({**kms, "endpoint": "http://127.0.0.1:9"})
    done = gs_backup("keys", "show", "--json")
    assert done.exit_code == 1
    assert [(k["opens"], k["problem"]) for k in documents(done)[0]["keys"]] == [(0, "KEY_UNAVAILABLE")]
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto_server.endpoint)
    place.configure(ENV_NEW)
    done = gs_backup("keys", "show", "--json")
    assert done.exit_code == 0, "the backups themselves name a key of KMS, which can be used"
    assert [(k["role"], k["opens"]) for k in documents(done)[0]["keys"]] == [
        ("new backups", 0),
        ("named by backups", 2),
    ]
