"""Defects to plant in a sample database, one at a time, each with the data rule that must catch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gs_backup_assets.errors import ConfigError
from gs_backup_assets.sample.session import transaction

if TYPE_CHECKING:
    from gs_backup_assets.postgres.connection import Connection
else:
    Connection = Any


@dataclass(frozen=True)
class Sabotage:
    """One defect.

    `kind` is its name on the command line, `title` a sentence for people, `rule` the id of the data rule that must
    catch it, `statements` the SQL that plants it, and `also` the rules that cannot but catch it too, because the
    defect contradicts them by arithmetic.
    """

    kind: str
    title: str
    rule: str
    statements: tuple[str, ...]
    also: tuple[str, ...] = ()


# An id in the form of all others that no row has.
_NOBODY = "cm9zzzzzzznobodyhasthisid"

# Rows are chosen by the lowest id, so that the same sample gets the same defect every time.
_STUDENT_USER = """(SELECT min("userId") FROM "StudentProfile")"""
_TEACHER_USER = """(SELECT max("userId") FROM "TeacherProfile")"""
_HELD_LESSON = """(SELECT min("id") FROM "Lesson" WHERE "status" = 'COMPLETED')"""
_PAID_INVOICE = """(SELECT min("id") FROM "Invoice" WHERE "status" = 'PAID' AND "studentId" IS NOT NULL)"""


def _first(table: str, condition: str = "true") -> str:
    return f'(SELECT min("id") FROM "{table}" WHERE {condition})'


def _set(table: str, assignment: str, row: str | None = None) -> str:
    return f'UPDATE "{table}" SET {assignment} WHERE "id" = {row or _first(table)}'


def _nullable(table: str, column: str) -> str:
    return f'ALTER TABLE "{table}" ALTER COLUMN "{column}" DROP NOT NULL'


_ALL = (
    Sabotage(
        "empty-email",
        "A user's e-mail is empty.",
        "user_email_missing",
        (_set("User", "\"email\" = ''", _STUDENT_USER),),
    ),
    Sabotage(
        "null-email",
        "User.email lost its NOT NULL, and one is null.",
        "user_email_missing",
        (_nullable("User", "email"), _set("User", '"email" = NULL', _STUDENT_USER)),
    ),
    Sabotage(
        "malformed-email",
        "A user's e-mail has no @.",
        "user_email_malformed",
        (_set("User", """"email" = replace("email", '@', '(at)')""", _STUDENT_USER),),
    ),
    Sabotage(
        "duplicate-email",
        "Two users have the same e-mail but for upper case, which the unique index lets through.",
        "user_email_duplicate",
        (_set("User", f'"email" = (SELECT upper("email") FROM "User" WHERE "id" = {_TEACHER_USER})', _STUDENT_USER),),
    ),
    Sabotage("empty-name", "A user has no name.", "user_name_missing", (_set("User", "\"name\" = ''", _STUDENT_USER),)),
    Sabotage(
        "lesson-without-teacher",
        "Lesson.teacherId lost its NOT NULL, and one is null.",
        "lesson_without_teacher",
        (_nullable("Lesson", "teacherId"), _set("Lesson", '"teacherId" = NULL', _HELD_LESSON)),
    ),
    Sabotage(
        "lesson-without-student",
        "Lesson.studentId lost its NOT NULL, and one is null.",
        "lesson_without_student",
        (_nullable("Lesson", "studentId"), _set("Lesson", '"studentId" = NULL', _HELD_LESSON)),
    ),
    Sabotage(
        "orphaned-lesson",
        "A lesson names a student that does not exist.",
        "lesson_orphaned_student",
        (_set("Lesson", f"\"studentId\" = '{_NOBODY}'", _HELD_LESSON),),
    ),
    Sabotage(
        "orphaned-lesson-teacher",
        "A lesson names a teacher that does not exist.",
        "lesson_orphaned_teacher",
        (_set("Lesson", f"\"teacherId\" = '{_NOBODY}'", _HELD_LESSON),),
    ),
    Sabotage(
        "orphaned-student-profile",
        "A student profile names a user that does not exist.",
        "student_profile_orphaned",
        (_set("StudentProfile", f"\"userId\" = '{_NOBODY}'"),),
    ),
    Sabotage(
        "orphaned-student-profile-teacher",
        "A student profile names a teacher that does not exist.",
        "student_profile_orphaned_teacher",
        (_set("StudentProfile", f"\"teacherId\" = '{_NOBODY}'"),),
    ),
    Sabotage(
        "orphaned-teacher-profile",
        "A teacher profile names a user that does not exist.",
        "teacher_profile_orphaned",
        (_set("TeacherProfile", f"\"userId\" = '{_NOBODY}'"),),
    ),
    Sabotage(
        "negative-invoice-total",
        "A refund larger than the month's lessons turned an invoice negative.",
        "invoice_total_negative",
        (
            'INSERT INTO "InvoiceItem" ("id", "invoiceId", "description", "rate", "amount", "createdAt")'
            f""" SELECT 'cm9zzzzzzzrefundxxxxxxxxx', "id", 'Refund', - "total" - 5000, - "total" - 5000, "createdAt" """
            f'FROM "Invoice" WHERE "id" = {_PAID_INVOICE}',
            _set("Invoice", '"total" = -5000, "subtotal" = -5000', _PAID_INVOICE),
        ),
        also=("invoice_subtotal_negative",),
    ),
    Sabotage(
        "negative-invoice-subtotal",
        "An invoice's subtotal has the wrong sign.",
        "invoice_subtotal_negative",
        (_set("Invoice", '"subtotal" = - "subtotal"', _PAID_INVOICE),),
        also=("invoice_total_matches_items",),
    ),
    Sabotage(
        "invoice-items-do-not-add-up",
        "An invoice asks for five dollars more than its items.",
        "invoice_total_matches_items",
        (_set("Invoice", '"total" = "total" + 500, "subtotal" = "subtotal" + 500', _PAID_INVOICE),),
    ),
    Sabotage(
        "paid-without-date",
        "An invoice is PAID without a date of payment.",
        "invoice_paid_has_paid_at",
        (_set("Invoice", '"paidAt" = NULL', _PAID_INVOICE),),
    ),
    Sabotage(
        "orphaned-invoice",
        "An invoice names a teacher that does not exist.",
        "invoice_orphaned_teacher",
        (_set("Invoice", f"\"teacherId\" = '{_NOBODY}'", _PAID_INVOICE),),
    ),
    Sabotage(
        "duplicate-invoice-number",
        "A teacher gave the same number to two invoices.",
        "invoice_number_duplicate",
        (
            'UPDATE "Invoice" AS i SET "invoiceNumber" = other."invoiceNumber" FROM "Invoice" AS other'
            f' WHERE i."id" = {_PAID_INVOICE} AND other."id" = (SELECT max("id") FROM "Invoice" AS o'
            ' WHERE o."teacherId" = i."teacherId" AND o."id" <> i."id")',
        ),
    ),
    Sabotage(
        "malformed-invoice-month",
        "An invoice's month is not written YYYY-MM.",
        "invoice_month_malformed",
        (_set("Invoice", """"month" = replace("month", '-', '/')""", _PAID_INVOICE),),
    ),
    Sabotage(
        "orphaned-invoice-item",
        "An item belongs to an invoice that does not exist.",
        "invoice_item_orphaned",
        (
            'INSERT INTO "InvoiceItem" ("id", "invoiceId", "description", "rate", "amount", "createdAt")'
            f""" SELECT 'cm9zzzzzzzorphanxxxxxxxxx', '{_NOBODY}', 'Method book', 1800, 1800, max("createdAt")"""
            ' FROM "Invoice"',
        ),
    ),
    Sabotage(
        "wrong-invoice-item-amount",
        "An item's amount is not its quantity times its rate.",
        "invoice_item_amount",
        (_set("InvoiceItem", '"rate" = "rate" + 100'),),
    ),
    Sabotage(
        "lesson-of-zero-minutes",
        "A lesson lasts no time.",
        "lesson_duration_range",
        (_set("Lesson", '"duration" = 0'),),
    ),
    Sabotage(
        "lesson-rating-out-of-range",
        "A lesson is rated 7 of 5.",
        "lesson_rating_range",
        (_set("Lesson", '"studentRating" = 7', _HELD_LESSON),),
    ),
    Sabotage(
        "negative-lesson-price",
        "A lesson costs less than nothing.",
        "lesson_price_negative",
        (_set("Lesson", '"price" = -4500', _HELD_LESSON),),
    ),
    Sabotage(
        "completed-lesson-in-future",
        "A lesson of next year is already COMPLETED.",
        "lesson_completed_in_future",
        (
            _set(
                "Lesson",
                '"date" = (SELECT greatest(max("updatedAt"), max("createdAt")) FROM "Lesson") + interval \'1 year\'',
                _HELD_LESSON,
            ),
        ),
    ),
    Sabotage(
        "slot-on-eighth-day",
        "A recurring slot is on day 7 of a week that has days 0 to 6.",
        "recurring_slot_day_of_week",
        (_set("RecurringSlot", '"dayOfWeek" = 7'),),
    ),
    Sabotage(
        "slot-of-five-minutes",
        "A recurring slot lasts five minutes.",
        "recurring_slot_duration_range",
        (_set("RecurringSlot", '"duration" = 5'),),
    ),
    Sabotage(
        "cancelled-slot-without-date",
        "A slot is CANCELLED without a date.",
        "recurring_slot_cancelled_at",
        (_set("RecurringSlot", '"cancelledAt" = NULL', _first("RecurringSlot", "\"status\" = 'CANCELLED'")),),
    ),
    Sabotage(
        "subscription-ends-before-start",
        "A subscription ended before it began.",
        "subscription_month_order",
        (_set("SlotSubscription", "\"endMonth\" = '2019-12'"),),
    ),
    Sabotage(
        "negative-subscription-rate",
        "A subscription costs less than nothing.",
        "subscription_rate_negative",
        (_set("SlotSubscription", '"monthlyRate" = - "monthlyRate"'),),
    ),
    Sabotage(
        "wrong-monthly-billing-amount",
        "A monthly billing's amount is negative, and not its rate times its lessons.",
        "monthly_billing_amount",
        (_set("MonthlyBilling", '"totalAmount" = -1'),),
    ),
    Sabotage(
        "progress-over-100-percent",
        "A curriculum is done to 140 per cent.",
        "curriculum_progress_percent",
        (_set("StudentCurriculumProgress", '"progressPercent" = 140'),),
    ),
    Sabotage(
        "more-items-than-total",
        "More items of a curriculum are complete than it has.",
        "curriculum_progress_items",
        (_set("StudentCurriculumProgress", '"completedItems" = "totalItems" + 3'),),
    ),
    Sabotage(
        "completed-item-without-date",
        "An item is COMPLETED without a date.",
        "item_progress_completed_at",
        (
            _set(
                "StudentItemProgress", '"completedAt" = NULL', _first("StudentItemProgress", "\"status\" = 'COMPLETED'")
            ),
        ),
    ),
    Sabotage(
        "completed-checklist-item-without-date",
        "A checklist item is completed without a date.",
        "checklist_item_completed_at",
        (_set("StudentChecklistItem", '"completedAt" = NULL', _first("StudentChecklistItem", '"isCompleted"')),),
    ),
    Sabotage(
        "availability-ends-before-start",
        "A teacher's hours end before they start.",
        "availability_time_order",
        (_set("TeacherAvailability", '"startTime" = "endTime", "endTime" = "startTime"'),),
    ),
    Sabotage(
        "student-profile-of-teacher",
        "The user of a student profile has the role TEACHER.",
        "student_profile_role",
        (_set("User", "\"role\" = 'TEACHER'", _STUDENT_USER),),
    ),
    Sabotage(
        "teacher-profile-of-student",
        "The user of a teacher profile has the role STUDENT.",
        "teacher_profile_role",
        (_set("User", "\"role\" = 'STUDENT'", _TEACHER_USER),),
    ),
    Sabotage(
        "negative-file-size",
        "A file of the library is smaller than nothing.",
        "library_item_size_negative",
        (_set("LibraryItem", '"fileSize" = -1'),),
    ),
    Sabotage(
        "negative-teacher-price",
        "A teacher's price of half an hour is negative.",
        "teacher_price_negative",
        (_set("TeacherLessonSettings", '"price30Min" = - "price30Min"'),),
    ),
)

SABOTAGES: Mapping[str, Sabotage] = MappingProxyType({sabotage.kind: sabotage for sabotage in _ALL})


def plant(connection: Connection, kind: str) -> Sabotage:
    """Plant the defect `kind` in the connection's sample database, in one transaction, and return what it was.

    The connection's role must be a superuser: foreign keys and triggers are bypassed with session_replication_role
    (PostgreSQL manual, "Client Connection Defaults"), so that nothing but the defect changes.

    Raises ConfigError: `UNKNOWN_SABOTAGE` with the kinds there are, `SABOTAGE_NOT_PLANTED` when the database has no
    row to spoil, `TRANSACTION_OPEN` for a connection inside a transaction. The database is unchanged then.
    """
    if kind not in SABOTAGES:
        raise ConfigError(
            "UNKNOWN_SABOTAGE", f"There is no sabotage {kind!r}.", f"Choose one of: {', '.join(sorted(SABOTAGES))}."
        )
    sabotage = SABOTAGES[kind]
    with transaction(connection) as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("SET LOCAL search_path = public")
        for statement in sabotage.statements:
            cursor.execute(statement)
            # -1 is what a statement without rows reports, such as ALTER TABLE.
            if cursor.rowcount == 0:
                raise ConfigError(
                    "SABOTAGE_NOT_PLANTED",
                    f"The database has no row in which to plant {kind}.",
                    "Plant it in a database made by `gs-backup sample`.",
                )
    return sabotage
