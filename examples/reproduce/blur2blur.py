"""Does Blur2Blur help? A small measurement for CPUs, from photos to a table with confidence intervals.

python examples/reproduce/blur2blur.py --photos FOLDER --seeds 3 --output runs/blur2blur
python examples/reproduce/blur2blur.py --fast        # shows that it runs, nothing more
python examples/reproduce/blur2blur.py --table --help  # the slides' table, with the rivals, see blur2blur_table.py

Two cameras photograph sharp scenes. The known one blurs every photo alike (an isotropic Gaussian), and a small
deblurrer is trained on its pairs. The unknown one blurs otherwise (--unknown). The translator sees blurry photos of the
unknown camera, sharp ones of other things by the same camera, blurred as the known camera would, and nothing else.
On held-out photos of the unknown camera the table compares with the truth: the blurry photo; the deblurrer alone; the
translator with the deblurrer; a deblurrer of the same size trained on synthetic camera shake, which needs no pairs
either; and one trained on pairs of the unknown camera, the bound. A perfect translator brings what the deblurrer makes
of known blur: choose blurs between which there is something to gain.

Three in eight photos are held out. Of the others the left halves are blurry, the right halves sharp (of which the
deblurrers' pairs are made too), so that no pixel is seen both ways and both sets have like colours. A difference is
averaged over seeds for each held-out photo; its 95 % interval is Student's over photos.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import lightning as L
import torch
from kornia.filters import gaussian_blur2d
from scipy.stats import t as student
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from reblurkit import Blur2BlurTranslator
from reblurkit.blur import ShakeBlur
from reblurkit.data import DemoPhotos, read_image
from reblurkit.data.augmentation import flip_and_turn, random_crop
from reblurkit.data.sampling import Draw, draw_generator
from reblurkit.losses import LayerFeatures
from reblurkit.metrics import PSNR, SSIM, ColourShift
from reblurkit.models import PatchGAN, ReblurNet, UNet
from reblurkit.pictures import comparison_grid

VERSIONS = ("blurry", "alone", "translated", "synthetic", "bound")


BORDER = 8  # pixels that a blur may reach; cut off after it, so that nothing invented blurs into a photo


def inner(image):
    return image[..., BORDER:-BORDER, BORDER:-BORDER]


class GaussianBlur(nn.Module):
    """One blur for every photo."""

    def __init__(self, across, along):
        super().__init__()
        self.sigma = (float(along), float(across))  # rows, columns

    def forward(self, image):
        return inner(gaussian_blur2d(image, (2 * BORDER + 1,) * 2, self.sigma))


class Shake(ShakeBlur):
    """Camera shake, another one for every photo, in the values as they are."""

    def __init__(self, size, strength):
        super().__init__(size, strength, linear=False)

    def forward(self, image):
        return inner(super().forward(image))


def unknown_blur(name):
    kind, *numbers = name.split(":")
    return {"gaussian": GaussianBlur, "shake": lambda size, strength: Shake(int(size), strength)}[kind](
        *map(float, numbers)
    )


class Crops(Dataset):
    """Random crops of photos, blurred; unpaired with ``sharp`` photos of other scenes."""

    def __init__(self, photos, blur, crop, items, others=None):
        self.photos, self.blur, self.crop, self.items, self.others = photos, blur, crop, items, others

    def __len__(self):
        return self.items

    def __getitem__(self, index):
        generator = draw_generator(0, Draw(index))
        sharp = self.cut(self.photos, generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            blurry = self.blur(sharp[None])[0]
        if self.others is not None:
            sharp = self.cut(self.others, generator)
            return {"blurry": blurry, "sharp": sharp}
        return {"blurry": blurry, "sharp": inner(sharp)}

    def cut(self, photos, generator):
        photo = photos[int(torch.randint(len(photos), (), generator=generator))]
        crop = flip_and_turn(random_crop(photo, self.crop + 2 * BORDER, generator), generator)
        if self.others is None:
            return crop
        # Blur commutes with both: colours and brightness of a few photos must not tell blurry from sharp.
        crop = crop[torch.randperm(3, generator=generator)]
        return 1 - crop if torch.rand((), generator=generator) < 0.5 else crop


def train_deblurrer(photos, blur, options, seed):
    """L1, Adam, a learning rate that falls along a cosine."""
    torch.manual_seed(seed)
    network = UNet(blocks=options.blocks, widths=options.widths)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.deblur_steps)
    crops = Crops(photos, blur, options.crop, options.deblur_steps * options.batch)
    for batch in DataLoader(crops, options.batch):
        loss = F.l1_loss(network(batch["blurry"]), batch["sharp"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def train_translator(blurry, sharp, blur, known, deblurrer, options, seed):
    """The translator on unpaired crops; features are the deblurrer's own."""
    torch.manual_seed(seed)
    translator = Blur2BlurTranslator(
        ReblurNet(blocks=options.generator_blocks, width=options.generator_width, identity=True),
        PatchGAN(width=options.discriminator_width, layers=options.layers),
        perceptual=LayerFeatures(deblurrer, ["blocks"]) if options.features == "deblurrer" else nn.AvgPool2d(4),
        perceptual_weight=options.perceptual_weight,
        gradient_penalty=options.gradient_penalty,
        known_blur=known,
        lr=options.lr,
        discriminator_lr=options.discriminator_lr,
        seed=seed,
    )
    crops = Crops(blurry, blur, options.crop, options.steps * options.batch, others=sharp)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=L.pytorch.loggers.CSVLogger(options.output / f"seed{seed}"),
        log_every_n_steps=max(options.steps // 20, 1),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[L.pytorch.callbacks.EMAWeightAveraging(decay=0.995)],
    )
    trainer.fit(translator, DataLoader(crops, options.batch))
    return translator.eval()


@torch.inference_mode()
def measure(photos, blur, translator, deblurrers):
    """Scores of every held-out photo, and a picture of the first two."""
    scores, rows = [], []
    for index, sharp in enumerate(photos):
        torch.manual_seed(1000 + index)
        blurry, sharp = blur(sharp[None]), inner(sharp[None])
        moved = translator(blurry).clamp(0, 1)
        images = {"blurry": blurry, "translated": translator.compose(deblurrers["alone"])(blurry)}
        images |= {name: deblurrer(blurry) for name, deblurrer in deblurrers.items()}
        score = {f"psnr {name}": value(PSNR(), image.clamp(0, 1), sharp) for name, image in images.items()}
        score |= {f"ssim {name}": value(SSIM(), image.clamp(0, 1), sharp) for name, image in images.items()}
        score |= {"content ssim": value(SSIM(), moved, blurry), "colour shift": value(ColourShift(), moved, blurry)}
        scores.append(score)
        rows.append({"blurry": blurry[0], "translation": moved[0], **{name: images[name][0] for name in VERSIONS[1:]}})
        rows[-1]["sharp"] = sharp[0]
    return scores, comparison_grid(rows[:2], width=260)


def value(metric, image, target):
    metric.update(image, target)
    return metric.compute().item()


def interval(values):
    """Mean and half-width of the 95 % interval over photos."""
    values = torch.tensor(values, dtype=torch.float64)
    if len(values) < 2:
        return values.mean().item(), math.nan
    return values.mean().item(), (student.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5).item()


def load_photos(options):
    """All photos, shrunk to half their size: sharper pixels, faster work."""
    if options.photos is None:
        photos = [photo for split in ("train", "test") for photo in DemoPhotos(split).photos]
    else:
        photos = [read_image(path) for path in sorted(Path(options.photos).glob("*.png"))]
    photos = [F.interpolate(photo[None], scale_factor=0.5, mode="area")[0] for photo in photos]
    return [photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4] for photo in photos]


def split(photos):
    """Left halves of photos to be blurry, right halves to be sharp (also the known camera's pairs), photos held out."""
    held = max(len(photos) * 3 // 8, 2)
    halves = [photo.tensor_split(2, dim=2) for photo in photos[:-held]]
    return [left for left, _ in halves], [right for _, right in halves], photos[-held:]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", help="folder of sharp .png photos; default: five that come with scikit-image")
    parser.add_argument("--output", type=Path, default=Path("runs/blur2blur"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--known", type=float, default=1.0, help="sigma of the known blur in pixels")
    parser.add_argument("--unknown", default="gaussian:0.3:1", help="gaussian:ACROSS:ALONG or shake:SIZE:STRENGTH")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--deblur-steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--discriminator-lr", type=float, default=5e-4)
    parser.add_argument("--perceptual-weight", type=float, default=6.0)
    parser.add_argument("--features", choices=("deblurrer", "pooled"), default="pooled")
    parser.add_argument("--gradient-penalty", type=float, default=0.0)
    parser.add_argument("--layers", type=int, default=1, help="strided layers of the discriminator")
    parser.add_argument("--fast", action="store_true", help="a few steps of tiny networks")
    options = parser.parse_args(arguments)
    options.blocks, options.widths = 2, (16, 32, 48)
    options.generator_blocks, options.generator_width, options.discriminator_width = 1, 16, 16
    if options.fast:
        options.seeds, options.steps, options.deblur_steps, options.batch, options.crop = 1, 2, 2, 1, 32
        options.widths, options.generator_width, options.discriminator_width = (4, 4, 4), 4, 4
    options.output.mkdir(parents=True, exist_ok=True)

    blurry, sharp, held_out = split(load_photos(options))
    known, unknown = GaussianBlur(options.known, options.known), unknown_blur(options.unknown)
    runs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        start = time.perf_counter()
        blurs = {"alone": known, "synthetic": Shake(9, 0.4), "bound": unknown}
        deblurrers = {name: train_deblurrer(sharp, blur, options, seed) for name, blur in blurs.items()}
        translator = train_translator(blurry, sharp, unknown, known, deblurrers["alone"], options, seed)
        scores, picture = measure(held_out, unknown, translator, deblurrers)
        known_scores, _ = measure(held_out, known, translator, deblurrers)
        picture.save(options.output / f"seed{seed}.png")
        runs.append({"seed": seed, "seconds": time.perf_counter() - start, "photos": scores, "known": known_scores})

    table = {key: interval(mean_over_seeds(runs, "photos", key)) for key in runs[0]["photos"][0]}
    for name in ("blurry", "alone"):
        table[f"known blur: psnr {name}"] = interval(mean_over_seeds(runs, "known", f"psnr {name}"))
    for better, worse in (
        ("translated", "alone"),
        ("translated", "blurry"),
        ("translated", "synthetic"),
        ("bound", "alone"),
    ):
        table[f"psnr {better} - {worse}"] = interval(mean_over_seeds(runs, "photos", f"psnr {better}", f"psnr {worse}"))
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("output", "photos")}
    (options.output / "results.json").write_text(
        json.dumps({"settings": settings, "table": table, "runs": runs}, indent=1) + "\n"
    )
    (options.output / "results.md").write_text(markdown(settings, table))
    print(markdown(settings, table))


def markdown(settings, table):
    """The settings and the table."""
    lines = ["# Blur2Blur on photos", "", ", ".join(f"{name} {setting}" for name, setting in settings.items()), ""]
    lines += ["| | mean | 95 % interval over photos |", "|---|---|---|"]
    lines += [f"| {name} | {mean:.3f} | ± {half:.3f} |" for name, (mean, half) in table.items()]
    return "\n".join(lines) + "\n"


def mean_over_seeds(runs, domain, key, minus=None):
    """A score, or a difference of two, of each held-out photo."""
    return [
        sum(photo[key] - (photo[minus] if minus else 0) for photo in photos) / len(photos)
        for photos in zip(*(run[domain] for run in runs), strict=True)
    ]


if __name__ == "__main__":
    if "--table" in sys.argv:
        import blur2blur_table

        blur2blur_table.main([word for word in sys.argv[1:] if word != "--table"])
    else:
        main()
