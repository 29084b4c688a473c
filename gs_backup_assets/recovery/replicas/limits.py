"""Judges replicas: is each of them a standby of this primary, within its limits, and are the slots? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import AwareDatetime, BaseModel, ConfigDict

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.config_recovery import Replica
from gs_backup_assets.postgres.standby import PrimaryState, Sender, SlotState, StandbyState
from gs_backup_assets.words import counted

CHECK = "replicas_in_limits"
_GRANT = "GRANT pg_monitor TO the role that asks; docs/replicas.md has its rights."
_Outcome = tuple[Status, Finding]


class ReplicaObservation(BaseModel):
    """One replica. `error` is why it could not be asked, its state is None then.

    `lag_bytes` is what it had not replayed of what the primary had written, and `lag_seconds` how old that is: 0 when
    there is nothing, however long the primary has been idle. None where the primary or the replica did not answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    slot: str
    state: StandbyState | None
    error: str | None
    sender: Sender | None
    lag_bytes: int | None
    lag_seconds: float | None


class Observation(BaseModel):
    """The primary and its replicas at the moment `at`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str
    at: AwareDatetime
    primary: PrimaryState | None
    primary_error: str | None
    replicas: tuple[ReplicaObservation, ...]

    def slot(self, name: str) -> SlotState | None:
        """A slot of the primary."""
        slots = self.primary.slots if self.primary else ()
        return next((slot for slot in slots if slot.name == name), None)


def judge(observation: Observation, limits: Mapping[str, Replica]) -> CheckResult:
    """`replicas_in_limits`. What could not be asked leaves it open; what is beyond a limit is named with the limit."""
    outcomes: list[_Outcome] = []
    if observation.primary is None:
        outcomes.append(_open("PRIMARY_UNREACHABLE", f"The primary cannot be asked: {observation.primary_error}"))
    for replica in observation.replicas:
        outcomes += _replica(replica, limits[replica.name], observation)
        outcomes += _own_slot(replica, limits[replica.name], observation)
    outcomes += _other_slots(observation, limits)
    failed = [finding for status, finding in outcomes if status is Status.FAILED]
    unknown = [finding for status, finding in outcomes if status is Status.NOT_VERIFIED]
    status = Status.FAILED if failed else Status.NOT_VERIFIED if unknown else Status.PASSED
    summary = f"{counted(len(observation.replicas), 'replica')} within the limits"
    if status is not Status.PASSED:
        summary = " ".join(finding.message for finding in (failed or unknown)[:3])
    metrics: dict[str, float | int] = {"replicas": len(observation.replicas)}
    for replica in observation.replicas:
        if replica.lag_bytes is not None:
            metrics[f"{replica.name}_lag_bytes"] = replica.lag_bytes
        if replica.lag_seconds is not None:
            metrics[f"{replica.name}_lag_seconds"] = round(replica.lag_seconds, 3)
        if replica.state is not None:
            metrics[f"{replica.name}_conflicts"] = replica.state.all_conflicts
        slot = observation.slot(replica.slot)
        if slot is not None and slot.retained_bytes is not None:
            metrics[f"{replica.name}_retained_bytes"] = slot.retained_bytes
    return CheckResult(name=CHECK, status=status, summary=summary, findings=(*failed, *unknown), metrics=metrics)


def _failed(code: str, message: str, hint: str = "") -> _Outcome:
    return Status.FAILED, Finding(code=code, message=message, hint=hint)


def _open(code: str, message: str, hint: str = "") -> _Outcome:
    return Status.NOT_VERIFIED, Finding(code=code, message=message, hint=hint)


def _replica(replica: ReplicaObservation, limit: Replica, observation: Observation) -> Iterator[_Outcome]:
    name, state, primary = replica.name, replica.state, observation.primary
    if state is None:
        yield _silent(replica, observation)
    elif not state.in_recovery:
        words = f"{name} is no standby any more: it is out of recovery."
        yield _failed("REPLICA_PROMOTED", words, "Was it promoted? Two primaries diverge: fence one of them.")
        return
    else:
        if primary is not None:
            yield from _identity(name, state, primary)
        if state.receiver == "hidden":
            yield _open("RIGHTS_MISSING", f"{name} does not tell the state of its connection to the primary.", _GRANT)
        elif state.receiver is None and state.slot is not None and primary is not None:
            words = f"{name} does not stream: it has no connection to the primary."
            yield _failed("REPLICA_NOT_STREAMING", words, "Its log says why it cannot connect.")
    if replica.sender is not None and replica.sender.hidden:
        yield _open("RIGHTS_MISSING", f"The primary does not tell the lag of {name}.", _GRANT)
    paused = " Replay is paused: SELECT pg_wal_replay_resume()." if state and state.replay_paused else ""
    hint = f"Look for a long query on it, a slow disk or network; it loses or delays what it lacks.{paused}"
    most = limit.max_lag.total_seconds()
    if replica.lag_seconds is not None and replica.lag_seconds > most:
        words = f"{name} is {replica.lag_seconds:.0f} s behind, max_lag is {most:.0f} s."
        yield _failed("REPLICA_LAG", words, hint)
    if replica.lag_bytes is not None and replica.lag_bytes > limit.max_lag_bytes:
        words = f"{name} is {replica.lag_bytes} bytes behind, max_lag_bytes is {limit.max_lag_bytes}."
        yield _failed("REPLICA_LAG_BYTES", words, hint)


def _silent(replica: ReplicaObservation, observation: Observation) -> _Outcome:
    """A replica that does not answer is down when the primary has no connection to it either."""
    words = f"{replica.name} does not answer: {replica.error}"
    slot = observation.slot(replica.slot)
    if observation.primary is None or (slot is not None and slot.active):
        return _open("REPLICA_UNREACHABLE", words, "Check the address in its url_env, and who may connect.")
    words = f"{replica.name} is down: it does not answer, and its slot {replica.slot} is not in use. {replica.error}"
    return _failed("REPLICA_DOWN", words, "Start it again; while it is down its slot keeps the primary's WAL.")


def _identity(name: str, state: StandbyState, primary: PrimaryState) -> Iterator[_Outcome]:
    if None in (state.system_identifier, primary.system_identifier):
        yield _open("RIGHTS_MISSING", f"The system identifier of {name} or of the primary cannot be read.", _GRANT)
    elif state.system_identifier != primary.system_identifier:
        words = f"{name} is of another cluster: {state.system_identifier}, not {primary.system_identifier}."
        yield _failed("REPLICA_FOREIGN", words, "Its url_env names another server, or it was built from another one.")
        return
    if primary.timeline is not None and state.timeline is not None and state.timeline != primary.timeline:
        words = f"{name} is on timeline {state.timeline}, the primary on {primary.timeline}."
        yield _failed("REPLICA_OTHER_TIMELINE", words, "It cannot follow: build it anew, or rewind it (pg_rewind).")


def _own_slot(replica: ReplicaObservation, limit: Replica, observation: Observation) -> Iterator[_Outcome]:
    slot = observation.slot(replica.slot)
    if slot is None:
        if observation.primary is not None and replica.state is not None and replica.state.slot == replica.slot:
            words = f"The slot {replica.slot} of {replica.name} is not on the primary."
            yield _failed("SLOT_MISSING", words, "Make it again: SELECT pg_create_physical_replication_slot(...).")
        return
    yield from _slot(slot, limit.max_retained, f"The slot {slot.name} of {replica.name}")


def _other_slots(observation: Observation, limits: Mapping[str, Replica]) -> Iterator[_Outcome]:
    """Slots of nobody we know fill the primary's disk as well."""
    ours = {replica.slot for replica in observation.replicas}
    most = max((limit.max_retained for limit in limits.values()), default=0)
    for slot in observation.primary.slots if observation.primary else ():
        if slot.name not in ours and not slot.active:
            yield from _slot(slot, most, f"The slot {slot.name}, which is no replica's here,")


def _slot(slot: SlotState, most: int, label: str) -> Iterator[_Outcome]:
    if slot.wal_status == "lost":
        words = f"{label} is lost: the primary has removed what it needs."
        yield _failed("SLOT_LOST", words, "Drop it; build the replica anew, or let it catch up from the archive.")
    elif slot.wal_status == "unreserved":
        words = f"{label} is about to be lost: it holds more than max_slot_wal_keep_size allows."
        yield _failed("SLOT_UNRESERVED", words, "Start its replica now, or raise max_slot_wal_keep_size.")
    if slot.retained_bytes is not None and slot.retained_bytes > most:
        since = f", unused since {slot.inactive_since:%Y-%m-%d %H:%M} UTC" if slot.inactive_since else ""
        use = "in use" if slot.active else f"not in use{since}"
        words = f"{label} retains {slot.retained_bytes} bytes ({use}), max_retained is {most}."
        yield _failed("SLOT_RETAINS", words, "Start its replica, or drop the slot before the primary's disk is full.")
