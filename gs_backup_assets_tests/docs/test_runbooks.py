"""The runbooks, typed: every command block of every page is run, in order, on real servers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import create_database, drop_database
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import run
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.docs.ground import (
    ROOT,
    Ground,
    a_name,
    blocks_of,
    copy_of,
    environment_of,
    load_production,
    nowhere,
    write_config,
)
from gs_backup_assets_tests.processes import open_folder
from gs_backup_assets_tests.production import Production, production
from gs_backup_assets_tests.recovery.staging.staging_site import application
from gs_backup_assets_tests.s3_server import REGION, S3Server

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(path.name for path in RUNBOOKS.glob("*.md"))
pytestmark = pytest.mark.timeout(900)


# The doctor does not take a spool in memory for good, and TMPDIR may be in memory.
ON_DISK = Path("/var/tmp")


def page(name: str) -> str:
    return (RUNBOOKS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server() -> Iterator[Production]:
    with production(17, settings={"wal_keep_size": "256MB", "summarize_wal": "on"}, segment_megabytes=1) as made:
        load_production(made)
        yield made


@pytest.fixture(scope="module")
def template(server: Production) -> Iterator[Ground]:
    """A project that is as it should be: a proven dump, a base backup, the log, all of it off-site, and a drill."""
    with open_folder(ON_DISK) as folder, open_folder(ON_DISK) as cache:
        write_config(folder)
        made = Ground(server, folder, {**environment_of(server, folder, cache), "GS_BACKUP_KEY": new_raw_key()})
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DATABASE_URL", "GS_BACKUP_KEY"):
                patch.setenv(name, made.environment[name])
            made.do("gs-backup run\ngs-backup base-backup --full")
            for number in range(3):
                server.sql(f"CREATE TABLE moment_{number} (n int)")
                server.sql(f"DROP TABLE moment_{number}")
            made.archive()
            made.do("gs-backup drill")
        yield made


@pytest.fixture
def ground(template: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    with open_folder(ON_DISK) as folder:
        made = copy_of(template, folder)
        for name in ("DATABASE_URL", "GS_BACKUP_KEY"):
            monkeypatch.setenv(name, made.environment[name])
        yield made


@contextmanager
def databases(ground: Ground, *variables: str) -> Iterator[None]:
    """Addresses of databases that do not exist yet; they are gone at the end."""
    names = {variable: a_name(variable.lower()) for variable in variables}
    ground.environment.update({variable: ground.database(name) for variable, name in names.items()})
    try:
        yield
    finally:
        with connect(ground.server.target("postgres")) as connection:
            for name in names.values():
                drop_database(connection, name)


def walk(ground: Ground, name: str, **before: Callable[[], object]) -> list[str]:
    """Type every block of a page. `before` does something first under the heading that begins so."""
    blocks = blocks_of(page(name))
    waiting = dict(before)
    said = []
    for block in blocks:
        word = re.sub(r"\W", "", block.heading.split(" ")[0])
        if (happens := waiting.pop(f"at_{word}", None)) is not None:
            happens()
        said.append(ground.type(block))
    assert not waiting, f"no such headings: {sorted(waiting)}"
    return said


def test_complete_loss(ground: Ground) -> None:
    ground.archive()
    port = free_port()
    hook = {"name": "repoint", "command": ["sh", "-c", "echo $GS_BACKUP_RECOVERY_PORT > repointed"], "timeout": "30s"}
    with application() as app:
        ground.configure(
            disaster_recovery={
                "into": str(ground.folder / "new"),
                "port": port,
                "listen_addresses": "127.0.0.1",
                "hooks": [hook],
                "health": {"url": app.url, "deadline": "30s"},
            }
        )
        ground.environment["DATABASE_URL"] = nowhere()
        ground.environment["NEW_URL"] = f"postgresql://studio_owner@127.0.0.1:{port}/studio"
        try:
            with databases(ground, "MANAGED_URL"):
                said = walk(ground, "complete-loss.md")
        finally:
            if (ground.folder / "new" / "data" / "postmaster.pid").exists():
                argv = [ground.server.toolchain.program("pg_ctl"), "-D", ground.folder / "new" / "data", "stop"]
                run([*argv, "-m", "immediate"], account=server_account(), timeout=60)
    assert (ground.folder / "repointed").read_text().strip() == str(port)
    assert "PROVEN" in said[-1] and "Critical tables usable after" in said[-1]


def test_partial_corruption(ground: Ground) -> None:
    server = ground.server
    (count,) = server.sql('SELECT count(*) FROM "StudentChecklistItem"')[0]
    ground.archive()
    ground.environment |= {"TABLE": "StudentChecklistItem", "KEY": "id", "BESIDE_PORT": str(free_port())}
    server.sql("CREATE TABLE marks (n int)")
    (moment,) = server.sql("SELECT clock_timestamp()::text")[0]
    ground.environment["BEFORE"] = str(moment).replace(" ", "T")
    server.sql(
        'DELETE FROM "StudentChecklistItem" WHERE id IN (SELECT id FROM "StudentChecklistItem" ORDER BY id LIMIT 3)'
    )
    server.sql("DROP TABLE marks")
    ground.archive()
    try:
        with databases(ground, "BESIDE_URL"):
            said = walk(ground, "partial-corruption.md")
    finally:
        if (pid := ground.folder / "recovered" / "data" / "postmaster.pid").exists():
            argv = [server.toolchain.program("pg_ctl"), "-D", pid.parent, "-m", "immediate", "stop"]
            run(argv, account=server_account(), timeout=60)
    assert server.sql('SELECT count(*) FROM "StudentChecklistItem"')[0] == (count,)
    assert any(re.search(r"gone +\| +3\b", text) for text in said), said
    assert not (ground.folder / "fetched").exists() and (ground.folder / "as-found.dump").stat().st_size > 1000


def test_lost_key(ground: Ground) -> None:
    ground.environment["KEY_FROM_THE_SAFE"] = ground.environment["GS_BACKUP_KEY"]
    ground.environment["GS_BACKUP_KEY"] = new_raw_key()
    ground.environment["STORES"] = "backups/studio offsite/studio"
    said = walk(ground, "lost-key.md")
    assert "PROVEN" in said[-1]


def test_lost_bucket(ground: Ground, s3_server: S3Server, bucket: str) -> None:
    new = a_name("new-bucket")
    offsite = {"kind": "s3", "endpoint": s3_server.endpoint, "prefix": "prod", "bucket": bucket}
    ground.configure(stores={"primary": {"kind": "local", "path": "backups"}, "offsite": offsite})
    ground.environment |= {
        **{name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
        "AWS_ENDPOINT_URL_S3": s3_server.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "NEW_BUCKET": new,
        "OFFSITE": f"s3://{new}/prod/studio",
        "PRIMARY": str(ground.folder / "backups" / "studio"),
    }
    ground.do("gs-backup copy")
    client = s3_server.client()
    for found in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for thing in found.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=thing["Key"])
    client.delete_bucket(Bucket=bucket)
    said = walk(ground, "lost-bucket.md", at_B1=lambda: shutil.rmtree(ground.folder / "backups"))
    assert "BUCKET_MISSING" in said[0]
    assert "AUDIT_" not in said[-1] and "gone on from its copy 1 time" in said[-1]


def test_stale_backup(ground: Ground) -> None:
    shutil.rmtree(ground.folder / "backups")
    shutil.rmtree(ground.folder / "offsite")
    ground.configure(physical=None, wal=None)
    said = walk(ground, "stale-backup.md")
    assert "PROVEN" in said[-1] or "healthy" in said[-1]


def test_failed_proof(ground: Ground) -> None:
    (victim,) = (ground.folder / "offsite" / "studio" / "logical").glob("*/*/dump/toc.dat.enc")
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ground.environment["BACKUP"] = victim.parents[1].name
    ground.environment["OFFSITE_FOLDER"] = str(ground.folder / "offsite" / "studio")
    ground.archive()
    said = walk(ground, "failed-proof.md")
    assert "FILE_DIFFERS" in "".join(said)


def test_staging_test(ground: Ground) -> None:
    with application() as app, databases(ground, "STAGING_URL"):
        with connect(ground.server.target("postgres")) as connection:
            create_database(connection, ground.environment["STAGING_URL"].rsplit("/", 1)[1])
        commands = {word: [{"name": word, "command": ["touch", word], "timeout": "30s"}] for word in ("stop", "start")}
        health = [{"url": app.url, "expect": "all systems go", "deadline": "30s"}]
        ground.configure(staging={"url_env": "STAGING_URL", "health": health, **commands})
        try:
            walk(ground, "staging-test.md")
        finally:
            name = ground.environment["STAGING_URL"].rsplit("/", 1)[1]
            with connect(ground.server.target("postgres")) as connection:
                for (other,) in query(
                    connection, "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{name}_%",)
                ):
                    drop_database(connection, other)
    assert (ground.folder / "start").exists()


def test_quarterly_drill(ground: Ground) -> None:
    for number in range(3):
        ground.server.sql(f"CREATE TABLE drilled_{number} (n int)")
        ground.server.sql(f"DROP TABLE drilled_{number}")
    ground.archive()
    ground.configure(disaster_recovery={"into": str(ground.folder / "new")})
    ground.environment["KEY_FROM_THE_SAFE"] = ground.environment["GS_BACKUP_KEY"]
    ground.environment["OFFSITE_ADDRESS"] = str(ground.folder / "offsite")
    with databases(ground, "DRILL_URL"):
        walk(ground, "quarterly-disaster-recovery-drill.md")


def test_annual_review(ground: Ground) -> None:
    for number in range(3):
        ground.server.sql(f"CREATE TABLE reviewed_{number} (n int)")
        ground.server.sql(f"DROP TABLE reviewed_{number}")
    ground.archive()
    said = walk(ground, "annual-review.md")
    assert "PROVEN" in said[-1] or "healthy" in said[-1]


WALKED = {
    "complete-loss.md": test_complete_loss,
    "partial-corruption.md": test_partial_corruption,
    "lost-key.md": test_lost_key,
    "lost-bucket.md": test_lost_bucket,
    "stale-backup.md": test_stale_backup,
    "failed-proof.md": test_failed_proof,
    "staging-test.md": test_staging_test,
    "quarterly-disaster-recovery-drill.md": test_quarterly_drill,
    "annual-review.md": test_annual_review,
}


def test_every_page_with_commands_is_walked() -> None:
    """And by the test that says so: a page whose blocks nobody types fails here."""
    assert {name for name in PAGES if blocks_of(page(name))} == set(WALKED)
    assert [name for name, test in WALKED.items() if f'"{name}"' not in _source(test)] == []


def _source(test: Callable[..., None]) -> str:
    import inspect

    return inspect.getsource(test)


@pytest.mark.parametrize("name", PAGES)
def test_commands_stand_in_blocks_that_are_typed(name: str) -> None:
    """No fence but sh, and no indented block, in which a command would be read by people and run by nobody."""
    text = page(name)
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert [fence for fence in fences if not re.fullmatch(r"(sh( exit=(any|\d+))?)?", fence)] == []
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {4,}\S.*$", outside, re.MULTILINE) == []


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page(name)) if "://" not in link]
    assert [link for link in links if not (RUNBOOKS / link).is_file()] == []


@pytest.mark.parametrize("name", sorted(WALKED))
def test_a_page_says_when_with_what_and_how_one_knows(name: str) -> None:
    text = page(name)
    for words in ("**When:**", "**At hand:**", "ow you know that it worked", "f not"):
        assert words in text or (words == "f not" and re.search(r"\*\*If [^*]*\*\*", text)), (name, words)


def test_the_index_names_every_page() -> None:
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", page("README.md"))) == set(PAGES) - {"README.md"}


def test_no_page_gives_a_place_of_this_machine() -> None:
    assert [name for name in PAGES if str(Path.home()) in page(name) or "/work/" in page(name)] == []
