"""What production brings along: its settings, prepared transactions, raised limits, tablespaces, increments, keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.point_in_time.recover import recover_into
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.production import Production, new_folder
from gs_backup_assets_tests.recovery.point_in_time.recover_site import ids, rows, site
from gs_backup_assets_tests.s3_server import S3Server


@pytest.mark.parametrize("major", [15, 16, 17], ids=lambda major: f"pg{major}")
def test_productions_own_settings_do_nothing_in_the_recovered_server(major: int, tmp_path: Path) -> None:
    """It would archive, load what is not there, follow another server and run out of what the log needs."""
    with site(tmp_path, major, settings={"archive_mode": "on", "max_prepared_transactions": "2"}) as one:
        server, ran = one.server, new_folder(one.server, "ran")
        for setting in (
            f"archive_command = 'touch {ran}/%f'",
            "shared_preload_libraries = 'no_such_library'",
            "primary_conninfo = 'host=192.0.2.1'",
            "recovery_target_name = 'never made'",
            "logging_collector = on",
            "huge_pages = on",
            "max_logical_replication_workers = 9",
        ):
            server.sql(f"ALTER SYSTEM SET {setting}", database="postgres")
        server.sql("SELECT pg_reload_conf()", database="postgres")
        server.sql("INSERT INTO t VALUES (1)")
        one.switch()
        wait_until(lambda: any(ran.iterdir()), what="production archives with its own command")
        one.base_backup()
        # Limits that grow behind the base backup, and a transaction that needs them.
        for name in ("shared_preload_libraries", "logging_collector", "huge_pages", "recovery_target_name"):
            server.sql(f"ALTER SYSTEM RESET {name}", database="postgres")
        server.sql("ALTER SYSTEM SET max_connections = 150", database="postgres")
        server.sql("ALTER SYSTEM SET max_prepared_transactions = 40", database="postgres")
        server.restart()
        for number in range(2, 9):
            server.sql(f"BEGIN; INSERT INTO t VALUES ({number}); PREPARE TRANSACTION 'held{number}'")
        server.sql("COMMIT PREPARED 'held2'")
        server.sql("ALTER DATABASE studio SET session_preload_libraries = 'no_such_library'")
        server.sql("ALTER DATABASE postgres SET default_transaction_read_only = on", database="postgres")
        one.archive()
        plan = one.plan("latest")
        server.stop()
        for path in ran.iterdir():
            path.unlink()
        with workspace("recovered", owner=server_account()) as folder:
            outcome = recover_into(plan, one.settings, one.vault, folder / "into", Progress())
            assert not list(ran.iterdir()), "production's archive_command was run"
            assert not (folder / "into" / "UNFINISHED-RECOVERY.json").exists()
            assert any("archive_command" in text for text in outcome.notes)
            assert any("shared_preload_libraries" in text for text in outcome.notes)
            assert any("max_prepared_transactions was raised to 6" in text for text in outcome.notes)
            assert server.data.is_dir()  # the old server's folder was not touched
            auto = (outcome.data / "postgresql.auto.conf").read_text()
            assert "primary_conninfo" not in auto and "recovery_target_name" not in auto
            assert "archive_command" in auto and "no_such_library" in auto
            assert (outcome.data / "postgresql.conf").read_text().rstrip().endswith("gs-backup recover: end ----")
            assert not (outcome.data / "recovery.signal").exists()
            # What is left to do by people: the library that this machine does not have.
            harmful = ("shared_preload_libraries", "huge_pages", "logging_collector")
            (outcome.data / "postgresql.auto.conf").write_text(
                "\n".join(line for line in auto.splitlines() if not line.startswith(harmful))
            )
            again = Production(server.toolchain, folder / "again")
            (folder / "again").mkdir(mode=0o755)
            again.data = outcome.data
            again.start()
            try:
                assert again.sql("SHOW archive_mode", database="template1") == [("off",)]
                held = again.sql("SELECT count(*) FROM pg_prepared_xacts", database="template1")
                assert held == [(6,)]
                assert not list(ran.iterdir())
            finally:
                again.stop()
        server.start()  # the block around stops it


def test_a_role_that_may_not_log_in_and_settings_of_databases_keep_nobody_out(tmp_path: Path) -> None:
    with site(tmp_path, 17) as one:
        one.server.sql("CREATE ROLE other SUPERUSER LOGIN")
        one.base_backup()
        one.server.sql("INSERT INTO t VALUES (1)")
        one.server.superuser = "other"
        one.server.sql("ALTER ROLE studio_owner NOLOGIN", database="postgres")
        one.server.sql("ALTER DATABASE studio SET session_preload_libraries = 'no_such_library'")
        one.archive()
        with one.recovered("latest") as found:
            assert ids(found) == [1]
            assert found.server.parameters["user"] == "other"


@pytest.mark.parametrize("major", [15, 17], ids=lambda major: f"pg{major}")
def test_tablespaces_come_back_at_places_of_their_own(major: int, tmp_path: Path) -> None:
    with site(tmp_path, major) as one:
        place = new_folder(one.server, "fast")
        one.server.sql(f"CREATE TABLESPACE fast LOCATION '{place}'")
        one.server.sql("CREATE TABLE far (id int) TABLESPACE fast")
        one.server.sql("INSERT INTO far VALUES (1)")
        one.base_backup()
        one.server.sql("INSERT INTO far VALUES (2)")
        # Its path is in the log, and production's files are there: this server must not come near them.
        younger = new_folder(one.server, "younger")
        one.server.sql(f"CREATE TABLESPACE younger LOCATION '{younger}'")
        one.server.sql("CREATE TABLE young TABLESPACE younger AS SELECT generate_series(1, 3) AS id")
        one.server.sql("CHECKPOINT")
        middle = one.lsn()
        one.server.sql("INSERT INTO young VALUES (4)")
        one.server.sql("CHECKPOINT")
        one.archive()
        files = {path: path.read_bytes() for path in younger.rglob("*") if path.is_file()}
        with one.recovered(str(middle)) as found:
            assert ids(found, "far") == [1, 2]
            assert ids(found, "young") == [1, 2, 3]
            locations = rows(
                found.server, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'"
            )
            assert len(locations) == 2
            for (location,) in locations:
                at = found.data / location  # one inside of the data directory has a relative location
                assert at.is_relative_to(found.data.parent) and not at.is_relative_to(place)
        assert {path: path.read_bytes() for path in younger.rglob("*") if path.is_file()} == files


def test_an_incremental_chain_is_combined_and_the_log_goes_on(tmp_path: Path) -> None:
    with site(tmp_path, 17, settings={"summarize_wal": "on"}) as one:
        one.server.sql("INSERT INTO t SELECT generate_series(1, 100)")
        one.base_backup()
        one.server.sql("INSERT INTO t VALUES (101)")
        middle = one.lsn()
        one.archive()
        second = one.base_backup(full=False)
        assert second.base is not None
        one.server.sql("INSERT INTO t VALUES (102)")
        one.archive()
        plan = one.plan("latest")
        assert [entry.id for entry in plan.chain] == [second.base, second.id]
        with one.recovered("latest") as found:
            assert ids(found)[-2:] == [101, 102]
            assert "combine" in found.seconds
        back = one.plan(str(middle))
        assert [entry.id for entry in back.chain] == [second.base]  # the newer one is complete only behind it
        one.vault.primary.delete_tree(plan.chain[0].folder)
        with pytest.raises(ProofFailed) as caught:
            one.plan("latest")
        assert caught.value.code == "NO_BASE_BACKUP"
        assert second.base in caught.value.message


def test_encrypted_and_from_the_copy_elsewhere(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is needed is in the other store, with the key: the primary one is gone."""
    monkeypatch.setenv("TEST_RECOVER_KEY", new_raw_key())
    bucket = s3_server.config(s3_server.bucket())
    with site(
        tmp_path,
        17,
        stores={"primary": {"kind": "local", "path": "backups"}, "offsite": bucket.model_dump()},
        encryption={"kind": "raw-aes-256", "key_env": "TEST_RECOVER_KEY"},
    ) as one:
        one.server.sql("INSERT INTO t VALUES (1)")
        one.base_backup()
        one.server.sql("INSERT INTO t VALUES (2)")
        one.switch()
        one.server.sql("INSERT INTO t VALUES (3)")
        one.archive()
        one.copy_offsite()
        one.vault.primary.delete_tree("shop")
        plan = one.plan("latest")
        assert plan.which == "offsite"
        assert all(archived.key.endswith(".enc") for archived in plan.segments)
        with one.recovered("latest") as found:
            assert ids(found) == [1, 2, 3]
