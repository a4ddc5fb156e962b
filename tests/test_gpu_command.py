"""``nox -s gpu`` says what it left out, and never runs longer than its parts may."""

from __future__ import annotations

import sys

import pytest
import torch

from tests import gpu


@pytest.fixture
def few(monkeypatch):
    """Three parts in place of the real ones, on a machine that seems to have a GPU."""
    chosen = {
        "good": gpu.Part([sys.executable, "-c", ""], 60),
        "bad": gpu.Part([sys.executable, "-c", "raise SystemExit(3)"], 60),
        "slow": gpu.Part([sys.executable, "-c", "import time; time.sleep(60)"], 0.1),
        "absent": gpu.Part(["no-such-program"], 60, "no-such-program"),
    }
    monkeypatch.setattr(gpu, "parts", lambda: chosen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_each_part_says_what_became_of_it(few, capsys):
    assert gpu.main([]) == 1
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[0].startswith("good: passed in")
    assert lines[1].startswith("bad: failed with status 3")
    assert lines[2:] == ["slow: left out: not done after 0 s", "absent: left out: no-such-program is not installed"]


def test_parts_can_be_chosen(few, capsys):
    assert gpu.main(["good"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"{name}: left out: not asked for" for name in ("bad", "slow", "absent")
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_runs(capsys):
    assert gpu.main([]) == 0
    assert all(line.endswith("left out: no GPU here") for line in capsys.readouterr().out.splitlines())
