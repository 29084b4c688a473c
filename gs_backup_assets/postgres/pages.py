"""Data pages as PostgreSQL writes them: their checksums. Pure.

The algorithm is that of PostgreSQL's header `storage/checksum_impl.h`; see also the manual, "Data Checksums".
"""

from __future__ import annotations

import struct

PAGE_BYTES = 8192
_CHECKSUM_AT = 8  # pd_checksum, behind pd_lsn (storage/bufpage.h)
_PRIME = 16777619
_MASK = 0xFFFFFFFF
_SEEDS = (
    *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C),
    *(0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB),
    *(0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4),
    *(0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
)


def page_checksum(page: bytes, block: int) -> int:
    """The checksum that a page has as block number `block` of its relation, whatever is in its place now."""
    blank = page[:_CHECKSUM_AT] + b"\0\0" + page[_CHECKSUM_AT + 2 :]
    sums = list(_SEEDS)
    width = len(sums)
    words = (*struct.unpack(f"={PAGE_BYTES // 4}I", blank), *[0] * (2 * width))
    for place, word in enumerate(words):
        mixed = sums[place % width] ^ word
        sums[place % width] = (mixed * _PRIME & _MASK) ^ (mixed >> 17)
    result = block
    for one in sums:
        result ^= one
    return result % 65535 + 1


def stored_checksum(page: bytes) -> int:
    """The checksum that is written in a page."""
    (found,) = struct.unpack_from("=H", page, _CHECKSUM_AT)
    return int(found)


def with_checksum(page: bytes, block: int) -> bytes:
    """The page with the checksum that it should have."""
    return page[:_CHECKSUM_AT] + struct.pack("=H", page_checksum(page, block)) + page[_CHECKSUM_AT + 2 :]
