"""Files of weights: untrusted input. Nothing but tensors, numbers and texts is ever read from one."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from reblurkit.errors import WeightsError

T = TypeVar("T")

# Where training programs put a network's weights in their checkpoints, in order of preference.
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "weights", "generator", "G", "net")


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, on the CPU, out of whatever a training program has wrapped around.

    Args:
        path: A file that ``torch.save`` wrote, on any device and with any version, under any name; or a
            ``.safetensors`` file; or an ``.npz`` file of arrays.

    Raises:
        WeightsError: If the file is missing, damaged, holds code or objects, or no tensors.
    """
    content = read_file(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} must hold a dictionary of tensors, but holds {type(content).__name__}")
    opened: set[int] = set()
    while wrapped := [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]:
        content = content[wrapped[0]]
        if id(content) in opened:
            raise WeightsError(f"{path} must hold a dictionary of tensors, but holds one that contains itself")
        opened.add(id(content))
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        found = ", ".join(shown(str(name)) for name in list(content)[:5]) or "nothing"
        raise WeightsError(f"{path} must hold a dictionary of tensors, but holds {found}")
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            kind = "quantized" if value.is_quantized else "without memory" if value.is_meta else "sparse"
            raise WeightsError(f"{path} must hold plain tensors, but {shown(name)} is {kind}; save it dense, in floats")
    return without_wrappers(state)


def read_file(path: str | os.PathLike[str]) -> Any:
    """What a file of weights or a checkpoint holds, on the CPU, read with ``weights_only=True`` or safetensors.

    Raises:
        WeightsError: If the file is missing, damaged, or holds code or objects, which are refused and not run.
    """
    path = Path(path)
    try:
        read = safetensors.torch.load_file if _is_safetensors(path) else _READERS.get(path.suffix.lower(), _read_torch)
        return read(path)
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise WeightsError(f"{path} cannot be read as a file of weights: {_reason(Path(path), error)}") from error


def without_wrappers(named: Mapping[str, T]) -> dict[str, T]:
    """Take off what ``torch.compile`` and DataParallel, sometimes twice, have added to the names of tensors."""
    plain = {name.replace("_orig_mod.", ""): value for name, value in named.items()}
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
    # A file cut off makes torch seek to before its beginning, which the system calls an invalid argument.
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        return error.strerror or str(error)
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
