"""Arguments of a network, or another part of a model, that were given to the model itself."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from reblurkit.cli.class_help import known_classes
from reblurkit.cli.missing_files import configurations
from reblurkit.core.yaml_files import read_yaml

_REFUSED = re.compile(r"(--model: \S+: Option '(\w+)' is not accepted)(?:; did you mean (?!.*--).*)?")


def argument_of_a_part(message: str, words: Sequence[str]) -> str:
    """A complaint about an argument of a model, completed by the part of the model that takes it; empty if none does.

    Args:
        message: The parser's complaint, in one line.
        words: The command line.
    """
    match = _REFUSED.fullmatch(message)
    if match is None:
        return ""
    taken = {part: _arguments(name) for part, name in _parts(words).items()}
    found = [f"--model.{part}.{match[2]}" for part, names in taken.items() if match[2] in names]
    if not found:  # nor spelt so
        near = {part: get_close_matches(match[2], names, 1, 0.8) for part, names in taken.items()}
        found = [f"--model.{part}.{name}" for part, names in near.items() for name in names]
    return f"{match[1]}; did you mean {' or '.join(found)}?" if found else ""


def _parts(words: Sequence[str]) -> dict[str, str]:
    """The classes that arguments of the model are, from configurations and the command line, which comes last."""
    found: dict[str, str] = {}
    for path in configurations(words):
        found |= dict(_configured(path))
    for index, word in enumerate(words):
        name, is_one, value = word.partition("=")
        if match := re.fullmatch(r"--model\.(?:init_args\.)?(\w+)(?:\.class_path)?", name):
            found[match[1]] = value if is_one else next(iter(words[index + 1 : index + 2]), "")
    return found


def _configured(path: str) -> Iterator[tuple[str, str]]:
    try:
        model: Any = read_yaml(Path(path).read_text(encoding="utf-8"))["model"]
        arguments = model["init_args"].items()
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):  # it names none
        return
    for part, value in arguments:
        if name := value.get("class_path") if isinstance(value, Mapping) else value:
            yield part, str(name)


def _arguments(name: str) -> Sequence[str]:
    """The arguments of a class by its short name, or of one that the parser has imported."""
    module, _, last = name.rpartition(".")
    cls = getattr(sys.modules.get(module), last, None) or known_classes().get(last)
    return list(inspect.signature(cls).parameters) if isinstance(cls, type) else []
