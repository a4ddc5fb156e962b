"""Checkpoints and configurations that would run code, or cost without end, if they were read as programs.

Whatever is executed makes a file, the canary.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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


def network_state() -> dict[str, torch.Tensor]:
    """The weights of a small network."""
    torch.manual_seed(0)
    return UNet(**SMALL).state_dict()


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


class Call:
    """Pickled, it is a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def files(folder: Path, canary: Path) -> Iterator[tuple[str, bytes]]:
    """Hostile files, as format and content, see :mod:`tests.fuzz.readers`."""
    for program in programs(canary).values():
        for place in ("network", "reblur_net"):
            arguments = {"network": NETWORK, place: program}
            yield "config", yaml.safe_dump({"model": {"class_path": "DeblurTask", "init_args": arguments}}).encode()
        yield "config", yaml.safe_dump({"model": program}).encode()
    for text in endless().values():
        yield "config", text.encode()
    for sizes in (
        {"blocks": 10**12},
        {"widths": [10**5] * 3},
        {"widths": [10**4] * 9},
        {"blocks": [[[]]]},
        {"widths": None},
    ):
        network = {"class_path": "UNet", "init_args": sizes}
        yield (
            "config",
            yaml.safe_dump({"model": {"class_path": "DeblurTask", "init_args": {"network": network}}}).encode(),
        )
    for content in _pickles(canary):
        for new in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=new)
            yield "pth", file.getvalue()
            yield "ckpt", file.getvalue()
    for _, hyper in hyper_parameters(canary):
        file = io.BytesIO()
        torch.save({"state_dict": state(), "hyper_parameters": hyper}, file)
        yield "ckpt", file.getvalue()
    file = io.BytesIO()
    np.save(file, np.array([Call(open, str(canary), "w")], dtype=object), allow_pickle=True)
    for name in ("npz", "arrays"):
        yield name, zipped({"mu_pris_param.npy": file.getvalue(), "cov_pris_param.npy": file.getvalue()})
        yield name, zipped({"mu_pris_param.npy": bytes(10**7)})
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(w) (" + str(canary).encode() + b") file\n"
    for name in ("png", "jpg", "tif", "bmp", "webp"):
        yield name, postscript
        yield name, b""
    for playlist in (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", b"ffconcat version 1.0\nfile /dev/zero\n"):
        yield "mp4", playlist


def _pickles(canary: Path) -> Iterator[Any]:
    """Contents of checkpoints that are no tensors, or more of them than any network has."""
    for call in (Call(open, str(canary), "w"), Call(eval, f"open({str(canary)!r}, 'w')")):
        yield call
        yield {"state_dict": {**state(), "network.x": call}}
        yield {"state_dict": state(), "reblurkit": call}
    yield {"state_dict": {f"{i}.weight": torch.zeros(1) for i in range(11_000)}}
    yield {"state_dict": {"a." * 100_000: torch.zeros(1)}}
    yield {"state_dict": {"network.enter.weight": torch.zeros(1).expand(10**6, 10**6)}}
    yield {"state_dict": {"network.enter.weight": torch.zeros(10**6, 10**6, device="meta")}}
    yield {"state_dict": {"reblur.layers.0.weight": torch.zeros(1).expand(10**9, 3, 5, 5)}}
    for odd in ([], {}, {"x": 3}, "text", {7: torch.zeros(1)}, None):
        yield odd
        yield {"state_dict": odd}
        yield {"state_dict": state(), "reblurkit": odd}
        yield {"state_dict": state(), "reblurkit": {"config": odd, "files": odd, "measured": odd}}


def zipped(members: dict[str, bytes]) -> bytes:
    """An archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
