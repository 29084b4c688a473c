"""The manifest: read back as it was written, and refused when a single byte of it is another."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gs_backup_assets.catalogue.manifest import (
    Manifest,
    StoredFile,
    backup_id,
    decode,
    encode,
    parse_id,
    sha256sums,
)
from gs_backup_assets.catalogue.sealed import seal
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.settings import Setting, SettingPrint
from gs_backup_assets_tests.catalogue.manifests import made_up

MANIFEST = made_up()
DATA = encode(MANIFEST)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def refusal(data: bytes, folder: str = MANIFEST.folder) -> str:
    with pytest.raises(StoreError) as caught:
        decode(data, folder=folder)
    return caught.value.code


def signed(contents: object) -> bytes:
    """What somebody could write who knows how manifests are made."""
    return seal("manifest", contents)


@given(names)
@example("\u2028\\\"'\n\0\x7f😀")
def test_what_is_written_is_read(text: str) -> None:
    manifest = made_up(text=text)
    assert decode(encode(manifest), folder=manifest.folder) == manifest
    assert encode(decode(encode(manifest), folder=manifest.folder)) == encode(manifest)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found(position: int, change: int) -> None:
    assert refusal(DATA[:position] + bytes([DATA[position] ^ change]) + DATA[position + 1 :]) == "MANIFEST_DAMAGED"


def test_every_single_flipped_bit_is_found() -> None:
    """All of them: properties only try some."""
    for position in range(len(DATA)):
        damaged = DATA[:position] + bytes([DATA[position] ^ (1 << position % 8)]) + DATA[position + 1 :]
        assert refusal(damaged) == "MANIFEST_DAMAGED", position


@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_removed_bytes_are_found(start: int, end: int) -> None:
    damaged = DATA[: min(start, end)] + DATA[max(start, end) :]
    if damaged != DATA:
        assert refusal(damaged) == "MANIFEST_DAMAGED"


@given(st.integers(0, len(DATA)), st.binary(min_size=1, max_size=5))
@example(len(DATA), b"\n")
@example(0, b" ")
@example(0, b"\xef\xbb\xbf")
def test_inserted_bytes_are_found(position: int, inserted: bytes) -> None:
    assert refusal(DATA[:position] + inserted + DATA[position:]) == "MANIFEST_DAMAGED"


@given(st.binary())
@example(b"[" * 100_000)
@example(b'"manifest"')
@example(b"[]")
@example(b"null")
@example(b'{"digest": "x", "manifest": "\\ud800"}')
@example(b'{"digest": "x", "manifest": {"schema_version": "\\ud800"}}')
def test_anything_else_is_no_manifest(data: bytes) -> None:
    assert refusal(data) == "MANIFEST_DAMAGED"


def test_a_manifest_in_another_folder_is_refused() -> None:
    for folder in ("shop/logical/2026-11-21/" + MANIFEST.id, "other/logical/2026-11-22/" + MANIFEST.id, ""):
        assert refusal(DATA, folder) == "MANIFEST_MISPLACED"


def test_a_newer_version_is_told_from_damage() -> None:
    contents = {**MANIFEST.model_dump(mode="json"), "schema_version": 3, "new_field": True}
    assert refusal(signed(contents)) == "MANIFEST_UNKNOWN_VERSION"


def test_a_signed_document_that_is_no_manifest_is_damage() -> None:
    contents = MANIFEST.model_dump(mode="json")
    assert refusal(signed({**contents, "unknown": 1})) == "MANIFEST_DAMAGED"
    assert refusal(signed({key: value for key, value in contents.items() if key != "files"})) == "MANIFEST_DAMAGED"


@pytest.mark.parametrize("path", ["/etc/cron.d/x", "../x", "dump/../../x", "dump//x", ".", "", "dump/", "a\0b", "a\nb"])
def test_a_manifest_cannot_choose_a_place_outside_its_folder(path: str) -> None:
    """Fetching writes to these paths: whoever can write to the store must not get to write to the machine."""
    with pytest.raises(ValidationError):
        StoredFile(path=path, size=0, sha256="")
    contents = MANIFEST.model_dump(mode="json")
    contents["files"][0]["path"] = path
    assert refusal(signed(contents)) == "MANIFEST_DAMAGED"


def test_values_of_settings_in_older_manifests_are_read_and_not_shown() -> None:
    contents = MANIFEST.model_dump(mode="json")
    contents["schema_version"] = 1
    contents["source"]["settings"] = [{"role": "", "name": "app.secret", "value": "hunter2"}]
    role = {"name": "r", "attributes": [], "connection_limit": -1, "valid_until": None, "member_of": []}
    contents["roles"] = [{**role, "settings": ["app.a=hunter=2", "app.a.b=hunter3"]}]
    manifest = decode(signed(contents), folder=MANIFEST.folder)
    (setting,) = manifest.source.settings
    assert isinstance(setting, Setting) and setting.value == "hunter2"
    digest = hashlib.sha256(b"hunter2").hexdigest()
    assert manifest.shown.source.settings == (SettingPrint(role="", name="app.secret", sha256=digest),)
    assert [(s.name, s.sha256) for s in manifest.roles[0].settings] == [
        ("app.a", hashlib.sha256(b"hunter=2").hexdigest()),
        ("app.a.b", hashlib.sha256(b"hunter3").hexdigest()),
    ]
    assert b"hunter" not in encode(manifest.shown)


moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(timezone.utc))


@given(moments, moments)
def test_ids_sort_by_time_and_name_their_moment(one: datetime, other: datetime) -> None:
    one, other = one.replace(microsecond=0), other.replace(microsecond=0)
    assert (backup_id(one) < backup_id(other)) == (one < other)
    assert parse_id(backup_id(one)) == one


def test_sums_are_in_the_format_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "toc.dat").write_bytes(b"abc")
    file = StoredFile(path="dump/toc.dat", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
    manifest = MANIFEST.model_copy(update={"files": (file,)})
    data = encode(manifest)
    (tmp_path / "manifest.json").write_bytes(data)
    (tmp_path / "SHA256SUMS").write_bytes(sha256sums(manifest, data))
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "dump" / "toc.dat").write_bytes(b"abd")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 1


def test_the_file_can_be_read_without_this_software() -> None:
    document = json.loads(DATA)
    assert set(document) == {"digest", "manifest"}
    assert Manifest.model_validate(document["manifest"]).stored_bytes == 3
