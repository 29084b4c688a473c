"""Foreign keys of every sort a server knows, with rows smuggled past them, on every supported release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gs_backup_assets.catalogue.proof import ForeignKeyOutcome
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.integrity.foreign_keys import check_foreign_keys
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets_tests.conftest import fresh_database


@contextmanager
def unchecked(connection: Connection) -> Iterator[None]:
    """Rows written here pass every foreign key, as they do in a restore with triggers disabled."""
    query(connection, "SET session_replication_role = replica")
    yield
    query(connection, "SET session_replication_role = origin")


def by_name(outcomes: tuple[ForeignKeyOutcome, ...]) -> dict[str, ForeignKeyOutcome]:
    assert len({outcome.name for outcome in outcomes}) == len(outcomes)
    return {outcome.name: outcome for outcome in outcomes}


def verdicts(outcomes: tuple[ForeignKeyOutcome, ...]) -> dict[str, tuple[int | None, tuple[str, ...]]]:
    return {name: (outcome.orphans, outcome.sample_keys) for name, outcome in by_name(outcomes).items()}


_EVERY_SORT = """
CREATE SCHEMA "Ünïts";
CREATE TABLE public.parent (a int, b text, u text UNIQUE, PRIMARY KEY (a, b), UNIQUE (a));
CREATE TABLE public.simple (id int, p int CONSTRAINT simple_fk REFERENCES public.parent (a));
CREATE TABLE public.pair (a int, b text, CONSTRAINT pair_fk FOREIGN KEY (a, b) REFERENCES public.parent);
CREATE TABLE public.crossed (a int, b text, CONSTRAINT crossed_fk FOREIGN KEY (b, a) REFERENCES public.parent (b, a));
CREATE TABLE public.whole (a int, b text, CONSTRAINT whole_fk FOREIGN KEY (a, b) REFERENCES public.parent MATCH FULL);
CREATE TABLE public.one_full (a int CONSTRAINT one_full_fk REFERENCES public.parent (a) MATCH FULL);
CREATE TABLE public.wider (a bigint CONSTRAINT wider_fk REFERENCES public.parent (a));
CREATE TABLE public.tree (id int PRIMARY KEY, up int CONSTRAINT tree_fk REFERENCES public.tree);
CREATE TABLE "Ünïts"."a.b ""c"" %s {d}" ("k "" %(x)s" text CONSTRAINT "odd %s {} ""fk" REFERENCES public.parent (u));
CREATE TABLE public.late (p int);
CREATE TABLE public.part_parent (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE public.part_parent_1 PARTITION OF public.part_parent FOR VALUES FROM (0) TO (100);
CREATE TABLE public.part_child (id int, p int CONSTRAINT part_fk REFERENCES public.part_parent) PARTITION BY RANGE (id);
CREATE TABLE public.part_child_1 PARTITION OF public.part_child FOR VALUES FROM (0) TO (10);
CREATE TABLE public.part_child_2 PARTITION OF public.part_child FOR VALUES FROM (10) TO (20);
CREATE TABLE public.heir_parent (id int PRIMARY KEY);
CREATE TABLE public.heir_parent_1 () INHERITS (public.heir_parent);
CREATE TABLE public.heir_child (p int CONSTRAINT heir_fk REFERENCES public.heir_parent);
CREATE TABLE public.heir_child_1 () INHERITS (public.heir_child);
CREATE TABLE public.sorted (name text COLLATE "C" PRIMARY KEY);
CREATE TABLE public.otherwise (name text COLLATE "POSIX" CONSTRAINT collated_fk REFERENCES public.sorted);
"""

_SOUND = """
INSERT INTO public.parent VALUES (1, 'x', 'u1'), (2, 'y', 'u2');
INSERT INTO public.simple VALUES (1, 1), (2, NULL);
INSERT INTO public.pair VALUES (1, 'x'), (1, NULL), (99, NULL), (NULL, NULL);
INSERT INTO public.crossed VALUES (2, 'y');
INSERT INTO public.whole VALUES (1, 'x'), (NULL, NULL);
INSERT INTO public.one_full VALUES (1), (NULL);
INSERT INTO public.wider VALUES (2);
INSERT INTO public.tree VALUES (1, NULL), (2, 1), (3, 3);
INSERT INTO "Ünïts"."a.b ""c"" %s {d}" VALUES ('u1');
INSERT INTO public.part_parent VALUES (1);
INSERT INTO public.part_child VALUES (1, 1), (11, 1);
INSERT INTO public.heir_parent VALUES (1);
INSERT INTO public.heir_child VALUES (1);
INSERT INTO public.heir_child_1 VALUES (77);
INSERT INTO public.sorted VALUES ('Ann');
INSERT INTO public.otherwise VALUES ('Ann');
"""

_BROKEN = """
INSERT INTO public.simple VALUES (3, 7), (4, 7), (5, 8);
INSERT INTO public.pair VALUES (1, 'y'), (2, 'x, z');
INSERT INTO public.crossed VALUES (1, 'y');
INSERT INTO public.whole VALUES (1, NULL), (NULL, 'x'), (2, 'x');
INSERT INTO public.one_full VALUES (3);
INSERT INTO public.wider VALUES (5000000000);
INSERT INTO public.tree VALUES (4, 5);
INSERT INTO "Ünïts"."a.b ""c"" %s {d}" VALUES ('gone');
INSERT INTO public.late VALUES (9);
INSERT INTO public.part_child VALUES (2, 50), (12, 60);
INSERT INTO public.heir_parent_1 VALUES (2);
INSERT INTO public.heir_child VALUES (2);
INSERT INTO public.otherwise VALUES ('ann');
"""

_ORPHANS: dict[str, tuple[int, tuple[str, ...]]] = {
    "simple_fk": (3, ("7", "8")),
    "pair_fk": (2, ("1, y", "2, x, z")),
    "crossed_fk": (1, ("y, 1",)),
    "whole_fk": (3, ("1, null", "2, x", "null, x")),
    "one_full_fk": (1, ("3",)),
    "wider_fk": (1, ("5000000000",)),
    "tree_fk": (1, ("5",)),
    'odd %s {} "fk': (1, ("gone",)),
    "late_fk": (1, ("9",)),
    "part_fk": (2, ("50", "60")),
    "heir_fk": (1, ("2",)),
    "collated_fk": (1, ("ann",)),
}


def test_every_sort_of_key_on_every_release(any_server: Cluster) -> None:
    with fresh_database(any_server) as target, connect(target) as connection:
        query(connection, _EVERY_SORT)
        query(connection, _SOUND)
        query(
            connection,
            "ALTER TABLE public.late ADD CONSTRAINT late_fk FOREIGN KEY (p) REFERENCES public.parent (a) NOT VALID",
        )
        sound = by_name(check_foreign_keys(connection))
        assert set(sound) == set(_ORPHANS)
        assert {(o.status, o.orphans, o.sample_keys, o.reason) for o in sound.values()} == {
            (Status.PASSED, 0, (), None)
        }
        assert [name for name, outcome in sound.items() if not outcome.validated] == ["late_fk"]
        with unchecked(connection):
            query(connection, _BROKEN)
        broken = check_foreign_keys(connection)
    assert verdicts(broken) == _ORPHANS
    assert {outcome.status for outcome in broken} == {Status.FAILED}
    outcome = by_name(broken)['odd %s {} "fk']
    assert outcome.table == '"Ünïts"."a.b ""c"" %s {d}"'
    assert outcome.columns == ('k " %(x)s',)
    assert outcome.references == "public.parent (u)"
    assert by_name(broken)["crossed_fk"].columns == ("b", "a")
    assert by_name(broken)["part_fk"].table == "public.part_child"


@pytest.mark.parametrize("any_server", [18], indirect=True, ids=["pg18"])
def test_periods_and_keys_that_are_not_enforced(any_server: Cluster) -> None:
    with fresh_database(any_server) as target, connect(target) as connection:
        query(
            connection,
            """CREATE EXTENSION btree_gist SCHEMA public; SET search_path = public;
               CREATE TABLE lease (flat int, during daterange, PRIMARY KEY (flat, during WITHOUT OVERLAPS));
               CREATE TABLE stay (id int, flat int, during daterange, CONSTRAINT stay_fk
                   FOREIGN KEY (flat, PERIOD during) REFERENCES lease (flat, PERIOD during));
               CREATE TABLE wish (flat int, during daterange);
               CREATE TABLE street (id int PRIMARY KEY);
               CREATE TABLE house (street int CONSTRAINT house_fk REFERENCES street NOT ENFORCED);
               INSERT INTO lease VALUES (1, '[2026-01-01,2026-02-01)'), (1, '[2026-02-01,2026-03-01)');
               INSERT INTO stay VALUES (1, 1, '[2026-01-15,2026-02-15)'), (2, 1, NULL);
               INSERT INTO house VALUES (4)""",
        )
        assert verdicts(check_foreign_keys(connection)) == {"stay_fk": (0, ()), "house_fk": (1, ("4",))}
        with unchecked(connection):
            query(
                connection,
                "INSERT INTO stay VALUES (3, 1, '[2026-02-15,2026-03-15)'), (4, 2, '[2026-01-15,2026-01-16)')",
            )
        outcomes = by_name(check_foreign_keys(connection))
    assert outcomes["stay_fk"].orphans == 2
    assert outcomes["stay_fk"].sample_keys == ("1, [2026-02-15,2026-03-15)", "2, [2026-01-15,2026-01-16)")
    assert not outcomes["house_fk"].validated


def test_many_orphans(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        query(
            connection,
            """CREATE TABLE public.p (id int PRIMARY KEY);
               CREATE TABLE public.c (p int CONSTRAINT many REFERENCES public.p)""",
        )
        with unchecked(connection):
            query(connection, "INSERT INTO public.c SELECT n / 2 FROM generate_series(2, 300001) AS n")
        outcome = by_name(check_foreign_keys(connection))["many"]
        assert outcome.orphans == 300_000
        assert len(outcome.sample_keys) == len(set(outcome.sample_keys)) == 20
        for limit in (0, 3):
            fewer = by_name(check_foreign_keys(connection, limit_samples=limit))["many"]
            assert (fewer.orphans, len(fewer.sample_keys)) == (300_000, limit)


@pytest.mark.parametrize("autocommit", [True, False])
def test_what_cannot_be_read_is_not_verified_and_harms_nothing_else(empty_database: Target, autocommit: bool) -> None:
    role = f"reader_{empty_database.database}"
    with connect(empty_database) as owner:
        query(
            owner,
            f"""CREATE ROLE {role} LOGIN; SET search_path = public;
                CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE closed (p int CONSTRAINT closed_fk REFERENCES p);
                CREATE TABLE hidden (p int CONSTRAINT hidden_fk REFERENCES p);
                CREATE TABLE open (p int CONSTRAINT open_fk REFERENCES p);
                ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
                INSERT INTO p VALUES (1); INSERT INTO open VALUES (1);
                GRANT SELECT ON p, open, hidden TO {role}""",
        )
        target = Target({**empty_database.parameters, "user": role})
        try:
            with connect(target, autocommit=autocommit) as connection:
                outcomes = by_name(check_foreign_keys(connection))
                assert query(connection, "SHOW row_security") == [("on",)]
        finally:
            query(owner, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert {name: (outcome.status, outcome.orphans, outcome.reason) for name, outcome in outcomes.items()} == {
        "closed_fk": (Status.NOT_VERIFIED, None, "permission denied for table closed"),
        "hidden_fk": (
            Status.NOT_VERIFIED,
            None,
            'query would be affected by row-level security policy for table "hidden"',
        ),
        "open_fk": (Status.PASSED, 0, None),
    }


def test_keys_of_an_extension_are_tested_too_and_none_is_fine(empty_database: Target) -> None:
    with connect(empty_database) as connection:
        assert check_foreign_keys(connection) == ()
        query(
            connection,
            """CREATE TABLE public.p (id int PRIMARY KEY);
               CREATE TABLE public.c (p int CONSTRAINT c_fk REFERENCES public.p);
               CREATE EXTENSION pg_trgm SCHEMA public; ALTER EXTENSION pg_trgm ADD TABLE public.c""",
        )
        assert verdicts(check_foreign_keys(connection)) == {"c_fk": (0, ())}
