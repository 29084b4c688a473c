"""Ways in which base backups and their chains can be broken, each with the codes that name it and who has to see it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

from gs_backup_assets.catalogue.manifest import KEYS, NAME
from gs_backup_assets.postgres.pages import PAGE_BYTES, with_checksum
from gs_backup_assets.recovery.physical.unpacking import SERVER_MANIFEST
from gs_backup_assets.recovery.selftest.breakages_in_vault import flip, give_another_key, replace
from gs_backup_assets.recovery.selftest.physical_bench import PhysicalBreakage
from gs_backup_assets.recovery.selftest.physical_copy import CLUSTER_TAR, WAL_TAR, PhysicalCopy, without
from gs_backup_assets.recovery.selftest.physical_looks import checked, drilled, newest_unpacked, proved, unpacked
from gs_backup_assets.vault.compression import compress, decompress

_LINE_POINTERS = 24  # where they begin in a page (storage/bufpage.h); each has four bytes
_XACT = "pg_xact/0000"
_COMMITTED, _ABORTED = 1, 2  # access/clog.h; two bits each
_ANOTHER_SYSTEM = b"7000000000000000001"


def _tar_cut(copy: PhysicalCopy) -> None:
    path = copy.path(copy.chain[-1], CLUSTER_TAR)
    replace(path, path.read_bytes()[:-100])


def _tar_flipped(copy: PhysicalCopy) -> None:
    flip(copy.path(copy.chain[-1], CLUSTER_TAR))


def _tar_gone(copy: PhysicalCopy) -> None:
    copy.path(copy.chain[-1], CLUSTER_TAR).unlink()


def _manifest_flipped(copy: PhysicalCopy) -> None:
    flip(copy.path(copy.chain[-1], NAME))


def _manifest_of_another(copy: PhysicalCopy) -> None:
    replace(copy.path(copy.chain[-1], NAME), copy.path(copy.chain[-2], NAME).read_bytes())


def _envelope_of_another(copy: PhysicalCopy) -> None:
    replace(copy.path(copy.chain[-1], CLUSTER_TAR), copy.path(copy.chain[-2], CLUSTER_TAR).read_bytes())
    copy.envelope_as_it_is(copy.chain[-1], CLUSTER_TAR)


def _contents_of_another(copy: PhysicalCopy) -> None:
    copy.put_contents(copy.chain[-1], CLUSTER_TAR, copy.contents(copy.chain[-2], CLUSTER_TAR))


def _frame_cut(copy: PhysicalCopy) -> None:
    data = copy.contents(copy.newest, CLUSTER_TAR)
    copy.put_contents(copy.newest, CLUSTER_TAR, data[: len(data) // 2])


def _archive_cut(copy: PhysicalCopy) -> None:
    tar = _tar(copy)
    copy.put_contents(copy.newest, CLUSTER_TAR, compress(tar[: len(tar) // 2]))


def _file_lost(copy: PhysicalCopy) -> None:
    copy.put_contents(copy.newest, CLUSTER_TAR, compress(without(_tar(copy), copy.log.quiet_file)))


def _tar(copy: PhysicalCopy) -> bytes:
    return decompress(copy.contents(copy.newest, CLUSTER_TAR), CLUSTER_TAR)


def _flipped(data: bytes) -> bytes:
    at = len(data) - 100  # rows are at a page's end
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _file_changed(copy: PhysicalCopy) -> None:
    copy.change_cluster(copy.newest, copy.log.quiet_file, _flipped, seal=False)


def _page_damaged(copy: PhysicalCopy) -> None:
    copy.change_cluster(copy.newest, copy.log.quiet_file, _flipped)


def _index_disordered(copy: PhysicalCopy) -> None:
    """Two entries of the index's only leaf, block 1, change places; the page's checksum is right for that."""

    def change(data: bytes) -> bytes:
        page = data[PAGE_BYTES : 2 * PAGE_BYTES]
        at = _LINE_POINTERS + 4 * 10
        page = page[:at] + page[at + 4 : at + 8] + page[at : at + 4] + page[at + 8 :]
        return data[:PAGE_BYTES] + with_checksum(page, 1) + data[2 * PAGE_BYTES :]

    copy.change_cluster(copy.newest, copy.log.index_file, change)


def _rows_gone(copy: PhysicalCopy) -> None:
    """Pages of zeros are new pages to PostgreSQL: they are sound, and empty."""
    copy.change_cluster(copy.newest, copy.log.zeroed_file, lambda data: bytes(len(data)))


def _with_status(status: int, *numbers: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        made = bytearray(data)
        for number in numbers:
            shift = number % 4 * 2
            made[number // 4] = made[number // 4] & ~(3 << shift) | status << shift
        return bytes(made)

    return change


def _commits_forgotten(copy: PhysicalCopy) -> None:
    copy.change_cluster(copy.newest, _XACT, _with_status(_ABORTED, *copy.log.committed_early))


def _commit_ahead(copy: PhysicalCopy) -> None:
    copy.change_cluster(copy.newest, _XACT, _with_status(_COMMITTED, copy.log.committed_late))


def _log_gone(copy: PhysicalCopy) -> None:
    copy.forget(copy.newest, WAL_TAR)


def _log_of_another(copy: PhysicalCopy) -> None:
    copy.put_contents(copy.newest, WAL_TAR, copy.contents(copy.chain[0], WAL_TAR))


def _server_manifest_gone(copy: PhysicalCopy) -> None:
    copy.forget(copy.newest, SERVER_MANIFEST)


def _server_manifest_of_another(copy: PhysicalCopy) -> None:
    copy.put_contents(copy.newest, SERVER_MANIFEST, copy.contents(copy.chain[0], SERVER_MANIFEST))


def _server_manifest_edited(copy: PhysicalCopy) -> None:
    modified = re.compile(rb'"Last-Modified": "[^"]*"')
    data = copy.contents(copy.newest, SERVER_MANIFEST)
    data = modified.sub(b'"Last-Modified": "2001-01-01 00:00:00 GMT"', data, count=1)
    copy.put_contents(copy.newest, SERVER_MANIFEST, data)


def _server_manifest_of_another_cluster(copy: PhysicalCopy) -> None:
    system = re.compile(rb'"System-Identifier": \d+')
    copy.change_server_manifest(
        copy.newest, lambda text: system.sub(b'"System-Identifier": ' + _ANOTHER_SYSTEM, text, count=1)
    )


def _link_gone(copy: PhysicalCopy) -> None:
    shutil.rmtree(copy.path(copy.chain[1], NAME).parent)


def _link_skipped(copy: PhysicalCopy) -> None:
    copy.put_manifest(copy.manifest(copy.chain[-1]).model_copy(update={"base": copy.chain[0]}))


def _link_replaced(copy: PhysicalCopy) -> None:
    """The full backup's contents are those of the other full one, which is newer than what adds to it."""
    for name in (CLUSTER_TAR, SERVER_MANIFEST, WAL_TAR):
        copy.put_contents(copy.chain[0], name, copy.contents(copy.newest, name))


def _link_of_another_cluster(copy: PhysicalCopy) -> None:
    update = {"system_identifier": _ANOTHER_SYSTEM.decode()}
    copy.put_manifest(copy.manifest(copy.chain[0]).model_copy(update=update))


def _another_key(copy: PhysicalCopy) -> None:
    give_another_key(copy.settings)


def _data_key_gone(copy: PhysicalCopy) -> None:
    shutil.rmtree(copy.path(copy.newest, KEYS))


_DIFFERS = ("BACKUP_MANIFEST_DIFFERS",)
_UNFIT = ("COMBINE_FAILED",)
BASE_BACKUPS: tuple[PhysicalBreakage, ...] = (
    PhysicalBreakage("base_cut", "the end of a cluster's archive is missing", ("FILE_TRUNCATED",), _tar_cut, checked),
    PhysicalBreakage(
        "base_flipped", "a bit of a cluster's archive was flipped", ("FILE_DIFFERS",), _tar_flipped, checked
    ),
    PhysicalBreakage("base_gone", "a cluster's archive is gone", ("FILE_MISSING",), _tar_gone, checked),
    PhysicalBreakage(
        "base_manifest_flipped",
        "a bit of a base backup's manifest was flipped",
        ("MANIFEST_DAMAGED",),
        _manifest_flipped,
        checked,
    ),
    PhysicalBreakage(
        "base_manifest_of_another",
        "the manifest is that of another base backup",
        ("MANIFEST_MISPLACED",),
        _manifest_of_another,
        checked,
    ),
    PhysicalBreakage("base_key_wrong", "the key that is given is another one", ("KEY_WRONG",), _another_key, unpacked),
    PhysicalBreakage(
        "base_data_key_gone",
        "a base backup's wrapped key is gone",
        ("DATA_KEY_MISSING",),
        _data_key_gone,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "base_envelope_of_another",
        "a cluster's archive is that of another base backup, digests made right",
        ("ENVELOPE_MISPLACED",),
        _envelope_of_another,
        unpacked,
    ),
    PhysicalBreakage(
        "base_contents_of_another",
        "the same, encrypted with the backup's own key",
        _UNFIT,
        _contents_of_another,
        unpacked,
    ),
    PhysicalBreakage(
        "base_frame_cut",
        "half of a cluster's compressed archive is missing, digests made right",
        ("COMPRESSED_DAMAGED",),
        _frame_cut,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "base_archive_cut",
        "half of a cluster's archive is missing, compressed anew, digests made right",
        ("ARCHIVE_INVALID",),
        _archive_cut,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "base_file_lost",
        "a table's file is not in the archive, digests made right",
        _DIFFERS,
        _file_lost,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "base_file_changed",
        "a bit of a table's file was flipped, digests of the archive made right",
        _DIFFERS,
        _file_changed,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "server_manifest_gone",
        "backup_manifest is gone, and the manifest says nothing of it",
        _DIFFERS,
        _server_manifest_gone,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "server_manifest_of_another",
        "backup_manifest is that of another base backup, digests made right",
        _DIFFERS,
        _server_manifest_of_another,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "server_manifest_edited",
        "backup_manifest was edited, but for its own digest",
        _DIFFERS,
        _server_manifest_edited,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "server_manifest_of_another_cluster",
        "backup_manifest names another cluster, all digests made right",
        _DIFFERS,
        _server_manifest_of_another_cluster,
        newest_unpacked,
    ),
    PhysicalBreakage(
        "chain_link_gone", "a backup in the middle of a chain is gone", ("CHAIN_BROKEN",), _link_gone, unpacked
    ),
    PhysicalBreakage(
        "chain_link_skipped", "an increment names another backup as its base", _UNFIT, _link_skipped, unpacked
    ),
    PhysicalBreakage(
        "chain_link_replaced",
        "a chain's full backup was replaced with a newer one, digests made right",
        _UNFIT,
        _link_replaced,
        unpacked,
    ),
    PhysicalBreakage(
        "chain_of_another_cluster",
        "a chain's full backup says that it is of another cluster",
        ("CHAIN_INCONSISTENT",),
        _link_of_another_cluster,
        unpacked,
    ),
    PhysicalBreakage(
        "base_log_gone",
        "a base backup's own log is gone, and the manifest says nothing of it",
        ("BASE_BACKUP_DAMAGED",),
        _log_gone,
        proved,
    ),
    PhysicalBreakage(
        "base_log_of_another",
        "a base backup's own log is that of another one, digests made right",
        ("BASE_BACKUP_DAMAGED",),
        _log_of_another,
        proved,
    ),
    PhysicalBreakage(
        "page_damaged",
        "a bit of a table's page was flipped, all digests made right",
        ("PAGE_DAMAGED",),
        _page_damaged,
        proved,
    ),
    PhysicalBreakage(
        "index_disordered",
        "two entries of an index were exchanged, all digests and the page's checksum made right",
        ("CORRUPTION",),
        _index_disordered,
        proved,
    ),
    PhysicalBreakage(
        "table_zeroed",
        "a table's pages are new ones, all digests made right",
        ("ROWS_DIFFER",),
        _rows_gone,
        drilled,
    ),
    PhysicalBreakage(
        "commits_forgotten",
        "transactions count as aborted that were committed, all digests made right",
        ("COMMIT_MISSING",),
        _commits_forgotten,
        drilled,
    ),
    PhysicalBreakage(
        "commit_ahead",
        "a transaction counts as committed before it was, all digests made right",
        ("COMMIT_UNEXPECTED",),
        _commit_ahead,
        drilled,
    ),
)
