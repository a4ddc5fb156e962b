"""Curves of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from reblurkit.cli.report.runs import Point

_POINTS = 200
_LARGEST = 1e100
COLOURS = ("#1f77b4", "#d95f02", "#2a9d58", "#b5329a", "#7d6608", "#17becf", "#8c564b", "#555555")
_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 408, 10, 212  # of the axes, in the picture


def metric_chart(curves: Mapping[str, Sequence[Point]], colours: Mapping[str, str]) -> str:
    """Draw one metric of several runs over the training step.

    Of a curve of more than 200 values the means of equally many neighbours are drawn.

    Args:
        curves: The values of each run.
        colours: The colour of each run.

    Returns:
        An SVG picture, to be put into a page.

    Example:
        >>> metric_chart({"a": [Point(0, 1.0), Point(9, 2.0)]}, {"a": "black"})[:4]
        '<svg'
    """
    thinned = {run: thin(points) for run, points in curves.items()}
    shown = [point for points in thinned.values() for point in points if _fits(point.value)]
    across = _Axis([point.step for point in shown], _LEFT, _RIGHT)
    up = _Axis([point.value for point in shown], _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="#444">'
    ]
    for tick in across.ticks:
        x = across.place(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 15}" text-anchor="middle">{across.label(tick)}</text>')
    for tick in up.ticks:
        y = up.place(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{up.label(tick)}</text>')
    parts.append(f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#444"/>')
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">step</text>')
    for run, points in thinned.items():
        colour = escape(colours[run])
        places = [(across.place(p.step), up.place(p.value)) if _fits(p.value) else None for p in points]
        parts.append(f'<path d="{_line(places)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if len(points) < 30:
            parts += [f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="2.5" fill="{colour}"/>' for at in places if at]
    return "".join([*parts, "</svg>"])


def thin(points: Sequence[Point]) -> list[Point]:
    """At most 200 points: means of equally many neighbours.

    Example:
        >>> thin([Point(step, step % 2) for step in range(400)])[:2]
        [Point(step=1, value=0.5), Point(step=3, value=0.5)]
    """
    size = math.ceil(len(points) / _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if size > 1 else []
    return [Point(group[-1].step, sum(point.value for point in group) / len(group)) for group in groups] or [*points]


class _Axis:
    """Values along one side of the chart.

    Args:
        values: What must find place.
        start: Where the axis begins in the picture.
        end: Where it ends.
    """

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if low == high:
            low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
        self._low, self._high, self._start, self._end = low, high, start, end
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(low / step - 1e-9)
        self._step = step
        self.ticks = [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]

    def place(self, value: float) -> float:
        """Where a value lies in the picture."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)

    def label(self, tick: float) -> str:
        """A tick in as many digits as tell it from the next."""
        digits = -math.floor(math.log10(self._step))
        return f"{tick:.{max(digits, 0)}f}" if -7 < digits < 7 else f"{tick:.3g}"


def _line(places: Sequence[tuple[float, float] | None]) -> str:
    """A line through places, with a gap at None."""
    words, command = [], "M"
    for place in places:
        if place is not None:
            words.append(f"{command}{place[0]:.1f} {place[1]:.1f}")
        command = "M" if place is None else "L"
    return "".join(words)


def _fits(value: float) -> bool:
    """Whether an axis can show a value; others are gaps."""
    return abs(value) < _LARGEST
