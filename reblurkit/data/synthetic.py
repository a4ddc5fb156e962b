"""Pairs for training from sharp photos alone: workers read and draw, the training device blurs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from reblurkit.blur.noise import CameraNoise
from reblurkit.blur.random_blur import RandomBlur
from reblurkit.data.augmentation import flip_and_turn
from reblurkit.data.cache import Levels
from reblurkit.data.paired import PairedItem
from reblurkit.data.photos import PhotoFolder
from reblurkit.data.sampling import Draw, draw_generator
from reblurkit.errors import ArgumentError

Blurs = Sequence[RandomBlur]


class Crop(TypedDict):
    """A sharp crop with a margin, and what shall happen to it."""

    levels: Tensor
    """``(3, side, side)`` of 8 or 16 bits; the margin on every side is for what blurs into the crop."""
    blur: int
    """Number of its blur; as many as there are blurs: it stays sharp."""
    drawn: NotRequired[Tensor]
    """A row of the blur's draws."""
    seed: int
    """Seed of its noise."""
    name: str


class CropBatch(TypedDict):
    """Crops by what shall happen to them: first those of the first blur, last those that stay sharp."""

    levels: Tensor
    drawn: list[Tensor]
    """Of each blur the draws of its crops, ``(n, ...)``."""
    seeds: list[int]
    name: list[str]


class PairedBatch(TypedDict):
    """A batch of pairs, ``(B, 3, H, W)`` in [0, 1]."""

    blurry: Tensor
    sharp: Tensor
    name: list[str]


class SyntheticCrops(Dataset[Crop]):
    """Random crops of sharp photos, each with a blur drawn for it but not done yet: :func:`synthesise` does.

    A crop, its flips and turns, its blur and its noise are a function of (seed, epoch, index) alone.

    Args:
        photos: The photos.
        blurs: One of them, each as likely, blurs a crop.
        crop: Side of the crops in pixels, without the margin.
        repeats: Crops of each photo in an epoch.
        sharp_share: Share of the crops that stay sharp, without noise.
        augment: Flip and turn.
        seed: See above.

    Raises:
        ArgumentError: If there is no blur, or a number is out of range.
        ShapeError: If a photo is smaller than the crop.
    """

    def __init__(
        self,
        photos: PhotoFolder,
        blurs: Blurs,
        *,
        crop: int,
        repeats: int = 1,
        sharp_share: float = 0.0,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        check_blurs(blurs)
        if crop < 1 or repeats < 1 or not 0 <= sharp_share <= 1:
            raise ArgumentError(
                "`crop` and the crops of a photo must be at least 1 and `sharp_share` in [0, 1], but are "
                f"{crop}, {repeats} and {sharp_share}"
            )
        photos.check_size(crop)
        self.photos = photos
        self.blurs = blurs
        self.crop = crop
        self.margin = max(blur.border for blur in blurs)
        self.repeats = repeats
        self.sharp_share = sharp_share
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.photos) * self.repeats

    def __getitem__(self, draw: int | Draw) -> Crop:
        """Read a crop and draw its blur.

        Args:
            draw: An index, or index and epoch; a plain index is of epoch 0.
        """
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        generator = draw_generator(self.seed, draw)
        photo = draw.item // self.repeats
        levels = _crop(self.photos.levels(photo), self.crop + 2 * self.margin, generator)
        if self.augment:
            levels = flip_and_turn(levels, generator)
        stays_sharp = bool(torch.rand((), generator=generator) < self.sharp_share)
        number = int(torch.randint(len(self.blurs), (), generator=generator))
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        item = Crop(levels=levels.contiguous(), blur=len(self.blurs), seed=seed, name=self.photos.name(photo))
        if not stays_sharp:
            item["blur"], item["drawn"] = number, self.blurs[number].draw(1, generator)
        return item

    def collate(self, items: Sequence[Crop]) -> CropBatch:
        """A batch, sorted by blur, so that each blur is one call on neighbours."""
        items = sorted(items, key=lambda item: item["blur"])
        drawn = [[item["drawn"] for item in items if item["blur"] == number] for number in range(len(self.blurs))]
        return {
            "levels": torch.stack([item["levels"] for item in items]),
            "drawn": [torch.cat(rows) if rows else torch.empty(0) for rows in drawn],
            "seeds": [item["seed"] for item in items],
            "name": [item["name"] for item in items],
        }


def synthesise(batch: CropBatch, blurs: Blurs, noise: CameraNoise | None) -> PairedBatch:
    """Blur the crops of a batch, on the device where they are; without gradients.

    Args:
        batch: Of :meth:`SyntheticCrops.collate`.
        blurs: Those of the data set.
        noise: What the camera adds to the blurry crops; None: nothing.

    Returns:
        The pairs, without the margin.
    """
    levels = batch["levels"]
    sharp = levels.float() / torch.iinfo(levels.dtype).max
    margin, parts, start = max(blur.border for blur in blurs), [], 0
    with torch.no_grad():
        for blur, drawn in zip(blurs, batch["drawn"], strict=True):
            stop = start + len(drawn)
            if stop > start:
                parts.append(_inner(blur.blur(sharp[start:stop], drawn), margin))
            start = stop
        if noise is not None and parts:
            parts = [noise.degrade(torch.cat(parts), batch["seeds"][:start])]
        sharp = _inner(sharp, margin).contiguous()
        return {"blurry": torch.cat([*parts, sharp[start:]]), "sharp": sharp, "name": batch["name"]}


class SyntheticPairs(Dataset[PairedItem]):
    """Whole photos, each with one blur and noise that never change: to validate and test on.

    Args:
        photos: The photos.
        blurs: They take turns.
        noise: What the camera adds; None: nothing.
        seed: Blur and noise are a function of (seed, index).
    """

    def __init__(self, photos: PhotoFolder, blurs: Blurs, noise: CameraNoise | None = None, *, seed: int = 0) -> None:
        check_blurs(blurs)
        self.photos = photos
        self.blurs = blurs
        self.noise = noise
        self.seed = seed

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> PairedItem:
        """Read and blur a photo."""
        generator = draw_generator(self.seed, Draw(index))
        photo = self.photos[index]
        sharp = photo["sharp"]
        with torch.no_grad():
            blurry = self.blurs[index % len(self.blurs)](sharp[None], generator)
            if self.noise is not None:
                blurry = self.noise(blurry, generator)
        return {"blurry": blurry[0], "sharp": sharp, "name": photo["name"]}


def check_blurs(blurs: Blurs) -> None:
    """Check that there is a blur and that all are random blurs.

    Raises:
        ArgumentError: If not.
    """
    if not isinstance(blurs, Sequence) or not blurs or not all(isinstance(blur, RandomBlur) for blur in blurs):
        raise ArgumentError(
            f"`blur` must be a list of random blurs, such as [MotionBlur(), ShakeBlur(25)], but is {blurs!r}"
        )


def _crop(photo: Levels, side: int, generator: torch.Generator) -> Tensor:
    """A random square ``(3, side, side)``; where the photo is too small for the margin, it goes on as its mirror."""
    missing = [max(0, side - length) for length in photo.shape[:2]]
    if any(missing):
        photo = np.pad(photo, [*((length // 2, length - length // 2) for length in missing), (0, 0)], mode="symmetric")
    top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in photo.shape[:2])
    # Of a mapped file only the crop's own bytes are read.
    return torch.from_numpy(np.array(photo[top : top + side, left : left + side])).permute(2, 0, 1)


def _inner(image: Tensor, margin: int) -> Tensor:
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]


