-- Users, profiles, what hangs on a user, and the recurring slot of every student.

-- People are numbered: the teachers first, then the students. The suffix keeps e-mail addresses unique at any scale.
CREATE TEMPORARY TABLE staging_person ON COMMIT DROP AS
SELECT n, first_name || ' ' || last_name AS name,
       mail || coalesce(nullif(row_number() OVER (PARTITION BY mail ORDER BY n), 1)::text, '') || '@'
            || (ARRAY['example.com', 'example.org', 'example.net'])[1 + pg_temp.pick(n, 103, 3)] AS email
FROM (SELECT n, first_name, last_name,
             lower(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
                 first_name || '.' || last_name, '''', ''), 'é', 'e'), 'ë', 'e'), 'í', 'i'), 'á', 'a'), 'ø', 'o'),
                 'Ł', 'L'), 'ü', 'u'), 'ó', 'o'), 'ñ', 'n') COLLATE "C") AS mail
      FROM (SELECT n, first_names[1 + pg_temp.pick(n, 101, cardinality(first_names))] AS first_name,
                   last_names[1 + pg_temp.pick(n, 102, cardinality(last_names))] AS last_name
            FROM staging_plan, staging_words, generate_series(1, teachers + students) AS n) AS named) AS addressed;

CREATE TEMPORARY TABLE staging_teacher ON COMMIT DROP AS
SELECT n, person.name, person.email, pg_temp.cuid('User', n) AS user_id, pg_temp.cuid('TeacherProfile', n) AS id,
       (ARRAY['America/Chicago', 'America/Chicago', 'America/New_York', 'America/Denver', 'America/Los_Angeles'])
           [1 + pg_temp.pick(n, 111, 5)] AS timezone,
       3500 + 250 * pg_temp.pick(n, 112, 7) AS price30,
       6000 + 500 * pg_temp.pick(n, 113, 7) AS price60,
       today - 800 + pg_temp.pick(n, 114, 60) + interval '15 hours' + pg_temp.pick(n, 115, 14400000) * interval '1 ms'
           AS created_at
FROM staging_plan, generate_series(1, teachers) AS n JOIN staging_person AS person USING (n);
CREATE UNIQUE INDEX ON staging_teacher (n);
ANALYZE staging_teacher;

-- A student takes one seat of the teacher's week: no two share an hour. Weeks are counted from the week of `today`.
CREATE TEMPORARY TABLE staging_student ON COMMIT DROP AS
SELECT s.*, teacher.id AS teacher_id, teacher.timezone,
       CASE WHEN duration = 30 THEN teacher.price30 ELSE teacher.price60 END AS price,
       1 + seat % 5 AS day, make_time(15 + seat / 5, 0, 0) AS start_time,
       last_week = 3 AS active,
       monday + 7 * first_week - 9 + interval '16 hours' + pg_temp.pick(s.n, 125, 18000000) * interval '1 ms'
           AS joined_at
FROM (SELECT n, 1 + (n - 1) % teachers AS teacher_n, (n - 1) / teachers AS seat,
             pg_temp.cuid('User', teachers + n) AS user_id, pg_temp.cuid('StudentProfile', n) AS id,
             pg_temp.cuid('RecurringSlot', n) AS slot_id, pg_temp.cuid('SlotSubscription', n) AS subscription_id,
             CASE WHEN pg_temp.pick(n, 121, 10) < 4 THEN 30 ELSE 60 END AS duration,
             first_week,
             -- Three in four are still here; the others left after eight weeks or more.
             CASE WHEN pg_temp.pick(n, 122, 100) < 75 OR first_week + 8 + pg_temp.pick(n, 123, 60) >= 0 THEN 3
                  ELSE first_week + 8 + pg_temp.pick(n, 123, 60) END AS last_week,
             date_trunc('week', today)::date AS monday, today, teachers
      FROM (SELECT n, CASE WHEN pg_temp.pick(n, 120, 10) < 3 THEN -104
                           ELSE -3 - pg_temp.pick(n, 124, 102) END AS first_week
            FROM staging_plan, generate_series(1, students) AS n) AS weeks, staging_plan) AS s
JOIN staging_teacher AS teacher ON teacher.n = s.teacher_n;
CREATE UNIQUE INDEX ON staging_student (n);
ANALYZE staging_student;

INSERT INTO "User" ("id", "email", "password", "name", "role", "createdAt", "updatedAt")
SELECT user_id, email, pg_temp.password_hash(n), name,
       -- The first teacher owns the studio.
       CASE WHEN n = 1 THEN 'ADMIN' ELSE 'TEACHER' END::"Role", created_at, created_at + interval '3 days'
FROM staging_teacher ORDER BY n;
INSERT INTO "User" ("id", "email", "password", "name", "role", "createdAt", "updatedAt")
SELECT s.user_id, p.email,
       -- Some sign in with Google only and have no password.
       CASE WHEN pg_temp.pick(p.n, 131, 10) > 0 THEN pg_temp.password_hash(p.n) END, p.name, 'STUDENT', s.joined_at,
       s.joined_at + pg_temp.pick(p.n, 132, 4000000) * interval '1 s' * (s.first_week < -8)::integer
FROM staging_student AS s JOIN staging_person AS p ON p.n = s.teachers + s.n ORDER BY p.n;

INSERT INTO "TeacherProfile" (
    "id", "userId", "bio", "hourlyRate", "isActive", "venmoHandle", "paypalEmail", "zelleEmail", "timezone",
    "phoneNumber", "profileImageUrl", "createdAt", "updatedAt", "isAdmin"
)
SELECT t.id, user_id, t.name || ' has taught guitar for ' || 4 + pg_temp.pick(t.n, 141, 25)
       || ' years and likes to start with '
           || techniques[1 + pg_temp.pick(t.n, 142, cardinality(techniques))] || '. Favourite song to teach: '
           || songs[1 + pg_temp.pick(t.n, 143, cardinality(songs))] || '.',
       price60, true, '@' || split_part(t.email, '@', 1), CASE WHEN t.n % 3 = 0 THEN t.email END,
       CASE WHEN t.n % 4 = 0 THEN t.email END, timezone, '+1-312-555-' || lpad((t.n % 10000)::text, 4, '0'),
       'https://files.example.com/teachers/' || t.id || '.jpg', created_at, created_at + interval '3 days', t.n = 1
FROM staging_teacher AS t, staging_words ORDER BY t.n;

INSERT INTO "TeacherLessonSettings" (
    "id", "teacherId", "price30Min", "price60Min", "advanceBookingDays", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('TeacherLessonSettings', n), id, price30, price60, 14 + 7 * (n % 3), created_at, created_at
FROM staging_teacher ORDER BY n;

INSERT INTO "TeacherAvailability" (
    "id", "teacherId", "dayOfWeek", "startTime", "endTime", "isActive", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('TeacherAvailability', n * 10 + day), id, day, CASE WHEN day = 6 THEN '09:00' ELSE '14:30' END,
       CASE WHEN day = 6 THEN '13:00' ELSE '21:00' END, day < 6 OR n % 2 = 0, created_at, created_at
FROM staging_teacher, generate_series(1, 6) AS day ORDER BY n, day;

INSERT INTO "StudentProfile" (
    "id", "userId", "teacherId", "joinedAt", "goals", "instrument", "phoneNumber", "parentEmail",
    "emergencyContact", "isActive", "createdAt", "updatedAt", "emailOnInvoice", "emailOnLessonComplete",
    "emailOnLessonReminder"
)
SELECT s.id, user_id, teacher_id, joined_at, goal.text,
       CASE WHEN n % 12 = 0 THEN 'bass' WHEN n % 17 = 0 THEN 'ukulele' ELSE 'guitar' END,
       '+1-773-555-' || lpad((n % 10000)::text, 4, '0'),
       CASE WHEN n % 3 = 0 THEN 'parent' || n || '@example.net' END,
       CASE WHEN n % 3 = 0 THEN first_names[1 + pg_temp.pick(n, 151, cardinality(first_names))]
           || ' (parent), +1-773-555-' || lpad((n * 7 % 10000)::text, 4, '0') END,
       active, joined_at, joined_at + interval '1 day', n % 9 > 0, n % 4 > 0, n % 11 > 0
FROM staging_student AS s CROSS JOIN staging_words
JOIN staging_sentence AS goal ON goal.key = 80000 + pg_temp.pick(n, 152, 2000) ORDER BY n;

INSERT INTO "StudentInvitation" ("id", "teacherId", "studentId", "token", "expires", "createdAt")
SELECT pg_temp.cuid('StudentInvitation', n), teacher_id, id, pg_temp.token('invitation', n),
       joined_at + interval '6 days', joined_at - interval '1 day'
FROM staging_student WHERE n % 12 = 0 ORDER BY n;

INSERT INTO "Account" (
    "id", "userId", "type", "provider", "providerAccountId", "refresh_token", "access_token", "expires_at",
    "token_type", "scope", "id_token", "session_state"
)
SELECT pg_temp.cuid('Account', n), user_id, 'oauth', 'google', (100000000000000000000 + n * 7919)::numeric::text, NULL,
       'fake.' || pg_temp.token('access', n), extract(epoch FROM today)::integer + pg_temp.pick(n, 161, 3600), 'Bearer',
       'openid email profile', NULL, NULL
FROM staging_student WHERE pg_temp.pick(teachers + n, 131, 10) <= 2 ORDER BY n;

INSERT INTO "Session" ("id", "sessionToken", "userId", "expires")
SELECT pg_temp.cuid('Session', n), pg_temp.token('session', n), user_id,
       today + pg_temp.pick(n, 162, 30) + pg_temp.pick(n, 163, 86400000) * interval '1 ms'
FROM staging_student WHERE active AND n % 5 < 3 ORDER BY n;

INSERT INTO "VerificationToken" ("identifier", "token", "expires")
SELECT email, pg_temp.token('verification', n),
       (SELECT today FROM staging_plan) + pg_temp.pick(n, 164, 48) * interval '1 hour'
FROM staging_person WHERE n % 14 = 0 ORDER BY n;

INSERT INTO "PasswordResetToken" ("id", "userId", "token", "expires", "createdAt")
SELECT pg_temp.cuid('PasswordResetToken', n), user_id, pg_temp.token('reset', n), asked + interval '1 hour', asked
FROM (SELECT *, today - 1 - pg_temp.pick(n, 165, 15) + pg_temp.pick(n, 166, 86400000) * interval '1 ms' AS asked
      FROM staging_student WHERE n % 16 = 0) AS s ORDER BY n;

INSERT INTO "EmailPreference" ("id", "userId", "enabled", "createdAt", "updatedAt", "type")
SELECT pg_temp.cuid('EmailPreference', n * 20 + i), u."id", pg_temp.pick(n * 20 + i, 167, 12) > 0, u."createdAt",
       u."updatedAt", type
FROM (SELECT row_number() OVER (ORDER BY "id" COLLATE "C") AS n, * FROM "User") AS u,
     unnest(enum_range(NULL::"EmailType")) WITH ORDINALITY AS types (type, i) ORDER BY n, i;

-- A slot per student, and for one in ten the slot of another day that it replaced.
INSERT INTO "RecurringSlot" (
    "id", "teacherId", "studentId", "dayOfWeek", "startTime", "duration", "status", "bookedAt", "cancelledAt",
    "createdAt", "updatedAt", "perLessonPrice", "version"
)
SELECT slot_id, teacher_id, id, day, to_char(start_time, 'HH24:MI'), duration,
       CASE WHEN active THEN 'ACTIVE' WHEN n % 2 = 0 THEN 'CANCELLED' ELSE 'EXPIRED' END::"SlotStatus", joined_at,
       CASE WHEN NOT active AND n % 2 = 0 THEN monday + 7 * last_week + interval '20 hours' END, joined_at,
       CASE WHEN active THEN joined_at ELSE monday + 7 * last_week + interval '20 hours' END, price,
       1 + (NOT active)::integer
FROM staging_student ORDER BY n;
INSERT INTO "RecurringSlot" (
    "id", "teacherId", "studentId", "dayOfWeek", "startTime", "duration", "status", "bookedAt", "cancelledAt",
    "createdAt", "updatedAt", "perLessonPrice", "version"
)
SELECT pg_temp.cuid('RecurringSlot', (SELECT students FROM staging_plan) + n), teacher_id, id, 6,
       to_char(start_time - interval '6 hours', 'HH24:MI'),
       duration, 'CANCELLED', joined_at - interval '2 hours', joined_at - interval '1 hour',
       joined_at - interval '2 hours', joined_at - interval '1 hour', price, 2
FROM staging_student WHERE n % 10 = 0 ORDER BY n;
