"""Curves of metrics."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reblurkit.cli.report.runs import Point
from reblurkit.errors import BackendError

_POINTS = 200
_LARGEST = 1e100
COLOURS = ("#1f77b4", "#d95f02", "#2a9d58", "#b5329a", "#7d6608", "#17becf", "#8c564b", "#555555")


def metric_chart(curves: Mapping[str, Sequence[Point]], colours: Mapping[str, str]) -> str:
    """Draw one metric of several runs over the training step.

    Of a curve of more than 200 values the means of equally many neighbours are drawn.

    Args:
        curves: The values of each run.
        colours: The colour of each run.

    Returns:
        An SVG picture, to be put into a page.

    Raises:
        BackendError: If matplotlib is not installed.

    Example:
        >>> metric_chart({"a": [Point(0, 1.0), Point(9, 2.0)]}, {"a": "black"})[:4]
        '<svg'
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendError("charts need matplotlib: pip install 'reblurkit[report]'") from None
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "reblurkit",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e5e5",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.2, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for run, points in curves.items():
            thinned = thin(points)
            steps = [point.step for point in thinned]
            # as gaps, what no axis can show
            values = [point.value if abs(point.value) < _LARGEST else math.nan for point in thinned]
            axes.plot(steps, values, color=colours[run], marker="." if len(thinned) < 30 else None, linewidth=1.3)
        axes.set_xlabel("step")
        axes.ticklabel_format(useOffset=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def thin(points: Sequence[Point]) -> list[Point]:
    """At most 200 points: means of equally many neighbours.

    Example:
        >>> thin([Point(step, step % 2) for step in range(400)])[:2]
        [Point(step=1, value=0.5), Point(step=3, value=0.5)]
    """
    size = math.ceil(len(points) / _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if size > 1 else []
    return [Point(group[-1].step, sum(point.value for point in group) / len(group)) for group in groups] or [*points]
