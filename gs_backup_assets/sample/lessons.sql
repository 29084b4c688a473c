-- Two years of lessons with their notes, links and attachments: the bulk of the sample.

CREATE TEMPORARY TABLE staging_lesson ON COMMIT DROP AS
SELECT n, pg_temp.cuid('Lesson', n) AS id, student_n, local_date, date, lesson_date,
       CASE WHEN lesson_date < today THEN
                CASE WHEN luck < 88 THEN 'COMPLETED' WHEN luck < 94 THEN 'CANCELLED' WHEN luck < 97 THEN 'MISSED'
                    ELSE 'NO_SHOW' END
            WHEN luck < 97 THEN 'SCHEDULED' ELSE 'CANCELLED' END::"LessonStatus" AS status,
       pg_temp.pick(n, 202, 16) > 0 AS recurring
FROM (SELECT row_number() OVER (ORDER BY date, student_n) AS n, *, local_date::date AS lesson_date
      FROM (SELECT s.n AS student_n, today, local_date,
                   local_date AT TIME ZONE s.timezone AT TIME ZONE 'UTC' AS date,
                   pg_temp.pick(s.n * 1000 + week, 201, 100) AS luck, pg_temp.pick(s.n * 1000 + week, 203, 100) AS skip
            FROM staging_student AS s, generate_series(first_week, last_week) AS week,
                 LATERAL (SELECT monday + 7 * week + day - 1 + start_time AS local_date) AS at) AS candidate
      -- A week off now and then, and the studio is closed over New Year.
      WHERE skip >= 4 AND to_char(local_date, 'MMDD') BETWEEN '0103' AND '1222') AS numbered;
CREATE UNIQUE INDEX ON staging_lesson (n);
ANALYZE staging_lesson;

INSERT INTO "Lesson" (
    "id", "teacherId", "studentId", "date", "duration", "notes", "homework", "progress", "status", "focusAreas",
    "songsPracticed", "nextSteps", "studentRating", "teacherRating", "createdAt", "updatedAt", "isRecurring",
    "price", "recurringId", "recurringSlotId", "timezone", "checklistItems", "version"
)
SELECT l.id, s.teacher_id, s.id, l.date, s.duration,
       coalesce(opening.text || ' ' || detail.text || coalesce(E'\n\n' || remark.text, ''), absence.text),
       '1. ' || task.text || E'\n2. ' || second_task.text || coalesce(' ' || advice.text, ''),
       judgement.text || ' ' || outlook.text,
       l.status,
       CASE WHEN done THEN techniques[1 + pg_temp.pick(l.n, 221, cardinality(techniques))] || ', '
                        || aspects[1 + pg_temp.pick(l.n, 222, cardinality(aspects))] END,
       CASE WHEN done THEN songs[1 + pg_temp.pick(student_n * 1000 + l.n / 8, 223, cardinality(songs))] END,
       next_step.text,
       CASE WHEN done AND l.n % 4 = 0 THEN 3 + pg_temp.pick(l.n, 224, 3) END,
       CASE WHEN done AND l.n % 3 > 0 THEN 1 + pg_temp.pick(l.n, 225, 5) END,
       booked_at,
       CASE l.status WHEN 'SCHEDULED' THEN booked_at
                     WHEN 'CANCELLED' THEN greatest(l.date - interval '28 days', s.joined_at) + interval '1 day'
                     ELSE l.date + (s.duration * 60000 + pg_temp.pick(l.n, 227, 36000000)) * interval '1 ms' END,
       recurring, s.price,
       CASE WHEN recurring THEN 'rec_' || s.slot_id END, CASE WHEN recurring THEN s.slot_id END, s.timezone,
       CASE WHEN done AND l.n % 4 = 1 THEN '[{"title":"'
           || techniques[1 + pg_temp.pick(l.n, 228, cardinality(techniques))]
            || '","done":true},{"title":"' || keys[1 + pg_temp.pick(l.n, 229, cardinality(keys))]
                || '","done":false}]' END,
       CASE WHEN done THEN 2 + pg_temp.pick(l.n, 230, 3) ELSE 1 END
FROM (SELECT *, status = 'COMPLETED' AS done FROM staging_lesson) AS l
JOIN staging_student AS s ON s.n = l.student_n
CROSS JOIN LATERAL (SELECT greatest(l.date - interval '28 days' - pg_temp.pick(l.n, 226, 36000000) * interval '1 ms',
                                    s.joined_at) AS booked_at) AS booking
CROSS JOIN staging_words
LEFT JOIN staging_sentence AS opening ON opening.key = CASE WHEN done THEN 10000 + pg_temp.pick(l.n, 211, 2000) END
LEFT JOIN staging_sentence AS detail ON detail.key = CASE WHEN done THEN 20000 + pg_temp.pick(l.n, 212, 2000) END
LEFT JOIN staging_sentence AS remark ON remark.key =
    CASE WHEN done AND l.n % 3 > 0 THEN 30000 + pg_temp.pick(l.n, 213, 2000) END
LEFT JOIN staging_sentence AS task ON task.key = CASE WHEN done THEN 40000 + pg_temp.pick(l.n, 214, 2000) END
LEFT JOIN staging_sentence AS second_task ON second_task.key =
    CASE WHEN done THEN 40000 + pg_temp.pick(l.n, 215, 2000) END
LEFT JOIN staging_sentence AS advice ON advice.key =
    CASE WHEN done AND l.n % 2 > 0 THEN 50000 + pg_temp.pick(l.n, 216, 2000) END
LEFT JOIN staging_sentence AS judgement ON judgement.key = CASE WHEN done THEN 60000 + pg_temp.pick(l.n, 217, 2000) END
LEFT JOIN staging_sentence AS outlook ON outlook.key = CASE WHEN done THEN 70000 + pg_temp.pick(l.n, 218, 2000) END
LEFT JOIN staging_sentence AS next_step ON next_step.key = CASE WHEN done THEN 80000 + pg_temp.pick(l.n, 219, 2000) END
LEFT JOIN staging_sentence AS absence
       ON absence.key = CASE WHEN l.status IN ('CANCELLED', 'MISSED', 'NO_SHOW')
           THEN 90000 + pg_temp.pick(l.n, 220, 2000) END
ORDER BY l.n;

INSERT INTO "LessonLink" ("id", "lessonId", "title", "url", "description", "linkType", "createdAt")
SELECT pg_temp.cuid('LessonLink', n), id,
       song || CASE kind WHEN 0 THEN ' – play-along' WHEN 1 THEN ' – slow demonstration' ELSE ' – chords' END,
       CASE kind WHEN 0 THEN 'https://open.spotify.com/search/'
                 WHEN 1 THEN 'https://www.youtube.com/results?search_query='
                 ELSE 'https://tabs.example.com/search?q=' END || replace(replace(song, ' ', '+'), '''', '%27'),
       CASE WHEN n % 2 = 0 THEN 'Watch the right hand and play along from the second chorus.' END,
       (ARRAY['SPOTIFY', 'YOUTUBE', 'WEBSITE'])[1 + kind]::"LinkType", date + interval '2 hours'
FROM (SELECT n, id, date, songs[1 + pg_temp.pick(n, 231, cardinality(songs))] AS song, pg_temp.pick(n, 232, 3) AS kind
      FROM staging_lesson, staging_words WHERE status = 'COMPLETED' AND n % 4 = 0) AS link ORDER BY n;

INSERT INTO "LessonAttachment" (
    "id", "lessonId", "fileName", "originalName", "fileSize", "mimeType", "fileUrl", "uploadedAt"
)
SELECT pg_temp.cuid('LessonAttachment', n), id, left(md5('file' || n), 16) || extension, original || extension,
       20000 + pg_temp.pick(n, 242, 900000), CASE extension WHEN '.pdf' THEN 'application/pdf' ELSE 'image/jpeg' END,
       'https://files.example.com/lessons/' || id || '/' || left(md5('file' || n), 16) || extension,
       date + interval '90 minutes'
FROM (SELECT n, id, date, replace(songs[1 + pg_temp.pick(n, 241, cardinality(songs))], ' ', '_') AS original,
             CASE WHEN n % 3 = 0 THEN '.jpg' ELSE '.pdf' END AS extension
      FROM staging_lesson, staging_words WHERE status = 'COMPLETED' AND pg_temp.pick(n, 243, 6) = 0) AS file ORDER BY n;
