"""Whether data keep up with training: reading crops, blurring them on the device, and how long a step waits.

    python -m tests.benchmarks.feeding                  # CPU, writes docs/results/feeding_cpu.{json,md}
    python -m tests.benchmarks.feeding --device cuda    # GPU

Files are made for it and deleted afterwards.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from skimage import data
from torch.nn import functional as F
from torch.utils.data import Dataset

from reblurkit.blur import CameraNoise, MotionBlur, ShakeBlur
from reblurkit.data import PairedFolder, PhotoFolder, write_image
from reblurkit.data.sampling import Draw, DrawSampler, TrainLoader
from reblurkit.data.synthetic import PlannedBatch, SyntheticCrops, synthesise
from reblurkit.models import UNet
from tests.benchmarks.contract import Run, cell, heading, interleaved, machine, summary, write

ROOT = Path(__file__).parents[2]
BLURS = [MotionBlur(), ShakeBlur(25)]
NOISE = CameraNoise(jpeg_share=0.3)
EXPLANATION = """\
Photos of 1280x720 pixels. Times are medians in milliseconds with first and third quartile.

- **Reading**: one crop of 256 pixels on one core, by turns in one process: a pair from two PNG files, also with the
  paper's augmentation; or a sharp crop with its margin from a JPEG file and the drawing of its blur.
- **Synthesis**: one batch on the device, by turns in one process. Half of the crops are blurred by `MotionBlur()`, half
  by `ShakeBlur(25)`; noise is `CameraNoise(jpeg_share=0.3)`.
- **Waiting**: training steps of the paper's U-Net (L1, Adam), pairs with the paper's augmentation, one data set after
  the other: all at once, workers would fill their queues while another set trains. The device is waited for after
  every step. *Waits* is the time in which the loop waits for the loader, *synthesis* that of copying and blurring, each
  as a share of all. Asked: waiting at most 5 % with 8 workers on a GPU of the H100's class, at most 10 % on two CPU
  cores.

Made by `python -m tests.benchmarks.feeding`."""


class Setting(NamedTuple):
    """A training step's batch and crop, and the processes and threads that share the machine."""

    batch: int
    crop: int
    workers: int
    threads: int
    steps: int


SETTINGS = {
    "cpu": Setting(batch=2, crop=128, workers=1, threads=max(1, (os.cpu_count() or 1) - 1), steps=8),
    "cuda": Setting(batch=16, crop=256, workers=8, threads=torch.get_num_threads(), steps=40),
}


def photos(folder: Path, count: int) -> None:
    """Pairs as PNG, and as many sharp photos as JPEG; enlarged photos of scikit-image with the noise of a camera."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        photo = (data.astronaut, data.coffee, data.rocket, data.chelsea)[number % 4]()
        image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
        image = F.interpolate(image, (720, 1280), mode="bicubic")[0].roll(97 * number, -1)
        image = image + 0.01 * torch.randn(image.shape, generator=generator)
        for name in ("pairs/train/blur/{}.png", "pairs/train/sharp/{}.png", "photos/{}.jpg"):
            write_image(image, folder / name.format(number))


def data_sets(folder: Path, crop: int, repeats: int = 1, augment: bool = True) -> dict[str, Dataset[Any]]:
    """The data sets, from files and from the cache."""
    sets: dict[str, Dataset[Any]] = {}
    for source, cache in (("files", None), ("cache", folder / "cache")):
        sets[f"pairs of PNG, {source}"] = PairedFolder(folder / "pairs", cache=cache, crop=crop, augment=augment)
        crops = SyntheticCrops(PhotoFolder(folder / "photos", cache=cache), BLURS, crop=crop, repeats=repeats)
        sets[f"sharp JPEG, {source}"] = crops
    return sets


def reading(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a crop on one core."""
    runs: dict[str, Run] = {}
    augmented = data_sets(folder, 256)["pairs of PNG, cache"]
    sets = data_sets(folder, 256, augment=False) | {"pairs of PNG, cache, augmented": augmented}
    for name, dataset in sets.items():
        draws = (Draw(item, epoch) for epoch in itertools.count() for item in range(len(dataset)))  # type: ignore[arg-type]
        run = partial(lambda dataset, draws: dataset[next(draws)], dataset, draws)
        for _ in range(len(dataset)):  # type: ignore[arg-type]
            run()  # fills the cache
        runs[name] = run
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times = interleaved(runs, repeats, torch.device("cpu"))
    torch.set_num_threads(before)
    return {name: summary(row) for name, row in times.items()}


def synthesis(folder: Path, setting: Setting, device: torch.device, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of blurring a batch on the device."""
    runs: dict[str, Run] = {}
    for title, blurs in (("MotionBlur", BLURS[:1]), ("ShakeBlur", BLURS[1:]), ("both", BLURS)):
        crops = SyntheticCrops(PhotoFolder(folder / "photos"), blurs, crop=setting.crop, repeats=setting.batch)
        batch = crops.collate([crops[Draw(item)] for item in range(setting.batch)]).to(device)
        runs[title] = partial(synthesise, batch, blurs, None)
        if title == "both":
            runs["both, noise"] = partial(synthesise, batch, blurs, CameraNoise())
            runs["both, noise, 30 % JPEG"] = partial(synthesise, batch, blurs, NOISE)
    return {name: summary(row) for name, row in interleaved(runs, repeats, device).items()}


def batches(dataset: Dataset[Any], setting: Setting) -> Iterator[Any]:
    """Batch after batch, epoch after epoch, as a Trainer asks for them."""
    sampler = DrawSampler(dataset)
    loader = TrainLoader(
        dataset,
        sampler,
        batch_size=setting.batch,
        num_workers=setting.workers,
        pin_memory=torch.cuda.is_available(),
    )
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        yield from loader


def waiting(
    dataset: Dataset[Any], setting: Setting, device: torch.device, clock: Callable[[], float]
) -> dict[str, Any]:
    """Milliseconds of a step, and which shares of all steps go into waiting for data and into making pairs of them."""
    network = UNet().to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    source, spent = batches(dataset, setting), {"waits": 0.0, "synthesis": 0.0, "step": 0.0}
    steps = []
    for number in range(2 + setting.steps):
        marks = [clock()]
        batch = next(source)
        marks.append(clock())
        if isinstance(batch, PlannedBatch):
            pairs: Any = synthesise(batch.to(device), BLURS, NOISE)
        else:
            pairs = {name: batch[name].to(device, non_blocking=True) for name in ("blurry", "sharp")}
        marks.append(clock())
        F.l1_loss(network(pairs["blurry"]), pairs["sharp"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        marks.append(clock())
        if number >= 2:  # the first steps wait for the workers to start
            for name, start, end in zip(spent, marks[:-1], marks[1:], strict=True):
                spent[name] += end - start
            steps.append(1000 * (marks[3] - marks[0]))
    total = sum(spent.values())
    return summary(steps) | {"waits": spent["waits"] / total, "synthesis": spent["synthesis"] / total}


def measure(setting: Setting, device: torch.device, repeats: int) -> dict[str, Any]:
    """All three tables."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder, 2 * setting.batch)
        results: dict[str, Any] = {"reading": reading(folder, repeats)}
        results["synthesis"] = synthesis(folder, setting, device, max(repeats // 2, 5))
        torch.set_num_threads(setting.threads)
        results["waiting"] = {}
        for epoch, repeated in (("two batches an epoch", 1), ("32 batches an epoch", 16)):
            for title, dataset in data_sets(folder, setting.crop, repeated).items():
                if repeated == 1 or title == "sharp JPEG, cache":
                    results["waiting"][f"{title}, {epoch}"] = waiting(dataset, setting, device, clock)
    return results


def markdown(results: dict[str, Any]) -> str:
    """The tables, for people."""
    setting = results["setting"]
    lines = heading("Feeding", results, EXPLANATION)
    if results["note"]:
        lines += [f"Note: {results['note']}.", ""]
    lines += ["## Reading", "", "| crops of 256 | ms a crop | crops a second and core |", "|---|---|---|"]
    for name, row in results["reading"].items():
        lines.append(f"| {name} | {cell(row)} | {1000 / row['median']:.4g} |")
    title = f"{setting['batch']} crops of {setting['crop']} pixels"
    lines += ["", f"## Synthesis of {title}", "", "| what | ms a batch |", "|---|---|"]
    lines += [f"| {name} | {cell(row)} |" for name, row in results["synthesis"].items()]
    lines += ["", f"## Waiting, {title}, {setting['workers']} workers, {setting['threads']} threads for training", ""]
    lines += ["| data | ms a step | waits | synthesis |", "|---|---|---|---|"]
    for name, row in results["waiting"].items():
        lines.append(f"| {name} | {cell(row)} | {row['waits']:.1%} | {row['synthesis']:.1%} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, help="default: 1 on a CPU, 8 on a GPU")
    parser.add_argument("--steps", type=int, help="training steps of each data set; default: 8 on a CPU, 40 on a GPU")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--note", default="", help="a line for the page, such as what else ran on the machine")
    parser.add_argument("--output", type=Path, help="default: docs/results/feeding_DEVICE")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    given = {name: getattr(arguments, name) for name in ("workers", "steps") if getattr(arguments, name) is not None}
    setting = SETTINGS[device.type]._replace(**given)
    results = {"machine": machine(device), "note": arguments.note, "setting": setting._asdict()}
    results |= measure(setting, device, arguments.repeats)
    text = markdown(results)
    write(results, text, arguments.output or ROOT / "docs" / "results" / f"feeding_{device.type}")
    print(text)


if __name__ == "__main__":
    main()
