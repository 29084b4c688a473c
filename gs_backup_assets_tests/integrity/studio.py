"""A studio in a few rows: tables without constraints, rows that obey every rule, and rows that break each of them."""

from __future__ import annotations

from gs_backup_assets.postgres.connection import Connection, query

PRODUCTION = {"user": '"User"', "lesson": '"Lesson"', "invoice": '"Invoice"'}
DOCUMENT = {"user": "users", "lesson": "lessons", "invoice": "invoices"}

# Columns beside the primary key `id`. Nothing is unique or NOT NULL, so that anything can be broken.
_COLUMNS = {
    "{user}": "email text, name text, role role_type",
    '"StudentProfile"': '"userId" text, "teacherId" text',
    '"TeacherProfile"': '"userId" text',
    '"TeacherLessonSettings"': '"price30Min" integer, "price60Min" integer',
    '"TeacherAvailability"': '"startTime" text, "endTime" text',
    "{lesson}": '"teacherId" text, "studentId" text, date timestamp(3), duration integer, status lesson_status,'
    ' "studentRating" integer, "teacherRating" integer, price integer, "updatedAt" timestamp(3)',
    '"RecurringSlot"': '"dayOfWeek" integer, duration integer, status slot_status, "cancelledAt" timestamp(3)',
    "{invoice}": '"teacherId" text, "invoiceNumber" text, month text, status invoice_status, subtotal integer,'
    ' total integer, "paidAt" timestamp(3)',
    '"InvoiceItem"': '"invoiceId" text, quantity integer, rate integer, amount integer',
    '"SlotSubscription"': '"startMonth" text, "endMonth" text, "monthlyRate" integer',
    '"MonthlyBilling"': '"ratePerLesson" integer, "actualLessons" integer, "totalAmount" integer',
    '"StudentCurriculumProgress"': '"totalItems" integer, "completedItems" integer, "progressPercent" double precision',
    '"StudentItemProgress"': 'status progress_status, "completedAt" timestamp(3)',
    '"StudentChecklistItem"': '"isCompleted" boolean, "completedAt" timestamp(3)',
    '"LibraryItem"': '"fileSize" integer',
}

# As production has them; in the strategy document's naming these columns are plain text here.
_ENUMS = {
    "role_type": "'STUDENT', 'TEACHER', 'ADMIN'",
    "lesson_status": "'SCHEDULED', 'COMPLETED', 'CANCELLED', 'MISSED', 'NO_SHOW'",
    "slot_status": "'ACTIVE', 'CANCELLED', 'SUSPENDED', 'EXPIRED'",
    "invoice_status": "'PENDING', 'SENT', 'VIEWED', 'PAID', 'OVERDUE', 'CANCELLED'",
    "progress_status": "'NOT_STARTED', 'IN_PROGRESS', 'COMPLETED', 'NEEDS_REVIEW'",
}

# The limits of every range are among them, and every state that a condition makes an exception of.
_SOUND = """
INSERT INTO {user} VALUES
    ('u1', 'ann@example.com', 'Ann', 'STUDENT'), ('u2', 'bob.b+x@mail.example.co.uk', 'Bob', 'TEACHER'),
    ('u3', 'cy@example.com', 'Cy', 'ADMIN');
INSERT INTO "TeacherProfile" VALUES ('t1', 'u2'), ('t2', 'u3');
INSERT INTO "StudentProfile" VALUES ('s1', 'u1', 't1');
INSERT INTO "TeacherLessonSettings" VALUES ('p1', 0, 6000);
INSERT INTO "TeacherAvailability" VALUES ('a1', '09:00', '17:30'), ('a2', '9:00', '10:00');
INSERT INTO {lesson} VALUES
    ('l1', 't1', 's1', '2026-01-05 10:00', 15, 'COMPLETED', 1, 5, 0, '2026-01-05 10:00'),
    ('l2', 't1', 's1', '2027-01-05 10:00', 240, 'SCHEDULED', NULL, NULL, 4500, '2026-01-05 10:00');
INSERT INTO "RecurringSlot" VALUES
    ('r1', 0, 15, 'ACTIVE', NULL), ('r2', 6, 240, 'CANCELLED', '2026-01-05');
INSERT INTO {invoice} VALUES
    ('i1', 't1', 'INV-1', '2026-01', 'PAID', 9000, 9000, '2026-02-01'),
    ('i2', 't1', 'INV-2', '2026-12', 'CANCELLED', 0, 0, NULL),
    ('i3', 't2', 'INV-1', '2026-10', 'SENT', 0, 0, NULL);
INSERT INTO "InvoiceItem" VALUES ('x1', 'i1', 2, 5000, 10000), ('x2', 'i1', 1, -1000, -1000);
INSERT INTO "SlotSubscription" VALUES ('b1', '2026-01', NULL, 0), ('b2', '2026-01', '2026-01', 18000);
INSERT INTO "MonthlyBilling" VALUES ('m1', 4500, 4, 18000), ('m2', 4500, 0, 0);
INSERT INTO "StudentCurriculumProgress" VALUES ('c1', 10, 10, 100), ('c2', 0, 0, 0);
INSERT INTO "StudentItemProgress" VALUES ('d1', 'COMPLETED', '2026-01-05'), ('d2', 'IN_PROGRESS', NULL);
INSERT INTO "StudentChecklistItem" VALUES ('e1', true, '2026-01-05'), ('e2', false, NULL);
INSERT INTO "LibraryItem" VALUES ('f1', 0);
"""

# Rows that have nothing but a key: only the rules that ask for a value may object.
_NOTHING = tuple(f"INSERT INTO {table} (id) VALUES ('nothing')" for table in _COLUMNS)

# Rule by rule: what breaks it, and the keys that it must name. No row breaks any rule but its own.
BREACHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "user_email_missing": (
        """INSERT INTO {user} VALUES ('empty', '', 'Di', 'STUDENT'), ('space', E' \\t\\n', 'Di', 'STUDENT')""",
        ("empty", "nothing", "space"),
    ),
    "user_email_malformed": (
        """INSERT INTO {user} VALUES ('no_at', 'di.example.com', 'Di'), ('no_dot', 'di@example', 'Di'),
           ('inner_space', 'd i@example.com', 'Di'), ('two_at', 'di@ed@example.com', 'Di')""",
        ("inner_space", "no_at", "no_dot", "two_at"),
    ),
    "user_email_duplicate": (
        "INSERT INTO {user} VALUES ('twin1', 'Twin@example.com', 'Di'), ('twin2', 'twin@EXAMPLE.com', 'Di')",
        ("twin1", "twin2"),
    ),
    "user_name_missing": (
        "INSERT INTO {user} VALUES ('no_name', 'no.name@example.com', '  ')",
        ("no_name", "nothing"),
    ),
    "student_profile_orphaned": ("""INSERT INTO "StudentProfile" VALUES ('lost', 'gone', 't1')""", ("lost",)),
    "student_profile_orphaned_teacher": (
        """INSERT INTO "StudentProfile" VALUES ('left_behind', 'u1', 'gone')""",
        ("left_behind",),
    ),
    "student_profile_role": ("""INSERT INTO "StudentProfile" VALUES ('boss', 'u3', 't1')""", ("boss",)),
    "teacher_profile_orphaned": ("""INSERT INTO "TeacherProfile" VALUES ('lost', 'gone')""", ("lost",)),
    "teacher_profile_role": ("""INSERT INTO "TeacherProfile" VALUES ('pupil', 'u1')""", ("pupil",)),
    "teacher_price_negative": (
        """INSERT INTO "TeacherLessonSettings" VALUES ('half', -1, 0), ('hour', 0, -1)""",
        ("half", "hour"),
    ),
    "availability_time_order": (
        """INSERT INTO "TeacherAvailability" VALUES ('back', '17:00', '9:00'), ('none', '09:00', '09:00')""",
        ("back", "none"),
    ),
    "lesson_without_teacher": (
        """INSERT INTO {lesson} (id, "studentId") VALUES ('alone', 's1')""",
        ("alone", "nothing"),
    ),
    "lesson_without_student": (
        """INSERT INTO {lesson} (id, "teacherId") VALUES ('empty_room', 't1')""",
        ("empty_room", "nothing"),
    ),
    "lesson_orphaned_teacher": ("INSERT INTO {lesson} VALUES ('lost_teacher', 'gone', 's1')", ("lost_teacher",)),
    "lesson_orphaned_student": ("INSERT INTO {lesson} VALUES ('lost_student', 't1', 'gone')", ("lost_student",)),
    "lesson_duration_range": (
        """INSERT INTO {lesson} (id, "teacherId", "studentId", duration)
           VALUES ('short', 't1', 's1', 14), ('long', 't1', 's1', 241)""",
        ("long", "short"),
    ),
    "lesson_rating_range": (
        """INSERT INTO {lesson} (id, "teacherId", "studentId", "studentRating", "teacherRating")
           VALUES ('zero', 't1', 's1', 0, 5), ('six', 't1', 's1', NULL, 6)""",
        ("six", "zero"),
    ),
    "lesson_price_negative": (
        """INSERT INTO {lesson} (id, "teacherId", "studentId", price) VALUES ('cheap', 't1', 's1', -1)""",
        ("cheap",),
    ),
    "lesson_completed_in_future": (
        """INSERT INTO {lesson} (id, "teacherId", "studentId", status, date, "updatedAt")
           VALUES ('early', 't1', 's1', 'COMPLETED', '2026-01-05 10:00:00.001', '2026-01-05 10:00')""",
        ("early",),
    ),
    "recurring_slot_day_of_week": (
        """INSERT INTO "RecurringSlot" (id, "dayOfWeek") VALUES ('eighth', 7), ('minus', -1)""",
        ("eighth", "minus"),
    ),
    "recurring_slot_duration_range": (
        """INSERT INTO "RecurringSlot" (id, duration) VALUES ('short', 14), ('long', 241)""",
        ("long", "short"),
    ),
    "recurring_slot_cancelled_at": (
        """INSERT INTO "RecurringSlot" (id, status) VALUES ('when', 'CANCELLED')""",
        ("when",),
    ),
    "invoice_total_negative": (
        """INSERT INTO {invoice} (id, total) VALUES ('refund', -1);
           INSERT INTO "InvoiceItem" VALUES ('for_refund', 'refund', 1, -1, -1)""",
        ("refund",),
    ),
    "invoice_subtotal_negative": (
        """INSERT INTO {invoice} (id, subtotal) VALUES ('rebate', -1);
           INSERT INTO "InvoiceItem" VALUES ('for_rebate', 'rebate', 1, -1, -1)""",
        ("rebate",),
    ),
    "invoice_total_matches_items": (
        """INSERT INTO {invoice} (id, total, subtotal)
           VALUES ('more', 101, 100), ('before', 100, 101), ('itemless', 100, NULL);
           INSERT INTO "InvoiceItem" VALUES ('for_more', 'more', 1, 100, 100), ('for_before', 'before', 1, 100, 100)""",
        ("before", "itemless", "more"),
    ),
    "invoice_paid_has_paid_at": ("INSERT INTO {invoice} (id, status) VALUES ('unpaid', 'PAID')", ("unpaid",)),
    "invoice_orphaned_teacher": ("""INSERT INTO {invoice} (id, "teacherId") VALUES ('left', 'gone')""", ("left",)),
    "invoice_number_duplicate": (
        """INSERT INTO {invoice} (id, "teacherId", "invoiceNumber") VALUES ('n1', 't2', 'N'), ('n2', 't2', 'N')""",
        ("n1", "n2"),
    ),
    "invoice_month_malformed": (
        """INSERT INTO {invoice} (id, month)
           VALUES ('thirteen', '2026-13'), ('slash', '2026/01'), ('day', '2026-01-01')""",
        ("day", "slash", "thirteen"),
    ),
    "invoice_item_orphaned": ("""INSERT INTO "InvoiceItem" VALUES ('lost', 'gone', 1, 100, 100)""", ("lost",)),
    "invoice_item_amount": (
        """INSERT INTO "InvoiceItem" (id, quantity, rate, amount)
           VALUES ('product', 2, 100, 201), ('more_than_an_integer', 2147483647, 2147483647, 1)""",
        ("more_than_an_integer", "product"),
    ),
    "subscription_month_order": (
        """INSERT INTO "SlotSubscription" VALUES ('back', '2026-02', '2026-01', 0)""",
        ("back",),
    ),
    "subscription_rate_negative": (
        """INSERT INTO "SlotSubscription" VALUES ('cheap', '2026-01', NULL, -1)""",
        ("cheap",),
    ),
    "monthly_billing_amount": (
        """INSERT INTO "MonthlyBilling" VALUES ('sum', 4500, 4, 4500), ('big', 2147483647, 2147483647, 1)""",
        ("big", "sum"),
    ),
    "curriculum_progress_percent": (
        """INSERT INTO "StudentCurriculumProgress" (id, "progressPercent")
           VALUES ('over', 100.01), ('under', -0.01), ('nan', 'NaN')""",
        ("nan", "over", "under"),
    ),
    "curriculum_progress_items": (
        """INSERT INTO "StudentCurriculumProgress" (id, "totalItems", "completedItems")
           VALUES ('more', 3, 4), ('minus', 3, -1), ('both', -2, -2)""",
        ("both", "minus", "more"),
    ),
    "item_progress_completed_at": (
        """INSERT INTO "StudentItemProgress" (id, status) VALUES ('when', 'COMPLETED')""",
        ("when",),
    ),
    "checklist_item_completed_at": (
        """INSERT INTO "StudentChecklistItem" (id, "isCompleted") VALUES ('when', true)""",
        ("when",),
    ),
    "library_item_size_negative": ("""INSERT INTO "LibraryItem" VALUES ('minus', -1)""", ("minus",)),
}


def create_tables(connection: Connection, names: dict[str, str]) -> None:
    """The tables, empty, under production's names and types or under the strategy document's."""
    query(connection, "SET search_path = public")
    for name, values in _ENUMS.items():
        kind = f"TYPE {name} AS ENUM ({values})" if names is PRODUCTION else f"DOMAIN {name} AS text"
        query(connection, f"CREATE {kind}")
    for table, columns in _COLUMNS.items():
        query(connection, f"CREATE TABLE {table.format(**names)} (id text PRIMARY KEY, {columns})")


def add_sound_rows(connection: Connection, names: dict[str, str]) -> None:
    query(connection, _SOUND.format(**names))


def add_breaches(connection: Connection, names: dict[str, str]) -> None:
    for statement in (*_NOTHING, *(statement for statement, _ in BREACHES.values())):
        query(connection, statement.format(**names))
