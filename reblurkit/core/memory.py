"""How much memory there is."""

from __future__ import annotations

import re
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that this process may still take without swapping; None where the system does not say (only Linux does).

    Linux grants more memory than it has and kills the process that uses it, so that no error tells of it: what may need
    much asks first.
    """
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
