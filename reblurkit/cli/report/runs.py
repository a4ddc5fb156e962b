"""What a training leaves in its run folder, read back."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from reblurkit.cli.metric_names import short_number
from reblurkit.core.special_files import check_size, read_text
from reblurkit.core.suggestions import near_path
from reblurkit.core.yaml_files import read_yaml
from reblurkit.data.patterns import walk_files
from reblurkit.errors import DatasetNotFoundError, ReportError

_OPTIONS = 10_000
_LARGEST = 2**29  # bytes of a log; of a million steps with ten values it has a quarter of that
_HEADER = 100_000  # characters


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
        options: Its values by dotted key; of lists the values by number or class.
    """

    folder: Path
    metrics: Mapping[str, Sequence[Point]]
    pictures: Sequence[Path]
    config: str
    options: Mapping[str, str]


def find_runs(path: Path) -> tuple[list[Run], list[ReportError]]:
    """The runs in a folder: itself, or those below it, such as ``lightning_logs/version_*``.

    Returns:
        The runs, and what was wrong with those that cannot be read.

    Raises:
        DatasetNotFoundError: If there is none.
    """
    if not path.is_dir():
        raise DatasetNotFoundError(f"no run folder {path}{near_path(path)}")
    files = walk_files(path)
    logs = sorted((file for file in files if file.name == "metrics.csv" and file.is_file()), key=_natural)
    runs: list[Run] = []
    errors: list[ReportError] = []
    for log in logs:
        try:
            runs += [_read(log)] if is_log(log) else []
        except ReportError as error:
            errors.append(error)
    if not runs and not errors:
        board = any(file.name.startswith("events.out.tfevents.") for file in files)
        raise DatasetNotFoundError(
            f"no run in {path}: looked for metrics.csv with a column 'step'"
            + (
                ", and found TensorBoard's logs; train with `--trainer.logger CSVLogger --trainer.logger.save_dir .`"
                * board
            )
        )
    return runs, errors


def read_versions(path: Path) -> list[list[str]]:
    """The header and the rows of a table of versions; numbers shortened.

    Raises:
        ReportError: If the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return [[_short(text) for text in row] for row in csv.reader(file)]
    except (OSError, csv.Error) as error:
        raise ReportError(f"cannot read {path}: {error}") from error


def is_log(path: Path) -> bool:
    """Whether a ``metrics.csv`` is Lightning's, with values by step.

    Raises:
        ReportError: If the file cannot be read.
    """
    try:
        check_size(path, _LARGEST)
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "step" in file.readline(_HEADER).strip().split(",")
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror or error}") from error


def _read(log: Path) -> Run:
    folder = log.parent
    pictures = sorted((folder / "images").glob("*.png"), key=_natural)
    config = folder / "config.yaml"
    try:
        text = read_text(config) if config.exists() else ""
        flat = _flat(read_yaml(text) or {})
        options = dict(itertools.islice(flat, _OPTIONS))
    except Exception as error:  # YAML's constructors raise whatever Python's do
        raise ReportError(f"cannot read {config}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if next(flat, None) is not None:
        raise ReportError(f"cannot read {config}: it has more than {_OPTIONS} options")
    return Run(folder, _metrics(log), pictures, text, options)


def _metrics(log: Path) -> dict[str, list[Point]]:
    metrics: dict[str, list[Point]] = {}
    number, name = 0, ""
    try:
        with log.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                number = reader.line_num
                for name, text in row.items():
                    if text and name not in ("epoch", "step"):
                        metrics.setdefault(name, []).append(Point(int(row["step"]), float(text)))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ReportError(f"cannot read {log}, line {number}, column {name}: {error}") from error
    return metrics


def _short(text: str) -> str:
    try:
        return short_number(float(text))
    except ValueError:
        return text


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Nested options as dotted keys."""
    if not value or not isinstance(value, dict | list):
        yield key, "none" if value is None else str(value)
        return
    for name, child in value.items() if isinstance(value, dict) else _named(value):
        yield from _flat(child, f"{key}.{name}" if key else str(name))


def _named(values: list[Any]) -> Iterator[tuple[str, Any]]:
    """Items of a list by their classes, such as callbacks, whose places say nothing; others by number."""
    seen: Counter[str] = Counter()
    for number, value in enumerate(values):
        path = value.get("class_path") if isinstance(value, dict) else None
        name = path.rpartition(".")[2] if isinstance(path, str) else str(number)
        seen[name] += 1
        yield f"{name}.{seen[name]}" if seen[name] > 1 else name, value


def _natural(path: Path) -> list[int | str]:
    words = re.split(r"(\d+)", path.as_posix())
    return [int(word) if number % 2 else word for number, word in enumerate(words)]
