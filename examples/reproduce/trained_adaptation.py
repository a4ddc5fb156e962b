"""What test-time adaptation does to trained networks: Table 6 and Figure 6 of *Clean Images are Hard to Reblur*.

    python examples/reproduce/trained_adaptation.py --plan
    python examples/reproduce/trained_adaptation.py --choice PHOTOS --test PHOTOS --niqe FILE --output runs/adaptation
    ... --checkpoint FILE                        # of DeblurTask or ReblurTask, instead of the pair in the box
    ... --unet FILE --reblur FILE                # weights of the paper's U-Net and its M_R

Both folders hold sharp photos. CHOICE settles how far to go, TEST measures it: photos on which nothing was chosen. What
has been measured is kept, photo by photo, and the next call goes on; it ends after so many minutes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
from measuring import BLURS, gradient_ratio, interval, middle, photos_in, spaced, value, write_record

from reblurkit.adaptation import match_histogram
from reblurkit.data import read_image, write_image
from reblurkit.losses import self_reblur_loss
from reblurkit.metrics import NIQE, PSNR, SSIM, DeepDistance
from reblurkit.models import ReblurNet, UNet, load_pretrained, load_weights
from reblurkit.plugins import load_networks

LRS, STEPS = (3e-6, 3e-5), 5
NOISE, CROP = 0.005, (288, 384)
LIMITS = {"fidelity": 0.1, "sharpness": 1.0}
PLAN = f"""\
Hypothesis: Algorithm 1 lowers NIQE and makes gradients stronger; PSNR pays.
Unit: the photo, its middle {CROP[0]} x {CROP[1]} pixels under the blur that its number names, of {", ".join(BLURS)},
  with noise {NOISE}.
Settings: Adam, learning rates {", ".join(map(str, LRS))}, {STEPS} steps; every step is measured.
Choice, on CHOICE alone: the learning rate and steps of the lowest mean NIQE among those whose mean PSNR falls by at
  most {LIMITS["fidelity"]} dB (fidelity) and by at most {LIMITS["sharpness"]} dB (sharpness).
Statistic, on TEST: change from the plain output; mean over photos and its 95 % interval (Student's); all rates and
  steps are published, in both directions."""


def load_pair(options):
    """Deblurring and reblurring network, and what they are."""
    if options.checkpoint:
        found = load_networks(checkpoint=options.checkpoint)
        pair, name = (found.network, found.reblur_net), Path(options.checkpoint).stem
    elif options.unet:
        pair, name = (UNet(), ReblurNet(blocks=2)), Path(options.unet).stem
        for network, file in zip(pair, (options.unet, options.reblur), strict=True):
            load_weights(network, file)
    else:
        pair, name = load_pretrained()[:2], "the pair in the box"
    return [network.eval().to(memory_format=torch.channels_last) for network in pair], name


def degraded(photo, number):
    """A photo's middle, blurry and sharp, ``(1, 3, H, W)``; blurred whole, so that nothing is mirrored into it."""
    generator = torch.Generator().manual_seed(number)
    sharp = middle(photo, 640)
    blurry = list(BLURS.values())[number % len(BLURS)](sharp, generator)
    blurry = (blurry + NOISE * torch.randn(blurry.shape, generator=generator)).clamp(0, 1)
    top, left = (
        (length - wanted) // 2 if length > wanted else 0 for length, wanted in zip(sharp.shape[-2:], CROP, strict=True)
    )
    return (image[..., top : top + CROP[0], left : left + CROP[1]] for image in (blurry, sharp))


def by_step(network, reblur_net, blurry, lr):
    """The image before each step and after the last, by a plain loop of Algorithm 1."""
    network = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    plain = None
    for _ in range(STEPS + 1):
        deblurred = network(blurry)
        plain = deblurred.detach() if plain is None else plain
        yield match_histogram(deblurred.detach(), plain)
        optimizer.zero_grad()
        self_reblur_loss(reblur_net, deblurred).backward()
        optimizer.step()


def scores(image, sharp, plain, metrics):
    """Metrics of an image, and how near it has stayed to the plain one, in dB."""
    found = {name: value(metric, image, None if name == "niqe" else sharp) for name, metric in metrics.items()}
    found["gradient_ratio"] = gradient_ratio(image, sharp)
    return found | {"stayed": min(value(PSNR(), image, plain), 100.0)}


def measure(pair, photos, options, until, kept):
    """Rows of every photo, by learning rate and step; those measured before are read."""
    metrics = {"psnr": PSNR(), "ssim": SSIM(), "niqe": NIQE(options.niqe), "deep_distance": DeepDistance()}
    for number, file in enumerate(photos):
        record = kept / f"{file.stem}.json"
        if record.exists() or time.monotonic() > until:
            continue
        blurry, sharp = degraded(read_image(file), number)
        rows, pictures = {"blurry": scores(blurry, sharp, blurry, metrics)}, {}
        for lr in LRS:
            for step, image in enumerate(by_step(*pair, blurry, lr)):
                pictures.setdefault("plain", image)
                rows[f"{lr:g} {step}"] = scores(image, sharp, pictures["plain"], metrics)
                pictures[f"{lr:g}_{step}"] = image
        for name, image in {"blurry": blurry, "sharp": sharp, **pictures}.items():
            write_image(image[0], kept / file.stem / f"{name}.png")
        record.write_text(json.dumps(rows))
        print(f"{file.stem}: {record}", flush=True)
    files = [kept / f"{file.stem}.json" for file in photos]
    return {file.stem: json.loads(file.read_text()) for file in files if file.exists()}


def changes(rows, key, metric):
    """Change of a metric from the plain output, photo by photo."""
    return [row[key][metric] - row[f"{LRS[0]:g} 0"][metric] for row in rows.values()]


def chosen(rows, limit):
    """Learning rate and steps of the lowest mean NIQE within a loss of PSNR."""
    keys = [f"{lr:g} {step}" for lr in LRS for step in range(STEPS + 1)]
    means = {key: {name: sum(changes(rows, key, name)) / len(rows) for name in ("psnr", "niqe")} for key in keys}
    return min((key for key in keys if means[key]["psnr"] >= -limit), key=lambda key: means[key]["niqe"])


def table(rows, choice):
    """The changes on photos, as a table in Markdown and as numbers."""
    metrics = ("psnr", "ssim", "niqe", "gradient_ratio", "deep_distance", "stayed")
    lines = [f"| lr, steps | {' | '.join(metrics)} | NIQE lower on |", f"|---|{'---|' * (len(metrics) + 1)}"]
    numbers = {}
    for key in next(iter(rows.values())):
        if key.endswith(" 0") or key == "blurry":
            continue
        found = {name: interval(changes(rows, key, name)) for name in metrics[:-1]}
        found["stayed"] = interval([row[key]["stayed"] for row in rows.values()])
        lower = sum(change < 0 for change in changes(rows, key, "niqe"))
        cells = [f"{one['mean']:+.3g} ± {one.get('interval', math.nan):.2g}" for one in found.values()]
        purpose = "".join(f" ({name})" for name, best in choice.items() if best == key)
        lines.append(f"| {key}{purpose} | {' | '.join(cells)} | {lower} of {len(rows)} |")
        numbers[key] = found | {"niqe_lower": lower}
    return "\n".join(lines), numbers


def main(arguments=None):
    """Measure, choose, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--choice", type=Path, help="folder of sharp photos to choose on")
    parser.add_argument("--test", type=Path, help="folder of sharp photos to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--checkpoint", help="checkpoint with both networks")
    parser.add_argument("--unet", help="weights of the paper's U-Net")
    parser.add_argument("--reblur", help="weights of its M_R, two blocks")
    parser.add_argument("--limit", type=int, default=15, help="photos of each folder, evenly spaced by name")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--output", type=Path, default=Path("runs/trained_adaptation"))
    options = parser.parse_args(arguments)
    print(PLAN, flush=True)
    if options.plan:
        return
    until = time.monotonic() + 60 * options.minutes
    pair, name = load_pair(options)
    rows = {}
    for part in ("choice", "test"):
        photos = spaced(photos_in(getattr(options, part)), options.limit)
        kept = options.output / part
        kept.mkdir(parents=True, exist_ok=True)
        rows[part] = measure(pair, photos, options, until, kept)
    choice = {purpose: chosen(rows["choice"], limit) for purpose, limit in LIMITS.items()}
    texts, numbers = zip(*(table(rows[part], choice) for part in rows), strict=True)
    command = "`python examples/reproduce/trained_adaptation.py --choice TRAIN --test TEST --niqe FILE`"
    parts = (
        f"# Adaptation of {name}",
        f"{command}, with `--checkpoint` or `--unet`.",
        PLAN,
        "## Photos of the choice",
        texts[0],
        "## Photos of the test",
        texts[1],
    )
    text = "\n\n".join(parts) + "\n"
    (options.output / "adaptation.md").write_text(text)
    record = {"pair": name, "plan": PLAN, "chosen": choice, **dict(zip(rows, numbers, strict=True)), "photos": rows}
    write_record(options.output / "adaptation.json", record)
    print(text)


if __name__ == "__main__":
    main()
