"""Ways in which the stored files of a backup can be broken, each with the finding codes that must name it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.manifest import SUMS, Manifest, StoredFile
from gs_backup_assets.recovery.dumps.take import DUMP_FOLDER, GLOBALS_FILE
from gs_backup_assets.recovery.stored.stored_settings import SETTINGS_FILE

TOC = f"{DUMP_FOLDER}/toc.dat"
_ELSEWHERE = "2001-01-01"


@dataclass(frozen=True)
class Copy:
    """A store of its own with copies of two sound backups, made to be broken. The newer one is put to the proof.

    Files are hard links to the originals, so they are replaced and never written in place. `dump_changed` dumps a
    copy of the source database after running SQL statements in it, and returns the folder of that backup.
    """

    root: Path
    newer: Manifest
    older: Manifest
    outside: Path
    dump_changed: Callable[[tuple[str, ...]], Path]

    @property
    def folder(self) -> Path:
        return self.root / self.newer.folder

    @property
    def older_folder(self) -> Path:
        return self.root / self.older.folder

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Put other bytes in the place of a file of the newer backup, or add one."""
        self.remove(path)
        (self.folder / path).write_bytes(data)

    def remove(self, path: str) -> None:
        (self.folder / path).unlink(missing_ok=True)

    def data_files(self) -> list[str]:
        """Paths of the files with rows of tables, the largest first."""
        named = (f for f in self.newer.files if Path(f.path).name[0].isdigit())
        return [file.path for file in sorted(named, key=lambda f: (-f.size, f.path))]

    def updated_file(self) -> str:
        """The first file with rows that the older backup has with other contents."""
        before = {file.path: file.sha256 for file in self.older.files}
        now = {file.path: file.sha256 for file in self.newer.files}
        return next(path for path in self.data_files() if before.get(path, now[path]) != now[path])

    def take_over(self, folder: Path, *paths: str) -> None:
        """Put files of another backup's folder in the place of this one's."""
        for path in paths:
            self.write(path, (folder / path).read_bytes())

    def replace_dump(self, folder: Path) -> None:
        """Put the whole dump of another backup in the place of this one's, with digests that are right for it."""
        for path in (file.path for file in self.newer.files if file.path.startswith(f"{DUMP_FOLDER}/")):
            self.remove(path)
        self.take_over(folder, *(f"{DUMP_FOLDER}/{path.name}" for path in (folder / DUMP_FOLDER).iterdir()))
        self.redigest()

    def redigest(self) -> None:
        """Write manifest and checksums anew for the files as they are: no checksum can find what is wrong then."""
        dump = (f"{DUMP_FOLDER}/{path.name}" for path in (self.folder / DUMP_FOLDER).iterdir())
        paths = [GLOBALS_FILE, SETTINGS_FILE, *dump]
        contents = {path: self.read(path) for path in sorted(paths)}
        files = tuple(
            StoredFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in contents.items()
        )
        self.put_manifest(self.newer.model_copy(update={"files": files}))

    def put_manifest(self, manifest: Manifest) -> None:
        data = manifests.encode(manifest)
        self.write(manifests.NAME, data)
        self.write(SUMS, manifests.sha256sums(manifest, data))


@dataclass(frozen=True)
class Breakage:
    """One way to break a backup. It is caught when a proof does not pass and names one of the codes in `expected`."""

    name: str
    title: str
    expected: tuple[str, ...]
    apply: Callable[[Copy], None]


_DIFFERENT = ("FILE_DIFFERS", "FILE_TRUNCATED", "FILE_EXTENDED")
_NOT_OURS = ("MANIFEST_DAMAGED",)
_MISPLACED = ("MANIFEST_MISPLACED", "MANIFEST_DAMAGED")
# A link is not followed: the bytes behind it are not in the store, whatever they are.
_LINK = ("FILE_NOT_OURS", "FILE_MISSING")
# What decompression and COPY make of damaged rows depends on where the damage lies; all of these name the backup.
_UNREADABLE = ("ARCHIVE_DAMAGED", "DATA_UNREADABLE", "RESTORE_ERROR", "ROWS_DIFFER", "CONTENTS_DIFFER")


def _flipped(data: bytes, position: float = 0.5) -> bytes:
    """The same bytes but for one bit."""
    at = int(len(data) * position)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _flip(path: str) -> Callable[[Copy], None]:
    return lambda copy: copy.write(path, _flipped(copy.read(path)))


def _remove(path: str) -> Callable[[Copy], None]:
    return lambda copy: copy.remove(path)


def _on_largest(change: Callable[[bytes], bytes], *, redigest: bool = False) -> Callable[[Copy], None]:
    def apply(copy: Copy) -> None:
        path = copy.data_files()[0]
        copy.write(path, change(copy.read(path)))
        if redigest:
            copy.redigest()

    return apply


def _swap(copy: Copy) -> None:
    first, second = copy.data_files()[:2]
    one, other = copy.read(first), copy.read(second)
    copy.write(first, other)
    copy.write(second, one)


def _swap_redigested(copy: Copy) -> None:
    _swap(copy)
    copy.redigest()


def _older_file(copy: Copy) -> None:
    copy.take_over(copy.older_folder, copy.updated_file())


def _older_file_redigested(copy: Copy) -> None:
    _older_file(copy)
    copy.redigest()


def _older_toc_redigested(copy: Copy) -> None:
    copy.take_over(copy.older_folder, TOC)
    copy.redigest()


def _foreign_toc_redigested(copy: Copy) -> None:
    copy.take_over(copy.dump_changed(('DROP TABLE "Recommendation"',)), TOC)
    copy.redigest()


def _moved(copy: Copy) -> None:
    place = copy.folder.parent.parent / _ELSEWHERE / copy.newer.id
    place.parent.mkdir()
    copy.folder.rename(place)


def _linked(copy: Copy) -> None:
    path = copy.data_files()[0]
    copy.outside.write_bytes(copy.read(path))
    copy.remove(path)
    (copy.folder / path).symlink_to(copy.outside)


def _dangling(copy: Copy) -> None:
    path = copy.data_files()[0]
    copy.remove(path)
    (copy.folder / path).symlink_to(copy.outside)


def _fewer_rows(manifest: Manifest) -> Manifest:
    tables = manifest.fingerprint.tables
    largest = max(tables, key=lambda table: table.rows)
    lying = tuple(t.model_copy(update={"rows": t.rows - 1}) if t is largest else t for t in tables)
    return manifest.model_copy(update={"fingerprint": manifest.fingerprint.model_copy(update={"tables": lying})})


def _rows_edited(copy: Copy) -> None:
    rows = max(table.rows for table in copy.newer.fingerprint.tables)
    data = copy.read(manifests.NAME)
    copy.write(manifests.NAME, data.replace(b'"rows": %d' % rows, b'"rows": %d' % (rows - 1)))


def _file_unlisted(copy: Copy) -> None:
    dropped = copy.data_files()[0]
    files = tuple(file for file in copy.newer.files if file.path != dropped)
    copy.put_manifest(copy.newer.model_copy(update={"files": files}))


def _path_outside(copy: Copy) -> None:
    file = copy.newer.files[0]
    stranger = file.model_copy(update={"path": f"../../../../{copy.outside.name}"})
    copy.put_manifest(copy.newer.model_copy(update={"files": (*copy.newer.files, stranger)}))


def _sums_edited(copy: Copy) -> None:
    text = copy.read(SUMS)
    copy.write(SUMS, (b"1" if text[:1] == b"0" else b"0") + text[1:])


def _data_file_lost(copy: Copy) -> None:
    copy.remove(copy.data_files()[0])


def _data_file_lost_redigested(copy: Copy) -> None:
    _data_file_lost(copy)
    copy.redigest()


def _globals_edited(old: bytes, new: bytes) -> Callable[[Copy], None]:
    def apply(copy: Copy) -> None:
        text = copy.read("globals.sql")
        assert old in text, old
        copy.write("globals.sql", text.replace(old, new))
        copy.redigest()

    return apply


def _without_role(role: str) -> Callable[[Copy], None]:
    """Take every line about a role out of globals.sql, with digests that are right for what is left."""

    def apply(copy: Copy) -> None:
        lines = copy.read(GLOBALS_FILE).splitlines(keepends=True)
        copy.write(GLOBALS_FILE, b"".join(line for line in lines if role.encode() not in line))
        copy.redigest()

    return apply


STORED: tuple[Breakage, ...] = (
    Breakage(
        "truncated", "a data file lost its second half", ("FILE_TRUNCATED",), _on_largest(lambda d: d[: len(d) // 2])
    ),
    Breakage("short_by_one", "a data file lost its last byte", ("FILE_TRUNCATED",), _on_largest(lambda d: d[:-1])),
    Breakage("emptied", "a data file is empty", ("FILE_TRUNCATED",), _on_largest(lambda _: b"")),
    Breakage("extended", "a data file grew by one byte", ("FILE_EXTENDED",), _on_largest(lambda d: d + b"\0")),
    Breakage(
        "zeroed", "a block of a data file is zeros", ("FILE_DIFFERS",), _on_largest(lambda d: bytes(512) + d[512:])
    ),
    Breakage("flip_data", "one bit of a data file is flipped", ("FILE_DIFFERS",), _on_largest(_flipped)),
    Breakage("flip_toc", "one bit of the table of contents is flipped", ("FILE_DIFFERS",), _flip(TOC)),
    Breakage("flip_globals", "one bit of globals.sql is flipped", ("FILE_DIFFERS",), _flip(GLOBALS_FILE)),
    Breakage("flip_manifest", "one bit of the manifest is flipped", _NOT_OURS, _flip(manifests.NAME)),
    Breakage(
        "manifest_truncated",
        "the manifest lost its second half",
        _NOT_OURS,
        lambda c: c.write(manifests.NAME, c.read(manifests.NAME)[: len(c.read(manifests.NAME)) // 2]),
    ),
    Breakage("manifest_emptied", "the manifest is empty", _NOT_OURS, lambda c: c.write(manifests.NAME, b"")),
    Breakage(
        "manifest_reformatted",
        "the manifest says the same in other bytes",
        _NOT_OURS,
        lambda c: c.write(manifests.NAME, c.read(manifests.NAME) + b"\n"),
    ),
    Breakage("manifest_edited", "a row count in the manifest was edited", _NOT_OURS, _rows_edited),
    Breakage(
        "manifest_forged",
        "a row count in the manifest was edited, and its digest too",
        ("ROWS_DIFFER",),
        lambda c: c.put_manifest(_fewer_rows(c.newer)),
    ),
    Breakage("manifest_short", "the manifest does not list a data file", ("FILE_UNEXPECTED",), _file_unlisted),
    Breakage(
        "manifest_outside", "the manifest lists a file outside the store", ("KEY_INVALID", *_NOT_OURS), _path_outside
    ),
    Breakage("manifest_missing", "the manifest is missing", ("BACKUP_NOT_FOUND",), _remove(manifests.NAME)),
    Breakage(
        "manifest_older",
        "an older backup's manifest lies in the newer folder",
        _MISPLACED,
        lambda c: c.take_over(c.older_folder, manifests.NAME),
    ),
    Breakage("moved", "the backup lies under another day", _MISPLACED, _moved),
    Breakage("data_missing", "a data file is missing", ("FILE_MISSING",), _data_file_lost),
    Breakage("toc_missing", "the table of contents is missing", ("FILE_MISSING",), _remove(TOC)),
    Breakage("globals_missing", "globals.sql is missing", ("FILE_MISSING",), _remove(GLOBALS_FILE)),
    Breakage("swapped", "two data files changed places", ("FILE_SWAPPED",), _swap),
    Breakage("older_file", "an older backup's data file under the newer manifest", _DIFFERENT, _older_file),
    Breakage(
        "extra_file",
        "a file that nobody listed lies in the dump",
        ("FILE_UNEXPECTED",),
        lambda c: c.write(f"{DUMP_FOLDER}/9999.dat", b"\\.\n"),
    ),
    Breakage("sums_edited", "a digest in SHA256SUMS was edited", ("SUMS_DIFFER",), _sums_edited),
    Breakage("link_outside", "a file is a link to its own bytes outside the store", _LINK, _linked),
    Breakage("link_dangling", "a file is a link to nothing", _LINK, _dangling),
)

# The digests agree with the bytes; only restoring can find what is wrong.
REDIGESTED: tuple[Breakage, ...] = (
    Breakage(
        "truncated_redigested",
        "half a data file, with the right digest for the half",
        _UNREADABLE,
        _on_largest(lambda d: d[: len(d) // 2], redigest=True),
    ),
    Breakage(
        "emptied_redigested",
        "an empty data file, with the right digest",
        _UNREADABLE,
        _on_largest(lambda _: b"", redigest=True),
    ),
    Breakage(
        "flipped_redigested",
        "one bit of a data file is flipped, with the right digest",
        _UNREADABLE,
        _on_largest(_flipped, redigest=True),
    ),
    Breakage("missing_redigested", "a data file is neither there nor listed", _UNREADABLE, _data_file_lost_redigested),
    Breakage("swapped_redigested", "two data files changed places, digests too", _UNREADABLE, _swap_redigested),
    Breakage(
        "older_file_redigested",
        "an older data file, with the right digest",
        ("CONTENTS_DIFFER",),
        _older_file_redigested,
    ),
    Breakage(
        "older_toc_redigested",
        "an older table of contents, with the right digest",
        ("SEQUENCE_DIFFERS",),
        _older_toc_redigested,
    ),
    Breakage(
        "foreign_toc_redigested",
        "the table of contents of another dump, with the right digest",
        ("ARCHIVE_DAMAGED", "TABLE_MISSING", "DATA_UNREADABLE"),
        _foreign_toc_redigested,
    ),
    Breakage(
        "stale_dump",
        "the older dump under the newer manifest, with the right digests",
        ("CONTENTS_DIFFER",),
        lambda c: c.replace_dump(c.older_folder),
    ),
    Breakage(
        "role_missing", "globals.sql lacks a role that owns a table", ("ROLE_MISSING",), _without_role("studio_app")
    ),
    Breakage(
        "setting_role_missing",
        "globals.sql lacks the role of a database setting",
        ("SETTING_DIFFERS",),
        _without_role("studio_clock"),
    ),
    Breakage(
        "idle_role_missing",
        "globals.sql lacks a role that owns nothing",
        ("ROLE_MISSING",),
        _without_role("studio_idle"),
    ),
    Breakage(
        "role_may_log_in", "a role may log in that could not", ("ROLE_DIFFERS",), _globals_edited(b"NOLOGIN", b"LOGIN")
    ),
    Breakage(
        "membership_lost",
        "a role is no member of another any more",
        ("ROLE_DIFFERS",),
        _globals_edited(b"GRANT studio", b"-- "),
    ),
    Breakage(
        "role_setting_lost",
        "a setting of a role is gone",
        ("ROLE_DIFFERS",),
        _globals_edited(b"work_mem", b"temp_buffers"),
    ),
    Breakage(
        "globals_command",
        "globals.sql holds a command for psql",
        ("GLOBALS_UNSAFE",),
        _globals_edited(b"CREATE ROLE studio_app;", b"CREATE ROLE studio_app; \\! true"),
    ),
)
