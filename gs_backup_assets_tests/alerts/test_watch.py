"""`gs-backup watch` as cron runs it, with real stores and a real HTTP receiver: told once, reminded, told when over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.alerts.watching import default_state, look, watch
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.staging_tests import put_staging_test
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import load_config
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.alerts.receiver import Receiver
from gs_backup_assets_tests.catalogue.drills import staging_test_of
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of, put
from gs_backup_assets_tests.chain import settings_in

URLS = "GS_BACKUP_TEST_WATCH_URLS"
CONFIG = """\
databases:
  shop: {{url_env: NONE}}
  studio: {{url_env: NONE{studio}}}
stores: {{primary: {{kind: local, path: ./backups}}}}
alerts: {{urls_env: {urls}}}
"""


def now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class House:
    """A folder with a configuration of two databases, and their store."""

    folder: Path
    receiver: Receiver

    @property
    def file(self) -> Path:
        return self.folder / "backup.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "state" / "watch.json"

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "backups")

    def prove(self, database: str, taken: datetime | None = None) -> None:
        """Put a proven backup into the store."""
        manifest = made_up(taken or now() - timedelta(hours=1), database=database)
        digest = put(self.store, manifest)
        record = proof_of(manifest, digest, Verdict.PROVEN, manifest.finished_at + timedelta(minutes=1))
        Catalogue(self.store, database).add_proof(record, b"")

    def call(self, *options: str, receivers: str | None = None, status: int) -> subprocess.CompletedProcess[str]:
        argv = [Path(sys.executable).with_name("gs-backup"), "watch", "--config", self.file, "--state", self.state]
        environment = {
            **os.environ,
            URLS: self.receiver.url() if receivers is None else receivers,
            "NO_PROXY": "127.0.0.1",
            "GS_BACKUP_CACHE": str(self.folder / "cache"),
        }
        done = subprocess.run(
            [*argv, *options], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "backup.yaml").write_text(CONFIG.format(urls=URLS, studio=""), encoding="utf-8")
    with Receiver() as receiver:
        yield House(tmp_path, receiver)


def test_never_run_is_stale_then_told_once_then_its_end(house: House) -> None:
    first = json.loads(house.call("--json", status=1).stdout)
    titles = [problem["title"] for problem in first["problems"]]
    assert titles == ["shop: there is no backup", "studio: there is no backup"], "not proven either: said once"
    assert all("docs/runbooks/stale-backup.md" in problem["hint"] for problem in first["problems"])
    assert len(house.receiver.received) == 1, "one message for all that is wrong at once"
    house.call(status=1)
    assert len(house.receiver.received) == 1, "the same news twice"
    house.prove("shop")
    house.prove("studio")
    assert json.loads(house.call("--json", status=0).stdout)["problems"] == []
    assert len(house.receiver.received) == 2 and "recovered" in house.receiver.titles[1]
    quiet = house.call("--quiet", status=0)
    assert quiet.stdout == "" and quiet.stderr == ""
    assert len(house.receiver.received) == 2


def test_a_store_that_cannot_be_reached_is_an_alert(house: House) -> None:
    house.prove("shop", now() - timedelta(days=3))
    house.prove("studio")
    house.call(status=1)
    away = house.folder / "away"
    (house.folder / "backups").rename(away)
    house.call(status=1)
    assert house.receiver.titles[1:] == ["[critical] studio: there is no backup"], (
        "what is not mounted has not recovered"
    )
    (house.folder / "backups").write_text("not a folder")
    done = house.call("--quiet", status=1)
    assert "the backup store cannot be read" in done.stdout
    assert len(house.receiver.received) == 3 and "cannot be read" in json.dumps(house.receiver.received[2])
    (house.folder / "backups").unlink()
    away.rename(house.folder / "backups")
    house.call(status=1)
    over = json.dumps(house.receiver.received[3])
    assert "ecovered: studio" in over and "ecovered: shop: the last" not in over, "it is as stale as it was"
    house.file.write_text(
        house.file.read_text(encoding="utf-8").replace("  shop: {url_env: NONE}\n", ""), encoding="utf-8"
    )
    house.call(status=0)
    assert house.receiver.titles[4:] == ["2 problems no longer watched"]


def test_a_primary_store_that_is_not_mounted_leaves_the_proven_copies(house: House) -> None:
    """Its backups are off-site and proven, and so are the records of tests: neither is said to be missing."""
    text = house.file.read_text(encoding="utf-8").replace("./backups}}", "./backups}, offsite: {path: ./elsewhere}}")
    house.file.write_text(f"{text}staging: {{url_env: STAGING_URL}}\n", encoding="utf-8")
    for database in ("shop", "studio"):
        house.prove(database)
        put_staging_test(house.store, staging_test_of(now(), database=database))
    (house.folder / "backups").rename(house.folder / "elsewhere")
    document = json.loads(house.call("--json", status=1).stdout)
    assert [problem["fingerprint"] for problem in document["problems"]] == ["shop:stale-backup", "studio:stale-backup"]
    copy = Catalogue(LocalStore(house.folder / "elsewhere"), "shop").last_proven()
    (said, _) = document["problems"]
    assert copy is not None and "not mounted" in said["body"] and "gs-backup run" not in said["hint"]
    assert said["last_good"].startswith(f"Off-site has {copy.id}, proven, 1 h")
    assert copy.id in json.dumps(house.receiver.received) and copy.id in house.call(status=1).stdout
    (house.folder / "backups").write_text("not a folder")
    unreadable = json.loads(house.call("--json", "--database", "shop", status=1).stdout)["problems"]
    assert [copy.id in problem["last_good"] for problem in unreadable] == [True]


def test_a_bucket_whose_server_is_down_is_an_alert(tmp_path: Path) -> None:
    settings = settings_in(
        tmp_path,
        stores={"primary": {"kind": "s3", "bucket": "backups", "endpoint": "http://127.0.0.1:1"}},
    )
    (problem,) = look([settings], now())
    assert problem.fingerprint == "shop:store" and problem.severity == "critical"


def test_a_store_that_does_not_answer_is_an_alert_in_time(tmp_path: Path) -> None:
    """A server that accepts and says nothing: the watch does not hang with it."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = settings_in(tmp_path, stores={"primary": {"kind": "s3", "bucket": "backups", "endpoint": endpoint}})
        (problem,) = look([settings], now(), patience_seconds=1.0)
    assert problem.fingerprint == "shop:store" and "no answer within 1 s" in problem.body


def test_a_message_that_was_not_accepted_is_sent_again(house: House) -> None:
    house.receiver.behaviour = "refuse"
    done = house.call(status=4)
    assert "ALERT_NOT_ACCEPTED" in done.stderr and "status 500" in done.stderr and house.receiver.received == []
    house.receiver.behaviour = "accept"
    house.call(status=1)
    assert len(house.receiver.received) == 1
    house.call(status=1)
    assert len(house.receiver.received) == 1


def test_a_recovery_that_was_not_accepted_is_sent_again(house: House) -> None:
    house.call(status=1)
    house.prove("shop")
    house.prove("studio")
    house.receiver.behaviour = "hang_up"
    house.call(status=4)
    house.receiver.behaviour = "accept"
    house.call(status=0)
    assert len(house.receiver.received) == 2 and "recovered" in house.receiver.titles[1]


def test_where_nobody_is_told_it_says_so_and_tells_later(house: House) -> None:
    done = house.call("--json", receivers="", status=1)
    assert json.loads(done.stdout)["unheard"] == [URLS] and "NOBODY WAS TOLD" in done.stderr
    house.call(status=1)
    assert len(house.receiver.received) == 1


def test_a_wrong_address_and_none_show_while_nothing_is_wrong(house: House) -> None:
    house.prove("shop")
    house.prove("studio")
    wrong = house.call("--quiet", receivers="https//nonsense", status=2)
    assert "ALERT_URL_INVALID" in wrong.stderr and "nonsense" not in wrong.stderr
    none = house.call("--quiet", receivers="", status=0)
    assert none.stdout == "" and none.stderr == f"NOBODY WOULD BE TOLD: {URLS} names no receiver.\n"


def test_one_database_at_a_time_leaves_what_is_known_of_the_others(house: House) -> None:
    house.call(status=1)
    house.prove("shop")
    house.call("--database", "shop", status=0)
    assert len(house.receiver.received) == 2
    told = json.dumps(house.receiver.received[1])
    assert "ecovered: shop" in told and "studio" not in told
    house.call(status=1)
    assert len(house.receiver.received) == 2


def test_databases_with_other_people_to_tell_are_told_apart(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One receiver refuses: the others are told, and only what was refused is sent again."""
    text = CONFIG.format(urls=URLS, studio=", alerts: {urls_env: GS_BACKUP_TEST_WATCH_STUDIO}")
    house.file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(URLS, house.receiver.url())
    with Receiver("refuse") as studio:
        monkeypatch.setenv("GS_BACKUP_TEST_WATCH_STUDIO", studio.url())
        config = load_config(house.file)
        seen = watch(config, house.state, now())
        assert seen.refused is not None and len(house.receiver.received) == 1
        assert "studio" not in json.dumps(house.receiver.received)
        studio.behaviour = "accept"
        assert watch(config, house.state, now()).refused is None
    assert len(studio.received) == 1 and len(house.receiver.received) == 1


def test_it_reminds_after_a_day(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(URLS, house.receiver.url())
    config = load_config(house.file)
    start = now()
    for hours in (0, 23, 25):
        watch(config, house.state, start + timedelta(hours=hours))
    assert len(house.receiver.received) == 2 and house.receiver.titles[1].startswith("Still: ")


def test_a_damaged_memory_is_told_and_does_not_silence(house: House) -> None:
    house.call(status=1)
    house.state.write_text("{no memory", encoding="utf-8")
    house.call(status=1)
    assert any("damaged" in title for title in house.receiver.titles) and len(house.receiver.received) == 3


def test_a_memory_that_cannot_be_kept_is_an_error_after_people_were_told(house: House) -> None:
    house.state.parent.write_text("not a folder")
    done = house.call(status=4)
    assert "WATCH_STATE_UNAVAILABLE" in done.stderr and len(house.receiver.received) == 1


def test_a_fault_in_the_look_itself_is_told(tmp_path: Path) -> None:
    """A link to itself makes an error that is none of ours."""
    cyclic = tmp_path / "cyclic"
    cyclic.symlink_to(cyclic)
    settings = settings_in(tmp_path, stores={"primary": {"kind": "local", "path": str(cyclic / "backups")}})
    (problem,) = look([settings], now())
    assert problem.fingerprint == "shop:store" and problem.code in ("UNEXPECTED", "STORE_UNAVAILABLE")


def test_the_default_memory_is_one_for_each_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GS_BACKUP_CACHE", str(tmp_path))
    one, other = default_state(tmp_path / "a.yaml"), default_state(tmp_path / "b.yaml")
    assert one != other and one.parent == tmp_path / "watch"
    monkeypatch.chdir(tmp_path)
    assert default_state(Path("a.yaml")) == one


def test_it_imports_no_dagster(house: House) -> None:
    code = (
        "import sys\nfrom gs_backup_assets.cli.main import main\n"
        f"sys.argv = ['gs-backup', 'watch', '--config', {str(house.file)!r}, '--state', {str(house.state)!r}]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 1, ended.code\n"
        "heavy = [m for m in ('dagster', 'great_expectations', 'boto3', 'psycopg2', 'pandas') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, URLS: "", "GS_BACKUP_CACHE": str(house.folder / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_two_looks_at_once_do_no_harm(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(URLS, house.receiver.url())
    config = load_config(house.file)
    both = [threading.Thread(target=watch, args=(config, house.state, now())) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert watch(config, house.state, now()).said == ()
    assert [path.name for path in house.state.parent.iterdir()] == [house.state.name]
