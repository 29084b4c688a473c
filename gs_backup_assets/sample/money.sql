-- Subscriptions, monthly billings, and invoices whose items add up. Money is in cents.

INSERT INTO "SlotSubscription" (
    "id", "slotId", "studentId", "startMonth", "endMonth", "monthlyRate", "status", "lastBilledMonth",
    "nextBillDate", "createdAt", "updatedAt"
)
SELECT subscription_id, slot_id, id, to_char(monday + 7 * first_week, 'YYYY-MM'),
       CASE WHEN NOT active THEN to_char(monday + 7 * last_week, 'YYYY-MM') END, price * 4,
       CASE WHEN active THEN 'ACTIVE' WHEN n % 2 = 0 THEN 'CANCELLED' ELSE 'EXPIRED' END::"SubscriptionStatus",
       to_char(CASE WHEN active THEN today - interval '1 month' ELSE monday + 7 * last_week END, 'YYYY-MM'),
       CASE WHEN active THEN date_trunc('month', today) + interval '1 month' END, joined_at,
       CASE WHEN active THEN joined_at ELSE monday + 7 * last_week + interval '20 hours' END
FROM staging_student ORDER BY n;

CREATE TEMPORARY TABLE staging_month ON COMMIT DROP AS
SELECT l.student_n, date_trunc('month', lesson_date)::date AS month,
       date_trunc('month', plan.today)::date AS this_month,
       count(*) FILTER (WHERE recurring) AS expected,
       count(*) FILTER (WHERE recurring AND status = 'COMPLETED') AS held,
       count(*) FILTER (WHERE status IN ('COMPLETED', 'NO_SHOW')) AS charged
FROM staging_lesson AS l, staging_plan AS plan GROUP BY 1, 2, 3;

INSERT INTO "MonthlyBilling" (
    "id", "subscriptionId", "studentId", "teacherId", "month", "expectedLessons", "actualLessons", "ratePerLesson",
    "totalAmount", "status", "billedAt", "paidAt", "paymentMethod", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('MonthlyBilling', b.n), s.subscription_id, s.id, s.teacher_id, to_char(month, 'YYYY-MM'),
       expected, held,
       s.price, held * s.price, status::"BillingStatus", CASE WHEN status <> 'PENDING' THEN billed END,
       CASE WHEN status = 'PAID' THEN billed + settled END,
       CASE WHEN status = 'PAID' THEN (ARRAY['venmo', 'zelle', 'paypal', 'cash'])[1 + pg_temp.pick(b.n, 303, 4)] END,
       month + interval '3 hours',
       CASE status WHEN 'PENDING' THEN month + interval '3 hours' WHEN 'PAID' THEN billed + settled ELSE billed END
FROM (SELECT n, student_n, month, expected, held, month + interval '1 month' + interval '5 hours' AS billed,
             pg_temp.pick(n, 302, 1500000000) * interval '1 ms' AS settled,
             CASE WHEN month >= this_month THEN 'PENDING' WHEN month + interval '1 month' = this_month THEN 'BILLED'
                  WHEN luck < 95 THEN 'PAID' WHEN luck < 98 THEN 'OVERDUE' ELSE 'CANCELLED' END AS status
      FROM (SELECT row_number() OVER (ORDER BY month, student_n) AS n, *,
                   pg_temp.pick(student_n * 100 + extract(month FROM month)::integer, 301, 100) AS luck
            FROM staging_month WHERE month <= this_month) AS numbered) AS b
JOIN staging_student AS s ON s.n = b.student_n ORDER BY b.n;

-- One invoice per student and month of lessons; one per teacher and quarter for a workshop guest without an account.
CREATE TEMPORARY TABLE staging_invoice ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY month, student_n NULLS LAST, teacher_n) AS n, *,
       month + interval '1 month 6 hours' AS issued
FROM (SELECT s.teacher_n, s.teacher_id, m.student_n, s.id AS student_id, m.month, m.this_month
      FROM staging_month AS m JOIN staging_student AS s ON s.n = m.student_n
      WHERE charged > 0 AND m.month < m.this_month
      UNION ALL
      SELECT t.n, t.id, NULL, NULL, (date_trunc('month', today) - quarter * interval '3 months')::date,
             date_trunc('month', today)::date
      FROM staging_teacher AS t, staging_plan, generate_series(1, 7) AS quarter) AS one;
CREATE INDEX ON staging_invoice (student_n, month);
ANALYZE staging_invoice;

CREATE TEMPORARY TABLE staging_item ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY invoice_n, place, date) AS n, *, quantity * rate AS amount
FROM (SELECT i.n AS invoice_n, 1 AS place, l.date, l.id AS lesson_id, 1 AS quantity, s.price AS rate, i.issued,
             s.duration || '-minute guitar lesson, ' || to_char(l.local_date, 'FMDay, FMDD FMMonth YYYY')
                 || CASE WHEN l.status = 'NO_SHOW' THEN ' (missed without notice)' ELSE '' END AS description
      FROM staging_lesson AS l JOIN staging_student AS s ON s.n = l.student_n
      JOIN staging_invoice AS i ON i.student_n = l.student_n AND i.month = date_trunc('month', l.lesson_date)::date
      WHERE l.status IN ('COMPLETED', 'NO_SHOW')
      UNION ALL
      SELECT n, 2, NULL, NULL, 1 + pg_temp.pick(n, 312, 3), 850 + 50 * pg_temp.pick(n, 313, 10), issued,
             (ARRAY['Set of strings, light gauge', 'Method book', 'Pack of picks and a capo'])
                 [1 + pg_temp.pick(n, 314, 3)]
      FROM staging_invoice WHERE student_n IS NOT NULL AND pg_temp.pick(n, 311, 16) = 0
      UNION ALL
      SELECT n, 3, NULL, NULL, 2 + pg_temp.pick(n, 315, 5), 4500, issued, 'Weekend workshop, per participant'
      FROM staging_invoice WHERE student_n IS NULL) AS item;

INSERT INTO "Invoice" (
    "id", "teacherId", "studentId", "invoiceNumber", "month", "dueDate", "status", "subtotal", "total", "paidAt",
    "paymentMethod", "paymentNotes", "createdAt", "updatedAt", "customEmail", "customFullName"
)
SELECT pg_temp.cuid('Invoice', i.n), teacher_id, student_id, 'INV-' || to_char(issued, 'YYYY') || '-'
       || lpad(i.n::text, 6, '0'),
       to_char(month, 'YYYY-MM'), issued + interval '14 days', status::"InvoiceStatus", sums.total, sums.total,
       CASE WHEN status = 'PAID' THEN issued + settled END,
       CASE WHEN status = 'PAID'
            THEN (ARRAY['venmo', 'zelle', 'paypal', 'cash', 'check'])[1 + pg_temp.pick(i.n, 323, 5)] END,
       CASE WHEN status = 'PAID' AND i.n % 9 = 0 THEN 'Paid in two parts, thank you!' END, issued,
       CASE WHEN status = 'PAID' THEN issued + settled WHEN status = 'OVERDUE' THEN issued + interval '15 days'
           ELSE issued END,
       CASE WHEN student_id IS NULL THEN 'guest' || i.n || '@example.org' END,
       CASE WHEN student_id IS NULL THEN first_names[1 + pg_temp.pick(i.n, 324, cardinality(first_names))] || ' '
            || last_names[1 + pg_temp.pick(i.n, 325, cardinality(last_names))] END
FROM (SELECT *, pg_temp.pick(n, 322, 1600000000) * interval '1 ms' AS settled,
             CASE WHEN month + interval '1 month' = this_month
                 THEN (ARRAY['PENDING', 'SENT', 'SENT', 'VIEWED'])[1 + pg_temp.pick(n, 326, 4)]
                  WHEN pg_temp.pick(n, 321, 100) < 95 THEN 'PAID' WHEN pg_temp.pick(n, 321, 100) < 98 THEN 'OVERDUE'
                  ELSE 'CANCELLED' END AS status
      FROM staging_invoice) AS i
JOIN (SELECT invoice_n, sum(amount)::integer AS total FROM staging_item GROUP BY invoice_n) AS sums
    ON sums.invoice_n = i.n
CROSS JOIN staging_words ORDER BY i.n;

INSERT INTO "InvoiceItem" (
    "id", "invoiceId", "description", "quantity", "rate", "amount", "lessonDate", "lessonId", "createdAt"
)
SELECT pg_temp.cuid('InvoiceItem', n), pg_temp.cuid('Invoice', invoice_n), description, quantity, rate, amount, date,
       lesson_id, issued
FROM staging_item ORDER BY n;
