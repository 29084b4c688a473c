"""Masking on real servers: keys hold, equal values stay equal, nothing of the originals is left, the proof tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.errors import BackupError, ConfigError, ProofFailed, SourceError
from gs_backup_assets.postgres.cluster import Cluster, running_cluster
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.staging.masking import PROOF_SCHEMA, Masked, drop_proof, mask_database, masking_secret
from gs_backup_assets.recovery.staging.masking_proof import prove_masked
from gs_backup_assets_tests.chain import codes, execute
from gs_backup_assets_tests.conftest import fresh_database, toolchain_of

SECRET = b"a secret of sixteen bytes or more"
SCHEMA = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN address AS varchar(30) CHECK (value ~ '@');
CREATE TABLE person (
    id integer PRIMARY KEY, mail address NOT NULL, name varchar(40), nick citext UNIQUE, born date, seen timestamptz,
    token uuid UNIQUE DEFAULT gen_random_uuid(), note text, extra jsonb, tags text[],
    mood mood DEFAULT 'good', code char(12),
    lower_mail text GENERATED ALWAYS AS (lower(mail::text)) STORED, touched integer NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX person_mail ON person (lower(mail::text));
CREATE TABLE friend (person integer REFERENCES person, other integer REFERENCES person, PRIMARY KEY (person, other));
CREATE TABLE best_friend (person integer, other integer, FOREIGN KEY (person, other) REFERENCES friend);
CREATE TABLE login (nick citext REFERENCES person (nick), mail text, at timestamp);
CREATE TABLE visit (id integer, who text, day date, PRIMARY KEY (id, who)) PARTITION BY LIST (who);
CREATE TABLE visit_a PARTITION OF visit FOR VALUES IN ('anna@staff.org');
CREATE TABLE visit_rest PARTITION OF visit DEFAULT;
CREATE MATERIALIZED VIEW mails AS SELECT mail FROM person;
CREATE STATISTICS person_pairs (mcv) ON name, note FROM person;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON person FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER touch_always BEFORE UPDATE ON person FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE person ENABLE ALWAYS TRIGGER touch_always;
CREATE TABLE heard (mail text);
CREATE RULE hear AS ON UPDATE TO login DO ALSO INSERT INTO heard VALUES (OLD.mail);
ALTER TABLE login ENABLE ALWAYS RULE hear;
CREATE SCHEMA audit;
CREATE TABLE audit.day (what text);
CREATE TABLE "audit.day" (what text);
CREATE TABLE place (street text);
CREATE TABLE venue (seats integer) INHERITS (place);
CREATE TABLE hall () INHERITS (venue);
INSERT INTO hall (street) VALUES ('secret street 1');
INSERT INTO person (id, mail, name, nick, born, seen, note, extra, code)
    SELECT i, 'Person' || i || '@real.org', 'Real Name ' || i % 7, 'Nick' || i, date '1970-01-01' + i * 97,
           timestamptz '2026-01-01' + i * interval '1 h', repeat('secret note ' || i || ' ', i % 40), '{"a": 1}',
           'code' || i
    FROM generate_series(1, 200) AS i;
UPDATE person SET name = '', note = NULL, born = 'infinity', touched = 0 WHERE id = 1;
INSERT INTO friend SELECT i, i % 200 + 1 FROM generate_series(1, 200) AS i;
INSERT INTO best_friend SELECT * FROM friend WHERE person % 2 = 0;
INSERT INTO login SELECT 'nICK' || i, 'Person' || i || '@real.org', now() FROM generate_series(1, 150) AS i;
INSERT INTO visit SELECT i, CASE WHEN i % 3 = 0 THEN 'anna@staff.org' ELSE 'Person' || i || '@real.org' END, now()
    FROM generate_series(1, 60) AS i;
UPDATE person SET touched = 0;
ANALYZE;
"""
PERSON: dict[str, Any] = {
    "id": "hash", "mail": {"fake": "email"}, "name": {"fake": "name"}, "nick": "hash", "born": {"fake": "date"},
    "seen": {"fake": "date"}, "token": "hash", "note": {"fake": "text"}, "extra": {"constant": "{}"},
    "tags": {"constant": "{none}"}, "mood": {"constant": "bad"}, "code": "hash", "lower_mail": "hash",
}  # fmt: skip
RULES: dict[str, Any] = {
    "person": PERSON,
    "login": {"mail": {"fake": "email"}, "at": None},
    "visit": {"who": {"fake": "email"}},
}


def rules_of(tables: dict[str, Any]) -> Anonymise:
    return Anonymise.model_validate({"tables": tables})


@pytest.fixture
def copy(empty_database: Target) -> Target:
    execute(empty_database, SCHEMA, "UPDATE person SET touched = 0")
    with connect(empty_database) as connection:
        query(connection, "SET session_replication_role = replica")
        query(connection, "ALTER TABLE public.person DISABLE TRIGGER touch_always")
        query(connection, "UPDATE public.person SET touched = 0")
        query(connection, "ALTER TABLE public.person ENABLE ALWAYS TRIGGER touch_always")
    return empty_database


def mask(target: Target, tables: dict[str, Any] | None = None, secret: bytes = SECRET) -> Masked:
    return mask_database(target, rules_of(RULES if tables is None else tables), secret, Progress())


def rows(target: Target, sql: str) -> list[tuple[Any, ...]]:
    with connect(target, settings={"search_path": "public"}) as connection:
        return query(connection, sql)


def refused(target: Target, tables: dict[str, Any]) -> str:
    """The words of a refusal, before which nothing was changed."""
    before = rows(target, "SELECT sum(hashtextextended(p::text, 0)) FROM person AS p")
    with pytest.raises(ConfigError, match="MASKING_REFUSED") as caught:
        mask(target, tables)
    assert rows(target, "SELECT sum(hashtextextended(p::text, 0)) FROM person AS p") == before
    assert rows(target, f"SELECT to_regnamespace('{PROOF_SCHEMA}')") == [(None,)]
    return caught.value.message


def test_everything_is_masked_and_proved(copy: Target) -> None:
    masked = mask(copy)
    check = prove_masked(copy, masked, Progress())
    assert check.status is Status.PASSED, check.findings
    people = rows(copy, "SELECT id, mail, name, nick, token, note, extra, mood::text, code, lower_mail FROM person")
    assert len(people) == len({person[0] for person in people}) == len({person[3] for person in people}) == 200
    for ident, mail, _, nick, _, _, extra, mood, code, lower_mail in people:
        assert ident >= 100_000_000
        assert mail.endswith("@example.com") and len(mail) <= 30 and lower_mail == mail.lower()
        assert re.fullmatch("[0-9a-f]{12}", nick) and re.fullmatch("[0-9a-f]{12}", code)
        assert extra == {} and mood == "bad"
    drop_proof(copy)
    assert rows(copy, f"SELECT to_regnamespace('{PROOF_SCHEMA}')") == [(None,)]


def test_keys_stay_consistent_and_equal_values_stay_equal(copy: Target) -> None:
    mask(copy)
    (friends, best, logins, mails, visits, names) = rows(
        copy,
        """SELECT (SELECT count(*) FROM friend f JOIN person a ON a.id = f.person JOIN person b ON b.id = f.other),
                  (SELECT count(*) FROM best_friend JOIN friend USING (person, other)),
                  (SELECT count(*) FROM login JOIN person USING (nick)),
                  (SELECT count(*) FROM login l JOIN person p USING (nick) WHERE p.mail = l.mail),
                  (SELECT count(*) FROM visit v JOIN person p ON p.mail = v.who),
                  (SELECT count(DISTINCT name) FROM person WHERE name <> '')""",
    )[0]
    assert (friends, best, logins) == (200, 100, 150)
    assert mails == 150, "the same address is masked in the same way in a table that does not refer to the other"
    assert visits == 40
    assert names <= 7


def test_what_says_nothing_stays_and_triggers_are_silent(copy: Target) -> None:
    mask(copy)
    assert rows(copy, "SELECT count(*) FROM person WHERE name = '' AND note IS NULL AND born = 'infinity'") == [(1,)]
    assert rows(copy, "SELECT sum(touched) FROM person") == [(0,)]
    states = "SELECT tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    assert rows(copy, states) == [("touch", "O"), ("touch_always", "A")], "each is as it was"
    assert rows(copy, "SELECT * FROM heard") == [], "no rule has kept what was masked"
    assert rows(copy, "SELECT ev_enabled::text FROM pg_rewrite WHERE rulename = 'hear'") == [("A",)]


def test_nothing_is_left_in_files_views_and_statistics(server17: Cluster, copy: Target) -> None:
    """Looks into the files of the database itself, after a checkpoint."""
    (oid,) = rows(copy, "SELECT oid FROM pg_database WHERE datname = current_database()")[0]
    folder = Path(rows(copy, "SHOW data_directory")[0][0]) / "base" / str(oid)

    def in_files() -> set[str]:
        rows(copy, "CHECKPOINT")
        needles = (b"@real.org", b"Real Name", b"secret note", b"Nick7")
        return {n.decode() for file in folder.iterdir() for n in needles if n in file.read_bytes()}

    assert in_files() == {"@real.org", "Real Name", "secret note", "Nick7"}
    mask(copy)
    drop_proof(copy)
    assert in_files() == set()
    assert rows(copy, "SELECT count(*) FROM mails WHERE mail LIKE '%real.org'") == [(0,)]
    assert rows(copy, "SELECT count(*) FROM pg_stats WHERE most_common_vals::text LIKE '%Real Name%'") == [(0,)]


def test_one_secret_gives_one_result_and_another_another(server17: Cluster) -> None:
    results = []
    for secret in (SECRET, SECRET, b"another secret of many bytes"):
        with fresh_database(server17) as target:
            execute(target, SCHEMA)
            mask(target, {"person": {"id": "hash", "mail": {"fake": "email"}, "name": {"fake": "name"}}}, secret)
            results.append(rows(target, "SELECT id, mail, name FROM person ORDER BY 1"))
    assert results[0] == results[1]
    assert not {mail for _, mail, _ in results[0]} & {mail for _, mail, _ in results[2]}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"nobody": {"id": "hash"}}, "there is no table nobody"),
        ({"person": {"ears": "hash"}}, "no column ears"),
        ({"audit.day": {"what": "hash"}}, "audit.day is the name of several tables"),
        ({"visit_a": {"who": "hash"}}, "give the rules to the partitioned table"),
        (
            {"place": {"street": "hash"}, "hall": {"street": "hash"}},
            "hall.street is inherited, it is masked with place",
        ),
        ({"friend": {"person": "hash"}}, "give the rule to person.id"),
        ({"person": {"id": "hash"}, "friend": {"other": {"constant": "1"}}}, "refers to person.id"),
        ({"person": {"nick": None}}, "person.nick cannot be null: login.nick refers to it"),
        ({"person": {"token": {"constant": "00000000-0000-4000-8000-000000000000"}}}, "is unique (person_token_key)"),
        ({"person": {"mail": {"constant": "a@b"}}}, "is unique (person_mail)"),
        ({"person": {"mail": None}}, "cannot be null"),
        ({"person": {"extra": "hash"}}, "cannot be hashed"),
        ({"person": {"mood": {"fake": "name"}}}, "is no text"),
        ({"person": {"name": {"fake": "date"}}}, "is no date"),
        ({"login": {"at": {"fake": "date"}}}, "has no primary key"),
        ({"person": {"code": {"fake": "email"}}}, "too short for fake: email"),
        ({"person": {"mood": {"constant": "ugly"}}}, "is no value of person.mood"),
        ({"person": {"code": {"constant": "longer than twelve"}}}, "is no value of person.code"),
    ],
    ids=lambda value: "-".join(value.split()[:6]) if isinstance(value, str) else "",
)
def test_rules_that_would_break_something_are_refused(copy: Target, tables: dict[str, Any], words: str) -> None:
    assert words in refused(copy, tables)


def test_every_problem_is_named_at_once(copy: Target) -> None:
    words = refused(copy, {"person": {"extra": "hash", "ears": "hash"}, "nobody": {"x": None}})
    assert "extra" in words and "ears" in words and "nobody" in words


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE person SET name = 'Real Name 3' WHERE id = (SELECT min(id) FROM person)", "MASKING_LEFT_ORIGINAL"),
        ("UPDATE person SET nick = 'NOT A HASH' WHERE id = (SELECT min(id) FROM person)", "MASKING_FORMAT_WRONG"),
        ("UPDATE login SET at = now() WHERE nick = (SELECT min(nick) FROM login)", "MASKING_FORMAT_WRONG"),
        ("DELETE FROM visit WHERE id = 5", "MASKING_INCOMPLETE"),
        ("DELETE FROM friend", "FOREIGN_KEY_BROKEN"),
    ],
    ids=["original", "format", "not null", "rows lost", "orphans"],
)
def test_the_proof_fails_for_the_right_reason(copy: Target, statement: str, code: str) -> None:
    """The last change is made behind the masking's back, as a fault of it would be."""
    masked = mask(copy)
    with connect(copy, settings={"search_path": "public", "session_replication_role": "replica"}) as connection:
        query(connection, statement)
    check = prove_masked(copy, masked, Progress())
    assert check.status is Status.FAILED
    assert code in codes(check)
    assert not any("real.org" in finding.message for finding in check.findings)


def test_the_proof_fails_where_values_are_still_those_of_their_rows(copy: Target) -> None:
    masked = mask(copy, {"person": {"born": {"fake": "date"}}})
    execute(copy, "ALTER TABLE person DISABLE TRIGGER ALL", "UPDATE person SET born = date '1970-01-01' + id * 97")
    check = prove_masked(copy, masked, Progress())
    assert codes(check) == {"MASKING_UNCHANGED"}


def test_the_proof_sees_values_in_statistics(copy: Target) -> None:
    masked = mask(copy, {"person": {"name": {"fake": "name"}}})
    execute(
        copy,
        "ALTER TABLE person DISABLE TRIGGER ALL",
        "CREATE TABLE saved AS SELECT id, name FROM person",
        "UPDATE person SET name = 'Real Name ' || id % 7",
        "ANALYZE person",
        "UPDATE person AS p SET name = s.name FROM saved AS s WHERE s.id = p.id",
    )
    assert codes(prove_masked(copy, masked, Progress())) == {"MASKING_LEFT_STATISTICS"}


def test_without_the_proofs_digests_nothing_is_proved(copy: Target) -> None:
    masked = mask(copy)
    drop_proof(copy)
    check = prove_masked(copy, masked, Progress())
    assert check.status is not Status.PASSED and "MASKING_NOT_PROVED" in codes(check)


def test_a_failure_midway_leaves_the_copy_as_it_was(copy: Target) -> None:
    execute(copy, "ALTER TABLE login ADD CHECK (mail LIKE '%real.org')")
    before = rows(copy, "SELECT sum(hashtextextended(p::text, 0)) FROM person AS p")
    with pytest.raises(ProofFailed, match="MASKING_FAILED") as caught:
        mask(copy)
    assert "login_mail_check" in caught.value.message and "Person" not in caught.value.message
    assert rows(copy, "SELECT sum(hashtextextended(p::text, 0)) FROM person AS p") == before


def test_too_few_values_are_an_error_and_no_endless_work(empty_database: Target) -> None:
    execute(
        empty_database,
        "CREATE TABLE t (id smallint PRIMARY KEY)",
        "INSERT INTO t SELECT i FROM generate_series(1, 32000) AS i",
    )
    with pytest.raises(ProofFailed, match="MASKING_EXHAUSTED"):
        mask(empty_database, {"t": {"id": "hash"}})


@pytest.fixture
def owner(server17: Cluster, empty_database: Target) -> Iterator[Target]:
    """The owner of the tables, no superuser."""
    role = f"owner_{empty_database.database}"
    execute(
        empty_database,
        f"CREATE ROLE {role} LOGIN",
        f"ALTER DATABASE {empty_database.database} OWNER TO {role}",
        "CREATE TABLE parent (id integer PRIMARY KEY, mail text)",
        "CREATE TABLE child (id integer REFERENCES parent)",
        "CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''boom''; END'",
        "CREATE TRIGGER boom BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION boom()",
        "INSERT INTO parent VALUES (1, 'a@real.org')",
        f"ALTER TABLE parent OWNER TO {role}",
        f"ALTER TABLE child OWNER TO {role}",
    )
    yield Target({**empty_database.parameters, "user": role})
    execute(empty_database, f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_an_owner_masks_what_is_no_key_and_fires_no_trigger(owner: Target) -> None:
    masked = mask(owner, {"parent": {"mail": {"fake": "email"}}})
    assert prove_masked(owner, masked, Progress()).status is Status.PASSED
    with pytest.raises(psycopg2.Error, match="boom"):
        execute(owner, "UPDATE parent SET mail = 'x'")


def test_an_owner_cannot_mask_keys(owner: Target) -> None:
    with pytest.raises(SourceError, match="MASKING_DENIED"):
        mask(owner, {"parent": {"id": "hash"}})


def test_the_secret_is_in_no_statement(tmp_path: Path) -> None:
    settings = {"fsync": "off", "log_statement": "all", "log_parameter_max_length": "-1", "logging_collector": "on"}
    with running_cluster(toolchain_of(17), purpose="logged", settings=settings) as cluster:
        execute(cluster.target(), "CREATE TABLE person (id integer PRIMARY KEY, mail text)")
        execute(cluster.target(), "INSERT INTO person VALUES (1, 'a@real.org')")
        mask(cluster.target(), {"person": {"mail": {"fake": "email"}}})
        folder = Path(rows(cluster.target(), "SHOW data_directory")[0][0])
        log = "".join(file.read_text() for file in (folder / "log").iterdir())
    assert "gs_map_1" in log, "the statements are logged"
    assert SECRET.decode() not in log
    import hashlib
    import hmac

    for half in (b"outer", b"inner"):
        assert hmac.new(SECRET, half, hashlib.sha256).hexdigest() not in log


@pytest.mark.parametrize("major", [15])
def test_on_another_major(major: int) -> None:
    with running_cluster(toolchain_of(major), purpose="mask", settings={"fsync": "off"}) as cluster:
        execute(cluster.target(), SCHEMA)
        masked = mask(cluster.target())
        check = prove_masked(cluster.target(), masked, Progress())
        assert check.status is Status.PASSED, check.findings


def test_the_secret_has_to_be_there_and_long(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Anonymise.model_validate({"tables": {"t": {"c": "hash"}}, "key_env": "GS_BACKUP_TEST_MASKING_KEY"})
    for value, code in ((None, "MASKING_KEY_MISSING"), ("short", "MASKING_KEY_SHORT")):
        if value is not None:
            monkeypatch.setenv("GS_BACKUP_TEST_MASKING_KEY", value)
        with pytest.raises(BackupError, match=code):
            masking_secret(rules)
    monkeypatch.setenv("GS_BACKUP_TEST_MASKING_KEY", "a long enough secret")
    assert masking_secret(rules) == b"a long enough secret"
    assert len(masking_secret(rules_of({"t": {"c": "hash"}}))) == 32
