from __future__ import annotations

import sys

import pytest
import torch

from reblurkit.core import memory
from reblurkit.core.memory import free_memory, is_out_of_memory, peak_memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory there is")


def test_every_kind_of_want_of_memory_is_known():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50)
    texts = ["MPS backend out of memory", "CUDA out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"]
    errors = [real.value, MemoryError(), torch.OutOfMemoryError(), *map(RuntimeError, texts)]
    assert all(map(is_out_of_memory, errors))
    assert not any(map(is_out_of_memory, [RuntimeError("shapes differ"), ValueError("out of memory")]))


@linux
def test_a_block_is_measured():
    with peak_memory(torch.device("cpu")) as peak:
        torch.ones(40_000_000).sum()
    assert 120e6 < peak.taken < 240e6
    assert free_memory() > 0


@linux
def test_a_container_may_hold_less_than_the_machine(tmp_path, monkeypatch):
    for name, content in {"max": "5000", "current": "4000", "stat": "anon 3\ninactive_file 700\n"}.items():
        (tmp_path / f"memory.{name}").write_text(content)
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    assert free_memory() == 1700
    (tmp_path / "memory.max").write_text("max")
    assert free_memory() > 10_000_000


def test_systems_that_do_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")
    with peak_memory(torch.device("cpu")) as peak:
        pass
    assert peak.taken is None
    assert free_memory("meta") is None
