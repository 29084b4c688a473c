"""Tests of `init`, `doctor` and `toolchain` as they are typed: output, exit statuses, start-up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.cli import doctor as doctor_verb
from gs_backup_assets.cli import init as init_verb
from gs_backup_assets.cli import toolchain as toolchain_verb
from gs_backup_assets.config import load_config
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.recovery.doctor.doctor import Diagnosis

app = typer.Typer()
app.command("init")(init_verb.init)
app.command("doctor")(doctor_verb.doctor)
app.add_typer(toolchain_verb.app, name="toolchain")


def gs_backup(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> BackupError:
    error = gs_backup(*arguments).exception
    assert isinstance(error, BackupError)
    return error


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Target) -> Path:
    """A working folder, and an address in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GS_BACKUP_CONFIG", raising=False)
    parameters = " ".join(f"{key}='{value}'" for key, value in empty_database.parameters.items())
    monkeypatch.setenv("DATABASE_URL", f"{parameters} password='hunter2'")
    return tmp_path


def test_init_then_doctor(here: Path, empty_database: Target) -> None:
    done = gs_backup("init")
    assert done.exit_code == 0, done.output
    assert "backup.yaml was written" in done.stdout and "gs-backup doctor" in done.stdout
    assert load_config().names() == (empty_database.database,)
    assert refused("init").code == "CONFIG_EXISTS"
    assert refused("init").exit_status is ExitStatus.USAGE
    again = gs_backup("init", "--force", "--name", "shop", "--json")
    assert json.loads(again.stdout)["database"] == "shop"
    examined = gs_backup("doctor")
    assert examined.exit_code == 0, examined.output
    assert "What backups of shop need" in examined.stdout and "FAILED" not in examined.stdout
    assert re.search(r"^encryption_key +note +Note: no encryption", examined.stdout, re.MULTILINE)
    assert "hunter2" not in done.output + again.output + examined.output


def test_the_configuration_may_be_elsewhere(here: Path) -> None:
    assert gs_backup("init", "--config", "other.yaml", "--name", "shop").exit_code == 0
    assert gs_backup("doctor", "--config", "other.yaml", "--database", "shop").exit_code == 0
    assert refused("doctor").code == "CONFIG_NOT_FOUND"
    assert refused("doctor", "--config", "other.yaml", "--database", "x").code == "DATABASE_UNKNOWN"


def test_doctor_fails_with_the_sql_to_run(here: Path, empty_database: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(empty_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.lesson (id integer)")
        cursor.execute("CREATE ROLE weak LOGIN")
    try:
        gs_backup("init")
        parameters = {**empty_database.parameters, "user": "weak"}
        monkeypatch.setenv("DATABASE_URL", " ".join(f"{key}='{value}'" for key, value in parameters.items()))
        done = gs_backup("doctor")
        assert done.exit_code == 1
        assert '\nGRANT pg_read_all_data TO "weak";\n' in done.stdout
        _, _, narrower = done.stdout.partition("\nOr, schema by schema, where pg_read_all_data is too much:\n\n")
        assert 'GRANT USAGE ON SCHEMA "public" TO "weak";\n' in narrower
        assert "- GRANT" not in done.stdout, "no statement stands among the names"
        document = json.loads(gs_backup("doctor", "--json").stdout)
    finally:
        with connect(empty_database) as connection, connection.cursor() as cursor:
            cursor.execute("DROP ROLE weak")
    assert document["status"] == "failed"
    (rights,) = [check for check in document["checks"] if check["name"] == "rights"]
    assert rights["status"] == "failed" and rights["sql"] == ['GRANT pg_read_all_data TO "weak";']
    assert rights["details"] == ['"public"."lesson"'] and len(rights["narrower_sql"]) > 1
    assert [check["name"] for check in document["checks"]][-2:] == ["alerts", "heartbeat"]


def test_doctor_says_what_it_could_not_verify(here: Path) -> None:
    gs_backup("init")
    path = here / "backup.yaml"
    path.write_text(path.read_text().replace("    rto: 4h\n", "    rto: 4h\n    tables: [nowhere]\n"))
    done = gs_backup("doctor", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["status"] == "not_verified"


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.PASSED, Status.PASSED], ExitStatus.GOOD),
        ([Status.PASSED, Status.NOT_VERIFIED], ExitStatus.NOT_VERIFIED),
        ([Status.NOT_VERIFIED, Status.FAILED, Status.PASSED], ExitStatus.FAILED),
    ],
)
def test_failed_wins_over_not_verified(statuses: list[Status], expected: ExitStatus) -> None:
    diagnoses = [Diagnosis(name="check", status=status, summary="") for status in statuses]
    assert doctor_verb.exit_status(diagnoses) is expected


def listed(*arguments: str) -> dict[str, Any]:
    done = gs_backup("toolchain", "list", "--json", *arguments)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_toolchains_are_listed_with_what_they_can_do() -> None:
    (wheel,) = [toolchain for toolchain in listed()["toolchains"] if toolchain["origin"] == "wheel"]
    assert wheel["version"].startswith("17.")
    assert all(wheel[ability] for ability in ("dump", "server", "tls", "zstd", "lz4", "amcheck"))
    text = gs_backup("toolchain", "list").stdout
    assert wheel["folder"] in text and "amcheck" in text


def test_the_choice_for_a_server_is_shown() -> None:
    assert listed("--server", "17.10")["chosen"]["version"].startswith("17.")
    assert "* is chosen for a server of PostgreSQL 17.10" in gs_backup("toolchain", "list", "--server", "17.10").stdout
    assert refused("toolchain", "list", "--server", "18.60").code == "PROGRAMS_OLDER_THAN_SERVER"
    assert refused("toolchain", "list", "--server", "new").code == "VERSION_INVALID"


def test_majors_that_are_here_are_not_fetched_again() -> None:
    done = gs_backup("toolchain", "add", "--missing", "17")
    assert done.exit_code == 0 and "is already here" in done.stdout
    assert refused("toolchain", "add", "9").code == "MAJOR_UNSUPPORTED"


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "from gs_backup_assets.cli import doctor, init, toolchain\n"
        "print(sorted({'psycopg2', 'yaml', 'dagster', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
