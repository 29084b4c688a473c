"""A database that the doctor looks at, and what it finds, for its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote as percent

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.recovery.doctor.doctor import Diagnosis, examine

VARIABLE = "TEST_DOCTOR_URL"
ORDER = [
    *("address", "login", "tls", "version", "pooler", "rights", "row_security", "roles", "omissions"),
    *("data_classes", "snapshot", "lock", "programs", "throwaway", "spool", "reports", "store", "encryption_key"),
]


def url_of(target: Target, *, user: str | None = None, password: str = "", extra: str = "") -> str:
    parameters = target.parameters
    who = (user or parameters["user"]) + (f":{percent(password)}" if password else "")
    place = percent(parameters["host"], safe="")
    return f"postgresql://{who}@/{parameters['dbname']}?host={place}&port={parameters['port']}{extra}"


def settings_of(folder: Path, **changes: Any) -> DatabaseSettings:
    values = {"name": "shop", "url_env": VARIABLE, "timezone": "UTC", "folder": folder, **changes}
    return DatabaseSettings.model_validate(values)


def examined(
    monkeypatch: pytest.MonkeyPatch, url: str, folder: Path, *, thorough: bool = False, **changes: Any
) -> dict[str, Diagnosis]:
    monkeypatch.setenv(VARIABLE, url)
    diagnoses = examine(settings_of(folder, **changes), thorough=thorough)
    assert [diagnosis.name for diagnosis in diagnoses] == ORDER
    return {diagnosis.name: diagnosis for diagnosis in diagnoses}


def unhealthy(diagnoses: dict[str, Diagnosis]) -> set[str]:
    return {name for name, diagnosis in diagnoses.items() if diagnosis.status is not Status.PASSED}


def execute(target: Target, *statements: str) -> None:
    with connect(target, settings={"search_path": "public"}) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
