"""The judgement of replicas alone: what no real server shows quickly, and that one fault is told as one."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config_recovery import Replica
from gs_backup_assets.postgres.standby import PrimaryState, Sender, SlotState, StandbyState
from gs_backup_assets.recovery.replicas.limits import Observation, ReplicaObservation, judge

NOW = datetime(2026, 11, 24, 18, tzinfo=timezone.utc)
LIMITS = {"spare": Replica.model_validate({"url_env": "SPARE", "max_lag": "60s", "max_retained": "1G"})}
SLOT = SlotState(
    name="spare", kind="physical", active=True, wal_status="reserved", retained_bytes=0, inactive_since=None
)
SENDER = Sender(
    application="spare",
    slot="spare",
    state="streaming",
    sync_state="async",
    write_lag_bytes=0,
    flush_lag_bytes=0,
    replay_lag_bytes=0,
    write_lag_seconds=None,
    flush_lag_seconds=None,
    replay_lag_seconds=None,
    hidden=False,
)
PRIMARY = PrimaryState(
    release="17.11",
    system_identifier="7",
    in_recovery=False,
    timeline=1,
    lsn="0/5000000",
    slot_limit_mb=-1,
    senders=(SENDER,),
    slots=(SLOT,),
)
STANDBY = StandbyState(
    release="17.11",
    system_identifier="7",
    in_recovery=True,
    timeline=1,
    replay_lsn="0/5000000",
    receive_lsn="0/5000000",
    replayed_at=NOW,
    replay_paused=False,
    receiver="streaming",
    slot="spare",
    hot_standby_feedback=False,
    conflicts={"snapshot": 2, "lock": 1},
)


def observation(
    primary: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    slot: dict[str, Any] | None = None,
    **replica: Any,
) -> Observation:
    """All is well but for what is given."""
    slots = (SLOT.model_copy(update=slot or {}),)
    seen = ReplicaObservation(
        name="spare",
        slot="spare",
        state=STANDBY.model_copy(update=state or {}),
        error=None,
        sender=SENDER,
        lag_bytes=0,
        lag_seconds=0.0,
    ).model_copy(update=replica)
    return Observation(
        database="studio",
        at=NOW,
        primary=PRIMARY.model_copy(update={"slots": slots, **(primary or {})}),
        primary_error=None,
        replicas=(seen,),
    )


def test_when_all_is_well_it_passes_with_figures() -> None:
    check = judge(observation(), LIMITS)
    assert (check.status, check.findings) == (Status.PASSED, ())
    assert check.metrics["spare_conflicts"] == 3 and check.metrics["spare_lag_bytes"] == 0


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (observation(state={"in_recovery": False}), "REPLICA_PROMOTED"),
        (observation(state={"system_identifier": "8"}), "REPLICA_FOREIGN"),
        (observation(state={"timeline": 2}), "REPLICA_OTHER_TIMELINE"),
        (observation(state={"receiver": None}, sender=None), "REPLICA_NOT_STREAMING"),
        (observation(lag_seconds=60.5), "REPLICA_LAG"),
        (observation(lag_bytes=(1 << 30) + 1), "REPLICA_LAG_BYTES"),
        (observation(slot={"wal_status": "lost"}), "SLOT_LOST"),
        (observation(slot={"wal_status": "unreserved"}), "SLOT_UNRESERVED"),
        (observation(slot={"retained_bytes": (1 << 30) + 1}), "SLOT_RETAINS"),
        (observation(primary={"slots": ()}), "SLOT_MISSING"),
        (observation(slot={"active": False}), None),
        (observation(lag_seconds=60.0, lag_bytes=1 << 30), None),
    ],
)
def test_each_limit_alone(seen: Observation, code: str | None) -> None:
    check = judge(seen, LIMITS)
    assert [finding.code for finding in check.findings] == ([code] if code else [])
    assert check.status is (Status.FAILED if code else Status.PASSED)
    if code is not None:
        assert "spare" in check.summary


def test_a_silent_replica_is_down_only_when_nobody_sends_to_it() -> None:
    silent = {"error": "no route", "lag_bytes": None, "lag_seconds": None}
    seen = observation(**silent)
    seen = seen.model_copy(update={"replicas": (seen.replicas[0].model_copy(update={"state": None}),)})
    assert [f.code for f in judge(seen, LIMITS).findings] == ["REPLICA_UNREACHABLE"]
    assert judge(seen, LIMITS).status is Status.NOT_VERIFIED
    slot = SLOT.model_copy(update={"active": False})
    down = seen.model_copy(update={"primary": PRIMARY.model_copy(update={"slots": (slot,)})})
    assert [f.code for f in judge(down, LIMITS).findings] == ["REPLICA_DOWN"]
    nobody = seen.model_copy(update={"primary": None, "primary_error": "no route"})
    assert [f.code for f in judge(nobody, LIMITS).findings] == ["PRIMARY_UNREACHABLE", "REPLICA_UNREACHABLE"]
    assert judge(nobody, LIMITS).status is Status.NOT_VERIFIED


def test_a_failure_outweighs_what_is_not_known() -> None:
    hidden = SENDER.model_copy(update={"hidden": True})
    check = judge(observation(sender=hidden, lag_seconds=61.0), LIMITS)
    assert check.status is Status.FAILED
    assert [finding.code for finding in check.findings] == ["REPLICA_LAG", "RIGHTS_MISSING"]
