"""How much memory there is, and how much something takes."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_CONTROL_GROUP, _PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self")
_SIGNS = (
    "can't allocate memory",  # torch on Linux
    "not enough memory",  # torch on Windows
    "out of memory",  # CUDA, Apple and Intel, where the error is no OutOfMemoryError
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, of whatever kind."""
    scarce = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return scarce or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS))


def free_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that this process may still take without swapping; None where the system does not say.

    Linux grants more memory than it has and kills the process that uses it, so that no error tells of it: what may need
    much asks first. Other systems than Linux do not say.
    """
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return None
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    limits = [] if available is None else [int(available[1]) * 1024]
    try:  # of a container
        limit, used = ((_CONTROL_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)$", (_CONTROL_GROUP / "memory.stat").read_text(), re.MULTILINE)
        if limit != "max":
            limits.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    except OSError:
        pass
    return min(limits, default=None)


class Peak:
    """What a block took at most, in bytes; None where the system does not say."""

    taken: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the memory that a block takes on a device, beyond what is taken already."""
    peak = Peak()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.taken = torch.cuda.max_memory_allocated(device) - before
        return
    with suppress(OSError, AttributeError):  # other C libraries than GNU's
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, so that it counts when taken again
    try:
        (_PROCESS / "clear_refs").write_text("5")  # Linux: forget the peak up to here
        held = _status("VmRSS")
    except OSError:
        held = None
    yield peak
    if device.type == "cpu" and held is not None:
        peak.taken = _status("VmHWM") - held


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"no {name}")
    return int(found[1]) * 1024
