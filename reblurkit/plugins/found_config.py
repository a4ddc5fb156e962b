"""Networks out of a configuration that lies beside a checkpoint: it came with it, and is data, never a program."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reblurkit.errors import ArgumentError, ReblurkitError, WeightsError
from reblurkit.models.registry import network_class
from reblurkit.models.weight_files import renamed_for

_SIZE_MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\(\[(.*?)\]\) from checkpoint, the shape in "
    r"current model is torch\.Size\(\[(.*?)\]\)\."
)
_LARGEST = 100_000  # sum of all numbers: widths, blocks and the like, which make a network


def network_from_data(spec: Any, state: Mapping[str, Tensor]) -> nn.Module:
    """A network of this package, as a configuration names it, with the weights of a checkpoint.

    Nothing that the configuration names is imported, called or read from a file, but the networks of this package with
    plain values. It is built without memory first: only if it has the shapes of the weights, memory is taken.

    Args:
        spec: ``class_path`` and ``init_args``, or a class alone.
        state: The weights, by the network's names.

    Raises:
        ArgumentError: If it is no network of this package, or cannot be built.
        WeightsError: If the weights do not fit.
    """
    if _sum(spec) > _LARGEST:
        raise ArgumentError("its numbers are larger than those of any network")
    with torch.device("meta"):
        outline = _built(spec)
    state = renamed_for(outline.state_dict(), state)
    try:
        outline.load_state_dict({name: value.to("meta") for name, value in state.items()})
        network = _built(spec)
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(misfit(error)) from error
    return network


def misfit(error: Exception) -> str:
    """What torch says of weights that do not fit, in a line."""
    _, *lines = map(str.strip, str(error).splitlines())
    lines = [_SIZE_MISMATCH.sub(r"\1 is (\2) in the file and (\3) in the network", line) for line in lines]
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "") if lines else str(error)


def _built(spec: Any) -> nn.Module:
    path, arguments = class_of(spec)
    cls = network_class(path)
    if cls is None:
        raise ArgumentError(
            f"it names {path}, which is no network of this package, and a configuration that is found beside a "
            "checkpoint runs no other code; if you trust it, give it by `config`, or name the class by `network` and "
            "the checkpoint by `weights`"
        )
    known = inspect.signature(cls).parameters
    if unknown := sorted(map(str, arguments.keys() - known.keys())):
        raise ArgumentError(f"{cls.__name__} has no argument {unknown[0]!r}; it has: {', '.join(known)}")
    try:
        return cls(**{name: _value(value) for name, value in arguments.items()})
    except ReblurkitError:
        raise
    except Exception as error:  # whatever a constructor runs into with values of a wrong kind
        raise ArgumentError(f"{cls.__name__} cannot be built: {type(error).__name__}: {error}") from error


def class_of(spec: Any) -> tuple[str, dict[str, Any]]:
    """The class that a part of a configuration names, and its arguments.

    Raises:
        ArgumentError: If it names none.
    """
    if isinstance(spec, str):
        spec = {"class_path": spec}
    if isinstance(spec, Mapping) and isinstance(spec.get("class_path"), str):
        arguments = spec.get("init_args") or {}
        if isinstance(arguments, Mapping):
            return spec["class_path"], {str(name): value for name, value in arguments.items()}
    raise ArgumentError(f"expected a class by class_path and init_args, but came {str(spec)[:80]!r}")


def _value(value: Any) -> Any:
    """A plain value, or a network."""
    if isinstance(value, Mapping):
        return _built(value)
    if isinstance(value, list):
        return tuple(map(_value, value))
    return value


def _sum(value: Any) -> float:
    match value:
        case bool() | str() | None:
            return 0
        case int() | float():
            return abs(value)
        case list():
            return sum(map(_sum, value))
        case Mapping():
            return sum(map(_sum, value.values()))
    raise ArgumentError(f"expected numbers, texts and lists, but came {str(value)[:80]!r}")
