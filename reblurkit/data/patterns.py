"""Patterns of file names, whose wildcards say which files belong together."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from reblurkit.core.special_files import special_kind
from reblurkit.core.suggestions import near_path
from reblurkit.data.images import SUFFIXES
from reblurkit.data.unread import warn_unread
from reblurkit.errors import DatasetNotFoundError, PairingError

_WILDCARD = re.compile(r"(\*\*/|\*|<[a-z]\w*/?>)")

Captured = Mapping[str, str]


class Pattern:
    """A pattern of paths below a folder.

    ``*`` stands for any name, ``**/`` for any depth of folders; ``<name>`` and ``<name/>`` are the same with a name. A
    pattern without a file suffix takes images of any kind.

    Args:
        text: The pattern, with ``/`` between folders.

    Example:
        >>> Pattern("Blurry<image>_<kernel>").match(Path("Blurry1_12.png"))
        {'image': '1', 'kernel': '12'}
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.wildcards: set[str] = set()
        """Names of the wildcards; those without one are numbered."""
        self.places: set[str] = set()
        """Those of the form ``<name/>``: they say where a file may lie, and tell no files apart."""
        expression, numbers = "", itertools.count(1)
        for part in _WILDCARD.split(text):
            if not _WILDCARD.fullmatch(part):
                expression += re.escape(part)
                continue
            name = part.strip("<>/") if part.startswith("<") else f"_{next(numbers)}"
            if name in self.wildcards:
                expression += f"(?P={name})"
                continue
            self.wildcards.add(name)
            if part.endswith("/>"):
                self.places.add(name)
            expression += f"(?P<{name}>{'(?:[^/]+/)*' if '/' in part else '[^/]*'})"
        self._expression = re.compile(expression)
        self._any_suffix = Path(text).suffix == ""

    @property
    def folder(self) -> str:
        """The folders before the first wildcard."""
        return _WILDCARD.split(self.text)[0].rpartition("/")[0]

    def match(self, path: Path) -> dict[str, str] | None:
        """What the wildcards stand for in a relative path; None if it is no image or does not match."""
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            return None
        match = self._expression.fullmatch(self._name(path))
        return match.groupdict() if match else None

    def _name(self, path: Path) -> str:
        return (path.with_suffix("") if self._any_suffix else path).as_posix()

    def files(self, root: Path) -> list[tuple[Path, dict[str, str]]]:
        """The images below a folder that match, sorted, each with what the wildcards stand for."""
        found = walk_files(root / self.folder)
        warn_unread(path for path in found if self._expression.fullmatch(self._name(path.relative_to(root))))
        candidates = ((path, self.match(path.relative_to(root))) for path in found)
        return [
            (path, captured) for path, captured in candidates if captured is not None and special_kind(path) is None
        ]


def common_wildcards(blurry: Pattern, sharp: Pattern) -> list[str]:
    """The wildcards that pair files of two patterns: all without a name, and the names that are in both.

    Raises:
        PairingError: If one pattern has more wildcards without a name than the other.
    """
    if any(name.startswith("_") for name in blurry.wildcards ^ sharp.wildcards):
        raise PairingError(f"{blurry.text!r} and {sharp.text!r} cannot pair files: they have not equally many '*'")
    return sorted(blurry.wildcards & sharp.wildcards)


def index_files(files: Iterable[tuple[Path, Captured]], wildcards: Iterable[str]) -> dict[tuple[str, ...], Path]:
    """Files by what some wildcards stand for.

    Raises:
        PairingError: If two files agree in all of them.
    """
    wildcards = list(wildcards)
    index: dict[tuple[str, ...], Path] = {}
    for path, captured in files:
        first = index.setdefault(tuple(captured[name] for name in wildcards), path)
        if first != path:
            raise PairingError(f"{path} and {first} have the same name; which is the one to pair?")
    return index


def image_files(folder: Path) -> list[Path]:
    """All image files of a folder and those below it, sorted.

    Raises:
        DatasetNotFoundError: If the folder is missing or holds no image.
    """
    if not folder.is_dir():
        near = ", ".join(sorted(entry.name for entry in folder.parent.iterdir())[:8]) if folder.parent.is_dir() else ""
        raise DatasetNotFoundError(f"no folder {folder}; {folder.parent} holds: {near or 'nothing'}{near_path(folder)}")
    files = [path for path, _ in Pattern("**/*").files(folder)]
    if not files:
        raise DatasetNotFoundError(f"no images in the folder {folder}")
    return files


def result_names(files: Iterable[Path]) -> dict[Path, Path]:
    """What the results of files are called, without suffix; files that differ in nothing else keep it, except ``.png``.

    Example:
        >>> sorted(map(str, result_names(map(Path, ["a.png", "a.jpg", "b.jpg"])).values()))
        ['a', 'a.jpg', 'b']
    """
    files = set(files)
    alike = Counter(path.with_suffix("") for path in files)

    def name(path: Path) -> Path:
        is_alone = alike[path.with_suffix("")] == 1
        return path.with_suffix("") if is_alone else path.with_name(path.name.removesuffix(".png"))

    return {path: name(path) for path in files}


def walk_files(folder: Path) -> list[Path]:
    """All files below a folder, pipes and devices too, sorted; links to folders are followed, each folder once.

    Raises:
        DatasetNotFoundError: If a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder that is missing has no files
            raise DatasetNotFoundError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        files += [Path(place, name) for name in names]
    return sorted(files)
