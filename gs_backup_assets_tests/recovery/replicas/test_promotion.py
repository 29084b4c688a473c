"""Promotion of a standby: only when its primary is gone and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.replicas.promote import check_promotion
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.processes import open_folder, wait_until
from gs_backup_assets_tests.production import DATABASE, SUPERUSER, production
from gs_backup_assets_tests.recovery.point_in_time.recover_site import site as recover_site
from gs_backup_assets_tests.recovery.replicas.replica_site import ROLE, Site, least_rights


@pytest.mark.parametrize("major", [15, 17], ids=lambda major: f"pg{major}")
def test_promotion_only_when_the_primary_is_gone(major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with production(major) as server, open_folder() as folder:
        server.configure(unix_socket_directories=str(server.folder / "s"))
        server.bench("-i", "-s", "1", "-q").require_success()
        least_rights(server)
        port = free_port()
        secret = "pa%3Ass%27w%5Cord%207"
        environment = {
            "PRIMARY": f"postgresql://{ROLE}:{secret}@127.0.0.1:{server.port}/{DATABASE}",
            "SPARE": f"postgresql://{ROLE}:{secret}@127.0.0.1:{port}/{DATABASE}",
            "SPARE_ADMIN": f"postgresql://{SUPERUSER}@127.0.0.1:{port}/{DATABASE}",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        site = Site(server, folder, port, environment)
        site.configure()
        try:
            site.create()
            answer = site.verb("promote", "spare", status=1)
            assert answer["error"]["code"] == "PRIMARY_ALIVE"
            assert site.spare("SELECT pg_is_in_recovery()") == [(True,)]
            server.sql("CREATE TABLE last (n int)")
            server.sql("INSERT INTO last VALUES (7)")
            wait_until(lambda: site.spare("SELECT to_regclass('public.last') IS NOT NULL")[0][0], what="the last row")
            wait_until(lambda: site.spare("SELECT n FROM public.last") == [(7,)], what="the last row")
            server.kill()
            answer = site.verb("promote", "spare")
            assert (answer["timeline"], answer["forced"]) == (2, False)
            assert {check["name"]: check["status"] for check in answer["checks"]} == {
                "primary_gone": "passed",
                "caught_up": "not_verified",
                "archive_replayed": "passed",
            }
            assert any("pg_rewind" in step for step in answer["next"])
            assert site.spare("SELECT pg_is_in_recovery()") == [(False,)]
            assert site.spare("SELECT n FROM public.last") == [(7,)]
            site.spare("CREATE TABLE public.on_its_own (n int)")
            assert site.verb("promote", "spare", status=2)["error"]["code"] == "NO_STANDBY"
        finally:
            site.stop_spare()


def test_log_that_is_only_in_the_archive_speaks_against_a_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        recover_site(tmp_path, wal={}, replicas={"spare": {"url_env": "SPARE"}}) as place,
        place.server.standby() as standby,
    ):
        monkeypatch.setenv("TEST_DATABASE_URL", place.server.url)
        monkeypatch.setenv("SPARE", standby.url)

        def statuses() -> dict[str, str]:
            checked = check_promotion(place.settings, place.vault, "spare")
            return {check.name: check.status.value for check in checked.checks}

        place.archive()
        caught_up = {"primary_gone": "failed", "caught_up": "passed", "archive_replayed": "passed"}
        wait_until(lambda: statuses() == caught_up, what="the standby has all, and the primary is there")
        standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
        standby.sql("SELECT pg_reload_conf()")
        wait_until(lambda: not standby.sql("SELECT 1 FROM pg_stat_wal_receiver"), what="it is cut off")
        place.server.sql("INSERT INTO t SELECT generate_series(1, 20000)")
        place.archive()
        assert statuses() == {"primary_gone": "failed", "caught_up": "failed", "archive_replayed": "failed"}
        place.server.kill()
        checked = check_promotion(place.settings, place.vault, "spare")
        (against,) = checked.against
        assert against.findings[0].code == "BEHIND_ARCHIVE" and "no restore_command" in against.summary
        standby.sql("ALTER SYSTEM SET restore_command = 'false'")
        standby.sql("SELECT pg_reload_conf()")
        wait_until(lambda: statuses()["archive_replayed"] == "passed", what="the promotion would bring it in")
        with pytest.raises(ConfigError, match="REPLICA_UNKNOWN"):
            check_promotion(place.settings, place.vault, "other")
