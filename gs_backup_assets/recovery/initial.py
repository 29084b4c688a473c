"""The first configuration: what a server says about itself, written as a backup.yaml with comments and no secret."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timezone
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS
from gs_backup_assets.config import load_config
from gs_backup_assets.errors import ConfigError, ProgramError
from gs_backup_assets.postgres.connection import Connection, connect, query, server_facts, target_from_environment
from gs_backup_assets.postgres.dump import FALLBACK_COMPRESSION, Compression
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.toolchain import choose

# The application whose data classes and rules are packaged, and how many of its critical tables give it away.
_KNOWN_RULES = "guitar_strategies"
_ENOUGH_TABLES = 5
_PREFERRED = (Compression("zstd", 1), Compression("lz4", 1), FALLBACK_COMPRESSION)
_WORD = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


@dataclass(frozen=True)
class ClassOfTables:
    """One packaged data class: objectives as written (`15m`), and each table's alternative names."""

    rpo: str
    rto: str
    tables: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FirstSettings:
    """What the file will say. `notes` are for the person who ran the verb: what was assumed, and what is missing.

    `offsite` and `encryption` are the sections of these names in YAML; without one the file shows an example of it.
    """

    name: str
    url_env: str
    timezone: str
    first_partition: str
    compression: str
    rules: str
    classes: Mapping[str, ClassOfTables]
    notes: tuple[str, ...]
    offsite: str | None = None
    encryption: str | None = None


def packaged_classes() -> dict[str, ClassOfTables]:
    """The data classes that come with this package."""
    import yaml

    text = files("gs_backup_assets.catalogue").joinpath("data_classes.yaml").read_text(encoding="utf-8")
    return {
        name: ClassOfTables(entry["rpo"], entry["rto"], tuple(tuple(names) for names in entry["tables"]))
        for name, entry in yaml.safe_load(text).items()
    }


def identifier(name: str) -> str:
    """A database's name as a key of the configuration: letters, digits and underscores, not beginning with a digit."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "database"
    return plain if not plain[0].isdigit() else f"db_{plain}"


def known_zone(name: str) -> str:
    """The server's time zone if it is one of the tz database's, else UTC."""
    return name if name in available_timezones() and not name.startswith("local") else "UTC"


def ask_server(url_env: str, name: str | None = None) -> FirstSettings:
    """Read from the server what the first configuration needs.

    Raises ConfigError (`URL_ENV_INVALID`, `URL_MISSING`, `URL_INVALID`, `NAME_INVALID`) and SourceError
    (`SERVER_UNREACHABLE`).
    """
    if not _WORD.match(url_env):
        raise ConfigError(
            "URL_ENV_INVALID",
            "--url-env wants the name of an environment variable, not an address.",
            "Put the address into a variable, such as DATABASE_URL, and give its name: the file must hold no secret.",
        )
    if name is not None and not _WORD.match(name):
        raise ConfigError(
            "NAME_INVALID",
            f"{name!r} cannot be a name: it becomes part of asset keys and paths.",
            f"Use letters, digits and underscores, such as {identifier(name)}.",
        )
    target = target_from_environment(url_env)
    with connect(target, application="gs_backup init") as connection:
        release = server_facts(connection).release
        inventory = take_inventory(connection)
        server_zone = _time_zone(connection)
    notes: list[str] = []
    zone = known_zone(server_zone)
    if zone != server_zone:
        notes.append(f"The server's time zone, {server_zone}, is not one of the tz database's: UTC is written.")
    present = {relation.name for relation in (*inventory.tables, *inventory.unreadable)}
    classes = classes_for(present, notes)
    return FirstSettings(
        name=name or identifier(target.database),
        url_env=url_env,
        timezone=zone,
        first_partition=_today(zone).isoformat(),
        compression=_compression(release, notes),
        rules=_KNOWN_RULES if classes else "none",
        classes=classes,
        notes=tuple(notes),
    )


def _time_zone(connection: Connection) -> str:
    # Our sessions run in UTC; what a plain session of this role and database would have is the value to reset to.
    rows = query(connection, "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'")
    return str(rows[0][0])


def _today(zone: str) -> date:
    return datetime.now(timezone.utc).astimezone(ZoneInfo(zone)).date()


def _compression(release: Release, notes: list[str]) -> str:
    try:
        toolchain = choose(release)
    except ProgramError as error:
        notes.append(f"{error.code}: {error.message} {error.hint}")
        return str(_PREFERRED[0])
    return str(next(method for method in _PREFERRED if method.supported_by(toolchain)))


def classes_for(present: Collection[str], notes: list[str]) -> dict[str, ClassOfTables]:
    """The packaged classes with the tables that exist, if at least five critical ones do; else none."""
    packaged = packaged_classes()

    def existing(tables: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
        return tuple(names for names in tables if any(name in present for name in names))

    if len(existing(packaged[CRITICAL_CLASS].tables)) < _ENOUGH_TABLES:
        return {}
    found = {name: ClassOfTables(c.rpo, c.rto, existing(c.tables)) for name, c in packaged.items()}
    missing = [names[-1] for name, c in packaged.items() for names in c.tables if names not in found[name].tables]
    if missing:
        notes.append(f"Not in this database, and so in no data class: {', '.join(missing)}.")
    return found


def render(settings: FirstSettings) -> str:
    """The file's text. Every key is explained; what is not written has the default that the comments tell."""
    lines = [
        "# Backups of PostgreSQL: written by `gs-backup init`, yours to edit. `gs-backup doctor` checks it.",
        "# No secret belongs in here: addresses and keys are named by environment variables.",
        "",
        "# One entry per database; the key becomes part of asset keys and of paths in the store.",
        "# Any setting below can be repeated inside an entry for that database alone.",
        "databases:",
        f"  {_key(settings.name)}:",
        f"    url_env: {settings.url_env} # the environment variable that holds the database's address",
        "",
        "# The time zone of partitions and schedules: a day's backup is one taken on that day in this zone.",
        f"timezone: {settings.timezone}",
        "",
        "# The first day that has a partition.",
        f'first_partition: "{settings.first_partition}"',
        "",
        "# Where backups rest. A relative path is meant from the folder of this file.",
        "stores:",
        "  primary:",
        "    kind: local",
        "    path: ./backups",
        "  # The copy in another place, which is the one that is proved (docs/offsite.md).",
        f"  {_or_example('offsite', settings.offsite, '{kind: s3, bucket: my-backups, prefix: prod}')}",
        "",
        "# Who else may read them: nobody without the key (docs/encryption.md). `gs-backup keys new` makes one.",
        _or_example("encryption", settings.encryption, "{kind: raw-aes-256, key_env: GS_BACKUP_KEY}"),
        "",
        "# Dumps: a cron schedule in the time zone above; jobs side by side (a number, or auto: one per processor);",
        "# compression (zstd:1, lz4:1, gzip:1 or none; zstd and lz4 need programs of PostgreSQL 16 or later);",
        "# fingerprint (full: row counts and contents are compared after every restore; counts; off).",
        "logical:",
        '  schedule: "0 2 * * *"',
        "  jobs: auto",
        f'  compression: "{settings.compression}"',
        "  fingerprint: full",
        "",
        *_class_lines(settings.classes),
        "",
        "# What stays: the newest proven backup of so many days, weeks and months that have one, and keep_proven ones",
        "# whatever their age. A backup goes only when a newer proven one stays; `gs-backup prune` shows which.",
        "# Without this section nothing is ever deleted.",
        "retention:",
        "  daily: 30",
        "  weekly: 8",
        "  monthly: 12",
        "  keep_proven: 2",
        "",
        "# Rules that the restored data must keep: packaged ones by name, a file of your own, or none.",
        "# Foreign keys are tested whatever the rules.",
        f"rules: {settings.rules}",
        "",
        "# Whom to tell: the variable holds Apprise URLs. A backup or proof older than stale_after is told, and told",
        "# again after remind_after.",
        "alerts:",
        "  urls_env: GS_BACKUP_ALERT_URLS",
        "  stale_after: 25h",
        "  remind_after: 24h",
        "",
        "# Where proofs restore to: a throwaway server on this machine. Where that lacks an extension or a collation,",
        "# server_url_env names the variable with the address of a server on which databases may be made and dropped.",
        "verification:",
        "  target: throwaway",
        "  # server_url_env: GS_BACKUP_VERIFICATION_URL",
    ]
    return "\n".join(lines) + "\n"


def _or_example(section: str, text: str | None, example: str) -> str:
    return f"{section}: {text}" if text is not None else f"# {section}: {example}"


def _key(name: str) -> str:
    """Quoted where YAML would read a truth value or nothing: databases called `on` exist."""
    import yaml

    return name if isinstance(yaml.safe_load(name), str) else f'"{name}"'


def _class_lines(classes: Mapping[str, ClassOfTables]) -> list[str]:
    lines = [
        "# Objectives: how much may be lost (rpo) and how soon it must be back (rto), by class of tables. Tables that",
        "# no class names are important. A table may be given under several names, of which one exists.",
        "data_classes:",
    ]
    if not classes:
        return [*lines, "  important:", "    rpo: 1h", "    rto: 4h"]
    for name, entry in classes.items():
        lines += [f"  {name}:", f"    rpo: {entry.rpo}", f"    rto: {entry.rto}"]
        if entry.tables:
            lines += ["    tables:", *(f"      - [{', '.join(names)}]" for names in entry.tables)]
    return lines


def config_exists(path: Path) -> ConfigError:
    """The error of a file that is there already."""
    message = f"{path} exists and was left as it is."
    return ConfigError("CONFIG_EXISTS", message, "--force replaces it; --config names another file.")


def write_first_config(path: Path, settings: FirstSettings, *, force: bool = False) -> None:
    """Write the file aside, load it as every verb does, then put it in place in one step.

    Raises ConfigError: `CONFIG_EXISTS` without `force`, `CONFIG_UNWRITABLE`.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            aside.write_text(render(settings), encoding="utf-8")
            load_config(aside)
            if force:
                aside.replace(path)
            else:
                os.link(aside, path)  # unlike a rename, a link never replaces what is there
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()
    except FileExistsError:
        raise config_exists(path) from None
    except OSError as error:
        raise ConfigError(
            "CONFIG_UNWRITABLE", f"{path} cannot be written: {error.strerror}.", "Choose another place with --config."
        ) from None
