"""Archives unpacked from a stream: as tar does it, and refused when they hold what no cluster's archive holds."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gs_backup_assets.system.account import current_account, server_account
from gs_backup_assets.system.untar import TarRefused, untar


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o600, link: str = "") -> bytes:
    """A header and the contents behind it."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname = len(data), kind, mode, link
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)


def pieces_of(data: bytes, size: int = 1000) -> Callable[[], bytes]:
    stream = io.BytesIO(data)
    return lambda: stream.read(size)


def unpack(data: bytes, into: Path, *, size: int = 1000) -> int:
    return untar(pieces_of(data, size), into, account=current_account())


def test_files_and_folders(tmp_path: Path) -> None:
    contents = random.Random(1).randbytes(5_000)
    data = member("base", kind=tarfile.DIRTYPE, mode=0o700) + member("./base/1", contents, mode=0o640)
    data += member("empty") + member("base/2", b"x" * 512)
    assert unpack(data + END, tmp_path) == 5_512
    assert (tmp_path / "base/1").read_bytes() == contents
    assert (tmp_path / "empty").read_bytes() == b""
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("base", "base/1", "base/2")}
    assert modes == {"base": 0o700, "base/1": 0o640, "base/2": 0o600}


def test_members_left_out(tmp_path: Path) -> None:
    data = member("tablespace_map", b"secret" * 200) + member("kept", b"k") + END
    untar(pieces_of(data), tmp_path, account=current_account(), skip=frozenset({"tablespace_map"}))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_the_account(tmp_path: Path) -> None:
    account = server_account()
    untar(pieces_of(member("d", kind=tarfile.DIRTYPE) + member("d/f", b"x") + END), tmp_path, account=account)
    assert {(tmp_path / name).stat().st_uid for name in ("d", "d/f")} == {account.uid}


@pytest.mark.parametrize(
    "data",
    [
        member("../out", b"x"),
        member("/etc/out", b"x"),
        member("a/../../out", b"x"),
        member("a//b", b"x"),
        member("", b"x"),
        member("pg_wal", kind=tarfile.SYMTYPE, link="/etc"),
        member("hard", kind=tarfile.LNKTYPE, link="there"),
        member("pipe", kind=tarfile.FIFOTYPE),
        member("device", kind=tarfile.CHRTYPE),
        member("there", b"replaced"),
        member("link/out", b"x"),
        member("no/folder", b"x"),
        member("there/file", b"x"),
    ],
    ids=[
        "up",
        "absolute",
        "up and out",
        "empty part",
        "no name",
        "symbolic link",
        "hard link",
        "pipe",
        "device",
        "file that is there",
        "through a link",
        "no folder",
        "below a file",
    ],
)
def test_hostile_archives(tmp_path: Path, data: bytes) -> None:
    outside, into = tmp_path / "outside", tmp_path / "into"
    outside.mkdir()
    into.mkdir()
    (into / "there").write_bytes(b"before")
    (into / "link").symlink_to(into / "nowhere")
    with pytest.raises(TarRefused):
        unpack(data + END, into)
    assert (into / "there").read_bytes() == b"before"
    assert list(outside.iterdir()) == [] and not (tmp_path / "out").exists()


def test_cut_and_damaged(tmp_path: Path) -> None:
    data = member("f", b"x" * 5_000) + END
    for cut in (0, 100, 512, 3_000, 5_512):
        folder = tmp_path / str(cut)
        folder.mkdir()
        with pytest.raises(TarRefused, match="ends in the middle"):
            unpack(data[:cut], folder)
    with pytest.raises(TarRefused, match="no sound header"):
        unpack(b"y" + data[1:], tmp_path)


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=3_000), max_size=6), st.integers(1, 2_000))
def test_as_tarfile_writes_it(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], size: int) -> None:
    into = tmp_path_factory.mktemp("tar")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number, data in enumerate(contents):
            info = tarfile.TarInfo(f"f{number}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert unpack(archive.getvalue(), into, size=size) == sum(map(len, contents))
    assert [(into / f"f{number}").read_bytes() for number in range(len(contents))] == contents
