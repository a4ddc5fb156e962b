"""Where data sets keep their blurry and sharp images, and how files become pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reblurkit.data.images import SUFFIXES
from reblurkit.errors import ArgumentError, DatasetNotFoundError, PairingError


class Pair(NamedTuple):
    """A blurry and a sharp file, and the blurry file's path below the root without suffix."""

    name: str
    blurry: Path
    sharp: Path


@dataclass(frozen=True)
class Layout:
    """A data set's folder structure.

    Patterns are relative to the root. ``{split}`` stands for the split's folder, ``{folder}`` for the blurry or sharp
    folder's name. ``*`` stands for any name, ``**/`` for any depth of folders; what they stand for pairs the files.
    A pattern without a file suffix takes images of any kind.
    """

    blurry: str
    sharp: str
    blur_folder: str
    sharp_folder: str
    splits: Mapping[str, str] = field(default_factory=dict)


LAYOUTS = {
    "folders": Layout("{split}/{folder}/**/*", "{split}/{folder}/**/*", "blur", "sharp"),
    "gopro": Layout(
        "{split}/*/{folder}/*", "{split}/*/{folder}/*", "blur_gamma", "sharp", {"val": "test"}
    ),  # the original GOPRO_Large: a folder per sequence, no validation split
}


def find_pairs(
    root: Path, layout: str, *, split: str | None, blur: str | None = None, sharp: str | None = None
) -> list[Pair]:
    """List the pairs of a data set, sorted by name.

    Args:
        root: The data set's folder.
        layout: A key of ``LAYOUTS``.
        split: ``"train"``, ``"val"``, ``"test"`` or a folder's name; ``None``: the root has no split folders.
        blur: The blurry images' folder where it is not the layout's, or, with a ``*`` in it, a whole pattern.
        sharp: The same for sharp images.

    Raises:
        ArgumentError: If the layout is unknown.
        DatasetNotFoundError: If the root or all images are missing.
        PairingError: If an image has no partner, or two have the same.
    """
    if layout not in LAYOUTS:
        raise ArgumentError(f"unknown layout {layout!r}; known layouts: {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DatasetNotFoundError(f"no data set folder {root}" + (" (it is a file)" if root.is_file() else ""))
    preset = LAYOUTS[layout]
    blurry_pattern = _pattern(preset.blurry, blur or preset.blur_folder, split, preset.splits)
    sharp_pattern = _pattern(preset.sharp, sharp or preset.sharp_folder, split, preset.splits)
    blurry_files = _files(root, blurry_pattern)
    sharp_files = _files(root, sharp_pattern)
    lonely_blurry, lonely_sharp = blurry_files.keys() - sharp_files.keys(), sharp_files.keys() - blurry_files.keys()
    if lonely_blurry or lonely_sharp:
        raise PairingError(
            f"{root}: {len(lonely_blurry)} of {len(blurry_files)} images of {blurry_pattern!r} have no partner"
            f"{_some(blurry_files[key].name for key in lonely_blurry)}, {len(lonely_sharp)} of {len(sharp_files)} of "
            f"{sharp_pattern!r} have none{_some(sharp_files[key].name for key in lonely_sharp)}; pairs need equal names"
        )
    return [
        Pair(blurry_files[key].relative_to(root).with_suffix("").as_posix(), blurry_files[key], sharp_files[key])
        for key in sorted(blurry_files)
    ]


def _pattern(preset: str, name: str, split: str | None, splits: Mapping[str, str]) -> str:
    pattern = name if "*" in name else preset.replace("{folder}", name)
    if split is None:
        return pattern.replace("{split}/", "")
    return pattern.replace("{split}", splits.get(split, split))


def _files(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """The images that match, by what the pattern's wildcards stand for."""
    any_suffix = Path(pattern).suffix == ""
    expression = re.compile(_expression(pattern))
    files: dict[tuple[str, ...], Path] = {}
    for path in sorted(root.glob(pattern)):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        relative = path.relative_to(root)
        match = expression.fullmatch((relative.with_suffix("") if any_suffix else relative).as_posix())
        if match is None:  # a folder level that `**/` may skip
            continue
        if match.groups() in files:
            raise PairingError(f"{path} and {files[match.groups()]} have the same name; which is the one to pair?")
        files[match.groups()] = path
    if not files:
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise DatasetNotFoundError(
            f"no images match {pattern!r} in {root}, which holds: {found}; name the folders with blur= and sharp=, "
            "as 'NAME' in each split's folder or as patterns ('blur/*') where there are no split folders"
        )
    return files


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*)", pattern)
    wildcards = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)"}
    return "".join(wildcards.get(part, re.escape(part)) for part in parts)


def _some(names: Iterable[str]) -> str:
    first = sorted(names)[:3]
    return f" ({', '.join(first)}{', ...' if len(first) == 3 else ''})" if first else ""
