"""The data rules written once more, by hand: each query counts the rows that break its rule."""

from __future__ import annotations


def _orphans(table: str, column: str, parent: str) -> str:
    return (
        f'SELECT count(*) FROM "{table}" AS c WHERE c."{column}" IS NOT NULL'
        f' AND NOT EXISTS (SELECT FROM "{parent}" AS p WHERE p."id" = c."{column}")'
    )


def _rows(table: str, condition: str) -> str:
    return f'SELECT count(*) FROM "{table}" WHERE {condition}'


def _repeated(table: str, key: str) -> str:
    return f'SELECT count(*) FROM (SELECT FROM "{table}" GROUP BY {key} HAVING count(*) > 1) AS repeated'


def _roles(table: str, allowed: str) -> str:
    return (
        f'SELECT count(*) FROM "{table}" AS p JOIN "User" AS u ON u."id" = p."userId" WHERE u."role" NOT IN ({allowed})'
    )


RULES = {
    "user_email_missing": _rows("User", """coalesce("email", '') = ''"""),
    "user_email_malformed": _rows("User", r""""email" <> '' AND "email" !~ '^[^@\s]+@[^@\s]+\.[^@\s.]+$'"""),
    "user_email_duplicate": _repeated("User", 'lower("email")'),
    "user_name_missing": _rows("User", """coalesce(btrim("name"), '') = ''"""),
    "lesson_without_teacher": _rows("Lesson", '"teacherId" IS NULL'),
    "lesson_without_student": _rows("Lesson", '"studentId" IS NULL'),
    "lesson_orphaned_teacher": _orphans("Lesson", "teacherId", "TeacherProfile"),
    "lesson_orphaned_student": _orphans("Lesson", "studentId", "StudentProfile"),
    "student_profile_orphaned": _orphans("StudentProfile", "userId", "User"),
    "student_profile_orphaned_teacher": _orphans("StudentProfile", "teacherId", "TeacherProfile"),
    "teacher_profile_orphaned": _orphans("TeacherProfile", "userId", "User"),
    "invoice_total_negative": _rows("Invoice", '"total" < 0'),
    "invoice_subtotal_negative": _rows("Invoice", '"subtotal" < 0'),
    "invoice_total_matches_items": """
        SELECT count(*) FROM "Invoice" AS i
        LEFT JOIN (SELECT "invoiceId", sum("amount") AS s FROM "InvoiceItem" GROUP BY 1) AS x ON x."invoiceId" = i."id"
        WHERE (i."total", i."subtotal") IS DISTINCT FROM (x.s, x.s)""",
    "invoice_paid_has_paid_at": _rows("Invoice", """("status" = 'PAID') <> ("paidAt" IS NOT NULL)"""),
    "invoice_orphaned_teacher": _orphans("Invoice", "teacherId", "TeacherProfile"),
    "invoice_number_duplicate": _repeated("Invoice", '"teacherId", "invoiceNumber"'),
    "invoice_month_malformed": _rows("Invoice", """"month" !~ '^[0-9]{4}-(0[1-9]|1[0-2])$'"""),
    "invoice_item_orphaned": _orphans("InvoiceItem", "invoiceId", "Invoice"),
    "invoice_item_amount": _rows("InvoiceItem", '"amount" <> "quantity" * "rate"'),
    "lesson_duration_range": _rows("Lesson", '"duration" NOT BETWEEN 15 AND 240'),
    "lesson_rating_range": _rows(
        "Lesson", '"studentRating" NOT BETWEEN 1 AND 5 OR "teacherRating" NOT BETWEEN 1 AND 5'
    ),
    "lesson_price_negative": _rows("Lesson", '"price" < 0'),
    "lesson_completed_in_future": _rows("Lesson", """"status" = 'COMPLETED' AND "date" > "updatedAt" """),
    "recurring_slot_day_of_week": _rows("RecurringSlot", '"dayOfWeek" NOT BETWEEN 0 AND 6'),
    "recurring_slot_duration_range": _rows("RecurringSlot", '"duration" NOT BETWEEN 15 AND 240'),
    "recurring_slot_cancelled_at": _rows("RecurringSlot", """"status" = 'CANCELLED' AND "cancelledAt" IS NULL"""),
    "subscription_month_order": _rows(
        "SlotSubscription",
        """"startMonth" !~ '^[0-9]{4}-(0[1-9]|1[0-2])$' OR "endMonth" !~ '^[0-9]{4}-(0[1-9]|1[0-2])$'"""
        """ OR "endMonth" < "startMonth" """,
    ),
    "subscription_rate_negative": _rows("SlotSubscription", '"monthlyRate" < 0'),
    "monthly_billing_amount": _rows(
        "MonthlyBilling", '"totalAmount" < 0 OR "totalAmount" <> "ratePerLesson" * "actualLessons"'
    ),
    "curriculum_progress_percent": _rows("StudentCurriculumProgress", '"progressPercent" NOT BETWEEN 0 AND 100'),
    "curriculum_progress_items": _rows("StudentCurriculumProgress", '"completedItems" NOT BETWEEN 0 AND "totalItems"'),
    "item_progress_completed_at": _rows("StudentItemProgress", """"status" = 'COMPLETED' AND "completedAt" IS NULL"""),
    "checklist_item_completed_at": _rows("StudentChecklistItem", '"isCompleted" AND "completedAt" IS NULL'),
    "availability_time_order": _rows(
        "TeacherAvailability",
        """"startTime" !~ '^([01][0-9]|2[0-3]):[0-5][0-9]$' OR "endTime" !~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'"""
        """ OR "startTime" >= "endTime" """,
    ),
    "student_profile_role": _roles("StudentProfile", "'STUDENT'"),
    "teacher_profile_role": _roles("TeacherProfile", "'TEACHER', 'ADMIN'"),
    "library_item_size_negative": _rows("LibraryItem", '"fileSize" < 0'),
    "teacher_price_negative": _rows("TeacherLessonSettings", '"price30Min" < 0 OR "price60Min" < 0'),
}
