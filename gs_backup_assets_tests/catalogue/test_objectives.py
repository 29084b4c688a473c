"""Data classes: every table belongs to one, and an entry that names no table is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.objectives import DEFAULT_CLASS, class_of, unknown_tables

CLASSES = {"critical": (("users", "User"), ("lessons",)), "non_critical": (("logs",), ("lessons",))}


def test_a_table_is_found_under_any_of_its_names() -> None:
    assert class_of("users", CLASSES) == class_of("User", CLASSES) == "critical"
    assert class_of("logs", CLASSES) == "non_critical"


def test_the_first_class_that_names_a_table_has_it() -> None:
    assert class_of("lessons", CLASSES) == "critical"


def test_a_table_that_nobody_names_is_important() -> None:
    assert class_of("user", CLASSES) == DEFAULT_CLASS == "important"
    assert class_of("anything", {}) == DEFAULT_CLASS


def test_an_entry_of_which_no_name_exists_is_told() -> None:
    assert unknown_tables(["User", "logs"], CLASSES) == ("lessons", "lessons")
    assert unknown_tables([], CLASSES) == ("users/User", "lessons", "logs", "lessons")
    assert unknown_tables(["User", "users", "lessons", "logs"], CLASSES) == ()


names = st.sampled_from("abcdefgh")
classes = st.dictionaries(
    st.sampled_from(["critical", "important", "non_critical"]),
    st.lists(st.lists(names, min_size=1, max_size=2).map(tuple), max_size=4).map(tuple),
)


@given(st.lists(names, unique=True), classes)
def test_every_table_is_in_exactly_one_class(
    present: list[str], chosen: dict[str, tuple[tuple[str, ...], ...]]
) -> None:
    parts = [tuple(t for t in present if class_of(t, chosen) == name) for name in {*chosen, DEFAULT_CLASS}]
    assert sorted(table for part in parts for table in part) == sorted(present)
