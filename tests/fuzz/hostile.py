"""Checkpoints and configurations that would run code, or cost without end, if they were read as programs.

Whatever is executed makes a file, the canary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from reblurkit.models import ReblurNet, UNet
from reblurkit.plugins import DeblurTask

SMALL = {"blocks": 1, "widths": [4, 4, 4]}
NETWORK = {"class_path": "UNet", "init_args": SMALL}


def programs(canary: Path) -> dict[str, Any]:
    """What may stand where a configuration names a network, and makes the canary when it is called or imported."""
    statement = f"open({str(canary)!r}, 'w')"
    # a function that returns a Module, and whose argument may be of any class or function
    traced = {"class_path": "cProfile.run", "init_args": {"statement": statement}}
    return {
        "function": {"class_path": "torch.fx.symbolic_trace", "init_args": {"root": traced}},
        "nested": {"class_path": "reblurkit.models.FullSize", "init_args": {"network": traced}},
        "class": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(canary)]}},
        "module": {"class_path": "planted.Network"},  # planted.py makes the canary when it is imported
        "short": "planted.Network",
        "argument": {"class_path": "UNet", "init_args": {"blocks": traced}},
        "file": "planted.yaml",  # the parser opens paths, and reads what they hold in place of them
    }


def plant(folder: Path, canary: Path) -> None:
    """Files that run, or name what runs, in a folder."""
    code = f"open({str(canary)!r}, 'w')\nfrom torch import nn\nclass Network(nn.Module): pass\n"
    (folder / "planted.py").write_text(code)
    (folder / "planted.yaml").write_text(yaml.safe_dump({"class_path": "planted.Network"}))


def state() -> dict[str, torch.Tensor]:
    """The weights of a task with two small networks."""
    torch.manual_seed(0)
    return DeblurTask(UNet(**SMALL), ReblurNet(width=4)).state_dict()


def run_folder(folder: Path, model: Any, **content: Any) -> Path:
    """A checkpoint and beside it a configuration."""
    folder.mkdir(parents=True)
    torch.save({"state_dict": state(), "pytorch-lightning_version": "2.6.0", **content}, folder / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    return folder / "last.ckpt"


def hyper_parameters(canary: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Hyper-parameters of checkpoints by which Lightning would build something, or call it."""
    for name, program in programs(canary).items():
        yield f"class {name}", {"_class_path": "reblurkit.plugins.DeblurTask", "network": program}
        yield f"argument {name}", {"network": program}
    yield "instantiator", {"_instantiator": "planted.Network", "_class_path": "planted.Network"}
    yield "options", {"reblur_weight": 5.0}  # of the user's configuration


def endless() -> dict[str, str]:
    """Texts of YAML that stand for structures without end."""
    repeated = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    merged = "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
    return {
        "aliases": f"a0: &a0 [x, x]\n{repeated}model: *a11\n",
        "merges": f"a0: &a0 {{x: 1}}\n{merged}model: *a39\n",
        "itself": "model: &a [*a]\n",
        "deep": "[" * 100_000,
        "long": f"model: {'x' * 2_000_000}\n",
        "digits": f"model: {'1' * 5000}\n",
    }
