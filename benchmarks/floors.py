"""What a benchmark promises: measured amounts and ratios, each with the limit that it must keep."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Floor:
    """A measured ratio (or amount), and what it must not exceed; with `at_least`, what it must not fall below."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def show(floors: Sequence[Floor]) -> None:
    """One line for each."""
    for floor in floors:
        words = "at least" if floor.at_least else "at most"
        print(f"{'ok  ' if floor.kept else 'MISS'} {floor.name:<44}{floor.value:9.2f}   {words} {floor.limit:g}")


def write(folder: Path, name: str, document: Mapping[str, Any], floors: Sequence[Floor]) -> None:
    """Keep the results as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps({**document, "floors": [asdict(floor) for floor in floors]}, indent=1) + "\n")
    print(f"\nWritten to {path}")
