"""Draws the papers' comparison figures from any run folders.

    python examples/reproduce/figures.py losses L1=runs/unet_l1 Reblur=runs/unet_reblur --data PAIRS
    python examples/reproduce/figures.py steps runs/unet_reblur --data PAIRS --steps 0 1 3 5
    python examples/reproduce/figures.py real runs/unet_l1 runs/unet_reblur --data PHOTOS

``losses`` puts networks side by side, loss by loss, with the blur that remains of each (Figures 1 and 5 of *Clean
Images are Hard to Reblur*); ``steps`` adapts one network to each photo, step by step (Figure 6); ``real`` does without
sharp photos. A run is a folder of ``reblurkit fit``, of which the newest checkpoint is taken, a checkpoint, or ``box``,
the network in the box; NAME= names its column. PAIRS holds the folders `blur` and `sharp`, or others that are named,
with files of the same names. Behind a title stands the mean PSNR of the photos shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from reblurkit.adaptation import adapt
from reblurkit.data import PairedFolder, PhotoFolder
from reblurkit.metrics import PSNR
from reblurkit.models import FullSize, load_pretrained
from reblurkit.pictures import comparison_grid, remaining_blur_figure
from reblurkit.plugins import TrainedNetworks, load_networks


def load(run):
    """Name and networks of a run."""
    name, _, place = run.rpartition("=")
    if place == "box":
        box = load_pretrained()
        return name or "in the box", TrainedNetworks(box.network, box.reblur_net)
    path = Path(place)
    if path.is_dir():
        found = sorted(path.glob("**/*.ckpt"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise SystemExit(f"{path} holds no checkpoint (*.ckpt)")
        return name or path.name, load_networks(checkpoint=str(found[-1]))
    return name or path.stem, load_networks(checkpoint=place)


def photos(options):
    """Blurry photos with their sharp versions, or None, cut to the middle."""
    if options.figure == "real":
        items = PhotoFolder(options.data)
        pairs = ((items[number]["sharp"], None) for number in range(len(items)))
    else:
        items = PairedFolder(options.data, "folders", split=None, blur=options.blur, sharp=options.sharp)
        pairs = ((items[number]["blurry"], items[number]["sharp"]) for number in range(len(items)))
    for number, pair in enumerate(pairs):
        if number < options.images:
            yield tuple(None if image is None else middle(image, options.side) for image in pair)


def middle(image, side):
    """The middle of an image, with a batch of one."""
    height, width = image.shape[-2:]
    top, left = (max(length - side, 0) // 2 for length in (height, width))
    return image[None, :, top : top + min(side, height), left : left + min(side, width)]


def side_by_side(options):
    """A row for each photo, a column for each network."""
    networks = dict(map(load, options.runs))
    for blurry, sharp in photos(options):
        with torch.inference_mode():
            images = {name: FullSize(each.network.eval())(blurry).clamp(0, 1) for name, each in networks.items()}
        yield blurry, images, sharp


def step_by_step(options):
    """A row for each photo, a column for each number of steps."""
    _, (network, reblur_net) = load(options.runs[0])
    if reblur_net is None:
        raise SystemExit(f"{options.runs[0]} has no reblurring network, which adaptation needs")
    for blurry, sharp in photos(options):
        images = {}
        for steps in options.steps:
            adapted = adapt(FullSize(network.eval()), reblur_net.eval(), blurry, steps=max(steps, 1), lr=options.lr)
            image = adapted.image if steps else adapted.plain
            images["deblurred" if steps == 0 else f"step {steps}"] = image.detach().clamp(0, 1)
        yield blurry, images, sharp


def draw(found, kernels, width):
    """The picture."""
    rows, scores = [], {}
    for blurry, images, sharp in found:
        for name, image in {"blurry": blurry, **images}.items():
            if sharp is not None:
                metric = scores.setdefault(name, PSNR())
                metric.update(image, sharp)
        row = {"blurry": blurry[0], **{name: image[0] for name, image in images.items()}}
        rows.append(row if sharp is None else {**row, "sharp": sharp[0]})
    titles = {name: f"{name}, {metric.compute():.2f} dB" for name, metric in scores.items()}
    rows = [{titles.get(name, name): image for name, image in row.items()} for row in rows]
    return remaining_blur_figure(rows, width=width) if kernels else comparison_grid(rows, width=width)


def main(arguments=None):
    """Draw a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=("losses", "steps", "real"))
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN")
    parser.add_argument("--data", required=True, help="folder of pairs; for `real` of blurry photos")
    parser.add_argument("--blur", default="blur", help="folder of the blurry ones below it (default: blur)")
    parser.add_argument("--sharp", default="sharp", help="folder of the sharp ones below it (default: sharp)")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 3, 5])
    parser.add_argument("--lr", type=float, default=3e-6)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--side", type=int, default=512, help="pixels of the middle that are used")
    parser.add_argument("--width", type=int, default=300, help="of a column")
    parser.add_argument("--output", type=Path, default=Path("runs/figure.png"))
    options = parser.parse_args(arguments)
    found = step_by_step(options) if options.figure == "steps" else side_by_side(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draw(found, options.figure == "losses", options.width).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
