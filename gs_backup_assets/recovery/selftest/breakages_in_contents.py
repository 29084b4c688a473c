"""Backups that are consistent, but of a database that was changed: what no checksum can see and only a restore can."""

from __future__ import annotations

from functools import partial

from gs_backup_assets.recovery.selftest.breakages import Breakage, Copy
from gs_backup_assets.sample.generate import TERMS_OID

# What the sample does not have and a dump can lose: roles and privileges, row security, partitions, types that are
# hard to write down exactly. Names are unqualified: the statements run with `public` as the search path.
FURNISHINGS = (
    "CREATE ROLE studio_app NOLOGIN",
    "CREATE ROLE studio_reports NOLOGIN",
    "CREATE ROLE studio_clock NOLOGIN",
    "GRANT USAGE ON SCHEMA public TO studio_app, studio_reports",
    'GRANT SELECT, INSERT, UPDATE ON "Lesson" TO studio_app',
    'GRANT SELECT ("name") ON "User" TO studio_reports',
    "ALTER DEFAULT PRIVILEGES FOR ROLE studio_app IN SCHEMA public GRANT SELECT ON TABLES TO studio_reports",
    'ALTER TABLE "LibraryItem" OWNER TO studio_app',
    'ALTER TABLE "Invoice" ADD CONSTRAINT "Invoice_total_check" CHECK ("total" >= 0)',
    "CREATE DOMAIN tempo AS integer CHECK (VALUE BETWEEN 20 AND 400)",
    "CREATE TABLE practice (at timestamptz NOT NULL, piece text, bpm tempo, loudness double precision, price numeric,"
    " take bytea, facts jsonb, tags text[]) PARTITION BY RANGE (at)",
    "CREATE TABLE practice_2025 PARTITION OF practice FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z')",
    "CREATE TABLE practice_2026 PARTITION OF practice FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')",
    "INSERT INTO practice SELECT timestamptz '2025-07-01Z' + n * interval '41 hours', 'Étude ' || n, 60 + n % 90,"
    " sin(n), n * 1.10, decode(md5(n::text), 'hex'), jsonb_build_object('take', n), ARRAY['slow', n::text]"
    " FROM generate_series(1, 200) AS n",
    "CREATE TABLE goal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL, note text)",
    "INSERT INTO goal (text) SELECT 'Goal ' || n FROM generate_series(1, 20) AS n",
    "ALTER TABLE goal ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY goal_readable ON goal FOR SELECT USING (note IS NULL)",
    "CREATE RULE goal_kept AS ON DELETE TO goal DO INSTEAD NOTHING",
    "CREATE STATISTICS practice_correlated ON piece, bpm FROM practice",
    "ALTER ROLE studio_clock IN DATABASE studio SET statement_timeout = '30s'",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO studio_reports",
    "CREATE ROLE studio_idle NOLOGIN",
    "GRANT studio_reports TO studio_app",
    "ALTER ROLE studio_app SET work_mem = '5MB'",
    f"COMMENT ON LARGE OBJECT {TERMS_OID} IS 'Terms of 2026'",
    f"GRANT SELECT ON LARGE OBJECT {TERMS_OID} TO studio_reports",
    "CREATE FUNCTION letter() RETURNS text LANGUAGE sql AS $$SELECT E'Dear student,\n\n\nsee you'::text\n\n$$",
    "CREATE FUNCTION hand_over() RETURNS void LANGUAGE plpgsql AS"
    " $$\nBEGIN\nALTER TABLE goal OWNER TO studio_app;\nEND$$",
)

# What happens in the source between the older backup and the newer one.
LATER = (
    'UPDATE "Lesson" SET "notes" = \'Moved on to the second study.\', "version" = "version" + 1'
    ' WHERE "id" IN (SELECT "id" FROM "Lesson" ORDER BY "id" LIMIT 5)',
    "INSERT INTO practice SELECT at + interval '1 year', piece FROM practice_2025 LIMIT 3",
    "SELECT nextval('invoice_number_seq')",
)

_FIRST = 'WHERE "id" = (SELECT min("id") FROM "{}")'
_ONE_PRACTICE = "WHERE at = (SELECT min(at) FROM practice)"


def _dump_changed(copy: Copy, *, statements: tuple[str, ...]) -> None:
    copy.replace_dump(copy.dump_changed(statements))


def _changed(name: str, title: str, code: str, *statements: str) -> Breakage:
    return Breakage(name, title, (code,), partial(_dump_changed, statements=statements))


ROWS: tuple[Breakage, ...] = (
    _changed("table_lost", "the dump lacks a table", "TABLE_MISSING", 'DROP TABLE "Recommendation"'),
    _changed("table_emptied", "the dump lacks all rows of a table", "ROWS_DIFFER", 'DELETE FROM "LessonLink"'),
    _changed("table_added", "the dump has a table too many", "TABLE_UNEXPECTED", "CREATE TABLE stranger (n integer)"),
    _changed("row_lost", "one row is lost", "ROWS_DIFFER", f"DELETE FROM practice {_ONE_PRACTICE}"),
    _changed(
        "row_doubled",
        "one row is there twice",
        "ROWS_DIFFER",
        f"INSERT INTO practice SELECT * FROM practice {_ONE_PRACTICE}",
    ),
    _changed(
        "row_replaced",
        "one row is lost and another is there twice",
        "CONTENTS_DIFFER",
        f"DELETE FROM practice {_ONE_PRACTICE}",
        f"INSERT INTO practice SELECT * FROM practice {_ONE_PRACTICE}",
    ),
    _changed(
        "parent_lost",
        "a row is lost that others refer to",
        "FOREIGN_KEY_VIOLATED",
        'DELETE FROM "Invoice" WHERE "id" = (SELECT min("invoiceId") FROM "InvoiceItem")',
    ),
    _changed(
        "character_changed",
        "one character of one value is another",
        "CONTENTS_DIFFER",
        f"""UPDATE "User" SET "name" = overlay("name" placing '#' from 2 for 1) {_FIRST.format("User")}""",
    ),
    _changed(
        "values_swapped",
        "two rows have each other's value",
        "CONTENTS_DIFFER",
        'UPDATE "User" AS u SET "name" = o."name" FROM (SELECT min("id") AS a, max("id") AS b FROM "User") AS pair,'
        ' "User" AS o WHERE (u."id", o."id") IN ((a, b), (b, a))',
    ),
    _changed(
        "null_became_empty",
        "a NULL became an empty string",
        "CONTENTS_DIFFER",
        "UPDATE goal SET note = '' WHERE id = 7",
    ),
    _changed(
        "space_appended",
        "a text has one more space",
        "CONTENTS_DIFFER",
        "UPDATE goal SET text = text || ' ' WHERE id = 7",
    ),
    _changed(
        "unicode_decomposed",
        "an accent became a character of its own",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET piece = normalize(piece, NFD) {_ONE_PRACTICE}",
    ),
    _changed(
        "microsecond_off",
        "a time is off by one microsecond",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET at = at + interval '1 microsecond' {_ONE_PRACTICE}",
    ),
    _changed(
        "float_rounded",
        "a float lost its last digits",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET loudness = round(loudness::numeric, 15) {_ONE_PRACTICE}",
    ),
    _changed(
        "scale_lost",
        "a numeric lost its trailing zero",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET price = trim_scale(price) {_ONE_PRACTICE}",
    ),
    _changed(
        "byte_changed",
        "one byte of a bytea is another",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET take = set_byte(take, 5, 0) {_ONE_PRACTICE}",
    ),
    _changed(
        "json_changed",
        "one value in a document is another",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET facts = '{{\"take\": 0}}' {_ONE_PRACTICE}",
    ),
    _changed(
        "array_reordered",
        "an array has another order",
        "CONTENTS_DIFFER",
        f"UPDATE practice SET tags = ARRAY[tags[2], tags[1]] {_ONE_PRACTICE}",
    ),
    _changed(
        "sequence_back",
        "a sequence is set back by one",
        "SEQUENCE_DIFFERS",
        "SELECT setval('invoice_number_seq', last_value - 1) FROM invoice_number_seq",
    ),
    _changed("sequence_lost", "a sequence is missing", "SEQUENCE_MISSING", "DROP SEQUENCE invoice_number_seq"),
    _changed(
        "identity_back", "an identity column starts again", "SEQUENCE_DIFFERS", "ALTER TABLE goal ALTER id RESTART"
    ),
    _changed(
        "object_changed",
        "one byte of a large object is another",
        "LARGE_OBJECTS_DIFFER",
        f"SELECT lo_put({TERMS_OID}, 100, '\\x00')",
    ),
    _changed("object_lost", "a large object is lost", "LARGE_OBJECTS_DIFFER", f"SELECT lo_unlink({TERMS_OID})"),
    _changed(
        "object_owner",
        "a large object has another owner",
        "LARGE_OBJECTS_DIFFER",
        f"ALTER LARGE OBJECT {TERMS_OID} OWNER TO studio_app",
    ),
)

SCHEMA: tuple[Breakage, ...] = (
    _changed("index_lost", "an index is missing", "OBJECT_MISSING", 'DROP INDEX "Lesson_date_idx"'),
    _changed(
        "index_weaker",
        "a unique index is not unique",
        "OBJECT_DIFFERS",
        'DROP INDEX "User_email_key"',
        'CREATE INDEX "User_email_key" ON "User" ("email")',
    ),
    _changed(
        "primary_key_lost", "a primary key is missing", "OBJECT_MISSING", "ALTER TABLE goal DROP CONSTRAINT goal_pkey"
    ),
    _changed(
        "foreign_key_lost",
        "a foreign key is missing",
        "OBJECT_MISSING",
        'ALTER TABLE "Lesson" DROP CONSTRAINT "Lesson_studentId_fkey"',
    ),
    _changed(
        "foreign_key_action",
        "a foreign key acts differently",
        "OBJECT_DIFFERS",
        'ALTER TABLE "Session" DROP CONSTRAINT "Session_userId_fkey",'
        ' ADD CONSTRAINT "Session_userId_fkey" FOREIGN KEY ("userId") REFERENCES "User" ("id") ON UPDATE CASCADE',
    ),
    _changed(
        "check_lost",
        "a check constraint is missing",
        "OBJECT_DIFFERS",
        'ALTER TABLE "Invoice" DROP CONSTRAINT "Invoice_total_check"',
    ),
    _changed(
        "not_null_lost", "a column may be NULL", "OBJECT_DIFFERS", 'ALTER TABLE "User" ALTER "name" DROP NOT NULL'
    ),
    _changed(
        "default_changed", "a default is another", "OBJECT_DIFFERS", 'ALTER TABLE "Lesson" ALTER "price" SET DEFAULT 1'
    ),
    _changed(
        "type_changed",
        "a column has another type",
        "OBJECT_DIFFERS",
        'ALTER TABLE "LibraryItem" ALTER "fileSize" TYPE bigint',
    ),
    _changed("column_lost", "a column is missing", "OBJECT_DIFFERS", 'ALTER TABLE "Lesson" DROP COLUMN "homework"'),
    _changed(
        "domain_weaker", "a domain lost its check", "OBJECT_DIFFERS", "ALTER DOMAIN tempo DROP CONSTRAINT tempo_check"
    ),
    _changed(
        "label_added",
        "an enumerated type has one more label",
        "OBJECT_DIFFERS",
        "ALTER TYPE \"Role\" ADD VALUE 'GUEST'",
    ),
    _changed(
        "partition_detached",
        "a partition is not attached",
        "OBJECT_MISSING",
        "ALTER TABLE practice DETACH PARTITION practice_2025",
    ),
    _changed("trigger_lost", "a trigger is missing", "OBJECT_MISSING", 'DROP TRIGGER "Lesson_updatedAt" ON "Lesson"'),
    _changed(
        "trigger_disabled",
        "a trigger is disabled",
        "OBJECT_DIFFERS",
        'ALTER TABLE "Lesson" DISABLE TRIGGER "Lesson_updatedAt"',
    ),
    _changed(
        "function_changed",
        "a function has another body",
        "OBJECT_DIFFERS",
        "CREATE OR REPLACE FUNCTION keep_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
    ),
    _changed(
        "view_changed",
        "a view shows other rows",
        "OBJECT_DIFFERS",
        """DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW "UpcomingLesson" AS '
        || replace(pg_get_viewdef('"UpcomingLesson"'::regclass), 'SCHEDULED', 'MISSED'); END $$""",
    ),
    _changed(
        "materialized_view_lost",
        "a materialized view is missing",
        "OBJECT_MISSING",
        'DROP MATERIALIZED VIEW "TeacherMonthlyIncome"',
    ),
    _changed("extension_lost", "an extension is missing", "OBJECT_MISSING", "DROP EXTENSION pg_trgm CASCADE"),
    _changed(
        "statistics_lost", "extended statistics are missing", "OBJECT_MISSING", "DROP STATISTICS practice_correlated"
    ),
    _changed("rule_lost", "a rule is missing", "OBJECT_MISSING", "DROP RULE goal_kept ON goal"),
    _changed("policy_lost", "a row security policy is missing", "OBJECT_MISSING", "DROP POLICY goal_readable ON goal"),
    _changed(
        "row_security_off", "row security is off", "OBJECT_MISSING", "ALTER TABLE goal DISABLE ROW LEVEL SECURITY"
    ),
    _changed("comment_lost", "a comment is missing", "OBJECT_MISSING", 'COMMENT ON TABLE "Lesson" IS NULL'),
    _changed(
        "owner_changed",
        "a table has another owner",
        "OWNER_DIFFERS",
        'ALTER TABLE "LibraryItem" OWNER TO studio_reports',
    ),
    _changed("grant_lost", "a grant is missing", "OBJECT_DIFFERS", 'REVOKE UPDATE ON "Lesson" FROM studio_app'),
    _changed(
        "column_grant_lost",
        "a grant on a column is missing",
        "OBJECT_MISSING",
        'REVOKE SELECT ("name") ON "User" FROM studio_reports',
    ),
    _changed(
        "default_grant_lost",
        "one of two roles lacks its default privileges",
        "OBJECT_MISSING",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM studio_reports",
    ),
    _changed(
        "view_emptied",
        "a materialized view is not populated",
        "MATERIALIZED_VIEW_UNPOPULATED",
        'REFRESH MATERIALIZED VIEW "TeacherMonthlyIncome" WITH NO DATA',
    ),
    _changed(
        "object_comment_lost",
        "the comment on a large object is missing",
        "LARGE_OBJECTS_DIFFER",
        f"COMMENT ON LARGE OBJECT {TERMS_OID} IS NULL",
    ),
    _changed(
        "object_grant_lost",
        "the grant on a large object is missing",
        "LARGE_OBJECTS_DIFFER",
        f"REVOKE ALL ON LARGE OBJECT {TERMS_OID} FROM studio_reports",
    ),
    _changed(
        "blank_lines_lost",
        "a function's body lacks blank lines",
        "OBJECT_DIFFERS",
        "CREATE OR REPLACE FUNCTION letter() RETURNS text LANGUAGE sql AS"
        " $$SELECT E'Dear student,\n\n\nsee you'::text\n$$",
    ),
    _changed(
        "owner_line_lost",
        "a function's body lacks a line that looks like pg_dump's own",
        "OBJECT_DIFFERS",
        "CREATE OR REPLACE FUNCTION hand_over() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\nEND$$",
    ),
)
