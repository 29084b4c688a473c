"""The configuration: backup.yaml and the names of environment variables; it holds no secret and opens no connection."""

from __future__ import annotations

import os
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from gs_backup_assets.config_backups import Logical, Physical, Retention, Verification, Wal
from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.config_recovery import DisasterRecovery, Replica, Staging
from gs_backup_assets.config_stores import Encryption, Stores
from gs_backup_assets.config_values import Section, slot_name
from gs_backup_assets.config_watching import Alerts, Costs, DataClass, default_classes
from gs_backup_assets.errors import ConfigError

FILE_VARIABLE = "GS_BACKUP_CONFIG"
FILE_NAME = "backup.yaml"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KINDS = frozenset({"local", "s3", "raw-aes-256", "aws-kms"})
_NOT_BY_DATABASE = frozenset({"name", "timezone", "first_partition", "folder", "databases"})


class Settings(Section):
    """Everything that may be set for all databases and overridden for one.

    Without `retention` nothing is ever deleted; without `encryption` backups rest as they are; without `physical` there
    are no base backups, without `wal` no archive of the write-ahead log: both need a role with REPLICATION.
    """

    stores: Stores = Stores()
    encryption: Encryption | None = None
    logical: Logical = Logical()
    physical: Physical | None = None
    wal: Wal | None = None
    replicas: dict[str, Replica] = {}
    disaster_recovery: DisasterRecovery | None = None
    staging: Staging | None = None
    anonymise: Anonymise | None = None
    data_classes: dict[str, DataClass] = Field(default_factory=default_classes)
    retention: Retention | None = None
    costs: Costs = Costs()
    alerts: Alerts = Alerts()
    rules: str = "none"
    reports: Path = Path("reports")
    owners: tuple[str, ...] = ("team:database",)
    verification: Verification = Verification()

    @field_validator("replicas")
    @classmethod
    def _named_replicas(cls, value: dict[str, Replica]) -> dict[str, Replica]:
        for name in value:
            slot_name(name)
        return value


class DatabaseSettings(Settings):
    """The settings of one database, overrides merged in. `folder` is the configuration file's."""

    name: str
    url_env: str
    timezone: str
    folder: Path

    @property
    def reports_path(self) -> Path:
        return (self.folder / self.reports.expanduser()).resolve()

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def physical_url_env(self) -> str:
        """The variable with the address that base backups are taken from."""
        return (self.physical.url_env if self.physical else None) or self.url_env

    @property
    def wal_url_env(self) -> str:
        """The variable with the address that the write-ahead log is streamed from."""
        return (self.wal.url_env if self.wal else None) or self.url_env

    @property
    def spool_path(self) -> Path:
        """The folder of WAL that is not yet in the archive."""
        return (self.folder / (self.wal.spool if self.wal else Path("wal-spool")).expanduser()).resolve() / self.name

    @property
    def rto_target(self) -> timedelta | None:
        """The shortest RTO of all classes: the database counts as back when its most urgent class is."""
        return min((c.rto for c in self.data_classes.values()), default=None)

    def class_tables(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Data classes with the alternatives of each table."""
        return {name: data_class.alternatives() for name, data_class in self.data_classes.items()}


class BackupConfig(Settings):
    """The whole file."""

    databases: dict[str, dict[str, Any]]
    timezone: str = "UTC"
    first_partition: str = "2026-01-01"
    _folder: Path = PrivateAttr(default=Path("."))

    @property
    def folder(self) -> Path:
        """The folder of the file: relative paths are meant from there."""
        return self._folder

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # OSError: a part of a name, such as America, is a folder
            raise ValueError(f"{value!r} is no time zone of the tz database, such as America/Chicago") from None
        return value

    @field_validator("first_partition")
    @classmethod
    def _known_day(cls, value: str) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f"{value!r} is not a day, such as 2026-11-22; put it in quotes") from None

    @field_validator("databases")
    @classmethod
    def _named_databases(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError("name at least one database")
        for name, settings in value.items():
            if stray := _NOT_BY_DATABASE & settings.keys():
                raise ValueError(f"{name}: {', '.join(sorted(stray))} cannot be set for one database")
            if not _NAME.match(name):
                raise ValueError(
                    f"{name!r}: use letters, digits and underscores, it becomes part of asset keys and paths"
                )
        return value

    def names(self) -> tuple[str, ...]:
        return tuple(self.databases)

    def database(self, name: str | None = None) -> DatabaseSettings:
        """The settings of a database, or of the only one. ConfigError (`DATABASE_UNKNOWN`, `DATABASE_AMBIGUOUS`)."""
        if name is None:
            if len(self.databases) > 1:
                raise ConfigError(
                    "DATABASE_AMBIGUOUS",
                    f"There are several databases: {', '.join(self.databases)}.",
                    "Choose one with --database NAME.",
                )
            name = next(iter(self.databases))
        if name not in self.databases:
            raise ConfigError(
                "DATABASE_UNKNOWN", f"There is no database {name!r}.", f"Known are {', '.join(self.databases)}."
            )
        shared = self.model_dump(include=set(Settings.model_fields), exclude_unset=True)
        return DatabaseSettings.model_validate(
            {
                **_merge(shared, self.databases[name]),
                "name": name,
                "timezone": self.timezone,
                "folder": self.folder,
            }
        )


def load_config(path: Path | None = None) -> BackupConfig:
    """Read and validate the file: `path`, else GS_BACKUP_CONFIG, else ./backup.yaml.

    Raises ConfigError: `CONFIG_NOT_FOUND`, `CONFIG_INVALID` (naming every key that is wrong or unknown).
    """
    path = path or Path(os.environ.get(FILE_VARIABLE) or FILE_NAME)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError("CONFIG_INVALID", f"{path} is not text in UTF-8.", "Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(
            "CONFIG_NOT_FOUND",
            f"{path} cannot be read: {error.strerror}.",
            "`gs-backup init` writes one; --config names another.",
        ) from None
    document = _parse(path, text)
    if not isinstance(document, dict):
        raise ConfigError("CONFIG_INVALID", f"{path} has no settings.", "`gs-backup init` writes an example.")
    where: tuple[str, ...] = ()
    try:
        config = BackupConfig.model_validate(document)
        config._folder = path.resolve().parent
        for name in config.names():
            where = ("databases", name)
            config.database(name)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join((*where, *_keys(p['loc']))) or 'file'}: {p['msg']}" for p in error.errors(include_input=False)
        )
        raise ConfigError("CONFIG_INVALID", f"{path}: {problems}", "docs/configuration.md lists every key.") from None
    return config


def _keys(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys of a problem's place as they stand in the file: without the kind that a choice of sections adds."""
    chosen = ("primary", "offsite", "encryption")
    return tuple(
        str(part)
        for before, part in zip(("", *location), location, strict=False)
        if not (part in _KINDS and (before in chosen or isinstance(before, int)))
    )


def _parse(path: Path, text: str) -> Any:
    """Read YAML. A key that is given twice is an error: of two databases under one name, one would not be backed up."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        for key, (at, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=at.start_mark)
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:
        words = " ".join(str(error).split())
        raise ConfigError("CONFIG_INVALID", f"{path} is not YAML: {words}", "Correct the file.") from None


def _merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # Another kind of store or key has settings of its own: those of the shared one mean nothing to it.
        same_kind = nested and value.get("kind", merged[key].get("kind")) == merged[key].get("kind")
        merged[key] = _merge(merged[key], value) if same_kind else value
    return merged
