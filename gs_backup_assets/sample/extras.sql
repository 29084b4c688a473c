-- What a dump must carry besides tables: an extension, a sequence, triggers, views and comments.

CREATE EXTENSION pg_trgm WITH SCHEMA public;
CREATE INDEX "LibraryItem_title_trgm_idx" ON "LibraryItem" USING gin ("title" public.gin_trgm_ops);

-- The application takes the number of its next invoice from here.
CREATE SEQUENCE "invoice_number_seq" AS bigint;
SELECT setval('public.invoice_number_seq', count(*)) FROM "Invoice";

CREATE FUNCTION "keep_updated_at"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Never backwards: a clock that lags behind the stored time must not make a row look older than it is.
    NEW."updatedAt" := greatest(OLD."updatedAt", CURRENT_TIMESTAMP AT TIME ZONE 'UTC');
    RETURN NEW;
END
$$;
CREATE TRIGGER "User_updatedAt" BEFORE UPDATE ON "User"
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION "keep_updated_at"();
CREATE TRIGGER "Lesson_updatedAt" BEFORE UPDATE ON "Lesson"
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION "keep_updated_at"();
CREATE TRIGGER "Invoice_updatedAt" BEFORE UPDATE ON "Invoice"
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION "keep_updated_at"();

CREATE VIEW "UpcomingLesson" AS
SELECT l."id", l."date", l."duration", l."timezone", teacher."name" AS "teacherName", student."name" AS "studentName"
FROM "Lesson" AS l
JOIN "TeacherProfile" AS tp ON tp."id" = l."teacherId"
JOIN "User" AS teacher ON teacher."id" = tp."userId"
JOIN "StudentProfile" AS sp ON sp."id" = l."studentId"
JOIN "User" AS student ON student."id" = sp."userId"
WHERE l."status" = 'SCHEDULED';

CREATE MATERIALIZED VIEW "TeacherMonthlyIncome" AS
SELECT "teacherId", "month", count(*) AS "invoices", sum("total") AS "billedCents",
       sum("total") FILTER (WHERE "status" = 'PAID') AS "paidCents"
FROM "Invoice" GROUP BY "teacherId", "month";
CREATE UNIQUE INDEX "TeacherMonthlyIncome_teacherId_month_key" ON "TeacherMonthlyIncome" ("teacherId", "month");

COMMENT ON TABLE "Lesson" IS 'One lesson, planned or held; "date" is UTC, "timezone" is where it is shown.';
COMMENT ON TABLE "Invoice" IS 'A month''s bill; "subtotal" and "total" are cents and equal the sum of the items.';
COMMENT ON COLUMN "InvoiceItem"."rate" IS 'Cents per unit; amount = quantity * rate.';
COMMENT ON COLUMN "User"."password" IS 'bcrypt, null for people who sign in with a provider only.';
COMMENT ON SEQUENCE "invoice_number_seq" IS 'Last invoice number given out.';
COMMENT ON VIEW "UpcomingLesson" IS 'The calendar''s view of scheduled lessons.';
COMMENT ON MATERIALIZED VIEW "TeacherMonthlyIncome" IS 'Refreshed by a nightly job.';
COMMENT ON FUNCTION "keep_updated_at"() IS 'Keeps "updatedAt" current on every change.';
