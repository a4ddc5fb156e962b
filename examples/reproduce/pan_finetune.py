"""Does fine-tuning on blurry video help a network that deblurs already? The network in the box, and cameras that pan.

    python examples/reproduce/pan_finetune.py --plan
    python examples/reproduce/pan_finetune.py --photos TRAIN --test TEST --output runs/pan_finetune

Each photo in TEST becomes a clip: a camera moves over it along a curve of its own, and each frame is the mean of nine
positions. For each clip a copy of the network is fine-tuned on photos of TRAIN, with known sharp versions, and on the
clip's blurry frames alone. The control is fine-tuned on the photos only, for as many steps. A clip that has been
measured is kept, and the next call goes on with the others.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
import warnings
from pathlib import Path

import lightning as L
import torch
from measuring import BLURS, interval, photos_in, table_of_differences, value, write_record
from torch.nn import functional as F
from torch.utils.data import DataLoader

from reblurkit import FlowReblurFinetuneCallback, SyntheticBlurDataModule
from reblurkit.blur import FlowLineBlur, average_frames, exposure_from
from reblurkit.data import read_image
from reblurkit.metrics import PSNR, SSIM
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid
from reblurkit.plugins import DeblurTask

WINDOW, FRAMES, HEIGHT, WIDTH = 9, 7, 160, 224
PLAN = f"""\
Hypothesis: fine-tuning on a clip raises its PSNR above that of the network in the box and of the control.
Unit: the clip, {FRAMES} frames of {HEIGHT} x {WIDTH} pixels; each the mean of {WINDOW} positions, 0.6 to 1.4 pixels
  apart.
Settings, chosen on another clip: Adam 1e-4, weight 1000, TV-L1 flow, line blur of three frames, L1 on the photos.
Statistic: PSNR against the sharp middle positions; mean over clips and its 95 % interval (Student's)."""


def pan(photo, seed):
    """Blurry frames and their sharp middles, ``(T, 3, H, W)``: a window that moves over a photo of half size."""
    photo = F.interpolate(photo[None], scale_factor=0.5, mode="area")
    generator = torch.Generator().manual_seed(seed)
    angle, bend, speed = torch.rand(3, generator=generator).tolist()
    steps = torch.arange(WINDOW * FRAMES)
    angles = 2 * math.pi * angle + (bend - 0.5) * math.pi * steps / len(steps)
    path = (0.6 + 0.8 * speed) * torch.stack([angles.cos(), angles.sin()], 1).cumsum(0)
    path = path - (path.amin(0) + path.amax(0)) / 2  # around the photo's middle
    rows = torch.arange(HEIGHT) - (HEIGHT - 1) / 2
    columns = torch.arange(WIDTH) - (WIDTH - 1) / 2
    size = torch.tensor([photo.shape[-1], photo.shape[-2]])
    positions = []
    for move in path:
        y, x = torch.meshgrid(rows + move[1], columns + move[0], indexing="ij")
        grid = torch.stack([x, y], -1) * 2 / size
        positions.append(
            F.grid_sample(photo, grid[None], mode="bicubic", padding_mode="reflection", align_corners=False)
        )
    positions = torch.cat(positions).clamp(0, 1)
    blurry = torch.cat([average_frames(frame[None]) for frame in positions.split(WINDOW)])
    return blurry, positions[WINDOW // 2 :: WINDOW]


def tuned(network, options, callbacks=()):
    """A copy of the network after so many steps on photos, and whatever callbacks add."""
    L.seed_everything(0, verbose=False)
    photos = SyntheticBlurDataModule(
        options.photos, blur=list(BLURS.values()), crop=64, batch_size=4, crops_per_photo=4, num_workers=0, seed=0
    )
    task = DeblurTask(copy.deepcopy(network), optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-4))
    flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = L.Trainer(max_steps=options.steps, callbacks=list(callbacks), enable_model_summary=False, **flags)
    trainer.fit(task, photos)
    return task.network.eval()


def on_clip(blurry):
    """The callback for one clip."""
    clips = blurry.unfold(0, 3, 1).movedim(-1, 1)
    blur = FlowLineBlur(exposure_from(window=WINDOW, stride=WINDOW))
    return FlowReblurFinetuneCallback(DataLoader(clips, 1, shuffle=True), flow="tvl1", blur=blur, weight=1000.0)


@torch.inference_mode()
def measure(networks, blurry, sharp):
    """Scores of every version of a clip, and its middle frames."""
    images = {"blurry": blurry} | {name: network(blurry).clamp(0, 1) for name, network in networks.items()}
    scores = {
        name: {"psnr": value(PSNR(), clip, sharp), "ssim": value(SSIM(), clip, sharp)} for name, clip in images.items()
    }
    middle = FRAMES // 2
    return scores, {
        **{name: clip[middle] for name, clip in images.items() if name != "control"},
        "sharp": sharp[middle],
    }


def markdown(rows, settings):
    """Means, and gains with their intervals."""
    lines = ["# Fine-tuning the network in the box on clips", "", PLAN, "", settings, ""]
    lines += ["| | PSNR, dB | SSIM |", "|---|---|---|"]
    for name in next(iter(rows.values())):
        psnr, ssim = (sum(row[name][metric] for row in rows.values()) / len(rows) for metric in ("psnr", "ssim"))
        lines.append(f"| {name} | {psnr:.2f} | {ssim:.4f} |")
    gains = differences(rows)
    return "\n".join([*lines, "", *table_of_differences(gains, "clip")]) + "\n", gains


def differences(rows):
    """PSNR of the fine-tuned network over the others, and of the network over the blurry frames."""
    pairs = (
        ("fine-tuned", "in the box"),
        ("fine-tuned", "control"),
        ("fine-tuned", "blurry"),
        ("in the box", "blurry"),
    )
    return {
        f"{name} - {other}": interval([row[name]["psnr"] - row[other]["psnr"] for row in rows.values()])
        for name, other in pairs
    }


def main(arguments=None):
    """Fine-tune on every clip, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--photos", type=Path, help="folder of sharp photos to train on")
    parser.add_argument("--test", type=Path, help="folder of sharp photos to make clips of")
    parser.add_argument("--output", type=Path, default=Path("runs/pan_finetune"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--limit", type=int, default=8, help="clips, of the first photos by name")
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args(arguments)
    print(PLAN, flush=True)
    if options.plan:
        return
    options.output.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * options.minutes
    network = load_pretrained().network.eval()
    control, rows = None, {}
    files = photos_in(options.test)[: options.limit]
    for number, file in enumerate(files):
        kept = options.output / f"{file.stem}.json"
        if not kept.exists():
            if time.monotonic() > until:
                break
            control = control or tuned(network, options)
            blurry, sharp = pan(read_image(file), number)
            networks = {
                "in the box": network,
                "control": control,
                "fine-tuned": tuned(network, options, [on_clip(blurry)]),
            }
            scores, picture = measure(networks, blurry, sharp)
            comparison_grid([picture], width=300, detail=64).save(options.output / f"{file.stem}.png")
            kept.write_text(json.dumps(scores))
            print(f"{file.stem}: " + ", ".join(f"{name} {one['psnr']:.2f}" for name, one in scores.items()), flush=True)
        rows[file.stem] = json.loads(kept.read_text())
    settings = "`python examples/reproduce/pan_finetune.py --photos TRAIN --test TEST`: "
    settings += f"{options.steps} steps; {len(rows)} clips of {len(files)}."
    text, gains = markdown(rows, settings)
    (options.output / "pan_finetune.md").write_text(text)
    write_record(
        options.output / "pan_finetune.json", {"plan": PLAN, "settings": settings, "gains": gains, "clips": rows}
    )
    print(text)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    main()
