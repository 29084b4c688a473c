-- Functions of one session: a keyed digest of a value, and numbers and words drawn from it.

-- The two halves of the secret are settings of the session, so that no statement holds them. The digest of a digest
-- under another key does not let anybody lengthen a value (NMAC; Bellare, Canetti, Krawczyk 1996).
CREATE FUNCTION pg_temp.gs_keyed(value text) RETURNS bytea LANGUAGE sql STABLE STRICT AS $$
    SELECT sha256(decode(current_setting('gs_backup.outer'), 'hex')
        || sha256(decode(current_setting('gs_backup.inner'), 'hex') || convert_to(value, getdatabaseencoding())))
$$;

CREATE FUNCTION pg_temp.gs_draw(digest bytea, purpose text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT sha256(digest || convert_to(purpose, 'UTF8'))
$$;

-- A number from 0 to below `below`, out of seven bytes that begin with byte 7 * place.
CREATE FUNCTION pg_temp.gs_number(drawn bytea, place integer, below bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT ('x' || encode(substr(drawn, 7 * place + 1, 7), 'hex'))::bit(56)::bigint % below
$$;

CREATE FUNCTION pg_temp.gs_word(drawn bytea, place integer, words text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT words[1 + pg_temp.gs_number(drawn, place, cardinality(words))]
$$;

-- Words to a number of characters; of long ones each gets a draw of its own.
CREATE FUNCTION pg_temp.gs_sentence(drawn bytea, characters integer, words text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT left(string_agg(pg_temp.gs_word(pg_temp.gs_draw(drawn, n::text), 0, words), ' ' ORDER BY n), characters)
    FROM generate_series(0, characters / 4) AS n
$$;
