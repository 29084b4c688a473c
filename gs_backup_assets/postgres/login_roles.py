"""Which superusers a cluster has, read from its files: a recovered server has to be asked under some name.

The layouts are those of PostgreSQL 14 to 18: `storage/bufpage.h`, `access/htup_details.h`, `catalog/pg_authid.h` and
`utils/cache/relmapper.c`. Old versions of a row count as well, so what is found is tried, not believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from gs_backup_assets.postgres.wal import PAGE_BYTES

_AUTHID = 1260  # the OID of pg_authid
_BOOTSTRAP = 10  # the OID of the role that initdb makes
_MAP_MAGIC = 0x592717
_NAME_BYTES = 64
_ROW = struct.Struct(f"=I{_NAME_BYTES}s?????")  # oid, rolname, rolsuper, rolinherit, rolcreaterole, -db, rolcanlogin
_NORMAL = 1  # LP_NORMAL


def superusers(data: Path) -> list[str]:
    """Names of superusers that may log in, the one that initdb made first; empty where none can be read."""
    path = data / "global" / str(_file_of(data))
    try:
        contents = path.read_bytes()
    except FileNotFoundError:
        return []
    found: dict[str, int] = {}
    for oid, name, is_superuser, may_login in _rows(contents):
        if is_superuser and may_login:
            found[name] = oid
    return sorted(found, key=lambda name: (found[name] != _BOOTSTRAP, found[name], name))


def _file_of(data: Path) -> int:
    """The number of the file that holds pg_authid: another one after VACUUM FULL."""
    contents = (data / "global" / "pg_filenode.map").read_bytes()
    magic, count = struct.unpack_from("=ii", contents)
    if magic == _MAP_MAGIC:
        for index in range(count):
            oid, number = struct.unpack_from("=II", contents, 8 + 8 * index)
            if oid == _AUTHID:
                return int(number)
    return _AUTHID


def _rows(contents: bytes) -> Iterator[tuple[int, str, bool, bool]]:
    for start in range(0, len(contents), PAGE_BYTES):
        page = contents[start : start + PAGE_BYTES]
        (lower,) = struct.unpack_from("=H", page, 12)  # pd_lower: the end of the line pointers, which begin at 24
        for place in range(24, lower, 4):
            (pointer,) = struct.unpack_from("=I", page, place)
            offset, flags, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
            if flags != _NORMAL:
                continue
            row = offset + page[offset + 22]  # t_hoff
            if row + _ROW.size <= offset + length:
                oid, name, is_superuser, _, _, _, may_login = _ROW.unpack_from(page, row)
                yield oid, name.split(b"\0", 1)[0].decode(errors="replace"), is_superuser, may_login
