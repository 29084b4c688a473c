"""Gzip on the way back: whole, in several members, cut and damaged."""

from __future__ import annotations

import gzip
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.inflating import Inflating


def inflated(data: bytes, size: int = 1000) -> bytes:
    source = Inflating(BytesIO(data), "f.gz")
    pieces = []
    while piece := source.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    return b"".join(pieces)


@given(st.lists(st.binary(max_size=3_000), max_size=3), st.integers(1, 5_000))
def test_what_was_compressed_comes_out(members: list[bytes], size: int) -> None:
    assert inflated(b"".join(gzip.compress(member) for member in members), size) == b"".join(members)


def test_cut_and_damaged() -> None:
    data = gzip.compress(b"x" * 100_000 + bytes(range(256)) * 40)
    for cut in (5, len(data) // 2, len(data) - 1):
        with pytest.raises(StoreError, match="COMPRESSED_DAMAGED"):
            inflated(data[:cut])
    damaged = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    for wrong in (damaged, b"no gzip at all", data + b"more"):
        with pytest.raises(StoreError, match="COMPRESSED_DAMAGED"):
            inflated(wrong)
