-- Functions and word lists from which every row of the sample is derived; all of it is gone after the load.
-- There is no random(): a value depends on its row's number alone, so two loads give the same contents.

-- A number from 0 to size - 1 for row n; `salt` tells one column from another.
CREATE FUNCTION pg_temp.pick(n bigint, salt bigint, size integer) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$SELECT ((hashint8extended(n, salt) & 1073741823) % size)::integer$$;

-- An id such as Prisma's cuid(): 25 characters, a slowly rising counter first and noise at the end.
CREATE FUNCTION pg_temp.cuid(kind text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
$$SELECT 'cm' || translate(lpad(to_hex(n + 44040192), 7, '0') || 'e4f1' || left(md5(kind || n::text), 12),
                           '0123456789abcdef', '0123456789kqvtxz')$$;

-- A secret token: 64 hexadecimal digits that no service ever issued.
CREATE FUNCTION pg_temp.token(kind text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
$$SELECT md5(kind || n::text) || md5(n::text || kind)$$;

-- Looks like a bcrypt hash and is none: no password leads to it.
CREATE FUNCTION pg_temp.password_hash(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
$$SELECT '$2b$12$' || left(translate(encode(decode(md5('a' || n::text) || md5('b' || n::text) || md5('c' || n::text),
                                                   'hex'), 'base64'), '+=', './'), 53)$$;

CREATE TEMPORARY TABLE staging_words ON COMMIT DROP AS SELECT
    string_to_array('Maya,Liam,Sofía,Noah,Chloé,Ethan,Amara,Lucas,Priya,Owen,Isla,Mateo,Grace,Kenji,Zoë,Caleb,Nadia,'
        'Henry,Leila,Oscar,Ruby,Søren,Ingrid,Jonah,Tess,Marcus,Elena,Theo,Aisha,Felix,Hannah,Dmitri,Paige,Andre,'
        'Renée,Wyatt,Yuki,Simon,Clara,Omar,Bianca,Jasper,Naomi,Rafael,Ivy,Tomás,Stella,Victor,June,Elias,Margot,Dev,'
        'Łukasz,Rosa,Gabriel,Mei,Peter,Anya,Silas,Fatima,Colin,Esme,Joel,Thandi', ',') AS first_names,
    string_to_array('Alvarez,Bennett,Castillo,Dubois,Eriksen,Fischer,Gallagher,Hughes,Ito,Jensen,Kowalski,Lindqvist,'
        'Moreau,Nakamura,O''Brien,Patel,Quinn,Rossi,Schmidt,Thompson,Ueda,Vargas,Walker,Xu,Young,Zhang,Okafor,Baker,'
        'Carter,Díaz,Ellison,Farrow,García,Hoffmann,Ibrahim,Johansson,Kaplan,Larsen,Mitchell,Novak,Osei,Pérez,Ramirez,'
        'Sanchez,Tremblay,Underwood,Vogel,Whitaker,Yamada,Zimmermann,Adeyemi,Brooks,Cohen,Delgado,Everett,Fontaine,'
    'Greene,Harper,Iverson,Jacobs,King,Lopez,Müller,Nguyen,Olsen,Price,Reed,Singh,Torres,Weaver', ',') AS last_names,
    string_to_array('Blackbird;Wish You Were Here;Sweet Child O'' Mine;Hotel California;Dust in the Wind;Autumn Leaves;'
    'Little Wing;Wonderwall;Tears in Heaven;Seven Nation Army;Nothing Else Matters;Landslide;Fast Car;Redemption Song;'
        'Here Comes the Sun;Layla;Back in Black;Romanza;Asturias;Stairway to Heaven;Creep;Come As You Are;Hallelujah;'
        'The Thrill Is Gone;Pride and Joy;Malagueña;Horse with No Name;Brown Eyed Girl;Crazy Little Thing Called Love;'
    'Smoke on the Water;Cliffs of Dover;Riptide;House of the Rising Sun;Sultans of Swing;Hey Joe;Folsom Prison Blues;'
        'Girl from Ipanema;Time After Time;Wagon Wheel;Scarborough Fair', ';') AS songs,
    string_to_array('alternate picking;hammer-ons and pull-offs;Travis picking;barre chords;string bending;palm muting;'
        'legato runs;economy picking;sweep arpeggios;vibrato;hybrid picking;syncopated strumming;position shifts;'
        'octave shapes;double stops;natural harmonics;muted funk strumming;rest strokes;chord inversions;tapping;'
        'thumb independence;string skipping;slide phrasing;open-string voicings', ';') AS techniques,
    string_to_array(
        'C major;A minor;G major;E minor;D major;B minor;F major;D minor;A major;F♯ minor;B♭ major;G minor;'
        'E major;C♯ minor;E♭ major;C minor;D dorian;E phrygian;G mixolydian;A minor pentatonic', ';') AS keys,
    string_to_array(
    'intro;verse;pre-chorus;chorus;bridge;solo;outro;turnaround;second verse;main riff;ending;interlude', ';') AS parts,
    string_to_array('Cadd9 to G;F to Bm7♭5;Am7 to D9;Em to C;G to D/F♯;E7 to A7;Dm7 to G13;Bm to F♯7;A to Asus4;'
        'Fmaj7 to Em7;D to Dsus2;C to Caug;Gm7 to C9;B7 to Em;A♭maj7 to G7;E to G♯m', ';') AS changes,
    string_to_array(
        'timing;tone;posture;finger independence;pick grip;muting;dynamics;counting aloud;relaxed shoulders;'
    'left-hand thumb position;listening;reading ahead;accents;smooth transitions;breathing;confidence', ';') AS aspects;

CREATE TEMPORARY TABLE staging_template (kind integer, template text) ON COMMIT DROP;
INSERT INTO staging_template VALUES
    (1, 'Warmed up with {tech} at {bpm} bpm, then worked through the {part} of "{song}".'),
    (1, 'Started the lesson by reviewing last week''s homework on {tech}; most of it was in place at {bpm} bpm.'),
    (1, 'Good energy today. We went straight to the {part} of "{song}" and slowed it down to {bpm} bpm.'),
    (1, 'Ten minutes of scales in {key}, two octaves, before picking up "{song}" at the {part}.'),
    (1, 'Tuned by ear first, then played along with the recording of "{song}" up to the {part}.'),
    (1, 'Looked at the change {change} with a metronome at {bpm} bpm until it came without stopping.'),
    (1, 'Recorded a take of the {part} of "{song}" and listened to it together.'),
    (1, 'Began with sight reading in {key}: eight bars, hands separately, then together at {bpm} bpm.'),
    (1, E'Wrote out the {part} of "{song}":\ne|-----0--3h5--3--|\nB|--1-----------3--|\nG|\\2--------------|'),
    (1, 'First half of the lesson on {tech}, second half on ear training with intervals in {key}.'),
    (2, 'The hardest spot is still the change {change}; keep the first finger down as an anchor.'),
    (2, '{Aspect} has improved a lot since the spring, and the {part} now sounds like music instead of an exercise.'),
    (2, 'Watch the {aspect} when the tempo goes above {bpm} bpm, the sound gets thin there.'),
    (2, 'We talked about {aspect} and found a fingering for the {part} that avoids the long stretch.'),
    (2, 'The rhythm rushes slightly in the {part}; tapping the foot on two and four settled it.'),
    (2, 'Explained how {key} and its relative share the same notes, and found both inside "{song}".'),
    (2, '{Tech} is clean at {bpm} bpm but tenses up beyond that, so we stay there for another week.'),
    (2, 'Transposed the {part} to {key} with a capo and compared how the voicings ring.'),
    (2, 'Struggled with {tech} at first; splitting it into two-beat cells made the difference.'),
    (2, 'Played "{song}" from memory for the first time — a small slip in the {part}, recovered well.'),
    (3, 'A parent asked about the spring recital: "{song}" would suit it.'),
    (3, 'New strings next week, the third one no longer holds its pitch.'),
    (3, 'Reminder: bring the binder and the notebook, the sheet for {key} is still missing.'),
    (3, 'Student mentioned a sore wrist; we checked {aspect} and took two short breaks.'),
    (3, 'Backing track in {key} at {bpm} bpm is in the library folder.'),
    (3, 'Overall a focused hour with real progress on {tech}.'),
    (3, 'Lesson ended with free improvisation over {change}, which was the best part of the day.'),
    (3, 'Next month we decide between "{song}" and something in {key} for the duo.'),
    (4, 'Practice {tech} for {min} minutes a day, starting at {bpm} bpm and adding four once it is clean three times.'),
    (4, 'Play the {part} of "{song}" slowly five times without stopping, eyes off the fretboard.'),
    (4, 'Memorize the scale of {key} in two positions and say the note names aloud.'),
    (4, 'Loop the change {change} for {min} minutes with the metronome on two and four.'),
    (4, 'Record the {part} on the phone, listen back and write down two things to improve.'),
    (4, 'Read one new line of the book each day, {min} minutes, no pencil marks for the easy notes.'),
    (4, 'Finish writing the chord chart of "{song}" and bring it next week.'),
    (4, 'Listen to three recordings of "{song}" and note how each player handles the {part}.'),
    (5, 'Keep an eye on {aspect}.'),
    (5, 'Stop at the first sign of tension and shake out the hands.'),
    (5, 'Use the recording in the library at {bpm} bpm.'),
    (5, 'Optional: learn the {part} of "{song}" by ear.'),
    (5, 'Mark the practice log every day, even for {min} minutes.'),
    (5, 'Review {tech} from page {min} of the method book.'),
    (6, 'Solid on {tech} up to {bpm} bpm; {aspect} needs another two weeks.'),
    (6, '"{song}" is ready except for the {part}.'),
    (6, 'Moves between {change} without looking, which was the goal for this month.'),
    (6, 'Knows {key} in three positions and starts to use it in solos.'),
    (6, 'Reading has caught up with playing: first-position notes are fluent, {aspect} is next.'),
    (6, 'Less progress than usual because of exams, but {tech} did not slip back.'),
    (6, 'Ready to perform "{song}" at the studio evening.'),
    (7, 'The goal for the quarter is "{song}" at full tempo.'),
    (7, 'Confidence is growing and so is the patience for slow practice.'),
    (7, 'Can explain the harmony of the {part} in own words.'),
    (7, '{Aspect} went from a weakness to a strength.'),
    (7, 'Practice log shows about {min} minutes a day, five days a week.'),
    (8, 'Bring the {part} of "{song}" to {bpm} bpm.'),
    (8, 'Start {tech} in {key}.'),
    (8, 'Combine {change} with {tech}.'),
    (8, 'Choose the next song; candidates are "{song}" and a piece in {key}.'),
    (8, 'Rehearse "{song}" with the backing track and work on {aspect}.'),
    (9, 'Travel this week, the lesson was called off the day before.'),
    (9, 'Student was ill; homework on {tech} carries over.'),
    (9, 'No answer at the door and no message, charged according to the policy.'),
    (9, 'School concert clashed with the lesson, same plan next time: {part} of "{song}".'),
    (9, 'Snow day.');

CREATE TEMPORARY TABLE staging_sentence ON COMMIT DROP AS
SELECT kind * 10000 + i AS key,
       replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
           list[1 + i % cardinality(list)],
           '{song}', songs[1 + pg_temp.pick(i, kind * 10 + 1, cardinality(songs))]),
           '{tech}', techniques[1 + pg_temp.pick(i, kind * 10 + 2, cardinality(techniques))]),
           '{Tech}', upper(left(techniques[1 + pg_temp.pick(i, kind * 10 + 2, cardinality(techniques))], 1))
                  || substr(techniques[1 + pg_temp.pick(i, kind * 10 + 2, cardinality(techniques))], 2)),
           '{key}', keys[1 + pg_temp.pick(i, kind * 10 + 3, cardinality(keys))]),
           '{part}', parts[1 + pg_temp.pick(i, kind * 10 + 4, cardinality(parts))]),
           '{change}', changes[1 + pg_temp.pick(i, kind * 10 + 5, cardinality(changes))]),
           '{aspect}', aspects[1 + pg_temp.pick(i, kind * 10 + 6, cardinality(aspects))]),
           '{Aspect}', upper(left(aspects[1 + pg_temp.pick(i, kind * 10 + 6, cardinality(aspects))], 1))
                    || substr(aspects[1 + pg_temp.pick(i, kind * 10 + 6, cardinality(aspects))], 2)),
           '{bpm}', (56 + 4 * pg_temp.pick(i, kind * 10 + 7, 24))::text),
           '{min}', (10 + 5 * pg_temp.pick(i, kind * 10 + 8, 6))::text) AS text
FROM (SELECT kind, array_agg(template ORDER BY template COLLATE "C") AS list FROM staging_template GROUP BY kind) AS t,
     staging_words,
     generate_series(0, 1999) AS i;
ANALYZE staging_sentence;
