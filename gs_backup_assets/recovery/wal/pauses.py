"""How long the stream waits before it begins again: longer each time, but not while each try gets somewhere."""

from __future__ import annotations

_FIRST, _LONGEST = 0.5, 15.0


class Pauses:
    """Pauses in seconds, each twice as long as the one before, up to a limit."""

    def __init__(self) -> None:
        self._next = _FIRST
        self._archived = 0

    def next(self) -> float:
        """The pause to make now."""
        pause = self._next
        self._next = min(2 * pause, _LONGEST)
        return pause

    def steady(self) -> None:
        """All goes well: the next pause is the shortest again."""
        self._next = _FIRST

    def full(self, archived: int) -> None:
        """The spool was full when so many segments were `archived`.

        Where they are more than the last time, it is full of what has come since, and has room as soon as that is
        archived too: a spool of one segment is full after each, and is no reason to wait longer and longer.
        """
        if archived > self._archived:
            self.steady()
        self._archived = archived
