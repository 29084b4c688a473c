"""Reads the ready-made pieces in deploy/, and asks our programs whether they know the command lines in them."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
COMMON = SYSTEMD / "gs-backup-.service.d" / "10-common.conf"
INSTALLED = Path("/opt/gs-backup/bin")


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def compose(name: str) -> dict[str, Any]:
    """A file of docker compose."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / name).read_text(encoding="utf-8"))
    return document


def unit(path: Path) -> configparser.RawConfigParser:
    """A unit or drop-in of systemd by itself; of a setting that is given several times the last one."""
    parser = _Unit(strict=False, comment_prefixes=("#",), interpolation=None)
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def command(path: Path) -> list[str]:
    """What a unit runs."""
    return shlex.split(unit(path)["Service"]["ExecStart"])


def program(argv: list[str]) -> list[str]:
    """A command line with the program of this virtual environment."""
    return [str(Path(sys.executable).with_name(Path(argv[0]).name)), *argv[1:]]


def require_known(argv: list[str]) -> None:
    """The program says in its help that it knows each option of a command line."""
    verbs = list(takewhile(lambda word: not word.startswith("-"), argv[1:]))
    asked = program([argv[0], *verbs, "--help"])
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120)
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))
    for word in argv[1:]:
        if word.startswith("-"):
            assert word in known, f"{argv[0]} {' '.join(verbs)} knows no {word}"
