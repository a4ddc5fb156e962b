"""Test-time adaptation by step: the perception-distortion curve of *Clean Images are Hard to Reblur* (Figures 6, S2, S3).

    python examples/reproduce/adaptation.py --photos FOLDER...      # trains on half of the photos, measures the others
    python examples/reproduce/adaptation.py --photos FOLDER... --checkpoint runs/adaptation/last.ckpt --presets

Photos are sharp image files; those bundled with scikit-image join them. Every second one, in the order of names, is
for training. Blur is random camera shake. Writes `adaptation.json`, `adaptation.md` and `adaptation.png`.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import lightning as L
import matplotlib.pyplot as plt
import torch
from torch.utils.data import DataLoader, Dataset

from reblurkit.adaptation import adapt
from reblurkit.blur import ShakeBlur
from reblurkit.data import DemoPhotos
from reblurkit.data.images import read_image, write_image
from reblurkit.losses import self_reblur_loss
from reblurkit.metrics import DeblurMetrics
from reblurkit.models import ReblurNet, UNet
from reblurkit.models.checkpoints import read_lightning_checkpoint
from reblurkit.plugins import DeblurTask

PRESETS = {
    "paper": {},
    "bias only, lr x 10": {"parameters": "bias", "lr": 10.0},
    "lr x 3": {"lr": 3.0},
    "lr x 10": {"lr": 10.0},
    "lr x 10, early stop": {"lr": 10.0, "early_stop": True},
}
SUFFIXES = {".png", ".jpg", ".jpeg"}


class Shaken(Dataset):
    """Random crops of photos, flipped, each blurred by a kernel of its own."""

    def __init__(self, photos, crop, length):
        self.photos, self.crop, self.length = photos, crop, length
        self.blur = ShakeBlur(size=15, strength=0.4)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        photo = self.photos[index % len(self.photos)]
        top, left = (int(torch.randint(n - self.crop + 1, (), generator=generator)) for n in photo.shape[-2:])
        sharp = photo[:, top : top + self.crop, left : left + self.crop]
        sharp = sharp.flip(-1) if torch.rand((), generator=generator) < 0.5 else sharp
        return {"blurry": self.blur(sharp[None], generator)[0], "sharp": sharp, "name": str(index)}


def find_photos(folders):
    """Sharp photos by name, bundled ones first."""
    photos = {item["name"]: item["sharp"] for item in DemoPhotos("test")}
    photos |= {name: photo for name, photo in zip(("astronaut", "coffee", "rocket"), bundled(), strict=True)}
    files = sorted(file for folder in folders for file in Path(folder).iterdir() if file.suffix.lower() in SUFFIXES)
    return photos | {file.stem: read_image(file) for file in files}
