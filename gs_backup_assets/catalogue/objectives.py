"""Recovery objectives by data class: how much may be lost (RPO), and how soon it must be back (RTO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DEFAULT_CLASS = "important"
CRITICAL_CLASS = "critical"


def class_of(table: str, classes: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """The data class of a table name without schema; tables that no class names are `important`."""
    for name, tables in classes.items():
        if any(table in alternatives for alternatives in tables):
            return name
    return DEFAULT_CLASS


def unknown_tables(present: Sequence[str], classes: Mapping[str, Sequence[Sequence[str]]]) -> tuple[str, ...]:
    """Entries of the classes of which no alternative exists: their objectives cannot be verified."""
    return tuple("/".join(names) for tables in classes.values() for names in tables if not set(names) & set(present))
