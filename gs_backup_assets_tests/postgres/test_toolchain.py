"""Tests of finding PostgreSQL's programs and of the choice among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres import toolchain as module
from gs_backup_assets.postgres.cluster import running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import DUMP_PROGRAMS, SERVER_PROGRAMS, Toolchain, choose, discover, reachable
from gs_backup_assets.system.account import server_account
from gs_backup_assets_tests.conftest import toolchain_of


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other accounts can enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(autouse=True)
def _fresh_discovery() -> Iterator[None]:
    discover.cache_clear()
    yield
    discover.cache_clear()


def made_up(folder: Path, version: str, *, server: bool = True, dump: bool = True, origin: str = "system") -> Toolchain:
    """Programs that are there by name only."""
    place = folder / f"{origin}-{version}-{server}" / "bin"
    place.mkdir(parents=True)
    for name in (*(DUMP_PROGRAMS if dump else ()), *(SERVER_PROGRAMS if server else ())):
        (place / name).touch(mode=0o755)
    return Toolchain(place, Release.parse(version), origin)


def chosen(server: str, *candidates: Toolchain, needs_server: bool = False) -> Toolchain:
    return choose(Release.parse(server), candidates, needs_server=needs_server)


def refused(server: str, *candidates: Toolchain, needs_server: bool = False) -> str:
    with pytest.raises(ProgramError) as caught:
        choose(Release.parse(server), candidates, needs_server=needs_server)
    return caught.value.code


# Discovery -----------------------------------------------------------------------------------------------------------


def test_the_wheel_is_found_and_can_do_everything() -> None:
    (wheel,) = [t for t in discover() if t.origin == "wheel"]
    assert wheel.release.major == 17
    assert all(vars(wheel.capabilities).values())


def test_the_environment_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    place = toolchain_of(17).bin
    discover.cache_clear()
    monkeypatch.setenv(module.ENVIRONMENT_VARIABLE, f"/nonexistent{os.pathsep}{place}")
    (named,) = [t for t in discover() if t.bin == place.resolve()]
    assert named.origin == "environment"


def test_programs_on_the_path_are_found_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "install"
    shutil.copytree(toolchain_of(17).bin.parent, copy, symlinks=True)
    links = tmp_path / "links"
    links.mkdir()
    (links / "pg_dump").symlink_to(copy / "bin" / "pg_dump")
    discover.cache_clear()
    monkeypatch.setenv("PATH", f"{links}{os.pathsep}{os.environ['PATH']}")
    (found,) = [t for t in discover() if t.bin == (copy / "bin").resolve()]
    assert found.origin == "path"
    assert found.capabilities.server


def test_the_cache_is_found_where_the_environment_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path))
    home = tmp_path / "toolchains" / "17.10"
    shutil.copytree(toolchain_of(17).bin.parent, home, symlinks=True)
    discover.cache_clear()
    (found,) = [t for t in discover() if t.origin == "cache"]
    assert found.bin == (home / "bin").resolve()


def test_system_folders_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "99").mkdir()
    (tmp_path / "99" / "bin").symlink_to(toolchain_of(17).bin)
    discover.cache_clear()
    monkeypatch.setattr(module, "_SYSTEM_PATTERNS", (f"{tmp_path}/*/bin",))
    assert next(t.origin for t in discover() if t.release.major == 17 and t.origin != "cache") == "system"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\nexit 3\n", b"#!/bin/sh\necho no version here\n"])
def test_programs_that_do_not_run_hide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    before = discover()
    (tmp_path / "pg_dump").write_bytes(content)
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv(module.ENVIRONMENT_VARIABLE, str(tmp_path))
    discover.cache_clear()
    assert discover() == before


def test_folders_closed_to_us_hide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PATH of a service may name folders under /root."""
    before = discover()
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0)
    monkeypatch.setenv("PATH", f"{closed / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(module.ENVIRONMENT_VARIABLE, str(closed / "bin"))
    discover.cache_clear()
    found = discover()
    closed.chmod(0o700)
    assert found == before


def test_programs_without_zstd_say_so() -> None:
    fifteen = toolchain_of(15).capabilities
    assert (fifteen.zstd, fifteen.lz4) == (False, False)
    assert fifteen.tls


# Choice --------------------------------------------------------------------------------------------------------------


def test_the_servers_own_major_is_preferred_to_a_newer_one(tmp_path: Path) -> None:
    newer, own = made_up(tmp_path, "17.10"), made_up(tmp_path, "15.18")
    assert chosen("15.18", newer, own) == own


def test_the_nearest_newer_major_comes_next(tmp_path: Path) -> None:
    newest, near = made_up(tmp_path, "18.6"), made_up(tmp_path, "16.15")
    assert chosen("15.18", newest, near) == near


def test_the_newest_minor_of_the_own_major_is_used(tmp_path: Path) -> None:
    old, new = made_up(tmp_path, "15.18"), made_up(tmp_path, "15.20")
    assert chosen("15.18", old, new) == new


def test_a_set_that_can_run_a_server_is_preferred_and_can_be_required(tmp_path: Path) -> None:
    client, full = made_up(tmp_path, "17.11", server=False), made_up(tmp_path, "17.10")
    assert chosen("17.10", client, full) == full
    assert chosen("17.11", client, full) == client
    assert refused("17.11", client, full, needs_server=True) == "PROGRAMS_WITHOUT_SERVER"


def test_the_environments_programs_win_among_equals(tmp_path: Path) -> None:
    newer, named = made_up(tmp_path, "17.11"), made_up(tmp_path, "17.10", origin="environment")
    assert chosen("17.10", newer, named) == named


def test_programs_of_an_older_release_are_refused(tmp_path: Path) -> None:
    older = [made_up(tmp_path, version) for version in ("15.18", "17.10", "18.1")]
    assert refused("15.20", *older) == "PROGRAMS_OLDER_THAN_SERVER"


def test_nothing_found_says_so(tmp_path: Path) -> None:
    assert refused("17.10") == "PROGRAMS_MISSING"
    assert refused("17.10", made_up(tmp_path, "17.10", dump=False)) == "PROGRAMS_MISSING"


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError) as caught:
        made_up(tmp_path, "17.10", server=False).program("initdb")
    assert caught.value.code == "PROGRAM_MISSING"
    assert "initdb" in caught.value.message


# Reach ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another account")
@pytest.mark.parametrize("major", [15, 17])
def test_programs_in_a_private_folder_are_copied_for_the_servers_account(
    public_folder: Path, monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    """As in a virtual environment under /root, and with Debian's layout, whose share folder is not beside `bin`."""
    original = toolchain_of(major)
    root = Path(os.path.commonpath([original.bin.parent, original.share]))
    private = public_folder / "private"
    for part in (original.bin.parent, original.share):
        copied = private / part.relative_to(root)
        if not copied.exists():
            shutil.copytree(part, copied, symlinks=False, ignore=shutil.ignore_patterns("bitcode", "include"))
    private.chmod(0o700)
    readable = public_folder / "cache"
    monkeypatch.setenv(module.CACHE_VARIABLE, str(readable))
    hidden = Toolchain(private / original.bin.relative_to(root), original.release, "environment")
    account = server_account()
    assert not account.can_traverse(hidden.bin)
    copy = reachable(hidden, account)
    assert copy.bin.is_relative_to(readable)
    assert reachable(hidden, account) == copy
    with running_cluster(hidden, purpose="reach") as cluster, connect(cluster.target()) as connection:
        assert cluster.toolchain == copy
        assert query(connection, "SELECT count(*) > 100 FROM pg_timezone_names")[0][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another account")
def test_a_cache_that_the_servers_account_cannot_enter_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    hidden = tmp_path / "install"
    shutil.copytree(toolchain_of(17).bin.parent, hidden, symlinks=True)
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(ProgramError) as caught:
        reachable(Toolchain(hidden / "bin", Release(17, 10), "environment"), server_account())
    assert caught.value.code == "CACHE_UNUSABLE"
    assert server_account().name in caught.value.message


def test_programs_that_can_be_reached_stay_where_they_are() -> None:
    program = toolchain_of(17)
    account = server_account()
    if account.can_traverse(program.bin):
        assert reachable(program, account) == program


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ProgramError) as caught:
        module.open_cache()
    assert caught.value.code == "CACHE_UNUSABLE"
    assert module.CACHE_VARIABLE in caught.value.hint


def test_programs_are_made_readable_whatever_the_umask(tmp_path: Path) -> None:
    subprocess.run(["sh", "-c", "umask 077; mkdir d; touch d/f; cp /bin/true d/p"], cwd=tmp_path, check=True)
    module.make_readable(tmp_path / "d")
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("d", "d/f", "d/p")}
    assert modes == {"d": 0o755, "d/f": 0o644, "d/p": 0o755}
