"""Fixtures of the alert tests: real HTTP receivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .receiver import Behaviour, Receiver

Start = Callable[..., Receiver]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts receivers that end with the test, and are reached directly whatever proxy the host has."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:

        def started(behaviour: Behaviour = "accept") -> Receiver:
            return stack.enter_context(Receiver(behaviour))

        yield started
