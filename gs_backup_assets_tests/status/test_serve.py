"""`gs-backup serve` over real HTTP: what it tells, to whom, how fast, and what it never tells."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_positions import Position, put_position
from gs_backup_assets.status.access import SESSION_SECONDS, Access, is_loopback
from gs_backup_assets.status.metrics import METRICS
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.physical import made_up_base, shelve_base
from gs_backup_assets_tests.status.served import TOKEN, Served, fill, serving

STATUS = "/api/admin/backup-status"
CONFIG = """\
databases:
  shop: {url_env: NONE}
  studio: {url_env: NONE}
stores: {primary: {kind: local, path: ./secret-place/backups}}
data_classes: {critical: {rpo: 90m, rto: 45s}, important: {rpo: 24h, rto: 4h}}
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "backup.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def store_of(config: Path) -> LocalStore:
    return LocalStore(config.parent / "secret-place" / "backups")


def session(served: Served) -> str:
    """A session's cookie, as a browser sends it."""
    return served.ask("/login", "POST", form=f"token={TOKEN}").headers["Set-Cookie"].split(";")[0]


def test_the_document_has_the_fields_of_the_strategy_document(config: Path) -> None:
    fill(store_of(config), "shop", days=12)
    fill(store_of(config), "studio")
    with serving(config) as served:
        answer = served.ask(STATUS, token=TOKEN)
    document = answer.json()
    assert answer.status == 200 and document["status"] == "healthy"
    latest = document["latest_backup"]
    assert {"name", "size", "created", "age"} <= latest.keys() and latest["size"] == 3
    assert abs(latest["age"] - 3_600_000) < 120_000, "milliseconds"
    assert document["total_backups"] == 12 and len(document["backups"]) == 10
    assert document["backups"][0] == latest
    assert [one["database"] for one in document["databases"]] == ["shop", "studio"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_stale_is_a_warning_and_never_proven_an_error(config: Path) -> None:
    store = store_of(config)
    fill(store, "shop", age=timedelta(hours=30))
    fill(store, "studio")
    with serving(config) as served:
        stale = served.ask(STATUS, token=TOKEN)
    assert stale.status == 200 and stale.json()["status"] == "warning"
    assert "shop: the last proven backup is older than 1 d 1 h" in stale.json()["databases"][0]["problems"]
    store.delete_tree("studio")
    fill(store, "studio", verdict=Verdict.FAILED)
    with serving(config) as served:
        never = served.ask(STATUS, token=TOKEN)
    assert never.status == 500 and never.json()["status"] == "error"
    assert "studio: there is no proven backup" in never.json()["message"]


def test_more_lost_or_slower_than_promised_is_a_warning_and_no_green_page(config: Path) -> None:
    config.write_text(CONFIG.replace("rpo: 90m, rto: 45s", "rpo: 15m, rto: 30s"), encoding="utf-8")
    fill(store_of(config), "shop")
    fill(store_of(config), "studio", age=timedelta(minutes=5))
    with serving(config) as served:
        document = served.ask(STATUS, token=TOKEN)
        page = served.ask("/", token=TOKEN).text
    shop, studio = document.json()["databases"]
    assert document.status == 200 and (shop["status"], studio["status"]) == ("warning", "warning")
    assert any(p.startswith("shop: critical: 1 h") and "15 min is promised" in p for p in shop["problems"])
    assert studio["problems"] == ["studio: critical: it would be back in 42 s, 30 s is promised."]
    assert "2 of 2 databases need attention" in page and "Every backup is proven" not in page


def test_nothing_readable_is_the_documents_error(config: Path) -> None:
    store_of(config).root.parent.mkdir()
    store_of(config).root.write_text("not a folder")
    with serving(config) as served:
        answer = served.ask(STATUS, token=TOKEN)
        page = served.ask("/", token=TOKEN)
    assert answer.status == 500 and answer.json() == {"status": "error", "message": "No backup store can be read."}
    assert page.status == 200 and "the backup store cannot be read (STORE_UNAVAILABLE)" in page.text


def test_answers_hold_no_hosts_no_paths_and_no_secrets(tmp_path: Path) -> None:
    """Stores that fail name their place in errors for the operator: never in answers to others."""
    config = tmp_path / "backup.yaml"
    config.write_text(
        "databases:\n"
        "  shop: {url_env: SHOP_URL}\n"
        "  there: {url_env: THERE_URL, stores: {primary: {kind: s3, bucket: hidden-bucket, "
        "endpoint: 'http://127.0.0.1:1'}, offsite: {kind: local, path: ./hidden-offsite}}}\n"
        "stores: {primary: {kind: local, path: ./hidden-place}}\n"
        "alerts: {urls_env: ALERT_URLS, heartbeat_url_env: BEAT_URL}\n",
        encoding="utf-8",
    )
    (tmp_path / "hidden-offsite").write_text("not a folder")
    fill(LocalStore(tmp_path / "hidden-place"), "shop", days=2)
    secrets = {
        "SHOP_URL": "postgresql://hidden-user:hidden-password@hidden-host/shop",
        "ALERT_URLS": "json://hidden-receiver/hidden-hook",
        "BEAT_URL": "https://hidden-beat.example/hidden",
        "AWS_ACCESS_KEY_ID": "HIDDENKEY",
        "AWS_SECRET_ACCESS_KEY": "hidden-secret",
        "AWS_MAX_ATTEMPTS": "1",
    }
    with serving(config, environment=secrets) as served:
        answers = [served.ask(path, token=TOKEN) for path in (STATUS, "/metrics", "/", "/healthz", "/api/backup")]
        answers += [served.ask("/"), served.ask(STATUS), served.ask("/nothing-here")]
        told_at_start = served.log.read_text(encoding="utf-8")
    nowhere = answers[4].json()
    assert nowhere["code"] == "DAGSTER_NOT_CONFIGURED" and "--dagster-url" in nowhere["message"]
    assert nowhere["message"] in told_at_start
    said = "\n".join(answer.text + str(answer.headers) for answer in answers)
    assert "there: the backup store cannot be read" in said, "the problem itself is told"
    for hidden in ("hidden-", "HIDDEN", "127.0.0.1", str(tmp_path), TOKEN, "SHOP_URL", socket.gethostname()):
        assert hidden not in said, hidden


def test_without_the_token_nothing_is_shown(config: Path) -> None:
    fill(store_of(config), "shop")
    with serving(config) as served:
        for path in (STATUS, "/metrics", "/api/backup"):
            for given in (None, "wrong", TOKEN[:-1], TOKEN + "x", "ü"):
                answer = served.ask(path, token=given and given.encode().decode("latin-1"))
                assert answer.status == 401 and "shop" not in answer.text, (path, given)
        page = served.ask("/")
        assert page.status == 401 and "shop" not in page.text and 'type="password"' in page.text
        assert served.ask(f"{STATUS}?token={TOKEN}").status == 401, "an address would be logged"
        assert served.ask("/healthz").json() == {"status": "ok"}
        assert served.ask("/healthz", host="anything.example").status == 200


def test_a_browser_signs_in_with_a_form_and_out_again(config: Path) -> None:
    fill(store_of(config), "shop")
    with serving(config) as served:
        refused = served.ask("/login", "POST", form="token=wrong")
        assert refused.status == 403 and "Set-Cookie" not in refused.headers and "not the token" in refused.text
        assert served.ask("/login", "POST", form="x" * 100_000).status == 403
        accepted = served.ask("/login", "POST", form=f"token={TOKEN}")
        assert accepted.status == 303 and accepted.headers["Location"] == "/"
        cookie = accepted.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
        page = served.ask("/", cookie=cookie.split(";")[0])
        assert page.status == 200 and "shop" in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert served.ask(STATUS, cookie=cookie.split(";")[0]).status == 500, "studio was never backed up"
        assert served.ask("/api/backup", "POST", cookie=cookie.split(";")[0]).status == 401, "no start from a browser"
        out = served.ask("/logout", "POST", cookie=cookie.split(";")[0])
        assert out.status == 303 and 'gs_backup_session=""' in out.headers["Set-Cookie"]
        assert TOKEN not in served.log.read_text(encoding="utf-8")


def test_a_session_ends_and_cannot_be_made_up() -> None:
    access = Access(TOKEN)
    cookie = access.new_cookie(1000.0)
    assert access.has_cookie(cookie, 1000.0 + SESSION_SECONDS - 1)
    assert not access.has_cookie(cookie, 1000.0 + SESSION_SECONDS + 1)
    end, _, signature = cookie.partition(".")
    for made_up in (f"{int(end) + 1}.{signature}", f"{end}.", f"{end}.{'0' * 64}", "", "x", f"٣.{signature}", None):
        assert not access.has_cookie(made_up, 1000.0), made_up
    assert not Access("another-token-of-enough").has_cookie(cookie, 1000.0)
    assert not Access(None).has_cookie(cookie, 1000.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("host", "token", "code"),
    [("0.0.0.0", "", "TOKEN_MISSING"), ("::", "", "TOKEN_MISSING"), ("127.0.0.1", "short", "TOKEN_WEAK")],
)
def test_it_refuses_to_start_open_to_others(
    config: Path, host: str, token: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GS_BACKUP_API_TOKEN", token)
    argv = [Path(sys.executable).with_name("gs-backup"), "serve", "--config", config, "--host", host, "--port", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and code in done.stderr


def test_a_port_that_is_taken_is_an_error(config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        argv = [Path(sys.executable).with_name("gs-backup"), "serve", "--config", config, "--port", port]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4 and "ADDRESS_UNAVAILABLE" in done.stderr


def test_on_this_machine_alone_no_token_is_needed_and_no_other_name_works(config: Path) -> None:
    fill(store_of(config), "shop")
    fill(store_of(config), "studio")
    with serving(config, token=None) as served:
        assert served.ask(STATUS).status == 200 and "Sign out" not in served.ask("/").text
        rebound = served.ask(STATUS, host="attacker.example")
        assert rebound.status == 400 and "shop" not in rebound.text
        assert served.ask("/api/backup", "POST").status == 403


def test_metrics_are_what_the_page_lists(config: Path) -> None:
    config.write_text(CONFIG.replace("studio: {url_env: NONE}", "studio: {url_env: NONE, wal: {}}"), encoding="utf-8")
    store = store_of(config)
    fill(store, "shop")
    fill(store, "studio", recovery_seconds=31.0)
    shelve_base(store, made_up_base(datetime.now(timezone.utc) - timedelta(hours=2), database="studio"))
    at = datetime.now(timezone.utc) - timedelta(seconds=90)
    position = Position(system_identifier="7301", timeline=1, at=at, server_lsn="1/0", archived_lsn="0/FF000000")
    put_position(store, "studio", position)
    with serving(config) as served:
        answer = served.ask("/metrics", token=TOKEN)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {f"gs_backup_{name}" for name in METRICS} == families.keys()
    samples = {
        (
            sample.name.removeprefix("gs_backup_"),
            sample.labels.pop("database"),
            *sample.labels.values(),
        ): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["status", "shop", "healthy"] == 1 and samples["status", "shop", "error"] == 0
    assert samples["backups", "shop", "PROVEN"] == 3 and samples["last_backup_size_bytes", "shop"] == 3
    assert samples["last_proven_age_seconds", "shop"] == pytest.approx(3600, abs=120)
    assert (
        samples["rto_seconds", "studio", "critical"] == 31 and samples["rto_target_seconds", "studio", "critical"] == 45
    )
    assert samples["rpo_target_seconds", "shop", "critical"] == 5400
    assert samples["proof_stage_seconds", "shop", "restore"] == 30.25
    assert samples["base_backups", "studio"] == 1
    assert samples["last_base_backup_age_seconds", "studio"] == pytest.approx(7200, abs=120)
    assert samples["wal_lag_bytes", "studio"] == 0x1000000
    assert samples["wal_position_age_seconds", "studio"] == pytest.approx(90, abs=60)
    assert ("wal_lag_bytes", "shop") not in samples
    page = (ROOT / "docs" / "status.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(gs_backup_[a-z_]+)", page)) == {f"gs_backup_{name}" for name in METRICS}


def test_the_page_says_what_matters(config: Path) -> None:
    store = store_of(config)
    fill(store, "shop", days=20)
    fill(store, "studio", days=2, verdict=Verdict.NOT_VERIFIED)
    with serving(config) as served:
        page = served.ask("/", cookie=session(served)).text
    assert "1 of 2 databases needs attention" in page
    assert page.index(">studio<") < page.index(">shop<"), "the worst comes first"
    assert "Last proven backup" in page and "1 h ago" in page and "Back in (critical)" in page and "42.0 s" in page
    assert 'aria-label="Proven on 20 of the last 30 days"' in page
    assert 'http-equiv="refresh"' in page and "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "no assets from elsewhere"


def test_many_callers_cost_one_look(config: Path) -> None:
    """Fifty at once while a store takes its time: they share one look, and what it found."""
    fill(store_of(config), "shop", days=30)
    fill(store_of(config), "studio", days=30)
    with serving(config) as served, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: served.ask(STATUS, token=TOKEN), range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json()["generated_at"] for answer in answers}) == 1


def test_a_store_that_says_nothing_does_not_hold_the_others_up(config: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config.write_text(
            f"databases: {{shop: {{url_env: NONE}}}}\n"
            f"stores: {{primary: {{kind: s3, bucket: backups, endpoint: '{endpoint}'}}}}\n",
            encoding="utf-8",
        )
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        with serving(config, environment=keys) as served, ThreadPoolExecutor(10) as pool:
            waiting = [pool.submit(served.ask, STATUS, token=TOKEN) for _ in range(9)]
            started = time.monotonic()
            assert served.ask("/healthz").status == 200
            assert time.monotonic() - started < 15
            answers = [future.result() for future in waiting]
    assert all(answer.status == 500 and answer.json()["status"] == "error" for answer in answers)


def test_serving_imports_no_dagster(config: Path) -> None:
    code = (
        "import sys\nfrom gs_backup_assets.config import load_config\n"
        "from gs_backup_assets.status.access import Access\nfrom gs_backup_assets.status.app import build_app\n"
        "import gs_backup_assets.cli.serve, uvicorn\n"
        f"from pathlib import Path\nbuild_app(load_config(Path({str(config)!r})), Access(None))\n"
        "heavy = [m for m in ('dagster', 'great_expectations', 'boto3', 'psycopg2', 'pandas') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
