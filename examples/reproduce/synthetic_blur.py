"""What random blur and noise do to a photo: the pictures of docs/networks_and_data/synthetic.md.

    python examples/reproduce/synthetic_blur.py --output docs/images/synthetic.jpg --cameras docs/images/cameras.jpg

First: two motions of camera and objects, two objects before a background, two camera shakes, and the noise of a camera
with JPEG compression on the first. Second: one motion as a filter and as a camera takes it, with the noise of the
defaults and of high sensitivity, and three shuffled degradations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from skimage import data

from reblurkit.blur import CameraNoise, MotionBlur, MovingObjectBlur, RealisticBlur, ShakeBlur, ShuffledDegradation
from reblurkit.pictures import comparison_grid


def filters():
    """Motion, shake and noise."""
    sharp = torch.from_numpy(data.astronaut()[:320, 60:380].copy()).permute(2, 0, 1)[None] / 255
    columns = {}
    blurs = {
        "MotionBlur": MotionBlur(smallest=8, seed=1),
        "MovingObjectBlur": MovingObjectBlur(smallest=10, seed=37),
        "ShakeBlur(25)": ShakeBlur(25, 0.5, seed=6),
    }
    for name, blur in blurs.items():
        columns |= {name: blur(sharp), f"{name}, another": blur(sharp)}
    noise = CameraNoise(shot=0.06, read=0.01, jpeg=(40, 40), jpeg_share=1, seed=4)
    columns["MotionBlur, CameraNoise"] = noise(columns["MotionBlur"])
    return columns | {"sharp": sharp}  # the last column says where the detail is


def cameras():
    """A night with lights, photographed."""
    sharp = torch.from_numpy(data.rocket()[60:380, 220:540].copy()).permute(2, 0, 1)[None] / 255
    motion = MotionBlur(smallest=8)
    columns = {"MotionBlur": motion(sharp, torch.Generator().manual_seed(3))}
    for name, shot in (("RealisticBlur", 0.0094), ("RealisticBlur(shot=0.05)", 0.05)):
        columns[name] = RealisticBlur(motion, shot=shot)(sharp, torch.Generator().manual_seed(3))
    shuffled = ShuffledDegradation(seed=5)
    columns |= {f"ShuffledDegradation, {number}": shuffled(sharp) for number in (1, 2, 3)}
    return columns | {"sharp": sharp}


def main(arguments=None):
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("synthetic.jpg"))
    parser.add_argument("--cameras", type=Path, default=Path("cameras.jpg"))
    options = parser.parse_args(arguments)
    for path, columns in ((options.output, filters()), (options.cameras, cameras())):
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {title: image[0] for title, image in columns.items()}
        comparison_grid([row], width=220, detail=80).save(path, quality=88)


if __name__ == "__main__":
    main()
