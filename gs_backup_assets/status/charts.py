"""Small charts as inline SVG: readable without colour, without scripts, and at the width of a phone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from markupsafe import Markup, escape

from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict

DAYS = 30
_WIDTH, _HEIGHT, _PAD = 300.0, 44.0, 3.0
# Height tells the verdict as well as colour does.
_BARS = {Verdict.PROVEN: ("proven", 1.0), Verdict.NOT_VERIFIED: ("open", 0.6), Verdict.FAILED: ("failed", 0.35)}
_WORDS = {Verdict.PROVEN: "proven", Verdict.NOT_VERIFIED: "not verified", Verdict.FAILED: "failed"}


def last_days(today: date) -> tuple[date, ...]:
    """The days that charts show, the oldest first."""
    return tuple(today - timedelta(days=back) for back in reversed(range(DAYS)))


def by_day(summaries: Sequence[Summary], days: Sequence[date]) -> list[Summary | None]:
    """The backup that stands for each day: its newest proven one, else its newest. The newest come first."""
    chosen: dict[str, Summary] = {}
    for summary in summaries:
        known = chosen.get(summary.partition)
        better = known is not None and known.verdict is not Verdict.PROVEN and summary.verdict is Verdict.PROVEN
        if known is None or better:
            chosen[summary.partition] = summary
    return [chosen.get(day.isoformat()) for day in days]


def verdict_chart(days: Sequence[date], backups: Sequence[Summary | None]) -> Markup:
    """One bar for each day, high for proven, lower for what is not; a dot where there is no backup."""
    step = _WIDTH / len(days)
    parts = []
    for place, (day, backup) in enumerate(zip(days, backups, strict=True)):
        x = place * step
        title = f"{day.isoformat()}: {_WORDS[backup.verdict] if backup else 'no backup'}"
        if backup is None:
            shape = f'<circle cx="{x + step / 2:.1f}" cy="{_HEIGHT - 3:.1f}" r="1.6" class="none">'
            parts.append(f"{shape}<title>{escape(title)}</title></circle>")
            continue
        style, share = _BARS[backup.verdict]
        height = share * _HEIGHT
        shape = (
            f'<rect x="{x + 1:.1f}" y="{_HEIGHT - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}" rx="1.5" '
            f'class="{style}">'
        )
        parts.append(f"{shape}<title>{escape(title)}</title></rect>")
    proven = sum(backup is not None and backup.verdict is Verdict.PROVEN for backup in backups)
    return _svg(f"Proven on {proven} of the last {len(days)} days", parts)


def line_chart(words: str, values: Sequence[float | None]) -> Markup | None:
    """A line from the oldest value to the newest, from zero up; None with fewer than two values to show."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    top = max(value for _, value in known) or 1.0
    step = (_WIDTH - 2 * _PAD) / max(1, len(values) - 1)
    points = [(_PAD + place * step, _HEIGHT - _PAD - value / top * (_HEIGHT - 2 * _PAD)) for place, value in known]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return _svg(words, [f'<polyline points="{line}"/>', f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="last"/>'])


def _svg(words: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" aria-label='
    return Markup(f'{head}"{escape(words)}">{"".join(parts)}</svg>')
