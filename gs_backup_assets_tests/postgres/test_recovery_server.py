"""A recovered server must be closed: one that is not is found; and who may log in is read from the files."""

from __future__ import annotations

import pytest

from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.login_roles import superusers
from gs_backup_assets.postgres.recovery_server import require_closed
from gs_backup_assets_tests.production import production


def test_an_open_server_is_refused_with_everything_that_is_open() -> None:
    settings = {"archive_mode": "on", "archive_command": "true"}
    with production(17, settings=settings) as server, connect(server.target()) as connection:
        with pytest.raises(ProofFailed) as caught:
            require_closed(connection)
        assert caught.value.code == "SERVER_NOT_CLOSED"
        for words in ("archive_mode = 'on'", "listen_addresses", "unix_socket_permissions", "host connections"):
            assert words in caught.value.message


def test_the_superusers_who_may_log_in_are_read_from_the_files(any_server: Cluster) -> None:
    with connect(any_server.target()) as connection:
        query(connection, "CREATE ROLE second SUPERUSER LOGIN")
        query(connection, "CREATE ROLE nobody_in SUPERUSER NOLOGIN")
        query(connection, "CREATE ROLE plain LOGIN")
        try:
            query(connection, "CHECKPOINT")
            assert superusers(any_server.folder / "data") == [any_server.superuser, "second"]
            query(connection, "VACUUM FULL pg_authid")  # another file, by the map of such
            query(connection, "CHECKPOINT")
            assert superusers(any_server.folder / "data") == [any_server.superuser, "second"]
        finally:
            query(connection, "DROP ROLE second, nobody_in, plain")
