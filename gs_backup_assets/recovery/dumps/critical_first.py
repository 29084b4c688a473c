"""Splits a dump's contents in two: what the critical tables need to be usable, and the rest."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.postgres.restore import TocEntry, list_entries
from gs_backup_assets.postgres.schema import definitions
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.programs import run

# What a definition after the data is attached to, as pg_dump writes it, and what a foreign key refers to.
_NAME = r'((?:"(?:[^"]|"")*"|[\w$]+)\.(?:"(?:[^"]|"")*"|[\w$]+))'
_ATTACHED = re.compile(rf"(?:ALTER TABLE(?: ONLY)?| ON(?: ONLY)?) {_NAME}")
_REFERENCED = re.compile(rf" REFERENCES {_NAME}")


@dataclass(frozen=True)
class Split:
    """Lines for pg_restore's --use-list: data and post-data of the critical tables, and everything else."""

    core_data: tuple[str, ...]
    core_rest: tuple[str, ...]
    other_data: tuple[str, ...]
    other_rest: tuple[str, ...]

    def write(self, lines: tuple[str, ...], path: Path) -> Path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


def split_dump(toolchain: Toolchain, dump: Path, critical: Collection[str]) -> Split:
    """Split the dump in the folder `dump`; `critical` holds quoted, schema-qualified table names.

    Sequences come with the critical part, since they are quick and keys depend on them. A foreign key comes with it
    when both of its tables are critical.
    """
    wanted = {_plain(name) for name in critical}
    quick = ("SEQUENCE SET ", *(f"TABLE DATA {table} " for table in wanted))
    attached = _attachments(toolchain, dump)

    def core_data(entry: TocEntry) -> bool:
        return entry.label.startswith(quick)

    def core_rest(entry: TocEntry) -> bool:
        tables = attached.get(entry.label, frozenset())
        return bool(tables) and tables <= wanted

    data = list_entries(toolchain, dump, section="data")
    rest = list_entries(toolchain, dump, section="post-data")
    return Split(
        core_data=tuple(e.line for e in data if core_data(e)),
        core_rest=tuple(e.line for e in rest if core_rest(e)),
        other_data=tuple(e.line for e in data if not core_data(e)),
        other_rest=tuple(e.line for e in rest if not core_rest(e)),
    )


def _attachments(toolchain: Toolchain, dump: Path) -> dict[str, frozenset[str]]:
    """For every definition of the post-data section, by its line in the table of contents, the tables that it needs."""
    finished = run([toolchain.program("pg_restore"), "--section=post-data", "--file=-", dump], capture_stdout=True)
    finished.require_success("The archive cannot be read; use another backup.")
    found = {}
    for header, body in definitions(finished.stdout):
        names = [*_ATTACHED.findall(body)[:1], *_REFERENCED.findall(body)]
        line = f"{header['type']} {header['schema']} {header['name']} {header['owner']}"
        found[line] = frozenset(map(_plain, names))
    return found


def _plain(qualified: str) -> str:
    """`public."Lesson"` and `"public"."Lesson"` as `public Lesson`, which is how a table of contents names it."""
    parts = re.findall(r'"((?:[^"]|"")*)"|([\w$]+)', qualified)
    return " ".join(quoted.replace('""', '"') or bare for quoted, bare in parts)
