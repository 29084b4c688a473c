"""The account that servers run as, and everything with an account that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

import gs_backup_assets
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.system.account import Account, current_account, server_account
from gs_backup_assets_tests.processes import processes_with

PACKAGE = Path(gs_backup_assets.__file__).parent
LIBRARIES = ("psycopg2*", "pydantic*", "annotated_types", "typing_extensions.py", "typing_inspection")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="gs-test-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_our_own_account_runs_servers_unless_it_is_root() -> None:
    account = server_account()
    assert account.uid != 0
    if os.geteuid() != 0:
        assert account == current_account()


@as_root
def test_the_account_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GS_BACKUP_OS_USER", "nobody")
    assert server_account().name == "nobody"


@as_root
@pytest.mark.parametrize("name", ["root", "no_such_account"])
def test_root_or_nobody_at_all_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GS_BACKUP_OS_USER", name)
    with pytest.raises(ConfigError, match="NO_SERVER_ACCOUNT"):
        server_account()


def test_a_private_folder_above_stops_others(open_folder: Path) -> None:
    stranger = Account("stranger", 54321, 54321)
    inner = open_folder / "private" / "programs"
    inner.mkdir(parents=True, mode=0o755)
    assert stranger.can_traverse(inner)
    inner.parent.chmod(0o700)
    assert not stranger.can_traverse(inner)
    owner = Account("owner", os.geteuid(), os.getegid())
    assert owner.can_traverse(inner)


CLUSTER = """
import os, sys
from gs_backup_assets.postgres.cluster import running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.toolchain import discover
from gs_backup_assets.system.workspace import workspace

assert os.geteuid() != 0
able = [t for t in discover() if t.has("pg_dump", "pg_restore", "initdb", "postgres")]
with workspace("spool") as spool:
    assert (spool.stat().st_mode & 0o777, spool.stat().st_uid) == (0o700, os.geteuid())
with running_cluster(able[0], purpose="plain") as cluster, connect(cluster.target()) as connection:
    print("rows", query(connection, "SELECT count(*) FROM pg_class")[0][0] > 100)
"""


def interpreter_for(account: Account) -> str:
    """A Python of this version that the account may run: the one of this environment may lie in a private folder."""
    names = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    for name in names:
        real = Path(name).resolve()
        if real.is_file() and account.can_traverse(real):
            return name
    pytest.skip(f"{account.name} may run none of {names}")


def readable_copy(folder: Path) -> Path:
    """The package and what it needs to run a cluster: where they are installed may be private."""
    libraries = Path(psycopg2.__file__).parent.parent
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LIBRARIES:
        for path in libraries.glob(name):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
    return folder


@as_root
@pytest.mark.parametrize("name", ["nobody", "postgres"])
def test_a_plain_account_runs_a_cluster(open_folder: Path, name: str) -> None:
    """Nothing needs root: workspace, programs, guardian and server work for an account without any right."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"this machine has no account {name}")
    libraries = readable_copy(open_folder)
    result = subprocess.run(
        [interpreter_for(Account(name, entry.pw_uid, entry.pw_gid)), "-c", CLUSTER],
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(open_folder),
            "TMPDIR": str(open_folder),
            "PYTHONPATH": str(libraries),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "rows True\n"
    assert [path.name for path in open_folder.glob("gs-backup-*")] == []
    assert processes_with(str(open_folder)) == []
