"""Blur longer than a network knows: the network alone, and at full, half and quarter size (`MultiScale`).

    python examples/reproduce/long_blur.py --plan
    python examples/reproduce/long_blur.py --test TEST --pairs PAIRS --niqe FILE --run runs/long_blur
    python examples/reproduce/long_blur.py --test TEST --network dmphn-1-2-4 --weights FILE --run runs/long_blur_dmphn

TEST is a folder of sharp photos, PAIRS one of files `blur_NAME.png` and `sharp_NAME.png`. Without `--network` it is the
network in the box. A blur that has been measured is kept, and the next call goes on.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean

import torch
from measuring import BLURS, interval, kept, measure_photo, middle, photos_in, spaced, value, write_record

from reblurkit.blur import CameraNoise, MotionBlur, ShakeBlur
from reblurkit.data import PhotoFolder, read_image
from reblurkit.data.synthetic import SyntheticPairs
from reblurkit.metrics import PSNR
from reblurkit.models import MultiScale, create_model, load_pretrained, load_weights
from reblurkit.pictures import comparison_grid

LONG = {"motion 30": MotionBlur(30), "shake 41": ShakeBlur(41, 0.6), "shake 61": ShakeBlur(61, 0.6)}
PAIRS, SHARP = "real pairs", "sharp"
SCALES = 3
WHICH = ("blurry", "alone", "scales")
PLAN = f"""Hypothesis: with {SCALES} scales PSNR is higher under blur that is longer than what the network learned on
  (that in the box: camera shake of 25 pixels, motion of 16 a side), and at most 0.1 dB lower under shorter blur.
Statistic: of each photo, what the scales change over the network alone; mean over photos with its 95 % interval
  (Student's), by blur ({", ".join(BLURS)}; longer: {", ".join(LONG)}).
Settings: the fourth power of mean squares over the image, chosen on eight Kodak photos and twenty training photos with
  the network in the box.
Photos: TEST measures, the middle 512 pixels of each; PAIRS are whole frames. No setting is chosen on them."""


def settings_of(arguments):
    """What a measurement depends on, beside the blur."""
    files = {name: getattr(arguments, name) for name in ("test", "pairs", "niqe", "weights")}
    absolute = {name: None if file is None else str(Path(file).resolve()) for name, file in files.items()}
    return {"network": arguments.network, **absolute}


def images_of(name, arguments, blurs):
    """Names, blurry and sharp images of one of the blurs, of the real pairs, or of sharp photos."""
    if name == PAIRS:
        for file in photos_in(Path(arguments.pairs)):
            if file.name.startswith("blur_"):
                partner = file.with_name(file.name.replace("blur_", "sharp_"))
                yield file.stem, read_image(file)[None], read_image(partner)[None]
        return
    photos = PhotoFolder(arguments.test)
    if name == SHARP:
        yield from ((item["name"], middle(item["sharp"]), middle(item["sharp"])) for item in photos)
        return
    for item in SyntheticPairs(photos, [blurs[name]], CameraNoise(shot=0.01), seed=1):
        yield item["name"], middle(item["blurry"]), middle(item["sharp"])


def measure(name, networks, arguments):
    """Rows of a blur by photo and network."""
    rows = {}
    for photo, blurry, sharp in images_of(name, arguments, BLURS | LONG):
        row = rows[photo] = {}
        for which, network in networks.items():
            if name == SHARP:
                with torch.inference_mode():
                    row[which] = {"psnr": value(PSNR(), network(blurry).clamp(0, 1), sharp)}
            else:
                row[which] = measure_photo(network, blurry, sharp, arguments.niqe)
        if name != SHARP:
            row["blurry"] = {"psnr": value(PSNR(), blurry, sharp)}
    return rows


def write(measured, arguments):
    """Write a table of what the scales change, and everything as numbers."""
    metrics = list(next(iter(measured[next(iter(BLURS))].values()))["alone"])
    heads = ["blur", *(f"PSNR {which}" for which in WHICH), "higher on", *metrics]
    lines, found = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"], {}
    for name, rows in measured.items():
        by_metric = {}
        for metric in next(iter(rows.values()))["alone"]:
            by_metric[metric] = [row["scales"][metric] - row["alone"][metric] for row in rows.values()]
        found[name] = {metric: interval(values) for metric, values in by_metric.items()}
        psnr = [[row[which]["psnr"] for row in rows.values() if which in row] for which in WHICH]
        cells = [f"{fmean(values):.2f}" if values else "" for values in psnr]
        cells.append(f"{sum(value > 0 for value in by_metric['psnr'])} of {len(rows)}")
        cells += [f"{one['mean']:+.3f} ± {one.get('interval', math.nan):.3f}" for one in found[name].values()]
        lines.append(f"| {name} | {' | '.join(cells)} |" + " |" * (len(heads) - 1 - len(cells)))
    network = arguments.network or "the network in the box"
    parts = ["# Blur longer than a network knows", f"`python examples/reproduce/long_blur.py`: {network}.", PLAN]
    (arguments.run / "long_blur.md").write_text("\n\n".join([*parts, "\n".join(lines)]) + "\n")
    record = {"plan": PLAN, "network": network, "changes": found, "photos": measured}
    write_record(arguments.run / "long_blur.json", record)
    print("\n".join(lines))


@torch.inference_mode()
def draw(networks, arguments, blur="shake 41", photos=3):
    """Draw some photos of the test, evenly spaced, under one of the blurs."""
    rows = []
    for _, blurry, sharp in spaced(list(images_of(blur, arguments, LONG)), photos):
        alone, scales = (network(blurry)[0] for network in networks.values())
        rows.append({"blurry": blurry[0], "network alone": alone, "three scales": scales, "sharp": sharp[0]})
    comparison_grid(rows, width=300, detail=280).save(arguments.run / "long_blur.png")


def main(words=None):
    """Print the plan, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--test", help="folder of sharp photos to measure on")
    parser.add_argument("--pairs", help="folder of real pairs to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--network", help="a network of this package, in place of the one in the box")
    parser.add_argument("--weights", help="its weights")
    parser.add_argument("--run", type=Path, default=Path("runs/long_blur"))
    arguments = parser.parse_args(words)
    if arguments.plan:
        print(PLAN)
        return
    if arguments.test is None or (arguments.network is None) != (arguments.weights is None):
        parser.error("--test is needed, and --network and --weights together, or --plan")
    arguments.run.mkdir(parents=True, exist_ok=True)
    if arguments.network is None:
        network = load_pretrained().network
    else:
        network = create_model(arguments.network).eval()
        load_weights(network, arguments.weights)
    networks = {"alone": MultiScale(network, 1), "scales": MultiScale(network, SCALES)}
    names = [*BLURS, *LONG, SHARP, *([] if arguments.pairs is None else [PAIRS])]
    settings, measured = settings_of(arguments), {}
    for name in names:
        measured[name] = kept(arguments.run, name, settings, lambda name=name: measure(name, networks, arguments))
    write(measured, arguments)
    draw(networks, arguments)


if __name__ == "__main__":
    main()
