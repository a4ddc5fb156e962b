"""What `make_consistent` adds to the network in the box at three sizes: the image agrees with its photo when reblurred.

    python examples/reproduce/consistency.py --plan
    python examples/reproduce/consistency.py --test TEST --pairs PAIRS --niqe FILE --run runs/consistency

TEST is a folder of sharp photos, PAIRS one of files `blur_NAME.png` and `sharp_NAME.png`. A blur that has been measured
is kept, and the next call goes on.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import fmean

import torch
from long_blur import LONG, PAIRS, SHARP, images_of
from measuring import BLURS, interval, kept, measure_photo, spaced, value, write_record

from reblurkit.blur import DefocusBlur, make_consistent
from reblurkit.metrics import PSNR
from reblurkit.models import MultiScale, load_pretrained
from reblurkit.pictures import comparison_grid

OTHER = {"defocus": DefocusBlur(3), **{name: LONG[name] for name in ("motion 30", "shake 41")}}
WHICH = ("blurry", "deblurred", "consistent")
PLAN = f"""Hypothesis: where a photo has one blur, correcting the network's image until it agrees with the photo when it
  is reblurred raises PSNR; elsewhere nothing is changed.
Statistic: of each photo, what the correction changes over the network's image; mean over photos with its 95 % interval
  (Student's), by blur ({", ".join(BLURS)}; of other kinds: {", ".join(OTHER)}).
Settings: the network in the box at three sizes; `make_consistent` as it comes. Its test and constants were chosen on
  Kodak photos and twenty training photos under {", ".join(BLURS)}.
Photos: TEST measures, the middle 512 pixels of each; PAIRS are whole frames. No setting is chosen on them."""


def settings_of(arguments):
    """What a measurement depends on, beside the blur."""
    files = {name: getattr(arguments, name) for name in ("test", "pairs", "niqe")}
    return {name: None if file is None else str(Path(file).resolve()) for name, file in files.items()}


def measure(name, network, arguments):
    """Rows of a blur by photo."""
    rows = {}
    for photo, blurry, sharp in images_of(name, arguments, BLURS | OTHER):
        with torch.inference_mode():
            deblurred = network(blurry).clamp(0, 1)
        found = make_consistent(blurry, deblurred)
        row = rows[photo] = {"unexplained": found.unexplained.tolist()[0], "accepted": found.accepted.tolist()[0]}
        for which, image in {"deblurred": deblurred, "consistent": found.image}.items():
            if name == SHARP:
                row[which] = {"psnr": value(PSNR(), image, sharp)}
            elif which == "consistent" and not found.accepted.any():
                row[which] = row["deblurred"]
            else:
                row[which] = measure_photo(lambda blurry, image=image: image, blurry, sharp, arguments.niqe)
        if name != SHARP:
            row["blurry"] = {"psnr": value(PSNR(), blurry, sharp)}
    return rows


def write(measured, arguments):
    """Write a table of what the correction changes, and everything as numbers."""
    metrics = list(next(iter(measured[next(iter(BLURS))].values()))["deblurred"])
    heads = ["blur", *(f"PSNR {which}" for which in WHICH), "corrected", "higher, lower on", *metrics]
    lines, found = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"], {}
    for name, rows in measured.items():
        changes = {
            metric: [row["consistent"][metric] - row["deblurred"][metric] for row in rows.values()]
            for metric in next(iter(rows.values()))["deblurred"]
        }
        found[name] = {metric: interval(values) for metric, values in changes.items()}
        psnr = [[row[which]["psnr"] for row in rows.values() if which in row] for which in WHICH]
        cells = [f"{fmean(values):.2f}" if values else "" for values in psnr]
        cells.append(f"{sum(any(map(any, row['accepted'])) for row in rows.values())} of {len(rows)}")
        cells.append(
            f"{sum(change > 0 for change in changes['psnr'])}, {sum(change < 0 for change in changes['psnr'])}"
        )
        cells += [f"{one['mean']:+.3f} ± {one.get('interval', math.nan):.3f}" for one in found[name].values()]
        lines.append(f"| {name} | {' | '.join(cells)} |" + " |" * (len(heads) - 1 - len(cells)))
    parts = ["# Images that agree with their photos", "`python examples/reproduce/consistency.py`", PLAN]
    (arguments.run / "consistency.md").write_text("\n\n".join([*parts, "\n".join(lines)]) + "\n")
    write_record(arguments.run / "consistency.json", {"plan": PLAN, "changes": found, "photos": measured})
    print("\n".join(lines))


def draw(network, arguments, blur="shake 15", photos=3):
    """Draw some photos of the test, evenly spaced, under one of the blurs."""
    rows = []
    for _, blurry, sharp in spaced(list(images_of(blur, arguments, BLURS)), photos):
        with torch.inference_mode():
            deblurred = network(blurry).clamp(0, 1)
        image = make_consistent(blurry, deblurred).image
        rows.append({"blurry": blurry[0], "deblurred": deblurred[0], "consistent": image[0], "sharp": sharp[0]})
    comparison_grid(rows, width=300, detail=280).save(arguments.run / "consistency.png")


def main(words=None):
    """Print the plan, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="print what is measured, and how; do nothing")
    parser.add_argument("--test", help="folder of sharp photos to measure on")
    parser.add_argument("--pairs", help="folder of real pairs to measure on")
    parser.add_argument("--niqe", help="file of NIQE's pristine model (.npz or .mat)")
    parser.add_argument("--run", type=Path, default=Path("runs/consistency"))
    arguments = parser.parse_args(words)
    if arguments.plan:
        print(PLAN)
        return
    if arguments.test is None:
        parser.error("--test is needed, or --plan")
    arguments.run.mkdir(parents=True, exist_ok=True)
    network = MultiScale(load_pretrained().network)
    names = [*BLURS, *OTHER, SHARP, *([] if arguments.pairs is None else [PAIRS])]
    settings, measured = settings_of(arguments), {}
    for name in names:
        measured[name] = kept(arguments.run, name, settings, lambda name=name: measure(name, network, arguments))
    write(measured, arguments)
    draw(network, arguments)


if __name__ == "__main__":
    main()
