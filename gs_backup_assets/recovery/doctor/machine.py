"""The doctor's checks of this machine: PostgreSQL's programs, the throwaway server, disk space, reports, store."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ProgramError, StoreError
from gs_backup_assets.postgres.cluster import create_database
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.database import DatabaseFacts, missing_extensions
from gs_backup_assets.postgres.dump import FALLBACK_COMPRESSION, Compression
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import ENVIRONMENT_VARIABLE, Toolchain, choose, discover, reachable
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, not_verified, passed
from gs_backup_assets.recovery.dumps.servers import throwaway_server
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import run
from gs_backup_assets.system.reports import reports_in
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import Which, open_store
from gs_backup_assets.vault.store import Store

_GIGA = 1_000_000_000
_EVERYWHERE = frozenset({"c", "posix", "c.utf8"})


def programs(release: Release | None, settings: DatabaseSettings, *, encrypted: bool) -> Diagnosis:
    """Whether programs that may dump the server are here, and whether they can do what the settings ask for."""
    found = [f"found: {toolchain}, {toolchain.origin}" for toolchain in discover()]
    found += [
        f"{ENVIRONMENT_VARIABLE} names {part}, which has no programs that run"
        for part in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep)
        if part and not any(t.bin == Path(part).resolve() for t in discover())
    ]
    if release is None:
        return not_verified("programs", "Which programs fit depends on the server's version: it is not known.", found)
    try:
        toolchain = choose(release)
    except ProgramError as error:
        return failed("programs", f"{error.code}: {error.message}", found, error.hint)
    can = toolchain.capabilities
    if encrypted and not can.tls:
        hint = f"`gs-backup toolchain add {release.major}` fetches programs that can."
        return failed("programs", f"{toolchain} cannot speak TLS, and the session needs it.", found, hint)
    wanted = Compression.parse(settings.logical.compression)
    if not wanted.supported_by(toolchain):
        found.insert(0, f"{wanted} is not known to it: {FALLBACK_COMPRESSION} is used, which is slower and larger")
    if not can.amcheck:
        found.insert(0, "it has no amcheck: indexes of a restored database are not checked")
    return passed("programs", f"{toolchain} fits the server.", found)


def throwaway(
    release: Release | None, facts: DatabaseFacts | None, settings: DatabaseSettings, *, thorough: bool
) -> Diagnosis:
    """Whether a proof can restore the database on this machine: server programs, extensions, locale."""
    if release is None or facts is None:
        return not_verified("throwaway", "What a proof needs depends on the server, which could not be asked.")
    try:
        toolchain = choose(choose(release).release, needs_server=True)
        account = server_account()
        readable = reachable(toolchain, account)
        lacking = _tried(readable, facts) if thorough else tuple(_looked_up(readable, facts))
    except BackupError as error:
        return failed("throwaway", f"{error.code}: {error.message}", hint=error.hint)
    who = f"{toolchain}, run by the account {account.name}"
    unsure = tuple(what for what in lacking if what.startswith("unknown: "))
    variable = settings.verification.server_url_env
    if not lacking:
        return passed("throwaway", f"A proof can restore with {who}.")
    if variable is not None and os.environ.get(variable):
        return passed("throwaway", f"What {toolchain} lacks is left to the verification server in {variable}.", lacking)
    if unsure == lacking:
        return not_verified("throwaway", f"Whether {who} has everything is not known.", lacking, "--thorough tries it.")
    return failed(
        "throwaway",
        "A proof cannot restore this database on this machine.",
        lacking,
        "Install what is missing for these programs, or name a server that has it in verification.server_url_env.",
    )


def _looked_up(toolchain: Toolchain, facts: DatabaseFacts) -> Iterator[str]:
    """What the programs lack, by the look of their files; a guess begins with `unknown: `."""
    for extension in facts.extensions:
        if not (toolchain.share / "extension" / f"{extension.name}.control").is_file():
            yield f"extension {extension.name}"
    if facts.provider == "b":
        if toolchain.release.major < 17:
            yield f"builtin locale {facts.locale}"
        return
    if facts.provider == "i":
        yield f"unknown: ICU locale {facts.locale}"
    installed = _installed_locales()
    for name in sorted({facts.collate, facts.ctype}):
        if _normal(name) not in _EVERYWHERE | installed:
            yield f"locale {name}" if installed else f"unknown: locale {name}"


def _normal(locale: str) -> str:
    return locale.lower().replace("utf-8", "utf8")


def _installed_locales() -> frozenset[str]:
    if shutil.which("locale") is None:
        return frozenset()
    answer = run(["locale", "-a"], capture_stdout=True, timeout=10)
    return frozenset(_normal(line.strip()) for line in answer.stdout.splitlines() if answer.status == 0)


def _tried(toolchain: Toolchain, facts: DatabaseFacts) -> tuple[str, ...]:
    """What a throwaway server lacks, asked from one that is really started."""
    import psycopg2

    with throwaway_server(toolchain, facts.bootstrap_role) as server, connect(server.admin) as connection:
        lacking = [f"extension {name}" for name in missing_extensions(connection, facts.extensions)]
        try:
            options = facts.locale_options(server.release.major)
            create_database(connection, "gs_backup_probe", encoding=facts.encoding, locale=options)
        except psycopg2.Error as error:
            lacking.append(str(error).splitlines()[0])
    return tuple(lacking)


def spool(database_bytes: int | None) -> Diagnosis:
    """Room for the spool and the throwaway server, which share the temporary folder.

    A proof holds the dump and the whole restored database there at once.
    """
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    where = f"{folder} has {free / _GIGA:.1f} GB free"
    if database_bytes is None:
        return not_verified("spool", f"{where}; how large the database is is not known.")
    size = f"the database has {database_bytes / _GIGA:.2f} GB"
    hint = "Free space, or set TMPDIR to a larger disk."
    if free < database_bytes:
        return failed("spool", f"{where}, {size}: it cannot be restored there.", hint=hint)
    if free < database_bytes * 3 // 2:
        return not_verified("spool", f"{where}, {size}: dump and restored database may not fit together.", hint=hint)
    return passed("spool", f"{where}, {size}.")


def reports(settings: DatabaseSettings) -> Diagnosis:
    """Whether reports of proofs can be written where people look for them; a folder that was missing is not left."""
    with reports_in(settings.reports_path) as folder:
        refusal = folder.refusal
    for made in folder.made:
        with suppress(OSError):
            made.rmdir()
    if refusal is not None:
        return failed("reports", f"{refusal.code}: {refusal.message}", hint=refusal.hint)
    return passed("reports", f"{settings.reports_path} can be written.")


def store(settings: DatabaseSettings, which: Which, database_bytes: int | None) -> Diagnosis:
    """Whether an object can be written, read back and removed, and, on a disk, whether backups fit."""
    name = _STORE_CHECKS[which]
    place = open_store(settings, which)
    left: list[str] = []
    try:
        equal = _probed(place, left)
    except StoreError as error:
        return failed(name, f"{error.code}: {error.message}", hint=error.hint)
    if not equal:
        return failed(name, f"{place.describe()} gave back other bytes than were written.", hint="Do not use it.")
    if not isinstance(place, LocalStore):
        return passed(name, f"{place.describe()} can be written and read.", left)
    free = shutil.disk_usage(next(folder for folder in (place.root, *place.root.parents) if folder.exists())).free
    where = f"{place.root} can be written and has {free / _GIGA:.1f} GB free"
    if database_bytes is None:
        return not_verified(name, f"{where}; how large the database is is not known.")
    # Measured: compressed dumps take between a ninth and a quarter of the database's size.
    hint = "Free space, or move the store to a larger disk."
    if free < database_bytes // 4:
        return failed(name, f"{where}: too little for one backup.", hint=hint)
    if free < database_bytes:
        return not_verified(name, f"{where}: maybe too little for several backups.", hint=hint)
    return passed(name, f"{where}.")


_STORE_CHECKS: dict[Which, str] = {"primary": "store", "offsite": "offsite_store"}


def _probed(place: Store, left: list[str]) -> bool:
    """Whether bytes that are put come back; nothing is left behind, not even the folder of a new store.

    Where the store does not let us clear up, `left` gets the reason: whoever may write need not be able to delete.
    """
    root = place.root if isinstance(place, LocalStore) else None
    missing = [folder for folder in (root, *root.parents) if not folder.exists()] if root is not None else []
    probe = f".doctor-{secrets.token_hex(6)}"
    try:
        data = secrets.token_bytes(1024)
        place.put_bytes(data, f"{probe}/probe", locked=False)
        with place.open(f"{probe}/probe") as stream:
            return stream.read() == data
    finally:
        if root is None or root.is_dir():
            try:
                place.delete_tree(probe)
            except StoreError as error:  # what went wrong first is told
                left.append(f"{probe} is left behind: {error.code}: {error.message}")
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
