from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def train(folder, processes):
    command = [sys.executable, str(ROOT / "tests" / "ddp" / "train.py"), str(folder), str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(folder / f"{processes}-{rank}.pt", weights_only=True) for rank in range(processes)]


def test_two_processes_agree_and_equal_one_with_the_joined_batch(tmp_path):
    first, second = train(tmp_path, 2)
    (joined,) = train(tmp_path, 1)
    assert first.keys() == joined.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    torch.testing.assert_close(first, joined, rtol=0, atol=1e-12)
