"""Observes replicas: asks the primary and each of them, and measures how far they are behind."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_recovery import Replica
from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.connection import connect, target_from_environment
from gs_backup_assets.postgres.standby import (
    PrimaryState,
    StandbyState,
    primary_state,
    replay_position,
    standby_state,
)
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.recovery.replicas.limits import Observation, ReplicaObservation, judge
from gs_backup_assets.system.threads import Threads

# For so long a replica may take to replay what the primary had written when it was asked: that is a lag which is
# measured. Of a longer one only the servers' clocks tell.
_MEASURED_SECONDS = 3.0


@dataclass(frozen=True)
class Observed:
    """An observation and its judgement."""

    observation: Observation
    check: CheckResult


def observe_replicas(
    settings: DatabaseSettings, now: datetime, *, replicas: Mapping[str, Replica] | None = None
) -> Observed:
    """Ask the primary and the configured replicas, all replicas at the same time; takes some seconds at most.

    `now` is the aware time of the observation. What does not answer is part of the observation, not an error.
    """
    wanted = settings.replicas if replicas is None else replicas
    primary, primary_error = _primary(settings.wal_url_env)
    with Threads(max(1, len(wanted)), "replicas") as pool:
        states = list(pool.map(lambda replica: _standby(replica.url_env, primary), wanted.values()))
    seen = tuple(
        _replica(name, replica, asked, primary, now=now)
        for (name, replica), asked in zip(wanted.items(), states, strict=True)
    )
    observation = Observation(
        database=settings.name, at=now, primary=primary, primary_error=primary_error, replicas=seen
    )
    return Observed(observation, judge(observation, wanted))


def _primary(variable: str) -> tuple[PrimaryState | None, str | None]:
    try:
        with connect(target_from_environment(variable)) as connection:
            return primary_state(connection), None
    except BackupError as error:
        return None, error.message


@dataclass(frozen=True)
class _Asked:
    """What a replica answered, and what was measured: bytes at first, and seconds until it had replayed them."""

    state: StandbyState | None
    error: str | None = None
    lag_bytes: int | None = None
    waited: float = 0.0
    caught_up: bool = False


def _standby(variable: str, primary: PrimaryState | None) -> _Asked:
    try:
        with connect(target_from_environment(variable)) as connection:
            state = standby_state(connection)
            if primary is None or state.replay_lsn is None:
                return _Asked(state)
            goal = Lsn.parse(primary.lsn)
            behind = max(0, goal.value - Lsn.parse(state.replay_lsn).value)
            started = time.monotonic()
            waited, position = 0.0, Lsn.parse(state.replay_lsn)
            while position < goal and waited < _MEASURED_SECONDS and not state.replay_paused:
                time.sleep(0.05)
                waited = time.monotonic() - started
                position = Lsn.parse(replay_position(connection) or "0/0")
            return _Asked(state, None, behind, waited, caught_up=not position < goal)
    except BackupError as error:
        return _Asked(None, error.message)


def _replica(
    name: str, replica: Replica, asked: _Asked, primary: PrimaryState | None, *, now: datetime
) -> ReplicaObservation:
    state, slot = asked.state, replica.slot or name
    known_as = {slot, state.slot if state else None}
    senders = primary.senders if primary else ()
    sender = next((s for s in senders if s.slot in known_as and s.slot is not None), None)
    sender = sender or next((s for s in senders if s.application == name), None)
    lag_bytes, lag_seconds = asked.lag_bytes, asked.waited if asked.caught_up else None
    if state is None and sender is not None:  # the primary knows what it told
        lag_bytes, lag_seconds = sender.replay_lag_bytes, sender.replay_lag_seconds
    elif state is not None and lag_bytes is not None and lag_seconds is None:
        lag_seconds = asked.waited
        if sender is not None and sender.replay_lag_seconds is not None:
            lag_seconds = max(lag_seconds, sender.replay_lag_seconds)
        elif state.replayed_at is not None:
            lag_seconds = max(lag_seconds, (now - state.replayed_at).total_seconds())
    return ReplicaObservation(
        name=name,
        slot=slot,
        state=state,
        error=asked.error,
        sender=sender,
        lag_bytes=lag_bytes,
        lag_seconds=lag_seconds,
    )
