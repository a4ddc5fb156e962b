"""The process in which files are read: it says of each what became of it, and may die of one."""

from __future__ import annotations

import faulthandler
import json
import sys
import traceback
import warnings
from pathlib import Path

from reblurkit.errors import ReblurkitError
from tests.fuzz.readers import formats

MEMORY = 3 << 30  # bytes beyond what the libraries take


def limit_memory() -> None:
    """Let this process take no more memory than that; where the system cannot, nothing happens."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError):
        return


def outcome(name: str, path: Path) -> dict[str, str]:
    """Read a file; what became of it."""
    try:
        known[name].read(path)
    except ReblurkitError as error:
        return {"outcome": "refused", "what": f"{type(error).__name__}: {error}"}
    except BaseException as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        return {
            "outcome": "untyped",
            "what": f"{type(error).__name__} in {Path(last.filename).name} {last.name}: {error}",
        }
    return {"outcome": "accepted", "what": ""}


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    known = formats()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    limit_memory()
    print(json.dumps({"number": 0}), file=answers, flush=True)
    for line in sys.stdin:
        number, name, path = json.loads(line)
        print(json.dumps({"number": number, **outcome(name, Path(path))}), file=answers, flush=True)
