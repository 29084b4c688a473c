"""The self-test catches every breakage, lets a sound copy pass, and says so when something is not caught."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gs_backup_assets.cli.selftest import selftest
from gs_backup_assets.config_backups import Logical, Verification
from gs_backup_assets.errors import ConfigError, ExitStatus
from gs_backup_assets.recovery.selftest import selftest as tested
from gs_backup_assets.recovery.selftest.breakages import Breakage, Copy
from gs_backup_assets.recovery.selftest.physical_bench import PhysicalBench, PhysicalBreakage
from gs_backup_assets.recovery.selftest.physical_history import make_history
from gs_backup_assets.recovery.selftest.physical_looks import surveyed
from gs_backup_assets.recovery.selftest.selftest import (
    BREAKAGES,
    PHYSICAL,
    SelftestReport,
    choose_breakages,
    run_selftest,
)
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets_tests.chain import settings_in

AT_LEAST = 180


@pytest.fixture(scope="module")
def report() -> SelftestReport:
    return run_selftest()


@pytest.mark.timeout(900)
def test_every_breakage_is_caught(report: SelftestReport) -> None:
    missed = {o.name: (o.expected, o.verdict, o.codes) for o in report.outcomes if not o.caught}
    assert missed == {}
    assert report.caught == report.total == len(BREAKAGES) >= AT_LEAST
    assert sum(report.by_code.values()) == report.total
    assert report.good


def test_the_sound_copy_passes(report: SelftestReport) -> None:
    assert report.sound_copy_passed
    assert report.sound_copy_codes == ()


def test_the_findings_that_matter_are_all_met(report: SelftestReport) -> None:
    expected = {
        "ARCHIVE_DAMAGED",
        "AUDIT_EDITED",
        "AUDIT_GAP",
        "BACKUP_MANIFEST_DIFFERS",
        "BASE_BACKUP_DAMAGED",
        "CHAIN_BROKEN",
        "CHAIN_INCONSISTENT",
        "COMBINE_FAILED",
        "COMMIT_MISSING",
        "COMMIT_UNEXPECTED",
        "COMPRESSED_DAMAGED",
        "CORRUPTION",
        "DATA_KEY_MISSING",
        "ENVELOPE_DAMAGED",
        "ENVELOPE_MISPLACED",
        "KEY_WRONG",
        "OFFSITE_DIFFERS",
        "OFFSITE_MISSING",
        "PAGE_DAMAGED",
        "RPO_EXCEEDED",
        "TARGET_AFTER_END",
        "TARGET_BEFORE_FIRST_BACKUP",
        "TARGET_NOT_REACHED",
        "WAL_CONFLICT",
        "WAL_DAMAGED",
        "WAL_FOREIGN",
        "WAL_GAP",
        "WAL_MISPLACED",
        "WAL_OTHER_TIMELINE",
        "BACKUP_NOT_FOUND",
        "CONTENTS_DIFFER",
        "FILE_DIFFERS",
        "FILE_EXTENDED",
        "FILE_MISSING",
        "FILE_TRUNCATED",
        "FILE_UNEXPECTED",
        "FOREIGN_KEY_VIOLATED",
        "LARGE_OBJECTS_DIFFER",
        "MANIFEST_DAMAGED",
        "OBJECT_DIFFERS",
        "OBJECT_MISSING",
        "OWNER_DIFFERS",
        "ROLE_MISSING",
        "ROWS_DIFFER",
        "SEQUENCE_DIFFERS",
        "SEQUENCE_MISSING",
        "SETTING_DIFFERS",
        "SUMS_DIFFER",
        "TABLE_MISSING",
        "TABLE_UNEXPECTED",
    }
    assert expected <= set(report.by_code)


def test_names_are_unique_and_every_breakage_expects_a_code() -> None:
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES)
    assert all(breakage.expected for breakage in BREAKAGES)


def test_the_readme_tells_how_many_there_are() -> None:
    assert f"in {len(BREAKAGES)} ways" in (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def test_what_is_not_caught_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that nothing was done to, and a breakage that is found but not under the code that names it."""

    def extend(copy: Copy) -> None:
        path = copy.data_files()[0]
        copy.write(path, copy.read(path) + b"x")

    harmless = Breakage("harmless", "nothing is broken", ("FILE_DIFFERS",), lambda _copy: None)
    misnamed = Breakage("misnamed", "a file grew, but another code is expected", ("FILE_MISSING",), extend)
    named = Breakage("named", "a file grew", ("FILE_EXTENDED",), extend)
    monkeypatch.setattr(tested, "BREAKAGES", (harmless, misnamed, named))
    finished = _run("--json")
    assert finished.exit_code == ExitStatus.FAILED
    document = json.loads(finished.stdout)
    assert [(o["name"], o["caught"], o["verdict"], o["codes"]) for o in document["outcomes"]] == [
        ("harmless", False, "PROVEN", []),
        ("misnamed", False, "FAILED", ["FILE_EXTENDED"]),
        ("named", True, "FAILED", ["FILE_EXTENDED"]),
    ]
    assert (document["good"], document["caught"], document["total"]) == (False, 1, 3)
    assert document["by_code"] == {"FILE_EXTENDED": 1}
    assert "MISSED  harmless" in finished.stderr
    assert "caught  named" in finished.stderr


@pytest.fixture(scope="module")
def physical() -> Iterator[PhysicalBench]:
    with workspace("selftest") as folder:
        settings = settings_in(folder, rules="none", logical=Logical(jobs=1), verification=Verification(jobs=1))
        yield PhysicalBench(make_history(folder / "physical", settings))


def _tree(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("breakage", PHYSICAL, ids=lambda breakage: breakage.name)
def test_what_is_broken_is_another_and_the_original_stays(physical: PhysicalBench, breakage: PhysicalBreakage) -> None:
    before = _tree(physical.sound.folder)
    copy = physical.copy()
    breakage.apply(copy)
    assert _tree(copy.folder) != before
    assert _tree(physical.sound.folder) == before


def test_log_that_nothing_was_done_to_is_no_breakage(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = PhysicalBreakage("harmless", "nothing is broken", ("WAL_GAP",), lambda _copy: None, surveyed)
    monkeypatch.setattr(tested, "BREAKAGES", (harmless,))
    finished = _run("--json")
    assert finished.exit_code == ExitStatus.FAILED
    document = json.loads(finished.stdout)
    (outcome,) = document["outcomes"]
    assert (outcome["caught"], outcome["verdict"], outcome["codes"]) == (False, "PROVEN", [])
    assert document["sound_copy_passed"]


def test_a_sound_copy_that_fails_fails_the_selftest(report: SelftestReport) -> None:
    alarmed = report.model_copy(update={"sound_copy_passed": False, "sound_copy_codes": ("ROWS_DIFFER",)})
    assert not alarmed.good


def test_only_the_named_breakages_are_tried() -> None:
    finished = _run("--only", "index_lost", "--only", "truncated")
    assert finished.exit_code == ExitStatus.GOOD
    assert "2 of 2 breakages were caught; the sound copy passed" in finished.stdout
    assert "OBJECT_MISSING" in finished.stdout
    assert "row_lost" not in finished.stdout


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        choose_breakages(["index_lost", "gremlins"])
    assert error.value.code == "BREAKAGE_UNKNOWN"
    assert "gremlins" in error.value.message
    assert "index_lost" not in error.value.message
    assert "row_lost" in error.value.hint


def _run(*arguments: str):  # type: ignore[no-untyped-def]
    app = typer.Typer()
    app.command()(selftest)
    return CliRunner().invoke(app, list(arguments))
