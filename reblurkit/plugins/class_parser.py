"""Objects from configurations: by classes, never by functions, which the parser would call as readily."""

from __future__ import annotations

import inspect
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

from reblurkit.errors import ArgumentError


def check_classes(options: Any) -> None:
    """Check that whatever a parsed configuration names is a class.

    Args:
        options: What the parser has made of it; nothing in it has been built yet.

    Raises:
        ArgumentError: If there is a function, or another object that could be called.
    """
    for key, name, value in _named(options):
        if not isinstance(value, type):
            raise ArgumentError(f"--{key}: expected a class, but {name} is a {type(value).__name__}")


def classes_from(kinds: Mapping[str, type], options: Mapping[str, Any]) -> dict[str, Any]:
    """Objects by the classes that the user's own configuration names.

    Args:
        kinds: What each must be, by name.
        options: ``class_path`` and ``init_args`` of each, as YAML gives them.

    Raises:
        ArgumentError: If one is no class.
        Exception: Of any kind, if one cannot be built.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    for name, kind in kinds.items():
        parser.add_subclass_arguments(kind, name)
    parsed = parser.parse_object(dict(options))
    check_classes(parsed)
    return dict(vars(parser.instantiate_classes(parsed)))


def _named(value: Any, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """What is named in a configuration: its key, its path, and what that stands for."""
    if isinstance(value, Namespace | Mapping):
        items = dict(vars(value) if isinstance(value, Namespace) else value)
        path = items.get("class_path")
        if isinstance(path, str) and (found := _imported(path)) is not None:
            yield key, path, found
        for name, child in items.items():
            yield from _named(child, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple | set):
        for child in value:
            yield from _named(child, key)
    elif inspect.isroutine(value) or isinstance(value, partial | nn.Module):
        yield key, getattr(value, "__qualname__", "it"), value


def _imported(path: str) -> Any:
    """What a dotted path stands for, if the parser has imported it."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        if (found := sys.modules.get(".".join(parts[:cut]))) is not None:
            for name in parts[cut:]:
                found = getattr(found, name, None)
            return found
    return None
