"""Does fine-tuning on blurry video help, on real frames? (Reblur2Deblur: Tables 2, 3, 4 and 5 in small.)

A small U-Net learns to undo uniform straight blur on photographs, and is then fine-tuned on blurred clips made of a
sharp sequence, whose centre frames stay hidden from it. The control takes the same further steps, with the same
labelled batches, without L_U, so that the gain is that of L_U alone.

    python examples/reproduce/video_finetune.py --sequence SHARP_FRAMES [MORE...] --output runs/video_finetune

Writes seed-N.json after each seed, which a later call with the same settings reads back, and results.json and
results.md of them all. `--steps 2 --pretrain-steps 2 --seeds 1 2` shows in a minute that it runs.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import torch
from rich.console import Console
from scipy.stats import t as student
from skimage import data as photos
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from reblurkit import FlowReblurFinetuneCallback
from reblurkit.blur import FlowKernelBlur, FlowLineBlur, FlowWarpBlur, ShakeBlur, average_frames, exposure_from
from reblurkit.data import read_image
from reblurkit.data.augmentation import flip_and_turn, random_crop
from reblurkit.data.sampling import Draw, draw_generator
from reblurkit.data.video import find_videos
from reblurkit.metrics import PSNR, SSIM
from reblurkit.models import UNet
from reblurkit.plugins import DeblurTask

BLURS = {"kernel": FlowKernelBlur, "line": FlowLineBlur, "warp": FlowWarpBlur}
DISTANCES = {"l1": torch.nn.L1Loss, "mse": torch.nn.MSELoss}
REFERENCES = ("control", "before")
EXPLANATION = """\
Frames: `seen` are the centres of the clips that were fine-tuned on together (group), `unseen` share no sharp frame with
any of them; `single` are clips that were adapted to one by one. `before` is the network trained on photographs; the
control takes the same further steps on the same labelled batches without L_U. Gains are means over seeds, each with a
first training of its own, with 95 % confidence intervals (Student)."""
BUNDLED = ("astronaut", "coffee", "rocket", "chelsea")


class BlurredPhotos(Dataset):
    """Random crops of photographs under uniform straight blur; endless, every item a function of (seed, index)."""

    def __init__(self, images, length, crop, size, seed):
        self.images, self.length, self.crop, self.seed = images, length, crop, seed
        self.blur = ShakeBlur(size=size, strength=0, linear=False)  # the sequences are averaged as they are, too

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = draw_generator(self.seed, Draw(index))
        image = self.images[int(torch.randint(len(self.images), (), generator=generator))]
        margin = self.blur.size // 2
        sharp = random_crop(image, self.crop + 2 * margin, generator)
        pair = torch.stack([self.blur(sharp[None], generator)[0], sharp])[..., margin:-margin, margin:-margin]
        blurry, sharp = flip_and_turn(pair, generator)
        # as the authors of the data set augment it: up to a few grey levels, or noise would be taken for detail
        level = 2 / 255 * torch.randn((), generator=generator).abs()
        blurry = blurry + level * torch.randn(blurry.shape, generator=generator)
        return {"blurry": blurry, "sharp": sharp, "name": str(index)}


class Sequence:
    """Sharp frames at a high rate; blurry frame i is the mean of ``window`` of them around frame i."""

    def __init__(self, name, sharp, window, spacing):
        self.name, self.sharp, self.window, self.spacing = name, sharp, window, spacing

    def blurry(self, index):
        half = self.window // 2
        return average_frames(self.sharp[None, index - half : index + half + 1])[0]

    def split(self, share):
        """Centres of clips for fine-tuning, and of frames that share no sharp frame with any of those clips."""
        half, last = self.window // 2, len(self.sharp) - 1
        end = round(share * last)
        seen = range(half + self.spacing, end - self.spacing - half + 1)
        unseen = range(end + 1 + half, last - half + 1)
        return seen, unseen


def read_frames(path, height):
    """All frames of a video, ``(T, 3, H, W)``, shrunk to a height."""
    frames = find_videos(Path(path))[0]
    images = [frames.read(i, i + 1) for i in range(len(frames))]
    if height:
        images = [F.interpolate(image, scale_factor=height / image.shape[-2], mode="area") for image in images]
    return torch.cat(images)


def moving_chart(frames=100, height=192, width=256):
    """A resolution chart (stars and bars of growing fineness, tilted edges) that swings by up to 1.5 pixels a frame."""
    angle = 2 * math.pi * torch.arange(frames) / 50
    path = torch.stack([12 * angle.sin(), 8 * (1.5 * angle).sin()], 1)
    rows, columns = torch.meshgrid(torch.arange(4 * height), torch.arange(4 * width), indexing="ij")
    sharp = []
    for shift in path:  # drawn at four times the size, so that edges are as smooth as a camera's
        y, x = rows / 4 - shift[1], columns / 4 - shift[0]
        cell_y, cell_x = y.remainder(64) - 32, x.remainder(64) - 32
        kind = (x.div(64, rounding_mode="floor") + 3 * y.div(64, rounding_mode="floor")).remainder(4)
        star = (16 * torch.atan2(cell_y, cell_x)).sin() > 0
        bars = torch.where(kind == 1, cell_x, cell_y)
        bars = (2 * math.pi * bars / (4 + (bars.abs() / 8).floor() * 2)).sin() > 0
        edge = cell_y + 0.2 * cell_x > 0
        picture = torch.where(kind == 0, star, torch.where(kind == 3, edge, bars)).float()
        ink = torch.stack([picture, picture, 0.15 + 0.7 * picture])[None]
        sharp.append(F.avg_pool2d(0.1 + 0.8 * ink, 4))
    return torch.cat(sharp)


class Clips(Dataset):
    """Crops of three blurry frames, or of the first two of them; endless like the labelled crops."""

    def __init__(self, sources, length, crop, seed):
        self.sources, self.length, self.crop, self.seed = sources, length, crop, seed

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = draw_generator(self.seed, Draw(index))
        sequence, centre = self.sources[int(torch.randint(len(self.sources), (), generator=generator))]
        frames = [sequence.blurry(centre + step * sequence.spacing) for step in (-1, 0, 1)]
        return flip_and_turn(random_crop(torch.stack(frames), self.crop, generator), generator)


def train(network, labelled, steps, lr, distance, callbacks=()):
    """Train at a constant learning rate; what is random follows from the data sets' seeds."""
    constant = partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    optimizer = partial(torch.optim.Adam, lr=lr)
    task = DeblurTask(network, loss=DISTANCES[distance](), optimizer=optimizer, scheduler=constant)
    trainer = L.Trainer(
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, labelled)
    return network.cpu().eval()


@torch.inference_mode()
def measure(network, frames):
    """Mean PSNR and SSIM over (sequence, index) of blurry frames against their sharp centres."""
    psnr, ssim = PSNR(), SSIM()
    for sequence, index in frames:
        blurry, sharp = sequence.blurry(index)[None], sequence.sharp[index][None]
        deblurred = network(blurry).clamp(0, 1)
        psnr.update(deblurred, sharp)
        ssim.update(deblurred, sharp)
    return {"psnr": float(psnr.compute()), "ssim": float(ssim.compute())}


def finetune(network, seen, variant, options, seed):
    """A fine-tuned copy; ``variant`` is for instance ("line", 3), or None for the control."""
    labelled = labelled_loader(options, options.steps, 10_000 + seed)
    callbacks = []
    if variant:
        blur, frames = variant
        clips = Clips(seen, options.steps * options.clips_per_step, options.clip_crop, 20_000 + seed)
        callbacks = [
            FlowReblurFinetuneCallback(
                DataLoader(clips, options.clips_per_step),
                flow=options.flow,
                blur=BLURS[blur](exposure_from(window=options.window, stride=options.spacing)),
                weight=options.weight,
                frames=frames,
                distance=DISTANCES[options.distance](),
            )
        ]
    return train(copy.deepcopy(network), labelled, options.steps, options.lr, options.distance, callbacks)


def labelled_loader(options, steps, seed):
    """Labelled batches of one run."""
    data = BlurredPhotos(options.images, steps * options.batch_size, options.crop, options.blur_size, seed)
    return DataLoader(data, options.batch_size)


def interval(values):
    """Mean and half-width of the 95 % confidence interval over seeds (Student)."""
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, float(student.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))


def run_seed(options, sequences, seed, console):
    """Everything of one seed: name of the run -> metrics, single clips averaged."""
    torch.manual_seed(seed)
    network = UNet(blocks=options.blocks, widths=options.widths)
    labelled = labelled_loader(options, options.pretrain_steps, seed)
    train(network, labelled, options.pretrain_steps, options.pretrain_lr, "l1")
    splits = {sequence: sequence.split(options.share) for sequence in sequences}
    seen = [(sequence, index) for sequence, (indices, _) in splits.items() for index in indices]
    unseen = [(sequence, index) for sequence, (_, indices) in splits.items() for index in indices]
    singles = [seen[round(k * (len(seen) - 1) / max(options.single_clips - 1, 1))] for k in range(options.single_clips)]

    sets = {"seen": seen, "unseen": unseen, "single": singles}

    def measured(name, network, kinds=tuple(sets)):
        metrics = {kind: measure(network, sets[kind]) for kind in kinds if sets[kind]}
        console.print(f"seed {seed}, {name}: {metrics}")
        return metrics

    runs = {"blurry": measured("blurry", torch.nn.Identity()), "before": measured("before", network)}
    runs["control"] = measured("control", finetune(network, seen, None, options, seed))
    for variant in options.variants:
        name = "{}, {} frames".format(*variant)
        runs[name] = measured(name, finetune(network, seen, variant, options, seed), ("seen", "unseen"))
        adapted = [measure(finetune(network, [clip], variant, options, seed), [clip]) for clip in singles]
        if adapted:
            runs[name]["single"] = {key: sum(each[key] for each in adapted) / len(adapted) for key in ("psnr", "ssim")}
            console.print(f"seed {seed}, {name}, single clips: {runs[name]['single']}")
    return runs


def stored_seed(path, settings, names, kinds):
    """What an earlier call with the same settings found for a seed, if it holds these runs and frames, or None."""
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    runs = {name: stored["runs"].get(name, {}) for name in names}
    if stored["settings"] != settings or not all(kinds <= run.keys() for run in runs.values()):
        return None
    return {name: {kind: row for kind, row in run.items() if kind in kinds} for name, run in runs.items()}


def markdown(results):
    """The table: means over seeds, and gains with their 95 % confidence intervals."""
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items())
    lines = ["# Fine-tuning on blurry video, on real frames", "", settings, "", EXPLANATION, ""]
    titles = ["run", "frames", "PSNR (dB)", "SSIM"]
    titles += [f"{metric} over {other}" for other in REFERENCES for metric in ("PSNR", "SSIM")]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, kinds in results["runs"].items():
        for kind, row in kinds.items():
            gains = [
                f"{mean:+.{digits}f} ± {half:.{digits}f}"
                for mean, half, digits in (
                    (*row["gains"][other][metric], digits)
                    for other in row["gains"]
                    for metric, digits in (("psnr", 3), ("ssim", 4))
                )
            ]
            cells = [name, kind, f"{row['psnr']:.3f}", f"{row['ssim']:.4f}", *(gains or [""] * 2 * len(REFERENCES))]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    """Run all seeds, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequence", nargs="*", default=[], help="folders of sharp frames, or video files")
    parser.add_argument("--chart", action="store_true", help="a drawn resolution chart in motion is a sequence, too")
    parser.add_argument("--photos", type=Path, help="folder of sharp photographs (default: scikit-image's)")
    parser.add_argument("--output", type=Path, default=Path("runs/video_finetune"))
    parser.add_argument("--height", type=int, help="shrink the sequences to this height first")
    parser.add_argument("--window", type=int, default=5, help="sharp frames in a blurry one; odd")
    parser.add_argument(
        "--spacing", type=int, default=5, help="sharp frames from one blurry frame of a clip to the next"
    )
    parser.add_argument("--share", type=float, default=0.6, help="part of each sequence that is fine-tuned on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs=3, default=[16, 32, 48])
    parser.add_argument("--pretrain-steps", type=int, default=4000)
    parser.add_argument("--pretrain-lr", type=float, default=1e-3)
    parser.add_argument("--blur-size", type=int, default=15, help="side of the training blur's kernels; odd")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--steps", type=int, default=120, help="fine-tuning steps")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--weight", type=float, default=30.0, help="alpha of equation 10")
    parser.add_argument("--distance", choices=DISTANCES, default="mse", help="of both losses in fine-tuning")
    parser.add_argument("--flow", default="tvl1")
    parser.add_argument("--clips-per-step", type=int, default=2)
    parser.add_argument("--clip-crop", type=int, default=128)
    parser.add_argument("--single-clips", type=int, default=2, help="clips that are adapted to one by one; 0: none")
    parser.add_argument(
        "--variants", nargs="+", default=["kernel-3", "line-3", "warp-3", "kernel-2", "line-2", "warp-2"]
    )
    options = parser.parse_args()
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("output", "seeds")}
    options.variants = [(name.split("-")[0], int(name.split("-")[1])) for name in options.variants]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    if options.photos:
        options.images = [read_image(path) for path in sorted(options.photos.iterdir())]
    else:
        options.images = [torch.from_numpy(getattr(photos, name)()).permute(2, 0, 1) / 255 for name in BUNDLED]
    clips = {Path(path).stem: read_frames(path, options.height) for path in options.sequence}
    clips |= {"chart": moving_chart()} if options.chart else {}
    sequences = [Sequence(name, frames, options.window, options.spacing) for name, frames in clips.items()]
    if not sequences:
        parser.error("nothing to fine-tune on: give --sequence or --chart")
    options.output.mkdir(parents=True, exist_ok=True)
    # A seed's file serves a later call that asks for fewer runs.
    shared = {name: value for name, value in settings.items() if name not in ("variants", "single_clips")}
    names = ["blurry", *reversed(REFERENCES), *("{}, {} frames".format(*variant) for variant in options.variants)]
    kinds = {"seen", "unseen", *(["single"] if options.single_clips else [])}
    console, seeds = Console(), []
    for seed in options.seeds:
        path = options.output / f"seed-{seed}.json"
        runs = stored_seed(path, shared, names, kinds)
        if runs is None:
            runs = run_seed(options, sequences, seed, console)
            path.write_text(json.dumps({"settings": shared, "runs": runs}, indent=1) + "\n")
        seeds.append(runs)
        if len(seeds) > 1:
            results = {"settings": settings, "runs": summarise(seeds), "seeds": seeds}
            (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            (options.output / "results.md").write_text(markdown(results))
    if len(seeds) > 1:
        print((options.output / "results.md").read_text())


def summarise(seeds):
    """Means over seeds, and the gains of each fine-tuning with their intervals."""
    runs = {}
    for name, kinds in seeds[0].items():
        runs[name] = {}
        for kind in kinds:
            row = {metric: sum(run[name][kind][metric] for run in seeds) / len(seeds) for metric in ("psnr", "ssim")}
            others = () if name in ("blurry", *REFERENCES) else REFERENCES
            row["gains"] = {
                other: {
                    metric: interval([run[name][kind][metric] - run[other][kind][metric] for run in seeds])
                    for metric in ("psnr", "ssim")
                }
                for other in others
            }
            runs[name][kind] = row
    return runs


if __name__ == "__main__":
    main()
