"""Files of weights: untrusted input. Nothing but tensors, numbers and texts is ever read from one."""

from __future__ import annotations

import errno
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from reblurkit.core.memory import free_memory, is_out_of_memory
from reblurkit.core.special_files import check_regular
from reblurkit.core.suggestions import near_path
from reblurkit.errors import ArgumentError, WeightsError

T = TypeVar("T")

Prefer = Literal["ema", "raw"]
_MOST, _LONGEST = 10_000, 500  # tensors, and letters of a name: no network has more
_COMPILED = "_orig_mod."  # in names, where torch.compile wraps a network

# Where training programs put a network's weights in their checkpoints, in order of preference.
_WRAPPERS = ("params", "state_dict", "model_state_dict", "model", "weights", "generator", "G", "net", "shadow")
_AVERAGED = re.compile(r"(^|_)(ema|swa|averaged?)(_|$)", re.IGNORECASE)  # such as params_ema, state_dict_ema, ema


class PublishedWeights(NamedTuple):
    """The tensors of a file of weights by name.

    Attributes:
        state: The tensors.
        taken: Where in the file they were, ``"ema"`` or ``"checkpoint.model"`` for instance; ``""``: at the top.
        left: Other weights of the same network that are in the file, raw ones beside averaged ones or the reverse.
    """

    state: dict[str, Tensor]
    taken: str
    left: tuple[str, ...]


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of :func:`read_weights`."""
    return read_weights(path).state


def read_weights(path: str | os.PathLike[str], prefer: Prefer = "ema") -> PublishedWeights:
    """The tensors of a file of weights by name, on the CPU, out of whatever a training program has wrapped around.

    Args:
        path: A file that ``torch.save`` wrote, on any device and with any version, under any name; or a
            ``.safetensors`` file; or an ``.npz`` file of arrays.
        prefer: Which to take where the file holds averaged and raw weights.

    Raises:
        ArgumentError: If ``prefer`` is neither.
        WeightsError: If the file is missing, damaged, holds code or objects, or no tensors.
    """
    if prefer not in get_args(Prefer):
        raise ArgumentError(f"`prefer` must be 'ema' or 'raw', but is {prefer!r}")
    content = read_file(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} must hold a dictionary of tensors, but holds {type(content).__name__}")
    opened: set[int] = set()
    taken: list[str] = []
    left: tuple[str, ...] = ()
    while wrapped := _wrapped(content, prefer):
        taken.append(shown(wrapped[0]))
        left = left or tuple(shown(name) for name in wrapped[1:] if _is_averaged(name) != _is_averaged(wrapped[0]))
        content = content[wrapped[0]]
        if id(content) in opened:
            raise WeightsError(f"{path} must hold a dictionary of tensors, but holds one that contains itself")
        opened.add(id(content))
    state = tensors_of(content, path)
    if not state:
        found = ", ".join(shown(str(name)) for name in list(content)[:5]) or "nothing"
        raise WeightsError(f"{path} must hold a dictionary of tensors, but holds {found}")
    return PublishedWeights(without_wrappers(state), ".".join(taken), left)


def tensors_of(content: Mapping[Any, Any], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a dictionary by name.

    Args:
        content: From an untrusted file.
        path: The file.

    Raises:
        WeightsError: If they are more than any network has, or larger than memory, or one is sparse, quantized, or has
            no memory.
    """
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if len(state) > _MOST or any(len(name) > _LONGEST for name in state):
        raise WeightsError(
            f"{path} holds {len(state)} tensors, with names of up to {max(map(len, state))} letters; networks have at "
            f"most {_MOST}, with names of {_LONGEST}"
        )
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            kind = "quantized" if value.is_quantized else "without memory" if value.is_meta else "sparse"
            raise WeightsError(f"{path} must hold plain tensors, but {shown(name)} is {kind}; save it dense, in floats")
    # a tensor may repeat a few numbers without end, and takes its full size as soon as it is used
    _check_memory(sum(value.numel() * value.element_size() for value in state.values()))
    return state


def _wrapped(content: Mapping[Any, Any], prefer: Prefer) -> list[str]:
    """The names under which a dictionary holds weights, the one to take first."""
    raw = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    averaged = [
        name
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Mapping) and _is_averaged(name) and _holds_tensors(value)
    ]
    return averaged + raw if prefer == "ema" else raw + averaged


def _is_averaged(name: str) -> bool:
    return _AVERAGED.search(name) is not None


def _holds_tensors(content: Mapping[Any, Any], depth: int = 3) -> bool:
    """Whether there are tensors in it, or a little deeper; averages often have counters of their own beside them."""
    values = content.values()
    return any(isinstance(value, Tensor) and value.ndim for value in values) or (
        depth > 0 and any(isinstance(value, Mapping) and _holds_tensors(value, depth - 1) for value in values)
    )


def renamed_for(names: Iterable[str], state: Mapping[str, T]) -> dict[str, T]:
    """Tensors by the names of a module in which other networks are compiled than were when they were saved.

    Args:
        names: Those of the module's own tensors.
        state: The tensors; what the module has not keeps its name.

    Example:
        >>> renamed_for(["network._orig_mod.weight"], {"network.weight": 1, "reblur.weight": 2})
        {'network._orig_mod.weight': 1, 'reblur.weight': 2}
    """
    own = {name.replace(_COMPILED, ""): name for name in names}
    return {own.get(name.replace(_COMPILED, ""), name): value for name, value in state.items()}


def read_file(path: str | os.PathLike[str]) -> Any:
    """What a file of weights or a checkpoint holds, on the CPU, read with ``weights_only=True`` or safetensors.

    Raises:
        WeightsError: If the file is missing, damaged, or holds code or objects, which are refused and not run.
    """
    path = Path(path)
    try:
        check_regular(path)
        read = safetensors.torch.load_file if _is_safetensors(path) else _READERS.get(path.suffix.lower(), _read_torch)
        if zipfile.is_zipfile(path):
            _check_archive(path)
        return read(path)
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be read as a file of weights: {error}") from error
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise WeightsError(f"{path} cannot be read as a file of weights: {_reason(Path(path), error)}") from error


def without_wrappers(named: Mapping[str, T]) -> dict[str, T]:
    """Take off what ``torch.compile`` and DataParallel, sometimes twice, have added to the names of tensors."""
    plain = {name.replace(_COMPILED, ""): value for name, value in named.items()}
    while plain and all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): value for name, value in plain.items()}
    return plain


def shown(name: str) -> str:
    """A name out of an untrusted file, for a message of one line."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= 80 else f"{name[:77]}..."


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as they do, with the length of a header in JSON; many are named ``.pth``."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _check_archive(path: Path) -> None:
    """Check what an archive says of itself: a small one may hold a lot, or a lot of names."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    most = 5 * _MOST  # beside the weights there are the optimizers' moments
    if len(entries) > most:
        raise WeightsError(f"it holds {len(entries)} records; files of networks have at most {most}")
    _check_memory(sum(entry.file_size for entry in entries))


def _check_memory(needed: int) -> None:
    free = free_memory()
    if free is not None and needed > free:
        raise WeightsError(
            f"its tensors take {needed / 2**30:.1f} GB of memory, of which {free / 2**30:.1f} GB are free"
        )


def _read_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # remarks on files that are refused right after
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.as_tensor(arrays[name]) for name in arrays.files}


_READERS: dict[str, Callable[[Path], Any]] = {".safetensors": safetensors.torch.load_file, ".npz": _read_arrays}


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in words; torch's own advice is to read it without ``weights_only``."""
    if is_out_of_memory(error):
        return "there is not enough memory for it"
    # A file cut off makes torch seek to before its beginning, which the system calls an invalid argument.
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        return (error.strerror or str(error)) + near_path(path)
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "it is the note that Git LFS leaves in place of the file; `git lfs pull` fetches the file"
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page; download the file that the page offers"
    if "TorchScript" in str(error):
        return "it is a TorchScript program; save the module's `state_dict()` instead"
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"it holds code or objects ({named[1].rstrip('.')}), which are refused and not run; "
            "ask its author for the `state_dict()` alone"
        )
    return "it is cut off, damaged, or no such file at all"
