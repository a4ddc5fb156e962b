"""``reblurkit demo``: what the reblurring loss does, seen in a few minutes on a CPU."""

from __future__ import annotations

import copy
import csv
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

from reblurkit.blur.shake import ShakeBlur
from reblurkit.cli.messages import hide_advice
from reblurkit.cli.metric_names import short_number
from reblurkit.core.files import check_new_folder, nothing_left_of_failures
from reblurkit.data.demo import DemoPhotos
from reblurkit.data.images import write_image
from reblurkit.errors import ArgumentError, ReblurkitError
from reblurkit.metrics import NIQE, PSNR, SSIM, GradientStatistics, ReblurPSNR, fit_pristine
from reblurkit.metrics.niqe_model import PristineModel
from reblurkit.models import ReblurNet, UNet
from reblurkit.pictures.grid import comparison_grid
from reblurkit.plugins.callbacks.finite_loss import FiniteLoss
from reblurkit.plugins.datamodules.folders import DemoDataModule
from reblurkit.plugins.tasks.deblur import DeblurTask

STEPS = 1200
_TITLES = {"blurry": "blurry input", "l1": "L1", "reblur": "L1 + reblurring loss", "sharp": "sharp"}
_METRICS = {
    "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
    "gradient_ratio": "gradient ratio → 1",
    "gradient_distance": "gradient distance ↓",
    "reblur_psnr": "reblur PSNR (dB) ↓",
    "niqe_demo_model": "NIQE, demo's model ↓",
}
_CAPTION = """\
reblur PSNR: how well the blur can be brought back; low is sharp
NIQE, demo's model: against statistics of the three training photos, \
not the authors' model; not comparable with published NIQE"""
_OWN_DATA = """\
# Train the same network on your own photos:
#   reblurkit fit --config {folder}/own_data.yaml --data.root YOUR_FOLDER
# YOUR_FOLDER holds train/blur, train/sharp, val/blur, val/sharp and so on, files of equal names.
# Widths and blocks are small for the demo; the paper's are [64, 128, 192] and 8, and 64 for the reblurring network.
model:
  class_path: DeblurTask
  init_args:
    network:
      class_path: UNet
      init_args: {{blocks: 4, widths: [32, 48, 64]}}
    reblur_net:
      class_path: ReblurNet
      init_args: {{blocks: 2, width: 16}}
data:
  class_path: PairedDataModule
  init_args:
    root: YOUR_FOLDER
    layout: folders
    crop: 128
    batch_size: 8
trainer:
  max_epochs: 100
  log_every_n_steps: 10
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {{monitor: val/psnr, mode: max, filename: best, save_last: true}}
"""


def run_demo(output: str | None = None, *, steps: int | None = None, seed: int = 0) -> Path:
    """Train a small U-Net with L1 and with L1 + L_Reblur (two residual blocks), and compare them on held-out photos.

    Both runs start from the same weights and see the same data in the same order. Writes checkpoints, logs, metrics
    and pictures.

    Args:
        output: Run folder, new or empty; default the first free of ``runs/demo``, ``runs/demo-2``, ...
        steps: Training steps of each network; the default takes three to four minutes in all on two CPU cores.
        seed: Seed of weights, data order and blur.

    Returns:
        The run folder.

    Raises:
        ArgumentError: If the folder holds files already, or ``steps`` is below 1.
    """
    steps = STEPS if steps is None else steps
    if steps < 1 or seed < 0:
        raise ArgumentError(f"`steps` must be at least 1 and `seed` at least 0, but are {steps} and {seed}")
    folder = _new_folder(output)
    with nothing_left_of_failures(folder):
        _run_demo(folder, steps, seed)
    return folder


def _run_demo(folder: Path, steps: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    hide_advice()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.seed_everything(seed, verbose=False)
    # A small camera shake: what a network of this size can learn to undo in minutes.
    blur = ShakeBlur(size=9, strength=0.25)
    # channels_last runs these convolutions a fifth faster on a CPU
    network = UNet(blocks=4, widths=(32, 48, 64)).to(memory_format=torch.channels_last)
    reblur_net = ReblurNet(blocks=2, width=16).to(memory_format=torch.channels_last)
    networks = {"l1": network, "reblur": copy.deepcopy(network)}
    console.print(f"Training two U-Nets of {_size(network)} parameters, {steps} steps each, on {_device()}.")
    with _progress(console) as progress:
        for name, trained in networks.items():
            task = DeblurTask(
                trained, reblur_net if name == "reblur" else None, optimizer=partial(torch.optim.Adam, lr=5e-4)
            )
            data = DemoDataModule(batch_size=8, crop=48, crops_per_photo=1000, blur=blur, seed=seed)
            _train(task, data, steps, folder, name, progress)

    photos = DemoPhotos("test", blur=blur, seed=seed)
    images = _deblur(networks, photos)
    # All 73 blocks: the sharpest alone are too few for a covariance of 36 features.
    pristine = fit_pristine(DemoPhotos("train").photos, sharpness=0.0)
    results = {
        version: _measure([row[version] for row in images], images, reblur_net, pristine)
        for version in ("blurry", "l1", "reblur")
    }
    _write(folder, results, images, photos.names)
    _show(console, results)
    console.print(f"\n[bold]{folder}/comparison.png[/bold] shows the photos side by side. To go on with your own:")
    command = f"--config {folder}/own_data.yaml --data.root YOUR_FOLDER"
    checkpoint = "lightning_logs/version_0/checkpoints/best.ckpt"
    console.print(
        f"  reblurkit fit {command}\n  reblurkit test {command} --ckpt_path {checkpoint}",
        style="cyan",
        highlight=False,
        soft_wrap=True,
    )


def _new_folder(output: str | None) -> Path:
    if output is None:
        number = 1
        while (folder := Path("runs") / (f"demo-{number}" if number > 1 else "demo")).exists():
            number += 1
    else:
        folder = Path(output)
        check_new_folder(folder, "run folder")
    return folder


def _train(task: DeblurTask, data: DemoDataModule, steps: int, folder: Path, name: str, progress: Progress) -> None:
    trainer = L.Trainer(
        max_steps=steps,
        limit_val_batches=0,
        accelerator="auto",
        devices=1,
        logger=CSVLogger(str(folder), name="", version=name),
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_Advance(progress, _TITLES[name], steps), FiniteLoss()],
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / name / "last.ckpt")


class _Advance(L.Callback):
    """Moves a bar of the demo's own progress display."""

    def __init__(self, progress: Progress, title: str, steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=steps)

    def on_train_batch_end(self, *_: Any) -> None:
        self._progress.advance(self._task)


def _deblur(networks: dict[str, UNet], photos: DemoPhotos) -> list[dict[str, Tensor]]:
    rows = []
    for photo in (photos[index] for index in range(len(photos))):
        row = {"blurry": photo["blurry"]}
        for name, network in networks.items():
            with torch.inference_mode():
                row[name] = network.cpu().eval()(photo["blurry"][None])[0].clamp(0, 1)
        rows.append({**row, "sharp": photo["sharp"]})
    return rows


def _measure(
    version: list[Tensor], rows: list[dict[str, Tensor]], reblur_net: nn.Module, pristine: PristineModel
) -> dict[str, float | str]:
    """Every metric of one version of the photos; "n/a" and the reason where one cannot be had."""

    def reblurred(image: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = reblur_net.cpu().eval()(image[None])
        return output[0].clamp(0, 1)

    def measure(metric: Any, convert: Callable[[Tensor], Tensor], target: str) -> Any:
        for image, row in zip(version, rows, strict=True):
            metric.update(convert(image)[None], row[target][None])
        return metric.compute()

    wanted: dict[str, Callable[[], Any]] = {
        "psnr": lambda: measure(PSNR(), lambda image: image, "sharp"),
        "ssim": lambda: measure(SSIM(), lambda image: image, "sharp"),
        "gradients": lambda: measure(GradientStatistics(), lambda image: image, "sharp"),
        "reblur_psnr": lambda: measure(ReblurPSNR(), reblurred, "blurry"),
        "niqe_demo_model": lambda: measure(NIQE(pristine), lambda image: image, "sharp"),
    }
    values: dict[str, float | str] = {}
    for name, compute in wanted.items():
        try:
            value = compute()
        except ReblurkitError as error:
            values[name] = f"n/a: {error}"
        else:
            values |= {
                key: float(number) for key, number in (value if isinstance(value, dict) else {name: value}).items()
            }
    return values


def _write(
    folder: Path, results: dict[str, dict[str, float | str]], images: list[dict[str, Tensor]], names: tuple[str, ...]
) -> None:
    (folder / "metrics.json").write_text(json.dumps(results, indent=2) + "\n")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["version", *_METRICS])
        writer.writerows(
            [name, *(values.get(metric, "n/a") for metric in _METRICS)] for name, values in results.items()
        )
    comparison_grid([{_TITLES[version]: image for version, image in row.items()} for row in images]).save(
        folder / "comparison.png"
    )
    for name, row in zip(names, images, strict=True):
        for version, image in row.items():
            write_image(image, folder / "photos" / f"{name}_{version}.png")
    (folder / "own_data.yaml").write_text(_OWN_DATA.format(folder=folder))


def _show(console: Console, results: dict[str, dict[str, float | str]]) -> None:
    table = Table(title="Held-out photos", caption=_CAPTION)
    table.add_column("metric")
    for version in results:
        table.add_column(_TITLES[version], justify="right")
    for metric, title in _METRICS.items():
        values = [result.get(metric, "n/a") for result in results.values()]
        table.add_row(title, *(short_number(value) if isinstance(value, float) else value for value in values))
    console.print(table)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _size(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()):,}"


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
