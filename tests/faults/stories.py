"""What is killed: trainings with each way to train, ``deblur``, ``adapt-video``; and how each is looked through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from reblurkit.core.file_locks import MARK
from reblurkit.data import write_image
from reblurkit.models import UNet
from reblurkit.models.kernel_wizard import KernelWizard
from tests.cli.test_blur2blur import OWN, TINY_WIZARD, configuration

LAST = Path("checkpoints") / "last.ckpt"
SMALL = '{"blocks": 1, "widths": [4, 4, 4]}'
UNET = ["--model", "unet", "--network-args", SMALL, "--weights", "unet.pt", "--device", "cpu"]


class Story(NamedTuple):
    """A command.

    Attributes:
        prepare: Makes what it reads in a folder.
        words: What is run.
        again: What is run after it was killed, in that folder.
        result: What came out, to be compared.
    """

    prepare: Callable[[Path], None]
    words: list[str]
    again: Callable[[Path], list[str]]
    result: Callable[[Path], Any]


def _checkpoints() -> dict[str, Any]:
    options = {"dirpath": "checkpoints", "save_last": True, "every_n_train_steps": 1, "enable_version_counter": False}
    return {"class_path": "ModelCheckpoint", "init_args": options}


def _photos(folder: Path, count: int, size: int = 24) -> None:
    generator = torch.Generator().manual_seed(len(folder.name))
    for index in range(count):
        write_image(torch.rand(3, size, size, generator=generator), folder / f"{index}.png")


def _clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    for index in range(4):
        left = 100 + 2 * index
        Image.fromarray(astronaut()[60:100, left : left + 48]).save(folder / f"frame_{index}.png")


def _mixin(folder: Path, *callbacks: dict[str, Any]) -> None:
    for split in ("train", "val"):
        for kind in ("blur", "sharp"):
            _photos(folder / "pairs" / split / kind, 4 if split == "train" else 1)
    network = {"class_path": "UNet", "init_args": {"widths": [8, 8, 8], "blocks": 1}}
    reblur_net = {"class_path": "ReblurNet", "init_args": {"width": 8}}
    config = {
        "model": {"class_path": "DeblurTask", "init_args": {"network": network, "reblur_net": reblur_net}},
        "data": {
            "class_path": "PairedDataModule",
            "init_args": {"root": "pairs", "crop": 16, "batch_size": 2, "num_workers": 0},
        },
        "trainer": _trainer(4, [_checkpoints(), *callbacks]),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def _trainer(epochs: int, callbacks: list[dict[str, Any]]) -> dict[str, Any]:
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    return {"max_epochs": epochs, "accelerator": "cpu", "logger": logger, "callbacks": callbacks, **quiet}


def _flow(folder: Path) -> None:
    _clip(folder / "clips" / "a")
    clips = {"root": "clips", "crop": 16, "batch_size": 2, "num_workers": 0}
    arguments = {
        "unlabelled": {"class_path": "VideoDataModule", "init_args": clips},
        "flow": {"class_path": "tests.conftest.TinyFlow"},
        "exposure": 0.5,
    }
    _mixin(folder, {"class_path": "FlowReblurFinetuneCallback", "init_args": arguments})


def _blur2blur(folder: Path) -> None:
    (folder / "mine.py").write_text(OWN)
    torch.manual_seed(5)
    torch.save(UNet(1, (4, 4, 4)).state_dict(), folder / "mine.pth")
    torch.save(KernelWizard(**TINY_WIZARD).state_dict(), folder / "wizard.pth")
    for name in ("trainA", "trainB", "trainC", "trainD", "testA", "testB"):
        _photos(folder / "data" / name, 1 if name.startswith("test") else 2, 258)
    configuration(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"] |= _trainer(2, [_checkpoints()])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def _trained(folder: Path) -> Any:
    """What of the last checkpoint does not depend on where it lies."""
    saved = torch.load(folder / LAST, weights_only=True)
    callbacks = {key: value for key, value in saved["callbacks"].items() if not key.startswith("ModelCheckpoint")}
    return [saved["state_dict"], saved["optimizer_states"], saved["lr_schedulers"], callbacks, saved["global_step"]]


def _resume(folder: Path) -> list[str]:
    return [*FIT, *(["--ckpt_path", str(LAST)] if (folder / LAST).exists() else [])]


def _files(folder: Path) -> Any:
    out = folder / "out"
    found = sorted(path for path in out.rglob("*.png") if "log" not in path.relative_to(out).parts)
    return [[path.relative_to(folder).as_posix(), path.read_bytes()] for path in found]


def _some_photos(folder: Path) -> None:
    torch.manual_seed(3)
    torch.save(UNet(1, (4, 4, 4)).state_dict(), folder / "unet.pt")
    _photos(folder / "photos", 12, 96)


def _some_clip(folder: Path) -> None:
    torch.manual_seed(3)
    torch.save(UNet(1, (4, 4, 4)).state_dict(), folder / "unet.pt")
    _clip(folder / "clip")


def _anew(folder: Path) -> list[str]:
    shutil.rmtree(folder / "out", ignore_errors=True)  # which must be new or empty
    return ADAPT


FIT = ["fit", "--config", "config.yaml"]
DEBLUR = ["deblur", "photos", "--output", "out", *UNET]
ADAPT = ["adapt-video", "clip", "--output", "out", *UNET[:-2], "--unsupervised", "--exposure", "0.5", "--steps", "6"]
ADAPT += ["--flow", "tvl1", "--crop", "24", "--batch-size", "2", "--workers", "0"]
STORIES = {
    "fit with the mixin": Story(_mixin, FIT, _resume, _trained),
    "fit with flow": Story(_flow, FIT, _resume, _trained),
    "fit of Blur2Blur": Story(_blur2blur, FIT, _resume, _trained),
    "deblur": Story(_some_photos, DEBLUR, lambda _: [*DEBLUR, "--existing", "skip"], _files),
    "adapt-video": Story(_some_clip, ADAPT, _anew, _files),
}


def torn(folder: Path) -> list[str]:
    """Files that cannot be read to their end; those that are still being written have other names."""
    found = []
    for path in sorted(folder.rglob("*")):
        reader = _READERS.get(path.suffix)
        if reader is None or path.name.startswith(MARK):
            continue
        try:
            reader(path)
        except Exception as error:
            found.append(f"{path}: {type(error).__name__}: {error}")
    return found


def orphans(*folders: Path) -> list[str]:
    """What was being written, and files in the temporary folder."""
    marked = [path for folder in folders for path in folder.rglob(f"{MARK}*")]
    return [str(path) for path in marked]


def equal(one: Any, other: Any) -> bool:
    """Whether two nests of tensors and values are the same to the bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def _tensors(path: Path) -> None:
    torch.load(path, weights_only=True)


def _picture(path: Path) -> None:
    Image.open(path).load()


_READERS: dict[str, Callable[[Path], Any]] = {
    ".ckpt": _tensors, ".pt": _tensors, ".pth": _tensors, ".png": _picture, ".jpg": _picture,
    ".json": lambda path: json.loads(path.read_text()), ".yaml": lambda path: yaml.safe_load(path.read_text()),
}  # fmt: skip


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())
