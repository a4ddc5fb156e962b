"""Examples and notebooks run as they stand, in small form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[2]
SLOW = {"adaptation", "flow_finetune", "own_blur", "reblur_loss", "reblur_pretrained"}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def _slow_or_not(example):
    marks = pytest.mark.slow if example.stem in SLOW else ()
    return pytest.param(example, id=example.name, marks=marks)


@pytest.mark.parametrize("example", map(_slow_or_not, EXAMPLES))
def test_example_runs(tmp_path, example):
    environment = {**os.environ, "STEPS": "2", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.rglob("*.png")), "an example shows a picture"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_notebook_is_the_example_with_its_pictures(example):
    notebook = jupytext.read(ROOT / "examples" / "notebooks" / f"{example.stem}.ipynb")
    cells = [(cell.cell_type, cell.source) for cell in jupytext.read(example).cells]
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells, "run `nox -s notebooks`"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "site-packages" not in str(outputs), "warnings with paths of a machine"
