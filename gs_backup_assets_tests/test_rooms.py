"""Imports go one way: between the rooms of the package, and between the folders of `recovery/`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gs_backup_assets

PACKAGE = Path(gs_backup_assets.__file__).parent

# The lowest first; what stands together may not import each other. A room that is not named here fails the test.
ROOMS = (
    {"__init__", "words"},
    {"errors"},
    {"progress"},
    {"config_values", "config_masking"},
    {"config_stores", "config_backups", "config_recovery", "config_watching"},
    {"config"},
    {"system"},
    {"vault", "postgres"},
    {"catalogue"},
    {"integrity"},
    {"sample"},
    {"recovery"},
    {"alerts"},
    {"status"},
    {"resources"},
    {"assets"},
    {"schedules"},
    {"sensors"},
    {"factory_physical"},
    {"factory"},
    {"definitions"},
    {"cli"},
)
PLANS = (
    {"application", "stored"},
    {"dumps", "wal"},
    {"offsite", "retention"},
    {"physical"},
    {"point_in_time", "replicas", "staging"},
    {"disaster", "doctor", "selftest"},
    {"__init__", "costing", "initial", "objectives_report"},
)


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(folder: Path, layers: tuple[set[str], ...]) -> list[str]:
    """Imports of a folder's parts that do not go down."""
    prefix = ".".join(("gs_backup_assets", *folder.relative_to(PACKAGE).parts, ""))
    height = {room: number for number, rooms in enumerate(layers) for room in rooms}
    found = []
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        for name in imported(path):
            other = name.removeprefix(prefix).split(".")[0]
            if name.startswith(prefix) and other != room and other in height and height[other] >= height[room]:
                found.append(f"{path.relative_to(PACKAGE)} imports {name}")
    return sorted(found)


@pytest.mark.parametrize(
    ("folder", "layers"), [(PACKAGE, ROOMS), (PACKAGE / "recovery", PLANS)], ids=["rooms", "plans"]
)
def test_imports_go_down(folder: Path, layers: tuple[set[str], ...]) -> None:
    rooms = {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms == set().union(*layers)
    assert upward(folder, layers) == []


def test_an_import_that_goes_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    for room, text in (("low", "from gs_backup_assets.high import thing"), ("high", "import gs_backup_assets.low")):
        (tmp_path / f"{room}.py").write_text(text, encoding="utf-8")
    assert upward(tmp_path, ({"low"}, {"high"})) == ["low.py imports gs_backup_assets.high.thing"]
