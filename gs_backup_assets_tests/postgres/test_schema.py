"""The schema as named digests: every change of a definition shows, and noise does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.schema import SchemaObject, read_schema, split_schema
from gs_backup_assets_tests.chain import execute
from gs_backup_assets_tests.conftest import fresh_database

_BASE = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE TABLE t (id integer PRIMARY KEY, a text DEFAULT 'x', m mood)",
    "CREATE TABLE u (id integer REFERENCES t)",
    "CREATE INDEX by_a ON t (a)",
    "CREATE VIEW v AS SELECT id FROM t",
    "CREATE FUNCTION f() RETURNS integer LANGUAGE plpgsql"
    " AS $$BEGIN\n--\n-- Name: x; Type: TABLE; Schema: y; Owner: z\n--\nRETURN 1; END$$",
    "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
    "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tf()",
    "CREATE SEQUENCE s",
    "CREATE PUBLICATION p FOR TABLE t",
)


def _objects(cluster: Cluster, target: Target, folder: Path) -> dict[str, SchemaObject]:
    return {o.label: o for o in read_schema(cluster.toolchain, target.write_service_file(folder))}


def test_two_equal_databases_have_equal_schemas(any_server: Cluster, tmp_path: Path) -> None:
    with fresh_database(any_server) as one, fresh_database(any_server) as other:
        execute(one, *_BASE)
        execute(other, "CREATE TABLE gone ()", *_BASE, "DROP TABLE gone")
        objects = _objects(any_server, one, tmp_path)
        assert objects == _objects(any_server, other, tmp_path)
        assert {
            "TABLE public.t",
            "FK CONSTRAINT public.u u_id_fkey",
            "TRIGGER public.t tr",
            "FUNCTION public.f()",
        } <= set(objects)


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ("ALTER TABLE t ALTER a SET DEFAULT 'y'", "TABLE public.t"),
        ("ALTER TABLE t ADD b integer", "TABLE public.t"),
        ("ALTER TABLE t ALTER a SET NOT NULL", "TABLE public.t"),
        ("ALTER TABLE t ALTER a SET STORAGE external", "TABLE public.t"),
        ("ALTER TYPE mood ADD VALUE 'mad' BEFORE 'ok'", "TYPE public.mood"),
        ("ALTER TABLE t DISABLE TRIGGER tr", "TRIGGER public.t tr"),
        ("ALTER SEQUENCE s CYCLE", "SEQUENCE public.s"),
        ("CREATE OR REPLACE VIEW v AS SELECT id FROM t WHERE id > 0", "VIEW public.v"),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS $$BEGIN\n--\n-- Name: x; Type: TABLE;"
            " Schema: y; Owner: z\n--\nRETURN 2; END$$",
            "FUNCTION public.f()",
        ),
        ("ALTER PUBLICATION p SET (publish = 'insert')", "PUBLICATION p"),
        ("ALTER TABLE u ALTER CONSTRAINT u_id_fkey DEFERRABLE", "FK CONSTRAINT public.u u_id_fkey"),
        ("ALTER INDEX by_a SET (fillfactor = 50)", "INDEX public.by_a"),
    ],
)
def test_a_changed_definition_has_another_digest(
    server17: Cluster, empty_database: Target, tmp_path: Path, change: str, label: str
) -> None:
    execute(empty_database, *_BASE)
    before = _objects(server17, empty_database, tmp_path)
    execute(empty_database, change)
    after = _objects(server17, empty_database, tmp_path)
    assert set(before) == set(after)
    differing = {name for name in before if before[name].sha256 != after[name].sha256}
    # A function's body can look like a header of pg_dump: then its second half is a part of its own.
    assert label in differing or (label == "FUNCTION public.f()" and differing == {"TABLE y.x"})


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ("DROP INDEX by_a", "INDEX public.by_a"),
        ("COMMENT ON COLUMN t.a IS 'c'", "COMMENT public.COLUMN t.a"),
        ("GRANT SELECT ON t TO PUBLIC", "ACL public.TABLE t"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "ROW SECURITY public.t"),
        ("CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "RULE public.t r"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", "DEFAULT ACL DEFAULT PRIVILEGES FOR TABLES"),
    ],
)
def test_an_object_more_or_less_shows(
    server17: Cluster, empty_database: Target, tmp_path: Path, change: str, label: str
) -> None:
    execute(empty_database, *_BASE)
    before = _objects(server17, empty_database, tmp_path)
    execute(empty_database, change)
    after = _objects(server17, empty_database, tmp_path)
    assert set(before) ^ set(after) == {label}


def test_owners_are_apart_from_definitions(server17: Cluster, empty_database: Target, tmp_path: Path) -> None:
    execute(empty_database, *_BASE, "CREATE ROLE schema_owner")
    try:
        before = _objects(server17, empty_database, tmp_path)["TABLE public.t"]
        execute(empty_database, "ALTER TABLE t OWNER TO schema_owner")
        after = _objects(server17, empty_database, tmp_path)["TABLE public.t"]
        assert (before.sha256, after.owner) == (after.sha256, "schema_owner")
    finally:
        execute(empty_database, "REASSIGN OWNED BY schema_owner TO CURRENT_USER", "DROP ROLE schema_owner")


def test_noise_is_taken_out() -> None:
    def dump(token: str, space: str) -> str:
        return (
            f"--\n-- PostgreSQL database dump\n--\n\n\\restrict {token}\n\n{space}"
            "--\n-- Name: t; Type: TABLE; Schema: public; Owner: a\n--\n\nCREATE TABLE public.t ();\n\n"
            "ALTER TABLE public.t OWNER TO a;\n\n"
            f"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict {token}\n"
        )

    one = split_schema(dump("abc", ""))
    assert one == split_schema(dump("xyz", "SET default_tablespace = '';\nSET default_table_access_method = heap;\n"))
    assert [o.label for o in one] == ["TABLE public.t"]


def test_an_empty_database_has_no_objects() -> None:
    assert split_schema("--\n-- PostgreSQL database dump\n--\n\nSET row_security = off;\n") == ()


def test_a_revalidated_key_is_compared_without_its_mark() -> None:
    header = "--\n-- Name: u u_fk; Type: FK CONSTRAINT; Schema: public; Owner: a\n--\n\n"
    body = "ALTER TABLE ONLY public.u\n    ADD CONSTRAINT u_fk FOREIGN KEY (id) REFERENCES public.t(id)"
    (valid,) = split_schema(f"{header}{body};\n")
    (marked,) = split_schema(f"{header}{body} NOT VALID;\n")
    (unmarked,) = split_schema(f"{header}{body} NOT VALID;\n", revalidated=["FK CONSTRAINT u u_fk a"])
    assert valid != marked
    assert valid == unmarked
    (other,) = split_schema(f"{header}{body} NOT VALID;\n", revalidated=["FK CONSTRAINT u u_fk2 a"])
    assert other == marked
