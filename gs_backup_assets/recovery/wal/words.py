"""What the stream of the write-ahead log tells people and logs: changes once, progress now and then."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone

from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.recovery.wal.lag import Lag
from gs_backup_assets.recovery.wal.shipping import Counts

_PROGRESS_SECONDS = 10.0


class Words:
    """Writes one line an event: a time, a code, words; or with `as_json` the same as a JSON document. Thread-safe.

    Progress is told `every` so many seconds.
    """

    def __init__(
        self, write: Callable[[str], None], *, as_json: bool = False, every: float = _PROGRESS_SECONDS
    ) -> None:
        self._write, self._as_json, self._every = write, as_json, every
        self._troubles: dict[str, str] = {}
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._told = time.monotonic()

    def say(self, code: str, words: str) -> None:
        """Something happened."""
        self._line(code, words, {})

    def say_once(self, code: str, words: str) -> None:
        """Something is found again at every look; told the first time."""
        if words not in self._said:
            self._said.add(words)
            self.say(code, words)

    def trouble(self, whom: str, error: BackupError) -> None:
        """Something is wrong with somebody; told when it is new."""
        if self._troubles.get(whom) != error.code:
            self._troubles[whom] = error.code
            self._line(error.code, f"{error.message} {error.hint}", {"whom": whom})

    def well(self, whom: str) -> None:
        """All is well with somebody; told when it was not."""
        if (code := self._troubles.pop(whom, None)) is not None:
            self._line("RECOVERED", f"{whom}: {code} is over", {"whom": whom})

    @property
    def progress_due(self) -> bool:
        """Whether it is time to tell how far it is."""
        return time.monotonic() - self._told >= self._every

    def progress(self, lag: Lag, counts: Counts, archived: Lsn) -> None:
        """How far it is."""
        self._told = time.monotonic()
        facts: dict[str, str | int | float | None] = {
            "archived_lsn": str(archived),
            "segments": counts.segments,
            "bytes": counts.bytes,
            "lag_bytes": lag.bytes,
            "lag_seconds": None if lag.seconds is None else round(lag.seconds, 1),
        }
        words = " ".join(f"{name}={'unknown' if value is None else value}" for name, value in facts.items())
        self._line("WAL_PROGRESS", words, facts)

    def _line(self, code: str, words: str, facts: dict[str, str | int | float | None]) -> None:
        at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self._as_json:
            line = json.dumps({"at": at, "code": code, "message": words, **facts}, ensure_ascii=False)
        else:
            line = f"{at} {code} {words}"
        with self._lock:
            self._write(line)
