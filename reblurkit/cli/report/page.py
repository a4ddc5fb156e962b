"""A page that shows one or several runs: results, curves, pictures, and in which options they differ."""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeVar

import jinja2
import numpy as np
from PIL import Image

import reblurkit
from reblurkit.cli.metric_names import arrow, short_number, title
from reblurkit.cli.report.charts import COLOURS, metric_chart, thin
from reblurkit.cli.report.runs import Point, Run, find_runs, is_log, read_versions
from reblurkit.core.files import whole_file
from reblurkit.core.special_files import special_kind
from reblurkit.data.images import read_levels
from reblurkit.errors import ArgumentError, ReblurkitError, ReportError

T = TypeVar("T")

_MARK = '<meta name="generator" content="reblurkit report">'
_WIDEST = 1600  # pixels of a picture in the page


def write_report(folders: Sequence[str], output: str = "report.html") -> list[str]:
    """Write a page, in one file that needs nothing else, of all runs in some folders.

    Args:
        folders: Run folders, or folders that hold some, such as ``lightning_logs``; a comparison in one of them
            (``comparison.png``, and a ``metrics.csv`` of versions, as of ``reblurkit demo``) is shown too.
        output: The page; one that is there already is replaced if it is a report.

    Returns:
        What could not be read, each with the reason.

    Raises:
        ArgumentError: If the output is a file of another kind.
        ReportError: If the page cannot be written.
        ReblurkitError: If there is no run at all: what was wrong with the first folder.
    """
    path = Path(output)
    if path.is_dir() or (path.exists() and not _is_report(path)):
        raise ArgumentError(f"{path} exists and is no report; choose another `output`")
    runs: dict[Path, Run] = {}  # a run that two folders hold is one
    errors: list[ReblurkitError] = []
    for folder in folders:
        try:
            found, broken = find_runs(Path(folder))
        except ReblurkitError as error:
            errors.append(error)
        else:
            runs |= {run.folder.resolve(): run for run in found}
            errors += broken
    if not runs:
        raise errors[0]
    page = _page(list(runs.values()), [Path(folder) for folder in folders], errors)
    try:
        with whole_file(path) as partial:
            partial.write_text(page, encoding="utf-8", errors="replace")  # names of files need not be text
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from error
    return [str(error) for error in errors]


def _is_report(path: Path) -> bool:
    if special_kind(path) is not None:
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(1000)
    return head.startswith("<!DOCTYPE html>") and _MARK in head


class _Cell(NamedTuple):
    """The last value of a metric, and the best one with its step where that is another."""

    last: str = ""
    best: str = ""
    wins: bool = False


@dataclass(frozen=True)
class _Shown:
    """A run on the page."""

    name: str
    colour: str
    run: Run
    pictures: list[tuple[str, str]]


def _page(runs: Sequence[Run], folders: Sequence[Path], errors: list[ReblurkitError]) -> str:
    """The page; what of it cannot be read is added to the errors."""

    def pictures(paths: Sequence[Path], title: Callable[[Path], str]) -> list[tuple[str, str]]:
        return [(title(path), picture) for path in paths if (picture := _tried(_embedded, path, errors))]

    shown = [
        _Shown(name, colour, run, pictures(_first_and_last(run.pictures), lambda path: path.stem))
        for name, colour, run in zip(_names(runs), itertools.cycle(COLOURS), runs, strict=False)
    ]
    colours = {each.name: each.colour for each in shown}
    names = sorted({name for run in runs for name in run.metrics}, key=_order)
    curves = {name: {each.name: each.run.metrics[name] for each in shown if name in each.run.metrics} for name in names}
    # a run that has only trained has no results beside those of one that was measured
    wanted = [name for name in names if not name.startswith(("train/", "lr-"))]
    wanted = wanted or [name for name in names if name.startswith("train/")]
    measured = [each for each in shown if each.run.metrics.keys() & {*wanted}]
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        resources.files("reblurkit.cli.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        mark=_MARK,
        version=reblurkit.__version__,
        date=f"{datetime.now():%Y-%m-%d %H:%M}",
        runs=shown,
        measured=measured,
        results={title(name): _row(name, measured) for name in wanted},
        charts={
            name: metric_chart(points, colours)
            for name, points in curves.items()
            if any(len(values) > 1 for values in points.values())
        },
        thinned=any(len(points) > len(thin(points)) for each in curves.values() for points in each.values()),
        comparisons=pictures(_files(folders, "comparison.png"), Path.as_posix),
        tables=[
            (path.as_posix(), table)
            for path in _files(folders, "metrics.csv")
            if _tried(is_log, path, errors) is False and (table := _tried(read_versions, path, errors))
        ],
        configured=[each for each in shown if each.run.config],
        differences=_differences([run for run in runs if run.config]),
    )


def _tried(read: Callable[[Path], T], path: Path, errors: list[ReblurkitError]) -> T | None:
    try:
        return read(path)
    except ReblurkitError as error:
        errors.append(error)
        return None


def _files(folders: Sequence[Path], name: str) -> list[Path]:
    return [folder / name for folder in folders if (folder / name).is_file()]


def _names(runs: Sequence[Run]) -> list[str]:
    """Folders without what all have in common; of a single one the last two names."""
    parts = [run.folder.resolve().parts for run in runs]
    if len(parts) == 1:
        return ["/".join(parts[0][-2:])]
    common = next(i for i, column in enumerate(itertools.zip_longest(*parts)) if len(set(column)) > 1)
    common = min(common, *(len(each) - 1 for each in parts))  # one run may hold another
    return ["/".join(each[common:]) for each in parts]


def _order(name: str) -> tuple[int, str]:
    stages = ("test/", "val/", "train/")
    return next((i for i, stage in enumerate(stages) if name.startswith(stage)), len(stages)), name


def _row(name: str, shown: Sequence[_Shown]) -> list[_Cell]:
    """A metric of every run."""
    sign = {"↑": 1, "↓": -1}.get(arrow(name), 0)
    points = [[point for point in each.run.metrics.get(name, ()) if math.isfinite(point.value)] for each in shown]
    lasts = [values[-1].value if values else math.nan for values in points]
    measured = [sign * last for last in lasts if not math.isnan(last)]
    wins = max(measured) if sign and len(measured) > 1 and max(measured) > min(measured) else math.nan
    return [
        _Cell(short_number(last), _best(values, sign), sign * last == wins)
        if values
        else _Cell("not finite" if name in each.run.metrics else "")
        for each, values, last in zip(shown, points, lasts, strict=True)
    ]


def _best(points: Sequence[Point], sign: int) -> str:
    best = max(points, key=lambda point: sign * point.value)
    is_last = best.value == points[-1].value
    return "" if sign == 0 or is_last else f"best {short_number(best.value)} at step {best.step}"


def _differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Options that are not the same in all runs; first those that all have, then those of classes that some have."""
    keys = sorted({key for run in runs for key in run.options if key})
    keys.sort(key=lambda key: [key not in run.options for run in runs])
    table = {key: [run.options.get(key, "") for run in runs] for key in keys}
    return {key: row for key, row in table.items() if len(set(row)) > 1}


def _first_and_last(pictures: Sequence[Path]) -> list[Path]:
    return [*pictures[:1], *pictures[1:][-1:]]


def _embedded(path: Path) -> str:
    """A picture as the address of itself."""
    try:
        levels = read_levels(path)
    except ReblurkitError as error:
        raise ReportError(str(error)) from error
    picture = Image.fromarray(levels if levels.dtype == np.uint8 else (levels >> 8).astype(np.uint8))
    picture.thumbnail((_WIDEST, 10 * _WIDEST), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
