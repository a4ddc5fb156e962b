"""YAML of strangers: a short text can stand for a structure without end."""

from __future__ import annotations

import re
from typing import Any

import yaml

_LONGEST = 1_000_000  # characters; configurations have a few thousand
_DEEPEST = 100
_LARGEST = 100_000  # values, aliases written out

_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml(text: str) -> None:
    """Check that a text stands for a structure that can be walked in a moment, whatever its aliases repeat.

    Raises:
        yaml.YAMLError: If it does not, or is no YAML.
    """
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"it has {len(text)} characters, and no configuration has more than {_LONGEST}")
    sizes: dict[str, int] = {}  # of what an anchor stands for
    open_: list[tuple[str | None, int]] = []  # anchor and size of the collections around
    for event in yaml.parse(text, Loader=_EVENTS):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, 1))
            if len(open_) > _DEEPEST:
                raise yaml.YAMLError(f"it is nested more than {_DEEPEST} levels deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias {event.anchor!r} stands for nothing, or for itself")
            anchor, size = None, sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if open_:
            open_[-1] = (open_[-1][0], open_[-1][1] + size)
            if open_[-1][1] > _LARGEST:
                raise yaml.YAMLError(f"it stands for more than {_LARGEST} values")


def check_colons(text: str) -> None:
    r"""Check that no line of a configuration lacks its colon, which makes a text of it where options are meant.

    Args:
        text: YAML, as :func:`check_yaml` passes it.

    Raises:
        yaml.MarkedYAMLError: If words stand alone below a key, or are all there is.

    Example:
        >>> try:
        ...     check_colons("init_args:\n  crop 64")
        ... except yaml.YAMLError as error:
        ...     yaml_error_line(error)
        "line 2, column 3: 'crop 64' has no colon"
    """
    root = yaml.compose(text, Loader=_EVENTS)
    found: list[tuple[int, yaml.Node | None]] = [(-1, root)]  # each value with the line of its key
    seen: set[int] = set()  # what aliases repeat
    while found:
        line, node = found.pop()
        if isinstance(node, yaml.MappingNode) and id(node) not in seen:
            found += [(key.end_mark.line, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode) and id(node) not in seen:
            found += [(each.start_mark.line, each) for each in node.value]
        elif isinstance(node, yaml.ScalarNode) and _is_option(node) and node.start_mark.line > line:
            raise yaml.MarkedYAMLError(problem=f"{node.value[:80]!r} has no colon", problem_mark=node.start_mark)
        seen.add(id(node))


def _is_option(node: yaml.ScalarNode) -> bool:
    """Whether a text looks like an option and its value, as no path or sum does."""
    return not node.style and re.match(r"[A-Za-z_][\w.]*\s", node.value) is not None


def read_yaml(text: str) -> Any:
    """What a text of YAML holds: texts, numbers, lists and mappings, never an object of Python's.

    Raises:
        yaml.YAMLError: If it is no YAML, or stands for more than a configuration can hold.

    Example:
        >>> read_yaml("{a: &x [1, 2], b: *x}")
        {'a': [1, 2], 'b': [1, 2]}
    """
    check_yaml(text)
    try:
        return yaml.safe_load(text)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # of a number or a date that is none
        raise yaml.YAMLError(str(error)) from error


def yaml_error_line(error: yaml.YAMLError) -> str:
    r"""What is wrong with a text of YAML, and where.

    Example:
        >>> try:
        ...     read_yaml("a: 1\n b: 2")
        ... except yaml.YAMLError as error:
        ...     yaml_error_line(error)
        'line 2, column 3: mapping values are not allowed in this context'
    """
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        is_late = "expected ':'" in str(error.problem)  # it is looked for as far as into the next line
        mark = (is_late and error.context_mark) or error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {' '.join(str(error.problem).split())}"
    return " ".join(str(error).split())
