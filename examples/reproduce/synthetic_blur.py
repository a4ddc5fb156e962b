"""What random blur and noise do to a photo: the picture of docs/networks_and_data/data.md.

    python examples/reproduce/synthetic_blur.py --output docs/images/synthetic.jpg

Two motions of camera and objects, two camera shakes, and the noise of a camera with JPEG compression on the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from skimage import data

from reblurkit.blur import CameraNoise, MotionBlur, ShakeBlur
from reblurkit.pictures import comparison_grid


def main(arguments: list[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("synthetic.jpg"))
    output = parser.parse_args(arguments).output
    sharp = torch.from_numpy(data.astronaut()[:320, 60:380].copy()).permute(2, 0, 1)[None] / 255
    columns = {"sharp": sharp}
    for name, blur in (("MotionBlur", MotionBlur(smallest=8, seed=1)), ("ShakeBlur(25)", ShakeBlur(25, 0.5, seed=6))):
        columns |= {name: blur(sharp), f"{name}, another": blur(sharp)}
    noise = CameraNoise(shot=0.06, read=0.01, jpeg=(40, 40), jpeg_share=1, seed=4)
    columns["MotionBlur, CameraNoise"] = noise(columns["MotionBlur"])
    titles = sorted(columns, key=lambda title: title == "sharp")  # the last column says where the detail is
    output.parent.mkdir(parents=True, exist_ok=True)
    row = {title: columns[title][0] for title in titles}
    comparison_grid([row], width=220, detail=80).save(output, quality=88)


if __name__ == "__main__":
    main()
