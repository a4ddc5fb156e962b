"""Examples, notebooks and the documentation's code run as they stand, in small form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
import torch
import yaml
from torch.nn import functional as F

from reblurkit import losses, models, plugins
from reblurkit.models import ReblurNet
from tests.conftest import PlainNet

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
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


def test_the_page_on_blur_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "methods/flow_blur.md").read_text(), re.DOTALL))
    names = {}
    exec(code, names)
    assert names["blurry"].shape == names["sharp"].shape
    assert 0 < names["mask"].float().mean() < 1
    assert 0.01 < names["loss"] < 0.2


def test_the_readmes_module_trains():
    (code,) = re.findall(r"```python\n(import.*?class MyDeblur.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    module = names["MyDeblur"](PlainNet())
    batch = {"blurry": torch.rand(1, 3, 8, 8), "sharp": torch.rand(1, 3, 8, 8)}
    module.training_step(batch, 0).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_loop_without_lightning_trains():
    (code,) = re.findall(r"```python\n(criterion = .*?)```", (DOCS / "methods/reblur_loss.md").read_text(), re.DOTALL)
    network, reblur_net = PlainNet(), ReblurNet(width=4)
    blurry, sharp = torch.rand(2, 1, 3, 8, 8)
    before = [parameter.clone() for net in (network, reblur_net) for parameter in net.parameters()]
    names = {"ReblurLoss": losses.ReblurLoss, "F": F, "network": network, "reblur_net": reblur_net}
    names |= {"blurry": blurry, "sharp": sharp, "deblurred": network(blurry)}
    for net in ("network", "reblur"):
        module = network if net == "network" else reblur_net
        names[f"{net}_optimizer"] = torch.optim.SGD(module.parameters(), 0.1)
    exec(code, names)
    after = [parameter for net in (network, reblur_net) for parameter in net.parameters()]
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_code_of_the_page_on_losses_runs():
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "methods/losses.md").read_text(), re.DOTALL)
    (task,) = (block for block in blocks if "DeblurTask(" in block and "vgg" in block)
    (loop,) = (block for block in blocks if "discriminator" in block and "backward" in block)
    names = {name: getattr(module, name) for module in (losses, models, plugins) for name in module.__all__}
    names |= {"F": F, "network": PlainNet(), "discriminator": models.PatchGAN(width=4, layers=1)}
    exec(task, names)
    assert names["task"].extra_losses.keys() == {"vgg"}
    names |= {"deblurred": names["network"](torch.rand(1, 3, 8, 8)), "sharp": torch.rand(1, 3, 8, 8)}
    exec(loop, names)
    for net in ("network", "discriminator"):
        assert all(parameter.grad is not None for parameter in names[net].parameters())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_configurations_are_whole(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        assert yaml.safe_load(block)
