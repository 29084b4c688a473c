"""SQL that makes a masked value out of the keyed digest of an original one, by rule and type."""

from __future__ import annotations

from collections.abc import Mapping

from gs_backup_assets.postgres.column_facts import Column, Kind

# m is a row of the mapping (digest, tries, characters, original of a date), w the words, b the drawn bytes.
_HEX = "(encode(b, 'hex') || encode(sha256(b), 'hex'))"
_DIGITS = "pg_temp.gs_number(b, 3, (10 ^ least(15, 3 + m.tries))::bigint)"
_SUFFIX = f"(CASE WHEN m.tries > {{after}} THEN '{{lead}}' || {_DIGITS} ELSE '' END)"
_FIRST, _LAST = "pg_temp.gs_word(b, 0, w.first_names)", "pg_temp.gs_word(b, 1, w.last_names)"
_CLASS = "greatest({least}, (m.characters + {step} - 1) / {step} * {step})"
# Beyond 2^53 JavaScript takes numbers for their neighbours.
_INTS = ((32767, 1000), (2147483647, 100_000_000), (9_000_000_000_000_000, 1_000_000_000))
_NO_LIMIT = 1 << 30
_DAYS = 730

# example.com and 555-01xx belong to nobody (RFC 2606; North American Numbering Plan).
_EMAIL = f"lower({_FIRST} || '.' || {_LAST} || '.') || left({_HEX}, 10 + 2 * m.tries)"
_PHONE = (
    "'+1-' || (200 + pg_temp.gs_number(b, 0, 800)) || '-555-01' || lpad(pg_temp.gs_number(b, 1, 100)::text, 2, '0')"
)
_ADDRESS = f"(1 + pg_temp.gs_number(b, 0, 999)) || ' ' || {_LAST} || ' Street, ' || pg_temp.gs_word(b, 2, w.cities)"
_UUID = (
    "encode(set_byte(set_byte(substr(b, 1, 16), 6, (get_byte(b, 6) & 15) | 64), 8, (get_byte(b, 8) & 63) | 128),"
    " 'hex')::uuid::text"
)
_SIGN = "(CASE WHEN get_byte(b, 31) % 2 = 0 THEN 1 ELSE -1 END)"
_MOVED: Mapping[str, str] = {
    "date": f"(m.original::date + {_SIGN} * (1 + pg_temp.gs_number(b, 0, {_DAYS}))::integer)::text",
    "timestamp": f"(m.original::timestamp + {_SIGN} * (1 + pg_temp.gs_number(b, 0, {_DAYS * 86400})) * interval '1 s')"
    "::text",
    "timestamptz": f"(m.original::timestamptz + {_SIGN} * (1 + pg_temp.gs_number(b, 0, {_DAYS * 86400}))"
    " * interval '1 s')::text",
}


def made_up(rule: str, kind: Kind, limit: int | None) -> str:
    """The expression of a value that has at most `limit` characters, or is at most `limit` for an int."""
    room = _NO_LIMIT if limit is None else limit
    if rule == "hash":
        return _hashed(kind, room)
    if rule == "fake:date":
        return _MOVED[kind]
    if rule == "fake:text":
        length = f"least({room}, {_CLASS.format(least=16, step=16)})"
        return f"pg_temp.gs_sentence(b, {length}, w.words)"
    if rule == "fake:email":
        return f"right({_EMAIL}, {room - len('@example.com')}) || '@example.com'"
    if rule == "fake:url":
        return f"'https://example.com/' || left({_HEX}, {min(24, room - len('https://example.com/'))})"
    base, suffix = {
        "fake:name": (f"{_FIRST} || ' ' || {_LAST}", _SUFFIX.format(after=0, lead=" ")),
        "fake:phone": (_PHONE, _SUFFIX.format(after=3, lead=" x")),
        "fake:address": (_ADDRESS, _SUFFIX.format(after=0, lead=", Apt ")),
    }[rule]
    return f"left({base}, greatest(0, {room} - length({suffix}))) || {suffix}"


def _hashed(kind: Kind, room: int) -> str:
    if kind == "uuid":
        return _UUID
    if kind == "int":
        lowest, highest = next(((low, top) for top, low in _INTS if room <= top), (_INTS[-1][1], _INTS[-1][0]))
        highest = min(highest, room)
        return f"({lowest} + pg_temp.gs_number(b, 0, {highest - lowest + 1}))::text"
    return f"left({_HEX}, least({room}, 64, {_CLASS.format(least=16, step=8)}))"


def says_nothing(column: Column, value: str) -> str | None:
    """The condition under which a value is kept, as there is nothing in it to hide; None for types without one."""
    if column.kind == "text":
        return f"{value}::text = ''"
    return f"NOT isfinite({value})" if column.kind in ("date", "timestamp", "timestamptz") else None


# What masked values look like, as a regular expression.
FORMATS: Mapping[str, str] = {
    "fake:email": r"^[a-z0-9.]+@example\.com$",
    "fake:phone": r"^\+1-[2-9][0-9][0-9]-555-01[0-9][0-9]( x[0-9]+)?$",
    "fake:url": r"^https://example\.com/[0-9a-f]+$",
    "fake:name": r"^[A-Z][A-Za-z ]+[0-9]*$",
    "fake:address": r"^[0-9]+ [A-Za-z, ]+[0-9]*$",
    "fake:text": r"^[a-z ]+$",
}
HASH_FORMATS: Mapping[str, str] = {
    "text": r"^[0-9a-f]{8,64}$",
    "uuid": r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    "int": r"^[1-9][0-9]{3,15}$",
}
