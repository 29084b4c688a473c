"""Words: what is over a target is not rounded away."""

from __future__ import annotations

import pytest

from gs_backup_assets.words import over_text


@pytest.mark.parametrize(
    ("seconds", "target", "text"),
    [
        (720, 60, ("12 min", "1 min")),
        (912, 900, ("15 min and 12 s", "15 min")),
        (900.01, 900, ("15 min and 0.1 s", "15 min")),
        (900, 900, ("15 min", "15 min")),
        (93600 + 2400, 93600, ("1 d 2 h and 40 min", "1 d 2 h")),
        (899, 900, ("14 min", "15 min")),
    ],
)
def test_what_is_over_a_target_shows(seconds: float, target: float, text: tuple[str, str]) -> None:
    assert over_text(seconds, target) == text
