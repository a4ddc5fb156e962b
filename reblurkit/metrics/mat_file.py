"""MATLAB files. SciPy's reader trusts them: a byte that was changed can end the process that reads one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reblurkit.core.special_files import check_regular
from reblurkit.errors import WeightsError

_SECONDS = 60
# In a process of its own with 2 GB, which writes the arrays that are asked for as an .npz archive.
_PROGRAM = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
except (ImportError, ValueError, OSError):  # not on Windows
    pass
import io, numpy, scipy.io
arrays = scipy.io.loadmat(sys.argv[1], variable_names=sys.argv[2:])
content = io.BytesIO()
numpy.savez(content, **{name: numpy.asarray(arrays[name], float) for name in sys.argv[2:] if name in arrays})
sys.stdout.buffer.write(content.getvalue())
"""


def read_mat(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays of a MATLAB file by name, those that are there.

    Args:
        path: The file.
        names: The arrays.

    Raises:
        OSError: If there is no such file.
        WeightsError: If it is damaged, or larger than a model can be.
    """
    check_regular(path)
    path.open("rb").close()
    # One thread: the others would take their share of the memory before anything is read.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", _PROGRAM, os.path.abspath(path), *names]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True, env=environment)
    except subprocess.SubprocessError as error:
        raise WeightsError(f"{path} cannot be read as an .npz or .mat of a pristine model: it is damaged") from error
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
