"""Does Blur2Blur let the network in the box deblur a camera that it fails on? A camera that sharpens its pictures.

    python examples/reproduce/sharpening_camera.py --plan
    python examples/reproduce/sharpening_camera.py --photos TRAIN --test TEST --output runs/sharpening_camera

Many cameras sharpen what they store, blur included, so that blurry edges get halos. A network that was trained on plain
blur takes the halos for structure. The translator sees the camera's blurry pictures (left halves of the photos in
TRAIN) and, unpaired, what the network knows (right halves, blurred as in its training), and learns to turn the one into
the other. What differs from the paper: the sharp photos are not this camera's, which would have halos, too.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import lightning as L
import torch
from kornia.filters import unsharp_mask
from lightning.pytorch.callbacks import EMAWeightAveraging
from measuring import (
    BLURS,
    gradient_ratio,
    interval,
    middle,
    photos_in,
    spaced,
    table_of_differences,
    value,
    write_record,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset

from reblurkit import Blur2BlurTranslator
from reblurkit.data import read_image
from reblurkit.data.augmentation import flip_and_turn, random_crop
from reblurkit.metrics import NIQE, PSNR, SSIM
from reblurkit.models import PatchGAN, ReblurNet, load_pretrained
from reblurkit.pictures import comparison_grid

AMOUNT, RADIUS, NOISE = 3.0, 2.0, 0.003
CROP, RIM, BATCH = 96, 8, 4
PLAN = f"""\
Hypothesis: translation, then the network in the box, beats the network alone and the blurry picture by 1 dB PSNR.
Unit: the photo, its middle 512 x 512 pixels under the blur that its number names, of {", ".join(BLURS)}, with noise
  {NOISE}, then sharpened: unsharp masking of amount {AMOUNT:g} with a Gaussian of {RADIUS:g} pixels, clipped.
Statistic: difference, averaged over seeds; mean over photos and its 95 % interval (Student's). Camera and translator
  were chosen on other photos than TEST. The bound is the network on the blurry picture before it was sharpened. The
  translation without the network shows how much of the gain is in the halos."""


def sharpen(image):
    """What the camera does to a picture: ``image + AMOUNT * (image - its Gaussian mean)``."""
    side = 2 * round(4 * RADIUS) + 1
    mean_and_detail = unsharp_mask(image, (side, side), (RADIUS, RADIUS))  # image + (image - mean)
    return (image + AMOUNT * (mean_and_detail - image)).clamp(0, 1)


def degrade(sharp, generator, number=None):
    """Blur as the network knows it, and noise."""
    number = int(torch.randint(len(BLURS), (), generator=generator)) if number is None else number % len(BLURS)
    blurry = list(BLURS.values())[number](sharp, generator)
    return (blurry + NOISE * torch.randn(blurry.shape, generator=generator)).clamp(0, 1)


class KnownBlur(nn.Module):
    """Another of the known blurs at every call."""

    border = RIM

    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, image):
        return degrade(image, self.generator)


class Unpaired(Dataset):
    """Blurry crops of the camera from left halves, sharp ones from right halves."""

    def __init__(self, photos, length):
        self.halves = list(zip(*(photo.tensor_split(2, dim=2) for photo in photos), strict=True))
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        blurry, sharp = (self.cut(half, generator) for half in self.halves)
        blurry = sharpen(degrade(blurry[None], generator))[0]
        return {"blurry": blurry[:, RIM:-RIM, RIM:-RIM], "sharp": sharp}

    def cut(self, photos, generator):
        """A crop of a photo, turned and flipped, with the rim that blur reaches into."""
        photo = photos[int(torch.randint(len(photos), (), generator=generator))]
        return flip_and_turn(random_crop(photo, CROP + 2 * RIM, generator), generator)


def make_translator(seed, width=16):
    """Untrained; no penalty, and means of 4x4 pixels as content."""
    L.seed_everything(seed, verbose=False)
    return Blur2BlurTranslator(
        ReblurNet(blocks=2, width=width, identity=True),
        PatchGAN(width=2 * width, layers=1),
        perceptual=nn.AvgPool2d(4),
        perceptual_weight=6.0,
        gradient_penalty=0.0,
        known_blur=KnownBlur(seed),
        lr=2e-4,
        discriminator_lr=5e-4,
        seed=seed,
    )


def train(translator, photos, steps):
    """So many batches."""
    flags = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(max_epochs=1, callbacks=[EMAWeightAveraging(decay=0.99)], limit_val_batches=0, **flags)
    trainer.fit(translator, DataLoader(Unpaired(photos, BATCH * steps), BATCH))


def scores(image, sharp, niqe):
    """Metrics of an image."""
    found = {"psnr": value(PSNR(), image, sharp), "ssim": value(SSIM(), image, sharp)}
    found["gradient_ratio"] = gradient_ratio(image, sharp)
    return found | ({} if niqe is None else {"niqe": value(NIQE(niqe), image)})


@torch.inference_mode()
def measure(translator, network, photos, niqe):
    """Metrics of every version of every photo, and pictures of each blur's first."""
    rows, pictures = [], []
    for number, photo in enumerate(photos):
        sharp = middle(photo)
        plain = degrade(sharp, torch.Generator().manual_seed(number), number)
        blurry = sharpen(plain)
        moved = translator(blurry).clamp(0, 1)
        versions = {"blurry": blurry, "alone": network(blurry), "translation": moved}
        versions |= {"translated, deblurred": network(moved), "bound": network(plain)}
        versions = {version: image.clamp(0, 1) for version, image in versions.items()}
        rows.append({name: scores(image, sharp, niqe) for name, image in versions.items()})
        if number < len(BLURS):
            pictures.append({**{name: image[0] for name, image in versions.items()}, "sharp": sharp[0]})
    return rows, comparison_grid(pictures, width=260, detail=96)


def summarise(runs):
    """Means of each version, and differences of PSNR, over seeds and photos."""

    def of(version, metric):
        return [
            sum(rows) / len(rows) for rows in zip(*([row[version][metric] for row in run] for run in runs), strict=True)
        ]

    def minus(version, other, metric="psnr"):
        return interval([a - b for a, b in zip(of(version, metric), of(other, metric), strict=True)])

    first = runs[0][0]
    found = {version: {metric: interval(of(version, metric)) for metric in first[version]} for version in first}
    whole = "translated, deblurred"
    pairs = ((whole, "alone"), (whole, "blurry"), (whole, "translation"), ("alone", "blurry"), ("bound", whole))
    return found, {f"{version} - {other}": minus(version, other) for version, other in pairs}


def markdown(means, differences, settings):
    """The two tables."""
    metrics = list(next(iter(means.values())))
    lines = [
        "# A camera that sharpens",
        "",
        PLAN,
        "",
        settings,
        "",
        f"| | {' | '.join(metrics)} |",
        f"|---|{'---|' * len(metrics)}",
    ]
    for version, found in means.items():
        lines.append(f"| {version} | {' | '.join(format(found[metric]['mean'], '.4g') for metric in metrics)} |")
    return "\n".join([*lines, "", *table_of_differences(differences, "photo")]) + "\n"


def main(arguments=None):
    """Train a translator a seed, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--photos", type=Path, help="folder of sharp photos to train on")
    parser.add_argument("--test", type=Path, help="folder of sharp photos to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--output", type=Path, default=Path("runs/sharpening_camera"))
    parser.add_argument("--limit", type=int, default=60, help="photos to train on, evenly spaced by name")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--width", type=int, default=16, help="of the generator, to rehearse")
    options = parser.parse_args(arguments)
    print(PLAN, flush=True)
    if options.plan:
        return
    training = [read_image(file) for file in spaced(photos_in(options.photos), options.limit)]
    test = [read_image(file) for file in photos_in(options.test)]
    network = load_pretrained().network.eval()
    options.output.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(options.seeds):
        start, kept = time.monotonic(), options.output / f"seed{seed}.pth"
        translator = make_translator(seed, options.width)
        if kept.exists():  # of a call before this one
            translator.generator.load_state_dict(torch.load(kept, weights_only=True))
        else:
            train(translator, training, options.steps)
            torch.save(translator.generator.state_dict(), kept)
            print(f"seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
        rows, picture = measure(translator.eval(), network, test, options.niqe)
        runs.append(rows)
        picture.save(options.output / f"seed{seed}.png")
    means, differences = summarise(runs)
    settings = "`python examples/reproduce/sharpening_camera.py --photos TRAIN --test TEST --niqe FILE`: "
    settings += f"{options.steps} steps of {BATCH} crops of {CROP} pixels; seeds: {options.seeds}; photos: {len(test)}."
    text = markdown(means, differences, settings)
    (options.output / "sharpening_camera.md").write_text(text)
    record = {"plan": PLAN, "settings": settings, "means": means, "differences": differences, "photos": runs}
    write_record(options.output / "sharpening_camera.json", record)
    print(text)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    main()
