"""The doctor on what base backups need: each thing taken away and given back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config_backups import Physical
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.whole_cluster import read_cluster
from gs_backup_assets.recovery.doctor import physical as doctor_physical
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis
from gs_backup_assets.recovery.doctor.doctor import examine
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.production import SUPERUSER, Production, production

VARIABLE = "TEST_DATABASE_URL"


@pytest.fixture(scope="module")
def server() -> Iterator[Production]:
    with production(17, settings={"summarize_wal": "on"}) as made:
        yield made


def examined(folder: Path, **physical: object) -> dict[str, Diagnosis]:
    found = [d for d in examine(settings_in(folder, physical=physical)) if d.name in doctor_physical.CHECKS]
    assert [diagnosis.name for diagnosis in found] == list(doctor_physical.CHECKS)
    return {diagnosis.name: diagnosis for diagnosis in found}


def test_all_is_well(server: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, server.url)
    found = examined(tmp_path)
    assert all(d.status is Status.PASSED and not d.is_note for d in found.values()), found
    assert "server-zstd:level=1,workers=2" in found["physical_programs"].details[0]
    assert "timeline 1" in found["replication"].summary
    assert "switched off" in examined(tmp_path, incremental="never")["incremental"].summary


def test_without_the_section_nothing_is_asked(
    server: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, server.url)
    names = {diagnosis.name for diagnosis in examine(settings_in(tmp_path))}
    assert names.isdisjoint(doctor_physical.CHECKS)


def test_a_role_without_replication(server: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.sql('CREATE ROLE "plain Jane" LOGIN')
    monkeypatch.setenv(VARIABLE, server.url.replace(SUPERUSER, "plain%20Jane"))
    found = examined(tmp_path)["replication"]
    assert found.status is Status.FAILED and "REPLICATION_RIGHT_MISSING" in found.summary
    for statement in found.sql:
        server.sql(statement)
    assert examined(tmp_path)["replication"].status is Status.PASSED, "the statement is what it takes"


def test_summaries_switched_off(server: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, server.url)
    with production(17) as other:
        monkeypatch.setenv(VARIABLE, other.url)
        found = examined(tmp_path)["incremental"]
    assert found.is_note and "summarize_wal" in found.hint


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        ({"wal_level": "minimal", "max_wal_senders": "0"}, {"WAL_LEVEL_MINIMAL", "WAL_SENDERS_FULL"}),
        ({"max_wal_senders": "1"}, {"WAL_SENDERS_FULL"}),
    ],
    ids=["minimal", "one sender"],
)
def test_a_server_that_cannot(
    tmp_path: Path, settings: dict[str, str], codes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with production(15, settings=settings) as other:
        monkeypatch.setenv(VARIABLE, other.url)
        found = examined(tmp_path)
    failed = {d.summary.split(":")[0] for d in found.values() if d.status is Status.FAILED}
    assert failed == codes
    assert "Servers before 17" in found["incremental"].summary


def test_programs_of_another_major(server: Production) -> None:
    with connect(server.target()) as connection:
        facts = read_cluster(connection)
    found = doctor_physical.programs(dataclasses.replace(facts, release=Release.parse("13.4")), Physical())
    assert found.status is Status.FAILED and "PROGRAMS_OF_MAJOR_MISSING" in found.summary


def test_a_cluster_larger_than_the_disk(server: Production) -> None:
    with connect(server.target()) as connection:
        facts = read_cluster(connection)
    found = doctor_physical.spool(dataclasses.replace(facts, size=1 << 60))
    assert found.status is Status.FAILED and "NO_SPACE" in found.summary


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://x@127.0.0.1:1/x")
    assert {d.status for d in examined(tmp_path).values()} == {Status.NOT_VERIFIED}
