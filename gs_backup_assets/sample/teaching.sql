-- Curricula and progress, checklists, the library, recommendations, and what the application keeps about itself.

CREATE TEMPORARY TABLE staging_section ON COMMIT DROP AS
SELECT c::integer, s::integer, (string_to_array(line, '|'))[1] AS curriculum,
       (string_to_array(line, '|'))[1 + s] AS title,
       (string_to_array(categories, '|'))[s]::"CurriculumCategory" AS category
FROM (VALUES
    (1, 'Foundations|Open chords|Strumming patterns|First melodies|Reading notation|First songs',
        'CHORDS|RHYTHM|TECHNIQUE|SIGHT_READING|SONGS'),
    (2, 'Electric and lead|Power chords|Pentatonic scales|Bends and vibrato|Famous riffs|Building a solo',
        'CHORDS|SCALES|LEAD_GUITAR|RIFFS|SOLOS'),
    (3, 'Fingerstyle and theory|Travis picking|Arpeggios|Intervals and triads|Hearing chords|Improvising',
        'FINGERSTYLE|ARPEGGIOS|THEORY|EAR_TRAINING|IMPROVISATION')) AS book (c, line, categories),
    generate_series(1, 5) AS s;

-- Numbers follow from the teacher's: three curricula each, five sections, eight items.
INSERT INTO "Curriculum" (
    "id", "teacherId", "title", "description", "isActive", "isPublished", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('Curriculum', (t.n - 1) * 3 + c), t.id, curriculum,
       'Forty steps in five sections, about one year at a lesson a week.',
       true, (t.n + c) % 4 > 0, created_at + interval '4 days', created_at + interval '40 days'
FROM staging_teacher AS t, (SELECT c, curriculum FROM staging_section WHERE s = 1) AS book ORDER BY t.n, c;

INSERT INTO "CurriculumSection" (
    "id", "curriculumId", "title", "description", "category", "sortOrder", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('CurriculumSection', ((t.n - 1) * 3 + c - 1) * 5 + s),
       pg_temp.cuid('Curriculum', (t.n - 1) * 3 + c), title,
       'Part ' || s || ' of ' || curriculum || ': ' || title || '.', category, s, created_at + interval '4 days',
       created_at + interval '40 days'
FROM staging_teacher AS t, staging_section ORDER BY t.n, c, s;

INSERT INTO "CurriculumItem" (
    "id", "sectionId", "title", "description", "sortOrder", "difficulty", "estimatedMinutes", "resourceUrl",
    "notes", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('CurriculumItem', n), pg_temp.cuid('CurriculumSection', (n - 1) / 8 + 1), title || ': ' || step,
       task.text, i, 1 + (s + i) / 4, 10 + 5 * pg_temp.pick(n, 401, 8),
       CASE WHEN n % 4 = 0 THEN 'https://library.example.com/items/' || n END, CASE WHEN n % 5 = 0 THEN advice.text END,
       created_at + interval '4 days', created_at + interval '40 days'
FROM (SELECT (((t.n - 1) * 3 + c - 1) * 5 + s - 1) * 8 + i AS n, s, i, title, step, created_at
      FROM staging_teacher AS t, staging_section,
           unnest(ARRAY['listen and imitate', 'first position', 'slow with metronome', 'two variations', 'in a song',
                        'from memory', 'at tempo', 'perform it']) WITH ORDINALITY AS steps (step, i)) AS item
JOIN staging_sentence AS task ON task.key = 40000 + pg_temp.pick(n, 402, 2000)
JOIN staging_sentence AS advice ON advice.key = 50000 + pg_temp.pick(n, 403, 2000) ORDER BY n;

-- Every student follows one of the teacher's curricula, every second one a second. `done` of 40 items are complete.
CREATE TEMPORARY TABLE staging_progress ON COMMIT DROP AS
SELECT *, (today - started::date) * 86400 / (done + 2) AS step
FROM (SELECT row_number() OVER (ORDER BY n, which) AS n, id AS student_id,
    (teacher_n - 1) * 3 + (n + which) % 3 + 1 AS curriculum_n,
             joined_at + (which * 7 + 2) * interval '1 day' AS started, today,
             least(40, (-first_week * (20 + pg_temp.pick(n * 2 + which, 411, 40))) / 100) AS done
      FROM staging_student, generate_series(0, 1) AS which WHERE which = 0 OR n % 2 = 0) AS p;
ANALYZE staging_progress;

INSERT INTO "StudentCurriculumProgress" (
    "id", "studentId", "curriculumId", "startedAt", "completedAt", "totalItems", "completedItems",
    "progressPercent", "updatedAt"
)
SELECT pg_temp.cuid('StudentCurriculumProgress', n), student_id, pg_temp.cuid('Curriculum', curriculum_n), started,
       CASE WHEN done = 40 THEN started + 40 * step * interval '1 s' END, 40, done, done * 2.5,
       started + done * step * interval '1 s'
FROM staging_progress ORDER BY n;

INSERT INTO "StudentItemProgress" (
    "id", "curriculumProgressId", "itemId", "status", "startedAt", "completedAt", "teacherNotes", "studentNotes",
    "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('StudentItemProgress', p.n * 40 + i), pg_temp.cuid('StudentCurriculumProgress', p.n),
       pg_temp.cuid('CurriculumItem', (curriculum_n - 1) * 40 + i),
       CASE WHEN i <= done THEN 'COMPLETED' WHEN i = done + 1 THEN 'IN_PROGRESS'
            WHEN i = done + 2 AND p.n % 5 = 0 THEN 'NEEDS_REVIEW' ELSE 'NOT_STARTED' END::"ProgressStatus",
       CASE WHEN i <= done + 1 THEN started + (i - 1) * step * interval '1 s' END,
       CASE WHEN i <= done THEN started + i * step * interval '1 s' END,
       teacher_note.text,
       CASE WHEN i <= done AND i % 7 = 0
            THEN 'Took me ' || 2 + pg_temp.pick(p.n * 40 + i, 423, 9) || ' evenings, fun!' END,
       started, started + least(i, done) * step * interval '1 s'
FROM staging_progress AS p CROSS JOIN generate_series(1, 40) AS i
LEFT JOIN staging_sentence AS teacher_note
       ON teacher_note.key = CASE WHEN i <= done AND i % 2 = 0 THEN 60000 + pg_temp.pick(p.n * 40 + i, 421, 2000) END
ORDER BY p.n, i;

INSERT INTO "StudentChecklist" (
    "id", "studentId", "title", "isActive", "isArchived", "createdAt", "updatedAt", "createdBy", "createdByRole"
)
SELECT pg_temp.cuid('StudentChecklist', n * 2 + which), id,
       CASE which WHEN 0 THEN 'Weekly practice plan' ELSE 'Recital preparation' END,
       which = 0 OR n % 3 > 0, which = 1 AND n % 3 = 0, joined_at + interval '3 days', joined_at + interval '9 days',
       CASE WHEN n % 4 = 0 THEN user_id ELSE pg_temp.cuid('User', teacher_n) END,
       CASE WHEN n % 4 = 0 THEN 'STUDENT' ELSE 'TEACHER' END
FROM staging_student, generate_series(0, 1) AS which ORDER BY n, which;

INSERT INTO "StudentChecklistItem" (
    "id", "checklistId", "title", "description", "isCompleted", "completedAt", "dueDate", "notes", "resourceUrl",
    "estimatedMinutes", "createdAt", "updatedAt", "sortOrder"
)
SELECT pg_temp.cuid('StudentChecklistItem', n), pg_temp.cuid('StudentChecklist', list_n), title, task.text, done,
       CASE WHEN done THEN made + i * interval '20 hours' END, made + (7 + i) * interval '1 day', NULL, NULL,
       10 + 5 * pg_temp.pick(n, 433, 5), made, CASE WHEN done THEN made + i * interval '20 hours' ELSE made END, i
FROM (SELECT (s.n * 2 + which) * 8 + i AS n, s.n * 2 + which AS list_n, i, title, joined_at + interval '3 days' AS made,
             pg_temp.pick((s.n * 2 + which) * 8 + i, 431, 3) > 0 AS done
      FROM staging_student AS s, generate_series(0, 1) AS which,
           unnest(ARRAY['Warm up', 'Scales', 'Chord changes', 'New piece', 'Repertoire', 'Ear training', 'Reading',
                        'Free play']) WITH ORDINALITY AS titles (title, i)) AS item
JOIN staging_sentence AS task ON task.key = 40000 + pg_temp.pick(n, 432, 2000) ORDER BY n;

INSERT INTO "LibraryItem" (
    "id", "title", "description", "fileUrl", "fileName", "fileSize", "teacherId", "isPublic", "category", "tags",
    "downloadCount", "createdAt", "updatedAt", "instrument"
)
SELECT pg_temp.cuid('LibraryItem', n), song || ' (' || kind || ')',
       'Arranged for the studio, with fingering and two endings.',
       'https://files.example.com/library/' || left(md5('library' || n), 16) || '.pdf',
       replace(song, ' ', '_') || '.pdf',
       40000 + pg_temp.pick(n, 442, 3000000), teacher_id, n % 3 = 0, category, 'song,' || kind,
       pg_temp.pick(n, 443, 400), added, added,
       (ARRAY['GUITAR', 'GUITAR', 'GUITAR', 'BASS', 'UKULELE'])[1 + pg_temp.pick(n, 444, 5)]::"Instrument"
FROM (SELECT (t.n - 1) * 20 + i AS n, t.id AS teacher_id,
             songs[1 + pg_temp.pick((t.n - 1) * 20 + i, 441, cardinality(songs))] AS song,
             (enum_range(NULL::"LibraryCategory"))[1 + i % 8] AS category,
             (ARRAY['tab', 'sheet music', 'chords', 'scale', 'etude', 'exercise', 'worksheet', 'handout'])
                 [1 + i % 8] AS kind,
             t.created_at + i * interval '21 days' AS added
      FROM staging_teacher AS t, staging_words, generate_series(1, 20) AS i) AS item ORDER BY n;

INSERT INTO "Recommendation" (
    "id", "title", "description", "link", "category", "teacherId", "price", "priority", "createdAt", "updatedAt"
)
SELECT pg_temp.cuid('Recommendation', (n - 1) * 6 + i), title, description, 'https://shop.example.com/' || i,
       category::"RecommendationCategory", id, price, i, created_at + interval '5 days', created_at + interval '5 days'
FROM staging_teacher, (VALUES
    (1, 'GEAR', 'Clip-on tuner', 'Reads well on a dark stage and lasts a year on one battery.', '$15'),
    (2, 'BOOKS', 'Method book, volume 1', 'The one we use in lessons; get the edition with audio.', '$22'),
    (3, 'SOFTWARE', 'Slow-down player', 'Loops a passage and slows it down without changing the pitch.', 'Free'),
    (4, 'ONLINE_COURSES', 'Ear training in ten weeks', 'Short daily exercises that go well with our plan.', '$49'),
    (5, 'APPS', 'Metronome', 'Simple, loud, and keeps a practice log.', NULL),
    (6, 'OTHER', 'Footstool', 'For classical posture at home.', '$18')
    ) AS list (i, category, title, description, price) ORDER BY n, i;

INSERT INTO "EmailTemplate" ("id", "type", "subject", "htmlBody", "variables", "description", "createdAt", "updatedAt")
SELECT pg_temp.cuid('EmailTemplate', i), type, initcap(replace(type::text, '_', ' ')) || ' – {{studentName}}',
       E'<html>\n<body style="font-family: sans-serif">\n<h1>' || initcap(replace(type::text, '_', ' '))
           || E'</h1>\n<p>Hello {{studentName}},</p>\n'
       || E'<p>this is a note from {{teacherName}} about {{lessonDate}}.</p>\n'
       || E'<p>Thank you for choosing Guitar Strategies!</p>\n</body>\n</html>\n',
       '["studentName","teacherName","lessonDate"]', 'Sent by the application, edited by the studio.',
       today - interval '800 days', today - interval '200 days'
FROM staging_plan, unnest(enum_range(NULL::"EmailType")) WITH ORDINALITY AS types (type, i) ORDER BY i;

INSERT INTO "SystemSettings" ("updatedAt") SELECT today - interval '90 days' FROM staging_plan;

INSERT INTO "BackgroundJobLog" (
    "id", "jobName", "executedAt", "success", "lessonsGenerated", "teachersProcessed", "errors"
)
SELECT pg_temp.cuid('BackgroundJobLog', n), job, at, luck > 1,
       CASE WHEN job = 'generate-lessons' THEN pg_temp.pick(n, 452, 40) ELSE 0 END,
       CASE WHEN luck > 1 THEN 1 + pg_temp.pick(n, 453, 12) ELSE 0 END,
       CASE WHEN luck <= 1 THEN '["Error: Timed out fetching a new connection from the connection pool (attempt '
            || 1 + pg_temp.pick(n, 454, 5) || E')\\n    at processTeacher (jobs/' || job || E'.js:88:13)"]' END
FROM (SELECT n, (ARRAY['generate-lessons', 'send-reminders', 'mark-overdue-invoices', 'clean-up-sessions'])
                 [1 + n % 4] AS job,
             today - interval '730 days' + n * (730 * 86400.0 / job_runs) * interval '1 s'
                 - pg_temp.pick(n, 455, 60000) * interval '1 ms' AS at,
             pg_temp.pick(n, 451, 100) AS luck
      FROM staging_plan, generate_series(1, job_runs) AS n) AS run ORDER BY n;
