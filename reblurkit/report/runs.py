"""What a training leaves in its run folder, read back."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from reblurkit.errors import DatasetNotFoundError, ReportError


class Point(NamedTuple):
    """A logged value."""

    step: int
    value: float


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: Where it is.
        metrics: Every logged metric by name, in the order of the log.
        pictures: Pictures of the validations, oldest first.
        config: The text of ``config.yaml``, empty if there is none.
        options: Its values by dotted key; of lists the values by number.
    """

    folder: Path
    metrics: Mapping[str, Sequence[Point]]
    pictures: Sequence[Path]
    config: str
    options: Mapping[str, str]


def find_runs(path: Path) -> list[Run]:
    """The runs in a folder: itself, or those below it, such as ``lightning_logs/version_*``.

    Raises:
        DatasetNotFoundError: If there is none.
        ReportError: If a file of a run cannot be read.
    """
    if not path.is_dir():
        raise DatasetNotFoundError(f"no run folder {path}")
    logs = [log for log in sorted(path.rglob("metrics.csv"), key=_natural) if is_log(log)]
    if not logs:
        board = any(path.rglob("events.out.tfevents.*"))
        raise DatasetNotFoundError(
            f"no run in {path}: looked for metrics.csv with a column 'step'"
            + (
                ", and found TensorBoard's logs; train with `--trainer.logger CSVLogger --trainer.logger.save_dir .`"
                * board
            )
        )
    return [_read(log) for log in logs]


def read_versions(path: Path) -> list[list[str]]:
    """The header and the rows of a table of versions; numbers at four digits."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return [[_short(text) for text in row] for row in csv.reader(file)]


def is_log(path: Path) -> bool:
    """Whether a ``metrics.csv`` is Lightning's, with values by step."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return "step" in file.readline().strip().split(",")


def _read(log: Path) -> Run:
    folder = log.parent
    pictures = sorted((folder / "images").glob("*.png"), key=_natural)
    config = folder / "config.yaml"
    try:
        text = config.read_text(encoding="utf-8") if config.exists() else ""
        options = dict(_flat(yaml.safe_load(text) or {}))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(f"cannot read {config}: {' '.join(str(error).split())}") from error
    return Run(folder, _metrics(log), pictures, text, options)


def _metrics(log: Path) -> dict[str, list[Point]]:
    metrics: dict[str, list[Point]] = {}
    try:
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, strict=True):
                for name, text in row.items():
                    if text and name not in ("epoch", "step"):
                        metrics.setdefault(name, []).append(Point(int(row["step"]), float(text)))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ReportError(f"cannot read {log}: {error}") from error
    return metrics


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Nested options as dotted keys."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    pairs = [pair for name, child in children for pair in _flat(child, f"{key}.{name}" if key else str(name))]
    return pairs or [(key, "none" if value is None else str(value))]


def _natural(path: Path) -> list[int | str]:
    words = re.split(r"(\d+)", path.as_posix())
    return [int(word) if number % 2 else word for number, word in enumerate(words)]
