"""What adaptation to a photo's own blur does to the network in the box.

    python examples/reproduce/own_blur.py --plan
    python examples/reproduce/own_blur.py --test PHOTOS --niqe FILE --output runs/own_blur --minutes 30

PHOTOS is a folder of sharp photos; each is blurred in four ways. What has been measured is kept, photo by photo and
blur by blur, and the next call goes on; it ends after so many minutes, and writes what there is.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from measuring import BLURS, interval, measure_photo, middle, spaced, write_record

from reblurkit.adaptation import adapt_to_blur
from reblurkit.blur import CameraNoise
from reblurkit.data import PhotoFolder
from reblurkit.data.synthetic import SyntheticPairs
from reblurkit.models import load_pretrained
from reblurkit.pictures import comparison_grid

PLAN = f"""\
Hypothesis: a network that has adapted to the photo's own blur deblurs it better: PSNR rises.
Unit: the photo, its middle 512 x 512 pixels, under each of {", ".join(BLURS)}, with a camera's noise.
Settings: the network in the box; adapt_to_blur as it comes: 20 steps of four crops of 128 pixels, Adam from 1e-4 down,
  kernels of 31 pixels; photos whose quarters agree by less than 0.8, or whose kernel brings back less than a fifth of
  what the network removed, are left as they are. Chosen on eight of the Kodak photos under the same four kinds of blur,
  the fifth on a real frame, too.
Statistic: change from the plain output, averaged over the blurs; mean over photos and its 95 % interval (Student's).
  By blur, too. Both directions are published."""
DRAWN = "shake 9"


def shown(image):
    """An image as a network, for what measures networks."""
    return lambda blurry: image


def measure(network, arguments, until):
    """Rows by photo and blur; those measured before are read."""
    photos, rows = PhotoFolder(arguments.test), {}
    for name, blur in BLURS.items():
        pairs = SyntheticPairs(photos, [blur], CameraNoise(shot=0.01), seed=1)
        for index in range(len(pairs)):
            record = arguments.output / f"{index:03}_{name.replace(' ', '_')}.json"
            if not record.exists() and time.monotonic() < until:
                item = pairs[index]
                blurry, sharp = (middle(item[key]) for key in ("blurry", "sharp"))
                start = time.perf_counter()
                adapted = adapt_to_blur(network, blurry)
                row = {"seconds": time.perf_counter() - start}
                row |= {"agreement": adapted.agreement.item(), "explained": adapted.explained.item()}
                for version in ("plain", "image"):
                    row[version] = measure_photo(shown(getattr(adapted, version)), blurry, sharp, arguments.niqe)
                record.write_text(json.dumps({"name": item["name"], **row}))
                print(f"{record.stem}: PSNR {row['plain']['psnr']:.2f} -> {row['image']['psnr']:.2f}", flush=True)
            if record.exists():
                row = json.loads(record.read_text())
                rows.setdefault(row["name"], {})[name] = row
    return rows


def changes(rows, metric, blurs):
    """Of each photo, averaged over blurs."""
    return [
        sum(photo[blur]["image"][metric] - photo[blur]["plain"][metric] for blur in blurs) / len(blurs)
        for photo in rows.values()
    ]


def adapted_to(row):
    """Whether a blur was found."""
    return row["image"] != row["plain"]


def table(rows):
    """All changes, as lines of Markdown and as numbers."""
    metrics = list(next(iter(next(iter(rows.values())).values()))["plain"])
    numbers, lines = {}, [f"| blur | {' | '.join(metrics)} | PSNR higher on | NIQE lower on | adapted |"]
    lines.append("|---|" + "---|" * (len(metrics) + 3))
    for name, blurs in {"all": list(BLURS), **{blur: [blur] for blur in BLURS}}.items():
        found = {metric: interval(changes(rows, metric, blurs)) for metric in metrics}
        cells = [f"{one['mean']:+.3f} ± {one.get('interval', math.nan):.3f}" for one in found.values()]
        cells.append(f"{sum(change > 0 for change in changes(rows, 'psnr', blurs))} of {len(rows)}")
        lower = sum(change < 0 for change in changes(rows, "niqe", blurs)) if "niqe" in metrics else "-"
        cells.append(f"{lower} of {len(rows)}")
        count = sum(adapted_to(photo[blur]) for photo in rows.values() for blur in blurs)
        cells.append(f"{count} of {len(rows) * len(blurs)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        numbers[name] = found
    return lines, numbers


def draw(network, arguments, photos=3):
    """Draw some photos, evenly spaced, under one of the blurs."""
    pairs, rows = SyntheticPairs(PhotoFolder(arguments.test), [BLURS[DRAWN]], CameraNoise(shot=0.01), seed=1), []
    for item in (pairs[index] for index in spaced(range(len(pairs)), photos)):
        blurry, sharp = (middle(item[key]) for key in ("blurry", "sharp"))
        adapted = adapt_to_blur(network, blurry)
        versions = {"blurry": blurry, "network": adapted.plain, "adapted": adapted.image, "sharp": sharp}
        rows.append({version: middle(image[0], 320)[0] for version, image in versions.items()})
    comparison_grid(rows, width=260, detail=96).save(arguments.output / "own_blur.png")


def main(arguments=None):
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--test", help="folder of sharp photos to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--output", type=Path, default=Path("runs/own_blur"))
    arguments = parser.parse_args(arguments)
    print(PLAN, flush=True)
    if arguments.plan:
        return
    if arguments.test is None:
        parser.error("--test or --plan is needed")
    arguments.output.mkdir(parents=True, exist_ok=True)
    network = load_pretrained().network.eval().to(memory_format=torch.channels_last)
    rows = measure(network, arguments, time.monotonic() + 60 * arguments.minutes)
    whole = {name: photo for name, photo in rows.items() if len(photo) == len(BLURS)}
    if not whole:
        print("no photo has been measured under every blur yet: call again")
        return
    lines, numbers = table(whole)
    seconds = [row["seconds"] for photo in whole.values() for row in photo.values() if adapted_to(row)]
    command = "`python examples/reproduce/own_blur.py --test TEST --niqe FILE`"
    parts = ["# Adaptation to a photo's own blur", command, PLAN, "\n".join(lines)]
    parts.append(f"An adaptation took {sum(seconds) / max(len(seconds), 1):.0f} s on average.")
    (arguments.output / "own_blur.md").write_text("\n\n".join(parts) + "\n")
    write_record(arguments.output / "own_blur.json", {"plan": PLAN, "changes": numbers, "photos": whole})
    draw(network, arguments)
    print("\n\n".join(parts[3:]))


if __name__ == "__main__":
    main()
