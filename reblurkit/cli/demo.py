"""``reblurkit demo``: what the networks in the box do, and what reblurring adds, seen in minutes on a CPU."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from scipy.stats import t as student
from torch import Tensor, nn

from reblurkit.adaptation import adapt
from reblurkit.blur.defocus import DefocusBlur
from reblurkit.blur.motion import MotionBlur
from reblurkit.blur.shake import ShakeBlur
from reblurkit.cli.ending import interrupts_of_lightning
from reblurkit.cli.messages import hide_advice
from reblurkit.cli.words import OWN_SCALES
from reblurkit.core.file_locks import claimed
from reblurkit.core.files import new_folder, nothing_left_of_failures, whole_file, write_whole
from reblurkit.data.demo import DemoPhotos
from reblurkit.data.images import write_image
from reblurkit.errors import ArgumentError
from reblurkit.inference import Deblurrer
from reblurkit.metrics import NIQE, PSNR, SSIM, GradientStatistics, fit_pristine
from reblurkit.metrics.niqe_model import PristineModel
from reblurkit.models import load_pretrained
from reblurkit.pictures.files import save_picture
from reblurkit.pictures.grid import comparison_grid
from reblurkit.plugins.callbacks.finite_loss import FiniteLoss
from reblurkit.plugins.datamodules.folders import DemoDataModule
from reblurkit.plugins.tasks.deblur import DeblurTask
from reblurkit.plugins.whole_checkpoints import WholeCheckpointIO

STEPS, QUICK_STEPS = 200, 12
_KNOWN = {"motion": MotionBlur(12), "camera shake": ShakeBlur(15, 0.5)}
_UNKNOWN = DefocusBlur(largest=2.5, smallest=2.0)
_TITLES = {
    "blurry": "blurry input",
    "box": "network in the box",
    "l1": "fine-tuned, L1",
    "reblur": "fine-tuned, L1 + reblurring",
    "adapted": "and adapted to the photo",
    "sharp": "sharp",
}
_METRICS = {
    "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
    "niqe_demo_model": "NIQE, demo's model ↓",
    "gradient_ratio": "gradient ratio → 1",
}
_CAPTION = """\
means over the quarters of two photos that no network was trained on, ± 95 % over quarters
NIQE, demo's model: against statistics of the three training photos, \
not the authors' model; not comparable with published NIQE"""
_OWN_DATA = """\
# Fine-tune the network in the box on your own photos:
#   reblurkit fit --config {folder}/own_data.yaml --data.root YOUR_FOLDER
# YOUR_FOLDER holds train/blur, train/sharp, val/blur, val/sharp and so on, files of equal names.
model:
  class_path: DeblurTask
  init_args:
    network: {{class_path: FoldedUNet, init_args: {network}}}
    weights: {folder}/reblur/last.ckpt
    reblur_net: {{class_path: ReblurNet, init_args: {reblur_net}}}
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
Row = dict[str, Tensor]


def run_demo(output: str | None = None, *, steps: int | None = None, quick: bool = False, seed: int = 0) -> Path:
    """Show the networks in the box on photos that they never saw, then what reblurring adds.

    First, in seconds: photos with motion and camera shake, deblurred as ``reblurkit deblur`` does it. Then a blur that
    the network does not know, defocus: it is fine-tuned with L1 and with L1 + L_Reblur, from the same weights on the
    same crops in the same order, and adapted to each photo. Writes pictures, metrics and checkpoints.

    Args:
        output: Run folder, new or empty; default the first free of ``runs/demo``, ``runs/demo-2``, ...
        steps: Steps of each fine-tuning; the default takes two and a half minutes in all on two CPU cores.
        quick: Fewer steps, one minute in all.
        seed: Seed of data order and blur.

    Returns:
        The run folder.

    Raises:
        ArgumentError: If the folder holds files already, or ``steps`` is below 1.
    """
    steps = (QUICK_STEPS if quick else STEPS) if steps is None else steps
    if steps < 1 or not 0 <= seed < 2**32:
        raise ArgumentError(f"`steps` must be at least 1 and `seed` in 0 to 2**32 - 1, but are {steps} and {seed}")
    with _own_folder(output) as folder, nothing_left_of_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _run(folder, steps, seed, Console())
    return folder


def _run(folder: Path, steps: int, seed: int, console: Console) -> None:
    hide_advice()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.seed_everything(seed, verbose=False)
    network, reblur_net, card = load_pretrained()
    _show_known_blur(network, folder, steps, seed, console)

    networks = {name: copy.deepcopy(network).train() for name in ("l1", "reblur")}
    reblur_net.train()
    console.print(f"\nA blur that it does not know, defocus: fine-tuned in {steps} steps with and without reblurring.")
    with _progress(console) as progress:
        for name, trained in networks.items():
            task = DeblurTask(
                trained, reblur_net if name == "reblur" else None, optimizer=partial(torch.optim.Adam, lr=2e-4)
            )
            data = DemoDataModule(batch_size=4, crop=64, crops_per_photo=1000, blur=_UNKNOWN, seed=seed)
            _train(task, data, steps, folder, name, progress)
    rows = []
    photos = DemoPhotos("test", blur=_UNKNOWN, seed=seed)
    for photo in (photos[number] for number in range(len(photos))):
        blurry = photo["blurry"][None]
        with torch.inference_mode():
            row = {"blurry": blurry, "box": network(blurry)}
            row |= {name: trained.cpu().eval()(blurry) for name, trained in networks.items()}
        row["adapted"] = adapt(networks["reblur"], reblur_net.cpu().eval(), blurry, steps=5, lr=1e-5).image
        rows.append({**{name: image[0].clamp(0, 1) for name, image in row.items()}, "sharp": photo["sharp"]})
    # All 73 blocks: the sharpest alone are too few for a covariance of 36 features.
    pristine = fit_pristine(DemoPhotos("train").photos, sharpness=0.0)
    results = {name: _measure(rows, name, pristine) for name in _TITLES if name != "sharp"}
    _write(folder, results, rows, photos.names)
    arguments = {part: json.dumps(card[part]["arguments"]) for part in ("network", "reblur_net")}
    write_whole(folder / "own_data.yaml", _OWN_DATA.format(folder=folder, **arguments))
    _show(console, results)
    console.print(f"\n[bold]{folder}/deblurred.png[/bold] and [bold]{folder}/comparison.png[/bold] show the photos.")
    console.print("To go on, with your own photo and with your own data:")
    commands = (
        f"  reblurkit deblur PHOTO --output sharp\n  reblurkit fit --config {folder}/own_data.yaml --data.root DIR"
    )
    console.print(commands, style="cyan", highlight=False, soft_wrap=True)


@contextmanager
def _own_folder(output: str | None) -> Iterator[Path]:
    if output is not None:
        with new_folder(Path(output), "run folder"):
            yield Path(output)
        return
    for number in itertools.count(1):
        folder = Path("runs") / (f"demo-{number}" if number > 1 else "demo")
        with claimed(folder) as mine:
            if mine and not folder.exists():
                yield folder
                return


def _show_known_blur(network: nn.Module, folder: Path, steps: int, seed: int, console: Console) -> None:
    """Deblur every bundled photo as `reblurkit deblur` does, show the gain, and say how long all takes."""
    deblur = Deblurrer(network, scales=OWN_SCALES, consistent=True, device="cpu")
    start, rows = time.perf_counter(), []
    table = Table(title="Photos that the network in the box never saw", caption="PSNR in dB, higher is better")
    for column in ("photo", "blur", "blurry", "deblurred", "gain"):
        table.add_column(column, justify="left" if column in ("photo", "blur") else "right")
    for kind, (title, blur) in zip(("test", "train"), _KNOWN.items(), strict=True):
        photos = DemoPhotos(kind, blur=blur, seed=seed)  # type: ignore[arg-type]
        for number, (name, sharp) in enumerate(zip(photos.names, photos.photos, strict=True)):
            blurry = blur(sharp[None], torch.Generator().manual_seed(seed + number))
            deblurred = deblur(blurry)
            before, after = (_value(PSNR(), image, sharp[None]) for image in (blurry, deblurred))
            table.add_row(name, title, f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}")
            rows.append({"blurry": blurry[0], "deblurred": deblurred[0], "sharp": sharp})
        if kind == "test":
            took = (time.perf_counter() - start) * (8 + steps / 12)  # all of it on two cores, in this unit
            console.print(f"About {max(took / 60, 0.2):.1f} minutes in all.")
    save_picture(comparison_grid(rows), folder / "deblurred.png")
    console.print(table)


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
        plugins=WholeCheckpointIO(),
        callbacks=[_Advance(progress, _TITLES[name], steps), FiniteLoss()],
    )
    with interrupts_of_lightning():
        trainer.fit(task, data)
    trainer.save_checkpoint(folder / name / "last.ckpt")


class _Advance(L.Callback):
    """Moves a bar of the demo's own progress display."""

    def __init__(self, progress: Progress, title: str, steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=steps)

    def on_train_batch_end(self, *_: Any) -> None:
        self._progress.advance(self._task)


def _value(metric: Any, image: Tensor, sharp: Tensor) -> Any:
    metric.update(image, sharp)
    return metric.compute()


def _measure(rows: Sequence[Row], version: str, pristine: PristineModel) -> dict[str, tuple[float, float]]:
    """Mean of every metric over quarters of the photos, and the half-width of its 95 % interval."""
    wanted: dict[str, Callable[[], Any]] = {
        "psnr": PSNR,
        "ssim": SSIM,
        "niqe_demo_model": lambda: NIQE(pristine),
        "gradient_ratio": GradientStatistics,
    }
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for row in rows:
        for image, sharp in zip(_quarters(row[version]), _quarters(row["sharp"]), strict=True):
            for name, metric in wanted.items():
                value = _value(metric(), image, sharp)
                found[name].append(float(value[name] if isinstance(value, Mapping) else value))
    return {name: _interval(torch.tensor(values, dtype=torch.float64)) for name, values in found.items()}


def _quarters(image: Tensor) -> list[Tensor]:
    return [half for strip in image[None].chunk(2, -2) for half in strip.chunk(2, -1)]


def _interval(values: Tensor) -> tuple[float, float]:
    half = student.ppf(0.975, len(values) - 1) * values.std().item() / len(values) ** 0.5
    return values.mean().item(), float(half)


def _write(
    folder: Path, results: dict[str, dict[str, tuple[float, float]]], rows: Sequence[Row], names: Sequence[str]
) -> None:
    write_whole(folder / "metrics.json", json.dumps(results, indent=2) + "\n")
    with whole_file(folder / "metrics.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["version", *(part for name in _METRICS for part in (name, f"{name}_interval"))])
        writer.writerows(
            [name, *(part for metric in _METRICS for part in values[metric])] for name, values in results.items()
        )
    grid = comparison_grid([{_TITLES[name]: image for name, image in row.items()} for row in rows], width=300)
    save_picture(grid, folder / "comparison.png")
    for name, row in zip(names, rows, strict=True):
        for version, image in row.items():
            write_image(image, folder / "photos" / f"{name}_{version}.png")


def _show(console: Console, results: dict[str, dict[str, tuple[float, float]]]) -> None:
    table = Table(title="Defocus, held-out photos", caption=_CAPTION)
    table.add_column("")
    for title in _METRICS.values():
        table.add_column(title, justify="right")
    for name, values in results.items():
        table.add_row(_TITLES[name], *(f"{values[metric][0]:.4g} ± {values[metric][1]:.2g}" for metric in _METRICS))
    console.print(table)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
