"""What a recovering server says: how far it is, where it stopped, and the codes of why it gave up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.errors import ProgramError, ProofFailed
from gs_backup_assets.postgres.recovery_log import RecoveryLog
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.postgres.waldump import Commit
from gs_backup_assets.recovery.point_in_time.recover import Achieved, require_reached
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan

SIX = datetime(2026, 11, 24, 18, 0, 0, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


def log(*lines: str) -> RecoveryLog:
    found = RecoveryLog()
    for line in lines:
        found.read(line)
    return found


def stopped_before(moment: str) -> RecoveryLog:
    return log(f"LOG:  recovery stopping before commit of transaction 738, time {moment}")


def test_the_stages_are_read() -> None:
    found = log("LOG:  starting archive recovery", "LOG:  redo starts at 0/C00028")
    assert found.redo_started is not None and found.redo_ended is None
    found.read("LOG:  redo done at 0/E001C8 system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.05 s")
    found.read("LOG:  last completed transaction was at log time 2026-11-24 18:00:00.5+00")
    assert (found.redo_done, found.last_completed) == (Lsn(0xE001C8), SIX + timedelta(milliseconds=500))
    assert found.redo_ended is not None and found.ready is None
    found.read("LOG:  database system is ready to accept connections")
    assert found.ready is not None


@pytest.mark.parametrize(
    ("line", "code", "kind"),
    [
        ("FATAL:  recovery ended before configured recovery target was reached", "TARGET_NOT_REACHED", ProofFailed),
        (
            "FATAL:  requested recovery stop point is before consistent recovery point",
            "TARGET_NOT_REACHED",
            ProofFailed,
        ),
        ("FATAL:  WAL ends before end of online backup", "WAL_GAP", ProofFailed),
        ("FATAL:  requested timeline 3 is not a child of this server's history", "TIMELINE_UNKNOWN", ProofFailed),
        ("PANIC:  could not locate a valid checkpoint record", "BASE_BACKUP_DAMAGED", ProofFailed),
        (
            'FATAL:  WAL was generated with "wal_level=minimal", cannot continue recovering',
            "WAL_LEVEL_MINIMAL",
            ProofFailed,
        ),
        ('FATAL:  could not write to file "pg_wal/xlogtemp.1": No space left on device', "NO_SPACE", ProgramError),
        ("FATAL:  could not map anonymous shared memory", "RECOVERY_FAILED", ProgramError),
    ],
)
def test_why_it_gave_up_has_a_code_and_the_servers_words(line: str, code: str, kind: type[Exception]) -> None:
    error = log("LOG:  starting archive recovery", line).why_it_ended()
    assert (error.code, type(error)) == (code, kind)
    assert line.partition(":  ")[2] in error.message
    assert ("Take a base backup now" in error.hint) == (code == "WAL_LEVEL_MINIMAL")


def plan(target: RecoveryTarget, *, to_the_end: bool = False) -> RecoveryPlan:
    return RecoveryPlan(
        target=target,
        which="primary",
        database="shop",
        system_identifier="1",
        timeline=1,
        histories=(),
        chain=(),
        segments=(),
        end=Lsn(1000),
        last_commit=Commit(7, Lsn(900), SIX + SECOND),
        stop_at=None,
        to_the_end=to_the_end,
        planned_at=SIX,
        expected_loss_seconds=None,
    )


REACHED = Achieved(Lsn(800), SIX - SECOND, 2)
TIME = plan(RecoveryTarget(at=SIX))
POSITION = plan(RecoveryTarget(lsn=Lsn(800), inclusive=False))
POINT = plan(RecoveryTarget(name="here"))
END = plan(RecoveryTarget(), to_the_end=True)


def test_a_target_that_was_reached_is_taken() -> None:
    require_reached(TIME, stopped_before("2026-11-24 18:00:00.000001+00"), REACHED)
    require_reached(TIME, stopped_before("2026-11-24 18:00:00.000001+00"), replace(REACHED, at=None))
    require_reached(POSITION, log('LOG:  recovery stopping before WAL location (LSN) "0/320"'), REACHED)
    require_reached(POINT, log('LOG:  recovery stopping at restore point "here", time 2026-11-24 17:00:00+00'), REACHED)
    require_reached(END, log(), replace(REACHED, lsn=Lsn(1000)))


@pytest.mark.parametrize(
    ("planned", "said", "achieved"),
    [
        (TIME, log(), REACHED),
        (TIME, stopped_before("2026-11-24 18:00:00+00"), REACHED),
        (TIME, stopped_before("2026-11-24 18:00:01+00"), replace(REACHED, at=SIX + SECOND)),
        (POSITION, log(), REACHED),
        (POSITION, log('LOG:  recovery stopping before WAL location (LSN) "0/31F"'), REACHED),
        (POSITION, log('LOG:  recovery stopping before WAL location (LSN) "0/320"'), replace(REACHED, lsn=Lsn(900))),
        (POINT, log(), REACHED),
        (POINT, log('LOG:  recovery stopping at restore point "there", time 2026-11-24 17:00:00+00'), REACHED),
        (END, log(), replace(REACHED, lsn=Lsn(999))),
        (replace(END, end=Lsn(0)), log(), replace(REACHED, lsn=Lsn(900))),
    ],
    ids=lambda value: value.target.kind if isinstance(value, RecoveryPlan) else "",
)
def test_one_that_was_not_reached_is_a_failure(planned: RecoveryPlan, said: RecoveryLog, achieved: Achieved) -> None:
    with pytest.raises(ProofFailed) as caught:
        require_reached(planned, said, achieved)
    assert caught.value.code == "TARGET_NOT_REACHED"
