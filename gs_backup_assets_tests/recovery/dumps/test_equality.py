"""Every comparison fails for its own reason: one change at a time to a copy of a real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.postgres.fingerprint import (
    Fingerprint,
    Level,
    SequencePrint,
    SequenceState,
    TablePrint,
    take_fingerprint,
)
from gs_backup_assets.postgres.inventory import Omission, take_inventory
from gs_backup_assets.postgres.schema import SchemaObject, read_schema
from gs_backup_assets.postgres.settings import RecordedSetting, Setting, read_settings
from gs_backup_assets.recovery.dumps import equality
from gs_backup_assets_tests.chain import codes, execute

_BASE = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE TABLE t (id integer PRIMARY KEY, a text, b text, n numeric, m mood, p point)",
    "INSERT INTO t VALUES (1, 'x', 'y', 1.0, 'ok', '(1,2)'), (2, NULL, '', 2, 'sad', NULL),"
    " (3, 'z', 'z', 'NaN', NULL, NULL)",
    "CREATE TABLE twin (v text)",
    "INSERT INTO twin VALUES ('same'), ('same'), ('other')",
    "CREATE TABLE empty (id integer)",
    "CREATE TABLE two (a text, b text)",
    "INSERT INTO two VALUES ('1', '2')",
    "CREATE SEQUENCE s",
    "SELECT nextval('s') FROM generate_series(1, 5)",
    "SELECT lo_from_bytea(1, 'abc')",
    "CREATE INDEX by_a ON t (a)",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE equality_role IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
)


@dataclass(frozen=True)
class State:
    """All that is compared of a database."""

    fingerprint: Fingerprint
    schema: tuple[SchemaObject, ...]
    settings: tuple[RecordedSetting, ...]


def _state(cluster: Cluster, target: Target, folder: Path, level: Level = Level.FULL) -> State:
    with connect(target) as connection:
        inventory, settings = take_inventory(connection), read_settings(connection)
    fingerprint = take_fingerprint(target, inventory, level=level, jobs=1)
    return State(fingerprint, read_schema(cluster.toolchain, target.write_service_file(folder)), settings)


@pytest.fixture(scope="module")
def base(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, State]]:
    admin = server17.target()
    execute(admin, "CREATE ROLE equality_role", "CREATE DATABASE equality_base TEMPLATE template0")
    target = server17.target("equality_base")
    execute(target, *_BASE)
    yield "equality_base", _state(server17, target, tmp_path_factory.mktemp("base"))
    execute(admin, "DROP DATABASE equality_base WITH (FORCE)", "DROP ROLE equality_role")


def _checks(source: State, restored: State, *, owners: bool = True) -> dict[str, CheckResult]:
    tables = equality.compare_tables(source.fingerprint, restored.fingerprint)
    results = (
        equality.rows_equal(source.fingerprint, tables),
        equality.contents_equal(source.fingerprint, restored.fingerprint, tables, owners=owners),
        equality.sequences_equal(source.fingerprint, restored.fingerprint),
        equality.schema_equal(source.schema, restored.schema, source.settings, restored.settings, owners=owners),
    )
    return {result.name: result for result in results}


_CONTENTS = {"contents_equal": {"CONTENTS_DIFFER"}}
_ROWS = {**_CONTENTS, "rows_equal": {"ROWS_DIFFER"}}
_CHANGES: tuple[tuple[str, dict[str, set[str]]], ...] = (
    ("SELECT 1", {}),
    ("VACUUM FULL t", {}),
    ("UPDATE t SET id = id", {}),
    ("UPDATE t SET a = 'X' WHERE id = 1", _CONTENTS),
    ("UPDATE t SET n = 1.00 WHERE id = 1", _CONTENTS),
    ("UPDATE t SET a = '' WHERE a IS NULL", _CONTENTS),
    ("UPDATE t SET b = NULL WHERE b = ''", _CONTENTS),
    ("UPDATE t SET a = b, b = a WHERE id = 1", _CONTENTS),
    ("UPDATE t SET p = '(2,1)' WHERE id = 1", _CONTENTS),
    ("UPDATE t SET m = 'sad' WHERE id = 1", _CONTENTS),
    ("UPDATE t SET id = 4 WHERE id = 3", _CONTENTS),
    ("UPDATE twin SET v = 'same' WHERE v = 'other'", _CONTENTS),
    ("DELETE FROM t WHERE id = 1", _ROWS),
    ("DELETE FROM twin WHERE ctid = (SELECT min(ctid) FROM twin)", _ROWS),
    ("INSERT INTO empty VALUES (NULL)", _ROWS),
    ("TRUNCATE t", _ROWS),
    (
        "CREATE TABLE more (id integer)",
        {
            "rows_equal": {"TABLE_UNEXPECTED"},
            "contents_equal": {"CONTENTS_DIFFER"},
            "schema_equal": {"OBJECT_UNEXPECTED"},
        },
    ),
    (
        "DROP TABLE empty",
        {
            "rows_equal": {"TABLE_MISSING"},
            "contents_equal": {"TABLE_MISSING"},
            "schema_equal": {"OBJECT_MISSING"},
        },
    ),
    (
        "DROP TABLE two; CREATE TABLE two (b text, a text); INSERT INTO two VALUES ('2', '1')",
        {
            **_CONTENTS,
            "schema_equal": {"OBJECT_DIFFERS", "OBJECT_UNEXPECTED"},  # default privileges are there by now
        },
    ),
    ("SELECT nextval('s')", {"sequences_equal": {"SEQUENCE_DIFFERS"}}),
    ("SELECT setval('s', 5, false)", {"sequences_equal": {"SEQUENCE_DIFFERS"}}),
    ("DROP SEQUENCE s", {"sequences_equal": {"SEQUENCE_MISSING"}, "schema_equal": {"OBJECT_MISSING"}}),
    ("CREATE SEQUENCE s2", {"sequences_equal": {"SEQUENCE_UNEXPECTED"}, "schema_equal": {"OBJECT_UNEXPECTED"}}),
    ("SELECT lo_put(1, 0, 'X')", {"contents_equal": {"LARGE_OBJECTS_DIFFER"}}),
    ("SELECT lo_unlink(1)", {"contents_equal": {"LARGE_OBJECTS_DIFFER"}}),
    ("SELECT lo_create(2)", {"contents_equal": {"LARGE_OBJECTS_DIFFER"}}),
    ("ALTER LARGE OBJECT 1 OWNER TO equality_role", {"contents_equal": {"LARGE_OBJECTS_DIFFER"}}),
    ("DROP INDEX by_a", {"schema_equal": {"OBJECT_MISSING"}}),
    ("ALTER TABLE t ALTER b SET DEFAULT 'd'", {"schema_equal": {"OBJECT_DIFFERS"}}),
    ("ALTER TABLE t OWNER TO equality_role", {"schema_equal": {"OWNER_DIFFERS"}}),
    ("GRANT SELECT ON t TO equality_role", {"schema_equal": {"OBJECT_UNEXPECTED"}}),
    # Two entries of one name: whose default privileges they are tells them apart.
    (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM PUBLIC",
        {"schema_equal": {"OBJECT_MISSING"}},
    ),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE equality_role IN SCHEMA public REVOKE SELECT ON TABLES FROM PUBLIC",
        {
            "schema_equal": {"OBJECT_MISSING"},
        },
    ),
)


@pytest.mark.parametrize(("change", "expected"), _CHANGES, ids=[change for change, _ in _CHANGES])
def test_one_change_is_found_by_the_checks_that_it_concerns(
    server17: Cluster, base: tuple[str, State], tmp_path: Path, change: str, expected: dict[str, set[str]]
) -> None:
    name, source = base
    admin, copy = server17.target(), server17.target(f"{name}_copy")
    execute(admin, f"CREATE DATABASE {copy.database} TEMPLATE {name}")
    try:
        execute(copy, change)
        checks = _checks(source, _state(server17, copy, tmp_path))
    finally:
        execute(admin, f"DROP DATABASE {copy.database} WITH (FORCE)")
    failed = {check.name: codes(check) for check in checks.values() if check.status is not Status.PASSED}
    assert failed == expected
    assert all(check.status is Status.FAILED for check in checks.values() if check.name in failed)


def test_settings_and_owners(base: tuple[str, State]) -> None:
    _, source = base
    settings = (Setting(role="", name="work_mem", value="9MB"), Setting(role="r", name="work_mem", value="8MB"))
    with_settings = State(source.fingerprint, source.schema, settings)
    assert codes(_checks(with_settings, source)["schema_equal"]) == {"SETTING_DIFFERS"}
    other = State(source.fingerprint, source.schema, (settings[0].model_copy(update={"value": "1MB"}), settings[1]))
    assert codes(_checks(with_settings, other)["schema_equal"]) == {"SETTING_DIFFERS"}
    # On a server without the roles, neither owners nor privileges nor settings of roles can be compared.
    mine = State(
        source.fingerprint,
        tuple(o.model_copy(update={"owner": "me"}) for o in source.schema if not o.is_privilege),
        settings[:1],
    )
    check = _checks(with_settings, mine, owners=False)["schema_equal"]
    assert (check.status, "not compared" in check.summary) == (Status.PASSED, True)
    assert _checks(with_settings, mine)["schema_equal"].status is Status.FAILED


def test_large_objects_of_another_owner_are_equal_where_owners_are_not_restored(base: tuple[str, State]) -> None:
    _, source = base
    assert source.fingerprint.large_objects is not None
    large = source.fingerprint.large_objects.model_copy(update={"owners": "0"})
    other = State(source.fingerprint.model_copy(update={"large_objects": large}), source.schema, source.settings)
    assert _checks(source, other, owners=False)["contents_equal"].status is Status.PASSED
    assert _checks(source, other)["contents_equal"].status is Status.FAILED


def test_without_a_fingerprint_nothing_is_equal(server17: Cluster, base: tuple[str, State], tmp_path: Path) -> None:
    name, _ = base
    for level, open_checks in (
        (Level.COUNTS, {"contents_equal"}),
        (Level.OFF, {"rows_equal", "contents_equal", "sequences_equal"}),
    ):
        state = _state(server17, server17.target(name), tmp_path, level)
        checks = _checks(state, state)
        assert {n for n, c in checks.items() if c.status is Status.NOT_VERIFIED} == open_checks
        assert not [c for c in checks.values() if c.status is Status.FAILED]
    other = state.fingerprint.model_copy(update={"level": Level.COUNTS})
    assert equality.rows_equal(other, ()).status is Status.PASSED


def test_omissions_with_data_leave_the_check_open() -> None:
    harmless = Omission(kind="foreign_table", name="f", reason="elsewhere", loses_data=False)
    lost = Omission(kind="unreadable_table", name="t", reason="the backup role may not read it", loses_data=True)
    assert equality.everything_included(()).status is Status.PASSED
    assert equality.everything_included((harmless,)).status is Status.PASSED
    check = equality.everything_included((harmless, lost))
    assert (check.status, codes(check)) == (Status.NOT_VERIFIED, {"OMITTED"})
    assert "t: the backup role may not read it." in check.findings[0].message


def test_an_omitted_sequence_is_expected_without_its_state(base: tuple[str, State]) -> None:
    _, source = base
    without = source.fingerprint.model_copy(update={"sequences": ()})
    assert equality.sequences_equal(without, source.fingerprint).status is Status.FAILED
    check = equality.sequences_equal(without, source.fingerprint, omitted={'"public"."s"'})
    assert check.status is Status.PASSED


def _check(status: Status, *found: str) -> CheckResult:
    findings = tuple(Finding(code=code, message="") for code in found)
    return CheckResult(name="schema_equal", status=status, summary="", findings=findings)


def test_only_what_is_absent_can_be_explained() -> None:
    lacking = _check(Status.NOT_VERIFIED, "EXTENSION_MISSING")
    absent = _check(Status.FAILED, "OBJECT_MISSING")
    assert equality.explained(absent, lacking).status is Status.NOT_VERIFIED
    for clean in (_check(Status.PASSED), _check(Status.FAILED, "RESTORE_ERROR")):
        assert equality.explained(absent, clean) == absent
    for other in (_check(Status.FAILED, "OBJECT_MISSING", "OBJECT_DIFFERS"), _check(Status.PASSED)):
        assert equality.explained(other, lacking) == other


def test_a_difference_is_shown_before_fifty_absent_objects() -> None:
    """Findings are cut off; what is cut off must not make a check look explained."""
    objects = [SchemaObject(type="TABLE", object_schema="s", name=f"{i:03}", owner="o", sha256="1") for i in range(80)]
    differing = objects[79].model_copy(update={"sha256": "2"})
    check = equality.schema_equal(objects, [differing], (), (), owners=True)
    assert len(check.findings) == 50
    assert check.findings[0].code == "OBJECT_DIFFERS"
    assert check.metrics["objects_differing"] == 80


_states = st.builds(SequenceState, last_value=st.integers(-50, 50), is_called=st.booleans())


@given(before=_states, after=_states, increment=st.integers(-3, 3).filter(bool))
def test_a_sequence_may_stand_where_it_stood_before_or_after(
    before: SequenceState, after: SequenceState, increment: int
) -> None:
    source = SequencePrint(sequence_schema="s", name="n", increment=increment, before=before, after=after)
    for state in (before, after):
        restored = source.model_copy(update={"before": state, "after": state})
        check = equality.sequences_equal(_of(source), _of(restored))
        assert check.status is Status.PASSED


@given(
    start=st.integers(-50, 50), steps=st.integers(1, 20), at=st.integers(-30, 30), increment=st.sampled_from([-2, 1, 3])
)
def test_a_sequence_may_stand_in_between_and_nowhere_else(start: int, steps: int, at: int, increment: int) -> None:
    before = SequenceState(last_value=start, is_called=True)
    after = SequenceState(last_value=start + steps * increment, is_called=True)
    state = SequenceState(last_value=start + at * increment, is_called=True)
    source = SequencePrint(sequence_schema="s", name="n", increment=increment, before=before, after=after)
    check = equality.sequences_equal(_of(source), _of(source.model_copy(update={"before": state})))
    assert (check.status is Status.PASSED) == (0 <= at <= steps)


def test_a_cycling_sequence_that_moved_may_stand_anywhere() -> None:
    """It may have gone round between the two looks; one that did not move stands where it stood."""
    before, after, other = (SequenceState(last_value=value, is_called=True) for value in (3, 5, 7))
    for cycles, moved in ((True, True), (True, False), (False, True)):
        source = SequencePrint(
            sequence_schema="s", name="n", increment=1, cycles=cycles, before=before, after=after if moved else before
        )
        check = equality.sequences_equal(_of(source), _of(source.model_copy(update={"before": other})))
        assert (check.status is Status.PASSED) == (cycles and moved)


def _of(sequence: SequencePrint) -> Fingerprint:
    return Fingerprint(level=Level.FULL, sequences=(sequence,))


_tables = st.dictionaries(
    st.text('ab."', min_size=1, max_size=3), st.tuples(st.integers(0, 5), st.sampled_from(["0", "1", "2"])), max_size=4
)


@given(_tables, _tables)
def test_contents_are_equal_only_if_all_tables_are(
    mine: dict[str, tuple[int, str]], yours: dict[str, tuple[int, str]]
) -> None:
    source, restored = (
        Fingerprint(
            level=Level.FULL,
            tables=tuple(
                TablePrint(table_schema="s", name=name, rows=rows, content=content, total_bytes=0)
                for name, (rows, content) in tables.items()
            ),
        )
        for tables in (mine, yours)
    )
    tables = equality.compare_tables(source, restored)
    rows, contents = equality.rows_equal(source, tables), equality.contents_equal(source, restored, tables)
    both = (rows.status, contents.status) == (Status.PASSED, Status.PASSED)
    assert both == (mine == yours)
    assert len(tables) == len({*mine, *yours})
