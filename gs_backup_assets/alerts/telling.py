"""Tells what has changed to those whom it concerns: databases may name receivers of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gs_backup_assets.alerts.message import Message, Problem
from gs_backup_assets.alerts.notify import Notifier
from gs_backup_assets.alerts.state import AlertState, Decision, decide, empty, memory_lost
from gs_backup_assets.config_watching import Alerts
from gs_backup_assets.errors import BackupError
from gs_backup_assets.system.threads import Threads

_GROUPS = 8  # told side by side: receivers that are slow must not add up


@dataclass(frozen=True)
class Concern:
    """A problem, and the alerts of the database that it is about."""

    alerts: Alerts
    problem: Problem


@dataclass(frozen=True)
class Telling:
    """What came of it. `told` is the memory to keep, by the variable that names the receivers; where a message was not
    accepted, or nobody is configured to be told, it is the memory of before, so that it is said again."""

    told: Mapping[str, AlertState]
    said: tuple[Message, ...]
    unheard: tuple[Message, ...]
    refused: BackupError | None

    @property
    def words(self) -> str:
        """What is said of it where somebody looks at the tick."""
        parts = []
        if self.said:
            parts.append(f"told: {'; '.join(message.title for message in self.said)}")
        if self.unheard:
            titles = "; ".join(message.title for message in self.unheard)
            parts.append(f"NOBODY WAS TOLD, no receiver is configured: {titles}")
        if self.refused is not None:
            parts.append(f"NOT ACCEPTED: {self.refused.message}")
        return ". ".join(parts)


class Teller:
    """Keeps one notifier for each variable that names receivers: it remembers who accepted what others refused."""

    def __init__(self, alerts: Sequence[Alerts]) -> None:
        """`alerts` are those of all databases."""
        self._groups: dict[str, list[Alerts]] = {}
        for one in alerts:
            self._groups.setdefault(one.urls_env, []).append(one)
        self._notifiers = {urls_env: Notifier(urls_env) for urls_env in self._groups}

    def tell(
        self,
        told: Mapping[str, AlertState],
        concerns: Sequence[Concern],
        now: datetime,
        *,
        watched: Callable[[str], bool] = lambda _: True,
        lost: bool = False,
    ) -> Telling:
        """Say what has changed since the memory `told`, each group of receivers in one message of a kind.

        `watched` says of a fingerprint whether what it is about is still configured (`decide`). With `lost` the memory
        was damaged, and that is said first. Raises what the receivers raise (NotAccepted, ConfigError) when nobody
        heard anything: then all is as it was before.
        """
        problems: dict[str, list[Problem]] = {}
        for concern in concerns:
            problems.setdefault(concern.alerts.urls_env, []).append(concern.problem)

        def decided(urls_env: str) -> Decision:
            group = self._groups[urls_env]
            return decide(
                told.get(urls_env, empty()),
                problems.get(urls_env, []),
                now,
                min(one.remind_after for one in group),
                flap_window=max(one.flap_window for one in group),
                watched=watched,
            )

        with Threads(_GROUPS, "telling") as pool:
            futures = {
                urls_env: pool.submit(self._tell, urls_env, told.get(urls_env, empty()), decided(urls_env), lost)
                for urls_env in self._groups
            }
            done = {urls_env: future.result() for urls_env, future in futures.items()}
        refused = next((error for _, _, error in done.values() if isinstance(error, BackupError)), None)
        said = tuple(m for _, messages, outcome in done.values() if outcome is True for m in messages)
        if refused is not None and not said:
            raise refused
        return Telling(
            told={urls_env: state for urls_env, (state, _, _) in done.items()},
            said=said,
            unheard=tuple(m for _, messages, outcome in done.values() if outcome is False for m in messages),
            refused=refused,
        )

    def _tell(
        self, urls_env: str, state: AlertState, decision: Decision, lost: bool
    ) -> tuple[AlertState, tuple[Message, ...], bool | BackupError]:
        """The memory to keep, what was to be said, and whether it was heard."""
        messages = (memory_lost(), *decision.messages) if lost else decision.messages
        if not messages:
            return decision.state, (), True
        try:
            heard = self._notifiers[urls_env].send_all(messages)
        except BackupError as error:  # the others are told all the same
            return state, messages, error
        return (decision.state if heard else state), messages, heard
