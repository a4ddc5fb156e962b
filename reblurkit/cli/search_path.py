"""Where classes of the user's own are found: in the folder they work in, and never in place of what is installed."""

from __future__ import annotations

import importlib.machinery
import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from reblurkit.cli.missing_files import configurations
from reblurkit.cli.words import TRAINER_COMMANDS

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def add_users_folder(words: Sequence[str]) -> None:
    """Append the current folder to Python's search path, if a command line names a class that only it holds.

    Otherwise a file in a folder that was downloaded could take the place of a library that some package looks for.

    Args:
        words: The command line; configurations that it names are read.
    """
    folder = os.getcwd()
    if folder not in sys.path and any(_is_only_in(folder, name) for name in _names(words)):
        sys.path.append(folder)


def _is_only_in(folder: str, name: str) -> bool:
    module = name.partition(".")[0]
    if module in sys.builtin_module_names or importlib.machinery.PathFinder.find_spec(module) is not None:
        return False
    return importlib.machinery.PathFinder.find_spec(module, [folder]) is not None


def _names(words: Sequence[str]) -> list[str]:
    """Dotted names that may be of classes: those of ``--network``, of the Trainer's options, and in configurations."""
    named: list[Any] = []
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if option == "--network" or (words[0] in TRAINER_COMMANDS and option.startswith("-")):
            named.append(value if equals else following)
    for path in configurations(words):
        named.append(_content(Path(path)))
    return [match[0] for text in _texts(named) for match in _DOTTED.finditer(text)]


def _content(path: Path) -> Any:
    """What a configuration holds; None where it is none, which the command tells."""
    import yaml  # not for `--help`

    from reblurkit.core.special_files import read_text
    from reblurkit.core.yaml_files import read_yaml

    try:
        return read_yaml(read_text(path))
    except (yaml.YAMLError, OSError, ValueError):
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)
