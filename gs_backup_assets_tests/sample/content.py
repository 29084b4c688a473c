"""What a sample database holds, as hashes and counts that two databases can be compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gs_backup_assets.postgres.connection import query

from .rules_by_hand import RULES

if TYPE_CHECKING:
    from gs_backup_assets.postgres.connection import Connection

TABLES = [
    "Account",
    "BackgroundJobLog",
    "Curriculum",
    "CurriculumItem",
    "CurriculumSection",
    "EmailPreference",
    "EmailTemplate",
    "Invoice",
    "InvoiceItem",
    "Lesson",
    "LessonAttachment",
    "LessonLink",
    "LibraryItem",
    "MonthlyBilling",
    "PasswordResetToken",
    "Recommendation",
    "RecurringSlot",
    "Session",
    "SlotSubscription",
    "StudentChecklist",
    "StudentChecklistItem",
    "StudentCurriculumProgress",
    "StudentInvitation",
    "StudentItemProgress",
    "StudentProfile",
    "SystemSettings",
    "TeacherAvailability",
    "TeacherLessonSettings",
    "TeacherProfile",
    "User",
    "VerificationToken",
]


def hashes(connection: Connection) -> dict[str, tuple[int, int]]:
    """Row count and a sum of row hashes per table, and of the materialized view, the sequence and the large object."""
    found: dict[str, tuple[int, int]] = {}
    for name in [*TABLES, "TeacherMonthlyIncome", "invoice_number_seq"]:
        # log_cnt, a column of every sequence, depends on when the server last wrote a checkpoint.
        row = '(t."last_value")::text' if name == "invoice_number_seq" else "t::text"
        number = f"('x' || left(md5({row}), 12))::bit(48)::bigint"
        count, total = query(connection, f'SELECT count(*), sum({number})::bigint FROM public."{name}" AS t')[0]
        found[name] = (int(count), int(total))
    objects = query(connection, "SELECT oid::bigint, hashtext(encode(lo_get(oid), 'hex')) FROM pg_largeobject_metadata")
    found["large object"] = (int(objects[0][0]), int(objects[0][1]))
    return found


def broken_rules(connection: Connection) -> set[str]:
    """The ids of the rules that at least one row breaks."""
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = public")
    try:
        return {rule for rule, sql in RULES.items() if query(connection, sql)[0][0] > 0}
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = pg_catalog")
