"""URLs as people and Prisma write them, and a password that shows nowhere."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.errors import ConfigError, SourceError
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect, query, target_from_environment, target_from_url
from gs_backup_assets.system.programs import run
from gs_backup_assets_tests.chain import execute

# Everything that a password may hold: what a URL, a service file, a password file or a shell would trip over.
_SECRETS = ("plain", "p@ss:w/rd?#%&=+", " both ends ", "back\\slash:colon'quote\"", "ünï😀", "$(id)`id`;", "a" * 900)
_text = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=("Cs",)), min_size=1, max_size=40)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_a_prisma_url_loses_what_only_prisma_reads(scheme: str) -> None:
    url = f"{scheme}://u:p@db.example.org:6543/shop?schema=public&connection_limit=5&pool_timeout=0&sslmode=require&pgbouncer=true"
    target = target_from_url(url)
    assert target.parameters == {
        "user": "u",
        "host": "db.example.org",
        "port": "6543",
        "dbname": "shop",
        "sslmode": "require",
    }
    assert target.password == "p"
    assert target.pooled
    assert not target_from_url("postgresql://u@h/d?schema=x").pooled


def test_options_keep_their_blanks_and_plus_signs() -> None:
    target = target_from_url("postgresql://u@h/d?options=-c%20work_mem%3D8MB&application_name=a+b&schema=x")
    assert target.parameters["options"] == "-c work_mem=8MB"
    assert target.parameters["application_name"] == "a+b"


@given(user=_text, password=_text, database=_text)
def test_every_character_survives_percent_encoding(user: str, password: str, database: str) -> None:
    target = target_from_url(f"postgresql://{quote(user, '')}:{quote(password, '')}@h/{quote(database, '')}?schema=x")
    assert (target.parameters["user"], target.password, target.database) == (user, password, database)


def test_key_value_strings_sockets_and_several_hosts() -> None:
    target = target_from_url(r"host=/var/run/x user=u password='it\'s' dbname='a b'")
    assert (target.host, target.password, target.database) == ("/var/run/x", "it's", "a b")
    assert target_from_url("postgresql://u@a:1,b:2/d").parameters["host"] == "a,b"
    assert target_from_url("postgresql:///d?host=/tmp/x").host == "/tmp/x"
    assert target_from_url("postgresql://owner@h").database == "owner"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h/d",
        "prisma://accelerate.example.org/?api_key=hunter2",
        "postgresql://u:hunter2@h:port/d?sslmod=x",
        "postgresql://u:hunt%er2@h/d",
        "postgresql://u:hunter2%0Ahost=evil@h/d",
        "postgresql://u:hunter2@[::1/d",
        "password=hunter2 nonsense",
    ],
)
def test_an_invalid_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        target_from_url(url, name="DATABASE_URL")
    assert caught.value.code == "URL_INVALID"
    assert "DATABASE_URL" in caught.value.message
    assert "hunt" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, (
        "the parser's own error, which may hold the URL, would be shown"
    )


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    with pytest.raises(ConfigError, match=r"URL_MISSING.*NO_SUCH_URL"):
        target_from_environment("NO_SUCH_URL")


def test_repr_shows_no_secret() -> None:
    target = target_from_url("postgresql://u:hunter2@h/d?sslkey=/k&sslmode=require")
    keyed = target_from_url("host=h user=u password=hunter2 sslpassword=hunter2 dbname=d")
    for text in (repr(target), str(target), f"{[target]}", repr(keyed), target.redacted()):
        assert "hunter2" not in text
    assert target.redacted() == "u@h:5432/d"


def test_a_refused_connection_says_why_and_no_password(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught, connect(Target({"host": str(tmp_path), "user": "u"}, "hunter2")):
        pass
    assert caught.value.code == "SERVER_UNREACHABLE"
    assert "No such file" in caught.value.message
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("secret", _SECRETS)
def test_the_programs_log_in_with_any_password(server17: Cluster, tmp_path: Path, secret: str) -> None:
    """Against a server that asks for the password: psql must come in through the files that we wrote."""
    hba = server17.folder / "data" / "pg_hba.conf"
    rule = "local all asked_for_password scram-sha-256\n"
    if rule not in hba.read_text():
        hba.write_text(rule + hba.read_text())
    admin = server17.target()
    with connect(admin) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_reload_conf()")
        cursor.execute("DROP ROLE IF EXISTS asked_for_password")
        cursor.execute("CREATE ROLE asked_for_password LOGIN PASSWORD %s", (secret,))
    try:
        target = Target({**admin.parameters, "user": "asked_for_password"}, secret)
        with pytest.raises(SourceError, match="password"), connect(Target(target.parameters, secret + "x")):
            pass
        with connect(target) as connection:
            assert query(connection, "SELECT current_user") == [("asked_for_password",)]
        environment = target.write_service_file(tmp_path)
        assert secret not in str(environment)
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        argv = [server17.toolchain.program("psql"), "-XAtw", "-c", "SELECT current_user"]
        finished = run(argv, environment=environment, capture_stdout=True)
        assert (finished.stdout.strip(), finished.status) == ("asked_for_password", 0), finished.stderr
    finally:
        execute(admin, "DROP ROLE asked_for_password")


def test_a_rewritten_service_file_stays_private(tmp_path: Path) -> None:
    Target({"host": "h"}, "one").write_service_file(tmp_path)
    Target({"host": "h"}, "two").write_service_file(tmp_path)
    assert "one" not in "".join(file.read_text() for file in tmp_path.iterdir())


def test_the_session_is_the_same_whatever_the_database_sets(empty_database: Target) -> None:
    execute(
        empty_database,
        "CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$",
        f"ALTER DATABASE {empty_database.database} SET search_path TO public, pg_catalog",
        f"ALTER DATABASE {empty_database.database} SET DateStyle TO 'German'",
        f"ALTER DATABASE {empty_database.database} SET lock_timeout TO '1ms'",
    )
    with connect(empty_database) as connection:
        shown = query(connection, "SELECT '2026-11-22'::date::text, current_setting('lock_timeout')")
        assert shown == [("2026-11-22", "0")]
        assert query(connection, "SELECT current_setting('search_path')") == [("pg_catalog",)]


def test_settings_of_another_major_are_skipped(any_server: Cluster) -> None:
    with connect(any_server.target(), settings={"no_such_setting": "1", "work_mem": "5MB"}) as connection:
        assert query(connection, "SHOW work_mem") == [("5MB",)]
        with pytest.raises(psycopg2.errors.UndefinedObject):
            query(connection, "SHOW no_such_setting")


def test_a_name_in_another_encoding_is_told(server17: Cluster) -> None:
    """Names of roles are kept in the encoding of the database that they were made in."""
    admin = server17.target()
    execute(admin, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        execute(server17.target("latin"), 'CREATE ROLE "Größe"')
        with connect(admin) as connection, pytest.raises(SourceError) as caught:
            query(connection, "SELECT rolname FROM pg_roles")
        assert caught.value.code == "NAME_UNREADABLE"
    finally:
        execute(server17.target("latin"), 'DROP ROLE IF EXISTS "Größe"')
        execute(admin, "DROP DATABASE latin")
