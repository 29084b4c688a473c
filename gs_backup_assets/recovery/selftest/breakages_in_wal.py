"""Ways in which an archived write-ahead log can be broken, each with the codes that name it and who has to see it."""

from __future__ import annotations

import shutil
import struct

from gs_backup_assets.catalogue.manifest import NAME
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.restore_points import point_key, put_point, read_point
from gs_backup_assets.postgres.wal import Lsn, Segment, history_name
from gs_backup_assets.recovery.selftest.breakages_in_vault import flip, replace
from gs_backup_assets.recovery.selftest.physical_bench import PhysicalBreakage
from gs_backup_assets.recovery.selftest.physical_copy import PhysicalCopy
from gs_backup_assets.recovery.selftest.physical_looks import (
    PUSHED,
    compared,
    drilled,
    fetched,
    planned,
    pushed,
    replayed,
    surveyed,
)

# In a segment's first page: of its header, and what comes behind it (access/xlog_internal.h).
_TIMELINE_AT, _SYSTEM_AT, _FIRST_RECORD_AT = 4, 24, 40


def _segment(copy: PhysicalCopy) -> Segment:
    """A segment in the middle of the log, behind the newest base backup and long before its end."""
    return copy.log.first[1]


def _gone(copy: PhysicalCopy) -> None:
    copy.wal_path(_segment(copy)).unlink()


def _end_gone(copy: PhysicalCopy) -> None:
    copy.wal_path(copy.log.second[-1]).unlink()


def _bit_flipped(copy: PhysicalCopy) -> None:
    flip(copy.wal_path(_segment(copy)))


def _moved(copy: PhysicalCopy) -> None:
    here, there = (copy.wal_path(segment) for segment in copy.log.first[1:3])
    replace(here, there.read_bytes())


def _exchanged(copy: PhysicalCopy) -> None:
    here, there = copy.log.first[1:3]
    data = copy.wal(here), copy.wal(there)
    copy.put_wal(here, data[1])
    copy.put_wal(there, data[0])


def _of_another_cluster(copy: PhysicalCopy) -> None:
    data = copy.wal(_segment(copy))
    copy.put_wal(_segment(copy), data[:_SYSTEM_AT] + struct.pack("=Q", 7) + data[_SYSTEM_AT + 8 :])


def _of_another_timeline(copy: PhysicalCopy) -> None:
    data = copy.wal(_segment(copy))
    copy.put_wal(_segment(copy), data[:_TIMELINE_AT] + struct.pack("=I", 3) + data[_TIMELINE_AT + 4 :])


def _cut(copy: PhysicalCopy) -> None:
    data = copy.wal(_segment(copy))
    copy.put_wal(_segment(copy), data[: len(data) // 2])


def _empty(copy: PhysicalCopy) -> None:
    copy.put_wal(_segment(copy), bytes(copy.log.segment_bytes))


def _record_flipped(copy: PhysicalCopy) -> None:
    """A bit of the time in a commit's record."""
    segment, end = _segment(copy), copy.log.committed[1]
    copy.put_wal(segment, _with_flip(copy.wal(segment), end.value - segment.start.value - 8))


def _unfinished(copy: PhysicalCopy) -> None:
    """The segment as it was before its commit."""
    segment, end = _segment(copy), copy.log.committed[1]
    data = copy.wal(segment)
    written = (end.value - segment.start.value) // 2 // 8 * 8
    copy.put_wal(segment, data[:written] + bytes(len(data) - written))


def _part_of_a_whole(copy: PhysicalCopy) -> None:
    """Only a part of a segment is there, though the log goes on behind it."""
    segment = _segment(copy)
    data = copy.wal(segment)
    copy.wal_path(segment).unlink()
    copy.archive().put_partial(segment, data[:256] + bytes(len(data) - 256))


def _part_cut(copy: PhysicalCopy) -> None:
    segment = copy.log.second[-1]
    data = copy.wal(segment)
    written = copy.archived(segment).end.value - segment.start.value
    half = written // 2 // 8 * 8
    copy.put_wal(segment, data[:half] + bytes(len(data) - half))


def _part_begun_badly(copy: PhysicalCopy) -> None:
    """A bit of the unfinished segment's first record; others follow it."""
    segment = copy.log.second[-1]
    copy.put_wal(segment, _with_flip(copy.wal(segment), _FIRST_RECORD_AT + 4))


def _part_renamed(copy: PhysicalCopy) -> None:
    """The unfinished segment's name says that there is more of it than there is."""
    path = copy.wal_path(copy.log.second[-1])
    name, written, *rest = path.name.split(".")
    path.rename(path.with_name(".".join((name, f"{int(written, 16) + 256:08X}", *rest))))


def _part_flipped(copy: PhysicalCopy) -> None:
    segment = copy.log.second[-1]
    data = copy.wal(segment)
    copy.put_wal(segment, _with_flip(data, (copy.log.end.value - segment.start.value) - 8))


def _with_flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _history_gone(copy: PhysicalCopy) -> None:
    copy.history_path().unlink()


def _history_edited(copy: PhysicalCopy) -> None:
    copy.put_history(f"1\t{copy.log.first[2].start}\tno recovery target specified\n".encode())


def _history_damaged(copy: PhysicalCopy) -> None:
    copy.put_history(b"once upon a time\n")


def _data_key_gone(copy: PhysicalCopy) -> None:
    shutil.rmtree(copy.primary.root / copy.archive().timeline_folder(2) / "keys")


def _data_key_of_another(copy: PhysicalCopy) -> None:
    """Timeline 1's key is that of timeline 2."""
    one, two = (copy.primary.root / copy.archive().timeline_folder(number) / "keys" for number in (1, 2))
    (path,) = one.iterdir()
    replace(path, (two / path.name).read_bytes())


def _point_damaged(copy: PhysicalCopy) -> None:
    flip(copy.primary.root / point_key(copy.settings.name, copy.log.system_identifier, copy.log.point))


def _point_moved(copy: PhysicalCopy) -> None:
    name, system = copy.settings.name, copy.log.system_identifier
    record = read_point(copy.primary, name, system, copy.log.point)
    assert record is not None
    (copy.primary.root / point_key(name, system, copy.log.point)).unlink()
    put_point(copy.primary, record.model_copy(update={"lsn": str(copy.log.committed[-2])}))


def _another_segment(copy: PhysicalCopy) -> None:
    segment = copy.log.second[0]
    data = copy.wal(segment)
    _on_another_server(copy, segment.name, _with_flip(data, len(data) // 2))


def _another_history(copy: PhysicalCopy) -> None:
    data = copy.archive().history_bytes(2)
    assert data is not None
    _on_another_server(copy, history_name(2), data.replace(b"no recovery target", b"before 2001-01-01, "))


def _on_another_server(copy: PhysicalCopy, name: str, data: bytes) -> None:
    (copy.folder / PUSHED).mkdir()
    (copy.folder / PUSHED / name).write_bytes(data)


def _offsite_differs(copy: PhysicalCopy) -> None:
    flip(copy.offsite.root / copy.archived(_segment(copy)).key)


def _first_backup_gone(copy: PhysicalCopy) -> None:
    shutil.rmtree(copy.path(copy.chain[0], NAME).parent)


def _backups_gone(copy: PhysicalCopy) -> None:
    shutil.rmtree(copy.primary.root / copy.settings.name / "physical")


def _timeline_gone(copy: PhysicalCopy) -> None:
    shutil.rmtree(copy.primary.root / copy.archive().timeline_folder(2))


def _latest(_copy: PhysicalCopy) -> RecoveryTarget:
    return RecoveryTarget()


def _to_the_end(copy: PhysicalCopy) -> RecoveryTarget:
    return RecoveryTarget(lsn=copy.log.end)


def _behind_the_middle(copy: PhysicalCopy) -> RecoveryTarget:
    return RecoveryTarget(lsn=copy.log.committed[3])


def _in_the_chain(copy: PhysicalCopy) -> RecoveryTarget:
    """The end of the increments, from which only their chain leads on."""
    return RecoveryTarget(lsn=Lsn.parse(copy.manifest(copy.chain[-1]).stop_lsn))


def _to_the_point(copy: PhysicalCopy) -> RecoveryTarget:
    return RecoveryTarget(name=copy.log.point)


def _on_timeline_2(_copy: PhysicalCopy) -> RecoveryTarget:
    return RecoveryTarget(timeline=2)


def _name(copy: PhysicalCopy) -> str:
    return _segment(copy).name


_fetched = fetched(_name)
_W = PhysicalBreakage
WAL: tuple[PhysicalBreakage, ...] = (
    _W("wal_gone", "a segment in the middle of the log is gone", ("WAL_GAP",), _gone, surveyed),
    _W("wal_gone_before_target", "the same, before the target", ("WAL_GAP",), _gone, planned(_behind_the_middle)),
    _W("wal_end_gone", "the end of the log is gone", ("RPO_EXCEEDED",), _end_gone, surveyed),
    _W(
        "wal_end_before_target",
        "the log ends before the target",
        ("TARGET_AFTER_END",),
        _end_gone,
        planned(_to_the_end),
    ),
    _W("wal_flipped", "a bit of a segment's envelope was flipped", ("ENVELOPE_DAMAGED",), _bit_flipped, _fetched),
    _W("wal_renamed", "a segment's envelope lies under another name", ("ENVELOPE_MISPLACED",), _moved, _fetched),
    _W("wal_exchanged", "two segments were exchanged, envelopes made right", ("WAL_MISPLACED",), _exchanged, _fetched),
    _W("wal_foreign", "a segment is of another cluster", ("WAL_FOREIGN",), _of_another_cluster, _fetched),
    _W(
        "wal_of_another_timeline",
        "a segment is of another timeline",
        ("WAL_MISPLACED",),
        _of_another_timeline,
        _fetched,
    ),
    _W("wal_cut", "half of a segment is missing, its envelope made right", ("WAL_DAMAGED",), _cut, _fetched),
    _W("wal_empty", "a segment is all zeros", ("WAL_DAMAGED",), _empty, _fetched),
    _W(
        "wal_record_flipped",
        "a bit of a record in the middle of the log was flipped, its envelope made right",
        ("TARGET_NOT_REACHED",),
        _record_flipped,
        replayed,
    ),
    _W(
        "wal_unfinished",
        "a segment in the middle of the log was archived before it was full",
        ("TARGET_NOT_REACHED",),
        _unfinished,
        replayed,
    ),
    _W("wal_part_left", "only a part of a segment in the middle is there", ("WAL_GAP",), _part_of_a_whole, surveyed),
    _W(
        "wal_part_cut",
        "half of the unfinished segment is missing",
        ("RPO_EXCEEDED",),
        _part_cut,
        surveyed,
    ),
    _W(
        "wal_part_begun_badly",
        "a bit of the unfinished segment's first record was flipped",
        ("WAL_DAMAGED",),
        _part_begun_badly,
        surveyed,
    ),
    _W(
        "wal_part_renamed",
        "the unfinished segment's name says that there is more of it",
        ("ENVELOPE_MISPLACED",),
        _part_renamed,
        surveyed,
    ),
    _W(
        "wal_part_flipped",
        "a bit of the unfinished segment's last record was flipped",
        ("RPO_EXCEEDED",),
        _part_flipped,
        surveyed,
    ),
    _W("history_gone", "a timeline's history is gone", ("WAL_OTHER_TIMELINE",), _history_gone, surveyed),
    _W("history_edited", "a history says that its timeline began earlier", ("WAL_GAP",), _history_edited, surveyed),
    _W("history_damaged", "a history is none", ("WAL_DAMAGED",), _history_damaged, surveyed),
    _W("timeline_gone", "a whole timeline is gone", ("TIMELINE_UNKNOWN",), _timeline_gone, planned(_on_timeline_2)),
    _W("wal_key_gone", "a timeline's wrapped key is gone", ("DATA_KEY_MISSING",), _data_key_gone, planned(_latest)),
    _W(
        "wal_key_of_another",
        "a timeline's wrapped key is that of another one",
        ("ENVELOPE_MISPLACED",),
        _data_key_of_another,
        _fetched,
    ),
    _W(
        "point_damaged",
        "a restore point's record was damaged",
        ("POINT_DAMAGED",),
        _point_damaged,
        planned(_to_the_point),
    ),
    _W("point_moved", "a restore point's record names a later position", ("ROWS_DIFFER",), _point_moved, drilled),
    _W(
        "wal_of_two_servers",
        "a second server was promoted, and archives to the same timeline",
        ("WAL_CONFLICT",),
        _another_segment,
        pushed,
    ),
    _W(
        "history_of_two_servers",
        "a second server was promoted to the same timeline at another moment",
        ("WAL_CONFLICT",),
        _another_history,
        pushed,
    ),
    _W("wal_offsite_differs", "a segment's off-site copy is another", ("WAL_CONFLICT",), _offsite_differs, compared),
    _W(
        "first_backup_gone",
        "the only full backup before the target is gone",
        ("TARGET_BEFORE_FIRST_BACKUP",),
        _first_backup_gone,
        planned(_in_the_chain),
    ),
    _W("backups_gone", "there is log, and no base backup", ("NO_BASE_BACKUP",), _backups_gone, planned(_latest)),
)
