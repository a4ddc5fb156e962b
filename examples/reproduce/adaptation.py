"""Test-time adaptation by step: the perception-distortion curve of *Clean Images are Hard to Reblur* (Figures 6, S2).

    python examples/reproduce/adaptation.py --photos FOLDER...      # trains on half of the photos, measures the others
    python examples/reproduce/adaptation.py --photos FOLDER... --checkpoint runs/adaptation/last.ckpt --presets

Photos are sharp image files, shrunk to half their size; those bundled with scikit-image join them. Every second one, in
the order of names, is for training: of a small U-Net on one Gaussian blur first, then of M_R beside it. The others are
measured under blur as in training, milder and stronger. Writes `adaptation.json`, `adaptation.md` and
`adaptation.png`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from functools import partial
from pathlib import Path

import lightning as L
import matplotlib.pyplot as plt
import torch
from kornia.filters import gaussian_blur2d
from skimage import data
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from reblurkit.adaptation import adapt
from reblurkit.data import PairedFolder, read_image, write_image
from reblurkit.data.augmentation import random_crop
from reblurkit.losses import self_reblur_loss
from reblurkit.metrics import NIQE, DeblurMetrics
from reblurkit.models import ReblurNet, UNet
from reblurkit.models.weights import read_lightning_checkpoint
from reblurkit.plugins import DeblurTask, ReblurTask

PRESETS = {
    "paper": {},
    "bias only, lr x 10": {"parameters": "bias", "lr": 10.0},
    "lr x 3": {"lr": 3.0},
    "lr x 10": {"lr": 10.0},
    "lr x 10, early stop": {"lr": 10.0, "early_stop": True},
}
SUFFIXES = {".png", ".jpg", ".jpeg"}


def blurred(image, sigma):
    """Gaussian blur of a batch."""
    return gaussian_blur2d(image, (2 * math.ceil(4 * sigma) + 1,) * 2, (sigma, sigma))


class BlurredCrops(Dataset):
    """Random crops of photos, flipped and blurred; cut after the blur, so that nothing is mirrored into them."""

    def __init__(self, photos, sigma, crop, length):
        self.photos, self.crop, self.length = photos, crop, length
        self.blurry = [blurred(photo[None], sigma)[0] for photo in photos]

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        choice = index % len(self.photos)
        pair = random_crop(torch.stack([self.blurry[choice], self.photos[choice]]), self.crop, generator)
        pair = pair.flip(-1) if torch.rand((), generator=generator) < 0.5 else pair
        return {"blurry": pair[0], "sharp": pair[1], "name": str(index)}


def find_photos(folders):
    """Sharp photos by name, those bundled with scikit-image first, shrunk: sharper pixels, faster work."""
    bundled = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    bundled["stereo_motorcycle"] = data.stereo_motorcycle()[0]
    photos = {name: torch.from_numpy(photo.copy()).permute(2, 0, 1) / 255 for name, photo in bundled.items()}
    files = sorted(file for folder in folders for file in Path(folder).iterdir() if file.suffix.lower() in SUFFIXES)
    photos |= {file.stem: read_image(file) for file in files}
    return {name: F.interpolate(photo[None], scale_factor=0.5, mode="area")[0] for name, photo in photos.items()}


def train(network, reblur_net, photos, options):
    """The deblurring network, then the reblurring network beside it; both are kept in ``last.ckpt``."""
    optimizer = partial(torch.optim.Adam, lr=1e-3)
    flags = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0, "accelerator": options.device}
    deblur = DeblurTask(network, optimizer=optimizer)
    reblur = ReblurTask(network, reblur_net, optimizer=optimizer, rest=None)
    for task, steps in ((deblur, options.training_steps), (reblur, options.reblur_steps)):
        network.requires_grad_(task is deblur)
        crops = BlurredCrops(photos, options.sigma, options.crop, 8 * steps)
        trainer = L.Trainer(max_epochs=1, default_root_dir=options.output, **flags)
        trainer.fit(task, DataLoader(crops, batch_size=8))
    trainer.save_checkpoint(options.output / "last.ckpt")


def metrics_of(metrics, image, sharp):
    """Every available metric of one image."""
    metrics.reset()
    metrics.update(image.clamp(0, 1), sharp)
    return {name: value.item() for name, value in metrics.compute().items()}


def measure(task, metrics, blurry, sharp, steps, lr, preset):
    """One photo by one preset: metrics, loss and seconds after each number of steps."""
    options = PRESETS[preset]
    options = options | {"lr": lr * options.get("lr", 1)}
    rows = {}
    for count in steps:
        start = time.perf_counter()
        adapted = adapt(task.network, task.reblur, blurry, steps=count, **options)
        losses = adapted.losses[0].tolist()  # waits for a GPU
        rows[count] = {"seconds": time.perf_counter() - start, "self-reblur loss": losses[-1]}
        rows[count] |= metrics_of(metrics, adapted.image, sharp)
    return rows


@torch.inference_mode()
def distances(task, blurry, sharp):
    """Whether M_R brings back blur, |M_R(L) - B| < |L - B|, and spares what is sharp, |M_R(S) - S| < |M_R(L) - L|."""
    deblurred = task.network(blurry)
    reblurred = task.reblur(deblurred)
    pairs = {
        "|L - B|": (deblurred, blurry),
        "|M_R(L) - B|": (reblurred, blurry),
        "|M_R(L) - L|": (reblurred, deblurred),
        "|M_R(S) - S|": (task.reblur(sharp), sharp),
    }
    return {name: F.l1_loss(*images).item() for name, images in pairs.items()}


def bootstrap(values, draws=10_000):
    """Mean and 95 % interval, photos drawn with replacement."""
    values = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(values), (draws, len(values)), generator=generator)
    low, high = values[picks].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"mean": values.mean().item(), "low": low, "high": high}


def summarise(photos, steps):
    """For each number of steps and metric: the mean over photos, and the change from no step, photo by photo."""
    names = list(next(iter(photos.values()))[steps[0]])
    return {
        count: {
            name: {
                "value": bootstrap([rows[count][name] for rows in photos.values()]),
                "change": bootstrap([rows[count][name] - rows[steps[0]][name] for rows in photos.values()]),
            }
            for name in names
        }
        for count in steps
    }


def markdown(tables, photos, fell, premises, options):
    """The tables, for people; of the record in ``adaptation.json``."""
    lines = ["# Test-time adaptation by step", "", f"Trained on Gaussian blur of {options.sigma} pixels.", ""]
    lines += ["Mean distances of deblurred L, blurry B and sharp S by the blur of the photos:", ""]
    lines += ["| blur | " + " | ".join(name.replace("|", "\\|") for name in next(iter(premises.values()))) + " |"]
    lines += ["|---" * 5 + "|"]
    lines += [
        f"| {sigma} | " + " | ".join(f"{value:.4f}" for value in row.values()) + " |" for sigma, row in premises.items()
    ]
    lines += [
        "",
        f"{photos} held-out photos; in brackets the change from step 0, 95 % bootstrap interval over photos.",
        "",
    ]
    for title, table in tables.items():
        names = list(next(iter(table.values())))
        lines += [f"## {title}", "", f"Loss lowered on {fell[title]} of {photos} photos by the most steps.", ""]
        lines += ["| steps | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for count, row in table.items():
            cells = [
                f"{cell['value']['mean']:.4g} ({cell['change']['low']:+.2g} to {cell['change']['high']:+.2g})"
                for cell in row.values()
            ]
            lines.append(f"| {count} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def draw(tables, path):
    """PSNR against every perceptual metric: a row for each blur, a line for each preset, a point for each count."""
    first = next(iter(next(iter(tables.values())).values()))
    perceptual = [name for name in ("lpips", "niqe", "self-reblur loss") if name in first]
    blurs = list(dict.fromkeys(title.split(", ")[0] for title in tables))
    size = (5 * len(perceptual), 3.5 * len(blurs))
    figure, rows = plt.subplots(len(blurs), len(perceptual), figsize=size, layout="constrained", squeeze=False)
    for blur, panels in zip(blurs, rows, strict=True):
        lines = {title.removeprefix(f"{blur}, "): table for title, table in tables.items() if title.startswith(blur)}
        for axes, name in zip(panels, perceptual, strict=True):
            for preset, table in lines.items():
                points = [(row["psnr"]["value"]["mean"], row[name]["value"]["mean"]) for row in table.values()]
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=preset)
                axes.annotate(str(list(table)[-1]), points[-1], textcoords="offset points", xytext=(4, 4))
            axes.set(title=blur, xlabel="PSNR (dB), higher is closer to the truth", ylabel=f"{name}, lower is better")
    rows[0, 0].legend()
    figure.savefig(path, dpi=120)


def shared_first_steps(task, folder, steps, lr):
    """Frames of one clip: each alone, and with half of the steps taken once on all frames together."""
    files = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in SUFFIXES)
    frames = torch.stack([read_image(file) for file in files]).to(task.device)
    shared = copy.deepcopy(task.network).requires_grad_()
    optimizer = torch.optim.Adam(shared.parameters(), lr)
    common = steps // 2
    start = time.perf_counter()
    for _ in range(common):
        optimizer.zero_grad()
        for frame in frames.split(1):
            (self_reblur_loss(task.reblur, shared(frame)) / len(frames)).backward()
        optimizer.step()
    rows, alone_seconds, shared_seconds = [], 0.0, time.perf_counter() - start
    for file, frame in zip(files, frames.split(1), strict=True):
        start = time.perf_counter()
        alone = adapt(task.network, task.reblur, frame, steps=steps, lr=lr)
        middle = time.perf_counter()
        together = adapt(shared, task.reblur, frame, steps=steps - common, lr=lr)
        alone_seconds += middle - start
        shared_seconds += time.perf_counter() - middle
        losses = {"plain": alone.losses[0, 0].item(), "alone": alone.losses[0, -1].item()}
        rows.append({"frame": file.name, **losses, "shared": together.losses[0, -1].item()})
    return {"frames": rows, "seconds alone": alone_seconds, "seconds shared": shared_seconds}


def adapt_files(task, files, steps, lr, folder):
    """Blurry images without ground truth: before and after as files, and the losses."""
    losses = {}
    for file in map(Path, files):
        adapted = adapt(task.network, task.reblur, read_image(file)[None].to(task.device), steps=steps, lr=lr)
        losses[file.name] = adapted.losses[0].tolist()
        write_image(adapted.plain[0].clamp(0, 1), folder / f"{file.stem}-plain.png")
        write_image(adapted.image[0].clamp(0, 1), folder / f"{file.stem}-adapted.png")
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", nargs="*", default=[], help="folders of sharp photos")
    parser.add_argument("--pairs", help="folder with blur_*.png and sharp_*.png, measured apart from the table")
    parser.add_argument("--blurry", nargs="*", default=[], help="blurry files without ground truth")
    parser.add_argument("--clip", help="folder of a clip's frames: shared first steps against none")
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 1, 3, 5])
    parser.add_argument("--lr", type=float, default=3e-6)
    parser.add_argument("--presets", action="store_true", help="measure the cheap presets too")
    parser.add_argument("--checkpoint", help="networks of an earlier run; without, they are trained")
    parser.add_argument("--sigma", type=float, default=1.5, help="of the blur in training, in pixels")
    parser.add_argument("--test-sigmas", nargs="+", type=float, default=[1.5, 1.0, 1.8])
    parser.add_argument("--training-steps", type=int, default=1000)
    parser.add_argument("--reblur-steps", type=int, default=2000)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--widths", nargs=3, type=int, default=[16, 32, 48])
    parser.add_argument("--reblur-blocks", type=int, default=2)
    parser.add_argument("--reblur-width", type=int, default=24)
    parser.add_argument("--niqe", help="file of NIQE's pristine model; default: the authors', downloaded")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/adaptation"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    L.seed_everything(0)
    network = UNet(options.blocks, options.widths).to(memory_format=torch.channels_last)
    reblur_net = ReblurNet(options.reblur_blocks, options.reblur_width).to(memory_format=torch.channels_last)
    photos = find_photos(options.photos)
    names = sorted(photos)
    if not options.checkpoint:
        train(network, reblur_net, [photos[name] for name in names[::2]], options)
    task = ReblurTask(network, reblur_net)
    if options.checkpoint:
        task.load_state_dict(read_lightning_checkpoint(options.checkpoint)["state_dict"])
    task.to(options.device).eval()
    metrics = DeblurMetrics(niqe=NIQE(options.niqe) if options.niqe else NIQE).to(options.device)
    for name, reason in metrics.unavailable.items():
        print(f"not measured: {name}: {reason}")

    results, premises = {}, {}
    for sigma in options.test_sigmas:
        for name in names[1::2]:
            sharp = photos[name][None]
            blurry = (255 * blurred(sharp, sigma)).round() / 255  # as from a file
            images = blurry.to(task.device), sharp.to(task.device)
            premises.setdefault(sigma, []).append(distances(task, *images))
            for preset in PRESETS if options.presets else ["paper"]:
                rows = measure(task, metrics, *images, options.steps, options.lr, preset)
                results.setdefault(f"blur {sigma}, {preset}", {})[name] = rows
                print(sigma, preset, name, json.dumps(rows), flush=True)

    first, last = options.steps[0], options.steps[-1]
    tables = {title: summarise(rows, options.steps) for title, rows in results.items()}
    fell = {
        title: sum(row[last]["self-reblur loss"] < row[first]["self-reblur loss"] for row in rows.values())
        for title, rows in results.items()
    }
    premises = {
        sigma: {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        for sigma, rows in premises.items()
    }
    settings = {name: value for name, value in vars(options).items() if not isinstance(value, (Path, str))}
    settings = {name: value for name, value in settings.items() if name not in ("photos", "blurry")}
    record = {"settings": settings, "premises": premises, "photos": results, "tables": tables}
    if options.pairs:
        folder = PairedFolder(options.pairs, split=None, blur="blur_*.png", sharp="sharp_*.png")
        record["pairs"] = {}
        for index in range(len(folder)):
            images = (folder[index][key][None].to(task.device) for key in ("blurry", "sharp"))
            record["pairs"][folder[index]["name"]] = measure(task, metrics, *images, options.steps, options.lr, "paper")
    if options.clip:
        record["clip"] = shared_first_steps(task, options.clip, options.steps[-1], options.lr)
    if options.blurry:
        record["blurry"] = adapt_files(task, options.blurry, options.steps[-1], options.lr, options.output)
    text = markdown(tables, len(names[1::2]), fell, premises, options)
    (options.output / "adaptation.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.output / "adaptation.md").write_text(text)
    draw(tables, options.output / "adaptation.png")
    print(text)


if __name__ == "__main__":
    main()
