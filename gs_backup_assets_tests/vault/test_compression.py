"""Zstandard on the way: the same bytes come back, whatever the sizes of reads; what is cut or changed is told."""

from __future__ import annotations

import random
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.compression import Compressing, Decompressing, compress, decompress
from gs_backup_assets_tests.vault.s3_parts import code_of

DATA = random.Random(7).randbytes(3_000_000) + bytes(5_000_000)


def everything(source: Compressing | Decompressing, size: int) -> bytes:
    pieces = []
    while piece := source.read(size):
        pieces.append(piece)
    return b"".join(pieces)


@given(data=st.binary(max_size=5000), size=st.integers(1, 6000), frames=st.integers(1, 3))
def test_the_same_bytes_come_back(data: bytes, size: int, frames: int) -> None:
    stored = everything(Compressing(BytesIO(data)), size) * frames
    assert everything(Decompressing(BytesIO(stored), "x"), size) == data * frames


def test_reads_are_never_larger_than_asked_for() -> None:
    source = Decompressing(BytesIO(compress(DATA)), "x")
    sizes = []
    while piece := source.read(70_000):
        sizes.append(len(piece))
    assert sum(sizes) == len(DATA)
    assert max(sizes) <= 70_000


def test_the_stock_program_reads_it(tmp_path: Path) -> None:
    program = shutil.which("zstd")
    assert program is not None, "install zstd"
    file = tmp_path / "x.zst"
    file.write_bytes(everything(Compressing(BytesIO(DATA)), 1 << 20))
    assert subprocess.run([program, "-dcq", file], capture_output=True, check=True).stdout == DATA


@pytest.mark.parametrize("left", [0.0, 0.5, 0.999], ids=["nothing", "half", "almost-all"])
def test_what_was_cut_is_damaged(left: float) -> None:
    stored = compress(DATA)
    cut = stored[: int(len(stored) * left)]
    assert code_of(lambda: decompress(cut, "base.tar.zst")) == "COMPRESSED_DAMAGED"
    if cut:  # nothing at all is an empty file to a reader of streams; its hash tells
        assert code_of(lambda: everything(Decompressing(BytesIO(cut), "base.tar.zst"), 1 << 20)) == "COMPRESSED_DAMAGED"


def test_a_changed_byte_is_damage_by_the_frames_checksum() -> None:
    stored = bytearray(compress(DATA))
    stored[1_500_000] ^= 1
    with pytest.raises(StoreError, match=r"^COMPRESSED_DAMAGED: base\.tar\.zst "):
        everything(Decompressing(BytesIO(bytes(stored)), "base.tar.zst"), 1 << 20)
