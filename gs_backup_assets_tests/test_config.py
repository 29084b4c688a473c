"""The configuration: every mistake is named, no secret is read, and its page in docs/ lists what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gs_backup_assets.alerts.notify import SLACK_VARIABLE
from gs_backup_assets.config import BackupConfig, DatabaseSettings, Settings, load_config
from gs_backup_assets.config_recovery import Replica
from gs_backup_assets.config_watching import DataClass
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import open_store

ROOT = Path(__file__).parents[1]
ONE = "databases: {shop: {url_env: SHOP_URL}}\n"
Load = Callable[[str], BackupConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def from_text(text: str) -> BackupConfig:
        (tmp_path / "backup.yaml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "backup.yaml")

    return from_text


def refusal(load: Load, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_status == 2
    assert caught.value.code == "CONFIG_INVALID"
    return caught.value.message


def test_the_smallest_file_has_every_default(load: Load, tmp_path: Path) -> None:
    config = load(ONE)
    settings = config.database()
    assert (settings.name, settings.url_env, settings.timezone) == ("shop", "SHOP_URL", "UTC")
    assert primary_folder(settings) == tmp_path / "backups"
    assert settings.reports_path == tmp_path / "reports"
    assert settings.logical.compression == "zstd:1"
    assert settings.alerts.stale_after == timedelta(hours=25)
    assert settings.rto_target == timedelta(hours=4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("compresion: zstd\n", "compresion"),
        ("stores: {primary: {pth: x}}\n", "stores.primary.pth"),
        ("stores: {offsit: {path: x}}\n", "stores.offsit"),
        ("logical: {job: 2}\n", "logical.job"),
        ("alerts: {stale: 2h}\n", "alerts.stale"),
        ("verification: {server: x}\n", "verification.server"),
        ("data_classes: {critical: {rpo: 1h, rto: 1h, table: [a]}}\n", "data_classes.critical.table"),
        ("folder: /tmp\n", "folder"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_it(load: Load, text: str, named: str) -> None:
    assert f"{named}: Extra inputs" in refusal(load, ONE + text)


@pytest.mark.parametrize("settings", ["url: x", "logical: {job: 2}", "stores: {primary: {pth: x}}"])
def test_an_unknown_key_of_one_database_is_named_with_it(load: Load, settings: str) -> None:
    message = refusal(load, f"databases: {{one: {{url_env: A}}, two: {{url_env: B, {settings}}}}}")
    assert "databases.two." in message and "databases.one" not in message


@pytest.mark.parametrize("key", ["name", "timezone", "folder", "first_partition"])
def test_what_holds_for_all_cannot_be_set_for_one(load: Load, key: str) -> None:
    """It would be ignored without a word."""
    assert f"shop: {key} cannot be set" in refusal(load, f"databases: {{shop: {{url_env: A, {key}: UTC}}}}")


def test_all_mistakes_are_told_at_once(load: Load) -> None:
    message = refusal(load, ONE + "timezone: Mars\nlogical: {jobs: 0, compression: rar}\n")
    assert all(key in message for key in ("timezone", "logical.jobs", "logical.compression"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "- a list",
        "databases: {",
        "databases: {}",
        "databases: {shop: {}}",
        "databases: {shop: }",
        "databases: [shop]",
        "databases: {shop-db: {url_env: A}}",
        "databases: {../x: {url_env: A}}",
        "databases: {1: {url_env: A}}",
        ONE + "2: two",
        ONE + "logical:",
        ONE + "first_partition: today",
        ONE + "first_partition: 2026-02-30",
        ONE + "logical: {schedule: nightly}",
        ONE + "logical: {schedule: '0 2 * *'}",
        ONE + "logical: {fingerprint: some}",
        ONE + "logical: {jobs: -1}",
        ONE + "logical: {jobs: many}",
        ONE + "stores: {primary: {kind: ftp}}",
        ONE + "data_classes: {critical: {rto: 1h}}",
        ONE + "timezone: !!python/object/apply:os.system [ls]",
    ],
)
def test_wrong_files_are_refused_with_a_sentence(load: Load, text: str) -> None:
    assert "Traceback" not in refusal(load, text)


@pytest.mark.parametrize("zone", ["Mars/Phobos", "America", "", "../../etc/passwd", "/etc/localtime", "CET DST"])
def test_a_bad_zone_is_refused(load: Load, zone: str) -> None:
    assert "timezone" in refusal(load, f"{ONE}timezone: {zone!r}\n")


def test_a_key_that_is_given_twice_is_refused(load: Load) -> None:
    """Of two databases under one name, one would not be backed up."""
    assert "'shop' is given twice" in refusal(load, "databases:\n  shop: {url_env: A}\n  shop: {url_env: B}\n")
    assert "'rules' is given twice" in refusal(load, ONE + "rules: none\nrules: guitar_strategies\n")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="CONFIG_NOT_FOUND"):
            load_config(path)
    (tmp_path / "latin.yaml").write_bytes("rules: für".encode("latin-1"))
    with pytest.raises(ConfigError, match="CONFIG_INVALID"):
        load_config(tmp_path / "latin.yaml")


@given(st.integers(0, 10**6), st.sampled_from("smhd"), st.sampled_from(["", " "]))
def test_durations(number: int, unit: str, space: str) -> None:
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    parsed = DataClass.model_validate({"rpo": f"{number}{space}{unit}", "rto": "1h"})
    assert parsed.rpo == timedelta(seconds=seconds)
    again = DataClass.model_validate_json(parsed.model_dump_json())
    assert again == parsed


@pytest.mark.parametrize("text", ["15", "15 minutes", "-1h", "1.5h", "h", "1h30m", "", "PT1H", 15, True, None])
def test_other_notations_of_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="15m"):
        DataClass.model_validate({"rpo": text, "rto": "1h"})


def test_a_database_overrides_key_by_key(load: Load) -> None:
    config = load(
        """
databases:
  one: {url_env: A}
  two:
    url_env: B
    logical: {jobs: 3}
    stores: {primary: {path: elsewhere}}
    data_classes: {critical: {rpo: 1m, rto: 2m}}
logical: {compression: "gzip:6"}
data_classes: {critical: {rpo: 15m, rto: 1h, tables: [users]}, important: {rpo: 1h, rto: 4h}}
"""
    )
    one, two = config.database("one"), config.database("two")
    assert (one.logical.jobs, two.logical.jobs) == ("auto", 3)
    assert one.logical.compression == two.logical.compression == "gzip:6"
    assert primary_folder(two).name == "elsewhere"
    assert two.rto_target == timedelta(minutes=2)
    assert two.data_classes["critical"].tables == ("users",)
    assert one.rto_target == timedelta(hours=1)
    assert one.data_classes["important"] == two.data_classes["important"]


def test_several_databases_need_a_choice(load: Load) -> None:
    config = load("databases: {one: {url_env: A}, two: {url_env: B}}")
    with pytest.raises(ConfigError, match=r"DATABASE_AMBIGUOUS.*one, two.*--database"):
        config.database()
    with pytest.raises(ConfigError, match=r"DATABASE_UNKNOWN.*three.*one, two"):
        config.database("three")
    assert config.database("two").url_env == "B"


def test_alternative_names_of_tables(load: Load) -> None:
    config = load(ONE + "data_classes: {critical: {rpo: 1h, rto: 1h, tables: [a, [b, B]]}}")
    assert config.database().class_tables() == {"critical": (("a",), ("b", "B"))}


def test_paths_are_meant_from_the_file_wherever_one_stands(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load(ONE + "stores: {primary: {path: ~/backups}}\nreports: /var/reports\n")
    assert primary_folder(config.database()) == Path("/home/somebody/backups")
    assert config.database().reports_path == Path("/var/reports")
    load(ONE)
    monkeypatch.chdir(tmp_path)
    assert primary_folder(load_config().database()) == tmp_path / "backups"
    monkeypatch.chdir("/")
    monkeypatch.setenv("GS_BACKUP_CONFIG", str(tmp_path / "backup.yaml"))
    assert primary_folder(load_config().database()) == tmp_path / "backups"


class Watched(Mapping[str, str]):
    """An environment that tells which variables were read."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "stores",
    [
        "{primary: {path: a}, offsite: {kind: local, path: a}}",
        "{primary: {kind: s3, bucket: bbb, prefix: /x/}, offsite: {kind: s3, bucket: bbb, prefix: x, region: r}}",
    ],
)
def test_a_copy_has_to_be_in_another_place(load: Load, stores: str) -> None:
    assert "another place" in refusal(load, f"{ONE}stores: {stores}\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("replicas: {Hot-Spare: {url_env: A}}", "small letters"),
        ("replicas: {spare: {url_env: A, max_retained: 4 barrels}}", "a size such as 64M"),
        ("replicas: {spare: {url_env: A, slot: Spare}}", "small letters"),
        ("replicas: {spare: {max_lag: 5m}}", "replicas.spare.url_env"),
        ("disaster_recovery: {into: x, health: {url: 'https://me:secret@app/'}}", "without user or password"),
        ("disaster_recovery: {into: x, hooks: [{name: a, command: []}]}", "hooks.0.command"),
        ("disaster_recovery: {into: x, hooks: [{name: a, command: [b]}, {name: a, command: [c]}]}", "of its own"),
    ],
)
def test_replicas_and_disaster_recovery_are_checked(load: Load, text: str, told: str) -> None:
    assert told in (message := refusal(load, f"{ONE}{text}\n"))
    assert "secret" not in message


def test_sizes_are_in_powers_of_1024(load: Load) -> None:
    config = load(f"{ONE}replicas: {{spare: {{url_env: A, max_lag_bytes: 64M, max_retained: 12345}}}}")
    replica = config.replicas["spare"]
    assert (replica.max_lag_bytes, replica.max_retained) == (64 << 20, 12345)


def test_loading_reads_no_secret(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", watched)
        load(ONE + "alerts: {urls_env: ALERTS}\nverification: {server_url_env: VERIFY}\n").database()
    assert not watched.read & {"SHOP_URL", "ALERTS", "VERIFY", "DATABASE_URL"}


def test_loading_imports_nothing_heavy() -> None:
    source = "import sys; from gs_backup_assets.config import load_config; load_config(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"dagster", "great_expectations", "psycopg2", "boto3", "pandas"} & set(result.stdout.split())


def primary_folder(settings: DatabaseSettings) -> Path:
    """The folder of the primary store."""
    store = open_store(settings)
    assert isinstance(store, LocalStore)
    return store.root


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value may be one of: alternatives are looked into, dictionaries and lists are not."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def list_of(annotation: Any) -> list[type[BaseModel]]:
    """The model of a list's sections; none for a list of something else, or of alternatives."""
    first = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return models_in(first) if isinstance(first, type) else []


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key of a model and of the models in it; `*` stands for a name that the user chooses."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(f"{prefix}{name}")
        if name == "offsite":  # has the keys of the primary store
            continue
        for inner in models_in(field.annotation):
            found |= keys_of(inner, f"{prefix}{name}.")
        if get_origin(field.annotation) is dict:
            for inner in models_in(get_args(field.annotation)[1]):
                found |= keys_of(inner, f"{prefix}{name}.*.")
        for inner in list_of(field.annotation):
            found |= keys_of(inner, f"{prefix}{name}.")
    return found


def test_the_page_lists_every_key_and_no_other() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z_.*]+)` \|", page, re.MULTILINE)
    own = set(DatabaseSettings.model_fields) - set(Settings.model_fields) - {"name", "timezone", "folder"}
    assert sorted(listed) == sorted(keys_of(BackupConfig) | {f"databases.*.{key}" for key in own})


# Facts for hooks, and what the software sets for itself or suggests as a name.
_NOT_FOR_USERS = r"GS_BACKUP_(RECOVERY_|STAGING_|RULES_CONNECTION|SELFTEST_URL|DEMO_URL|VERIFICATION_URL)"


def test_the_page_lists_every_environment_variable() -> None:
    table = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").partition("## Environment variables")[2]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gs_backup_assets").rglob("*.py"))
    read = {name for name in re.findall(r'"(GS_BACKUP_\w+)"', sources) if not re.match(_NOT_FOR_USERS, name)}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {
        *read,
        *(SLACK_VARIABLE, "GS_BACKUP_ALERT_URLS", "TMPDIR", "DAGSTER_HOME"),
    }


def default_at(key: str) -> object:
    """The default of a key, in the notation of the file; of several models that have it, the first that has one."""
    if key.startswith("data_classes.*."):
        return {"tables": []}[key.rpartition(".")[2]]
    models: list[type[BaseModel]] = [BackupConfig]
    if key.startswith("replicas.*."):
        key, models = key.removeprefix("replicas.*."), [Replica]
    for part in key.split("."):
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [model for field in fields for model in models_in(field.annotation) or list_of(field.annotation)]
    default = next(f.get_default(call_default_factory=True) for f in fields if not f.is_required())
    if isinstance(default, timedelta):
        return default
    return list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default


def test_the_defaults_on_the_page_are_true() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.*]+)` \| `([^`]+)` \|", page, re.MULTILINE)
    assert len(rows) > 10
    for key, told in rows:
        value = yaml.safe_load(told)
        default = default_at(key)
        if isinstance(default, timedelta):
            value = DataClass.model_validate({"rpo": value, "rto": "1h"}).rpo
        assert value == default, key


def test_the_example_on_the_page_is_valid(load: Load) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for example in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        assert load(example).names() == ("guitar_strategies", "reports")


def test_the_file_in_the_repository_is_valid() -> None:
    assert load_config(ROOT / "backup.yaml").database().url_env == "DATABASE_URL"
