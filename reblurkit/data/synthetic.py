"""Pairs from sharp photos alone: workers read and draw, the training device blurs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from reblurkit.blur.noise import CameraNoise
from reblurkit.blur.random_blur import DrawnBlur, RandomBlur
from reblurkit.data.augmentation import flip_and_turn, random_place
from reblurkit.data.images import Levels
from reblurkit.data.paired import PairedItem
from reblurkit.data.photos import PhotoFolder
from reblurkit.data.sampling import Draw, draw_generator
from reblurkit.errors import ArgumentError

Blurs = Sequence[DrawnBlur]


class Plan(TypedDict):
    """A sharp image, and what shall happen to it."""

    levels: Tensor
    """``(3, H, W)`` of 8 or 16 bits."""
    blur: int | None
    """Number of its blur; None: it stays sharp."""
    drawn: Tensor
    """A row of the blur's draws, ``(1, ...)``."""
    seed: int
    """Seed of its noise."""
    name: str


class PlannedBatch:
    """Images and what shall happen to them: first those of the first blur, last those that stay sharp.

    No dict of tensors, because a Trainer's ``precision`` would round the draws.

    Args:
        plans: The images, all of one size, in any order.
        blurs: Number of blurs.
        margin: Pixels at every side that are only there to blur into the others.
    """

    def __init__(self, plans: Sequence[Plan], blurs: int, margin: int) -> None:
        by_blur = [[plan for plan in plans if plan["blur"] == number] for number in (*range(blurs), None)]
        plans = [plan for group in by_blur for plan in group]
        self.levels = _stack([plan["levels"] for plan in plans])
        """``(B, 3, H, W)``."""
        self.drawn = [torch.cat([plan["drawn"] for plan in group]) if group else None for group in by_blur[:-1]]
        """Of each blur the draws of its images, ``(n, ...)``; None if it has no image."""
        self.seeds = [plan["seed"] for plan in plans]
        self.names = [plan["name"] for plan in plans]
        self.margin = margin

    def to(self, device: torch.device | str) -> PlannedBatch:
        """Move to a device, in place; to an accelerator without waiting for it."""
        ahead = torch.device(device).type != "cpu"
        self.levels = self.levels.to(device, non_blocking=ahead)
        self.drawn = [None if drawn is None else drawn.to(device, non_blocking=ahead) for drawn in self.drawn]
        return self

    def pin_memory(self) -> PlannedBatch:
        """Move to memory from which a GPU fetches fastest, in place."""
        self.levels = self.levels.pin_memory()
        self.drawn = [None if drawn is None else drawn.pin_memory() for drawn in self.drawn]
        return self


class PairedBatch(TypedDict):
    """A batch of pairs, ``(B, 3, H, W)`` in [0, 1]."""

    blurry: Tensor
    sharp: Tensor
    name: list[str]


class SyntheticCrops(Dataset[Plan]):
    """Random crops of sharp photos, each with a blur drawn for it but not done yet: :func:`synthesise` does.

    A crop, its flips and turns, its blur and its noise are a function of (seed, epoch, index) alone.

    Args:
        photos: The photos.
        blurs: One of them, each as likely, blurs a crop.
        crop: Side of the crops in pixels, without a margin for what blurs into them.
        repeats: Crops of each photo in an epoch.
        sharp_share: Share of the crops that stay sharp, without noise.
        soft_share: Of the crops whose blur is one of values as they are (``linear=False``), as in frames of video, the
            share that is enlarged first, by up to 2, and so is as soft as these; of those that stay sharp, as many are.
        augment: Flip and turn.
        seed: Crops, flips and turns, blur and noise are a function of it, epoch and index.

    Raises:
        ArgumentError: If there is no blur, a number is out of range, or ``soft_share`` is of no blur.
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
        soft_share: float = 0.0,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        check_blurs(blurs)
        if crop < 1 or repeats < 1 or not 0 <= sharp_share <= 1 or not 0 <= soft_share <= 1:
            raise ArgumentError(
                "`crop` and the crops of a photo must be at least 1, `sharp_share` and `soft_share` in [0, 1], but are "
                f"{crop}, {repeats}, {sharp_share} and {soft_share}"
            )
        if soft_share and not any(_blurs_values(blur) for blur in blurs):
            raise ArgumentError(
                f"`soft_share` {soft_share} is of crops that are blurred in values, but no blur does that: give one of "
                "them linear=False, or leave `soft_share` out"
            )
        photos.check_size(crop)
        self.photos = photos
        self.blurs = blurs
        self.crop = crop
        self.margin = max(blur.border for blur in blurs)
        self.repeats = repeats
        self.sharp_share = sharp_share
        self.soft_share = soft_share
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.photos) * self.repeats

    def __getitem__(self, draw: int | Draw) -> Plan:
        """Read a crop and draw its blur.

        Args:
            draw: An index, or index and epoch; a plain index is of epoch 0.
        """
        draw = Draw.of(draw, len(self))
        generator = draw_generator(self.seed, draw)
        photo, number = divmod(draw.item, self.repeats)
        stays_sharp = bool(torch.rand((), generator=generator) < self.sharp_share)
        blur = int(torch.randint(len(self.blurs), (), generator=generator))
        side, enlarged = self.crop + 2 * self.margin, 1.0
        if _blurs_values(self.blurs[blur]) and torch.rand((), generator=generator) < self.soft_share:
            enlarged += float(torch.rand((), generator=generator))
        levels = _crop(self.photos.levels(photo), math.ceil(side / enlarged), generator)
        levels = _resized(levels, side) if enlarged > 1 else levels
        if self.augment:
            levels = flip_and_turn(levels, generator)
        name = self.photos.name(photo)
        return {
            "levels": levels,
            "blur": None if stays_sharp else blur,
            "drawn": self.blurs[blur].draw(1, generator),
            "seed": _seed(generator),
            "name": name if self.repeats == 1 else f"{name}/{number}",
        }

    def collate(self, plans: Sequence[Plan]) -> PlannedBatch:
        """A batch of crops."""
        return PlannedBatch(plans, len(self.blurs), self.margin)


class SyntheticPhotos(Dataset[Plan]):
    """Whole photos, each with a blur and noise that never change, not done yet, to validate and test on.

    Args:
        photos: The photos.
        blurs: They take turns.
        seed: Blur and noise are a function of (seed, index).
    """

    def __init__(self, photos: PhotoFolder, blurs: Blurs, *, seed: int = 0) -> None:
        check_blurs(blurs)
        self.photos = photos
        self.blurs = blurs
        self.seed = seed

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Plan:
        """Read a photo and draw its blur."""
        generator = draw_generator(self.seed, Draw(index))
        blur = index % len(self.blurs)
        return {
            "levels": torch.from_numpy(np.array(self.photos.levels(index))).permute(2, 0, 1),
            "blur": blur,
            "drawn": self.blurs[blur].draw(1, generator),
            "seed": _seed(generator),
            "name": self.photos.name(index),
        }

    def collate(self, plans: Sequence[Plan]) -> PlannedBatch:
        """A batch of photos of one size."""
        return PlannedBatch(plans, len(self.blurs), 0)


class SyntheticPairs(Dataset[PairedItem]):
    """The pairs of :class:`SyntheticPhotos`, made on the CPU.

    Args:
        photos: The photos.
        blurs: They take turns.
        noise: What the camera adds; None: nothing.
        seed: Blur and noise are a function of (seed, index).
    """

    def __init__(self, photos: PhotoFolder, blurs: Blurs, noise: CameraNoise | None = None, *, seed: int = 0) -> None:
        self.plans = SyntheticPhotos(photos, blurs, seed=seed)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> PairedItem:
        """Read and blur a photo."""
        pair = synthesise(self.plans.collate([self.plans[index]]), self.plans.blurs, self.noise)
        return {"blurry": pair["blurry"][0], "sharp": pair["sharp"][0], "name": pair["name"][0]}


def synthesise(batch: PlannedBatch, blurs: Blurs, noise: CameraNoise | None) -> PairedBatch:
    """Blur the images of a batch, on the device where they are; without gradients.

    Args:
        batch: Images, and what shall happen to them.
        blurs: Those of the data set.
        noise: What the camera adds to the blurry images; None: nothing.

    Returns:
        The pairs, without the margin.
    """
    levels, parts, start = batch.levels, [], 0
    # A tensor, because a GPU multiplies by the reciprocal of a plain number, and 16 bits of an 8-bit value must be it.
    sharp = levels.float() / torch.full((), torch.iinfo(levels.dtype).max, device=levels.device)
    with torch.no_grad(), _one_thread():
        for blur, drawn in zip(blurs, batch.drawn, strict=True):
            if drawn is not None:
                stop = start + len(drawn)
                parts.append(_inner(blur.blur(sharp[start:stop], drawn), batch.margin))
                start = stop
        if noise is not None and parts:
            parts = [noise.degrade(torch.cat(parts), batch.seeds[:start])]
        sharp = _inner(sharp, batch.margin).contiguous()
        return {"blurry": torch.cat([*parts, sharp[start:]]), "sharp": sharp, "name": batch.names}


def check_blurs(blurs: Blurs) -> None:
    """Check that there is a blur and that all are random blurs.

    Raises:
        ArgumentError: If not.
    """
    if not isinstance(blurs, Sequence) or not blurs or not all(isinstance(blur, DrawnBlur) for blur in blurs):
        raise ArgumentError(
            f"`blur` must be a list of random blurs, such as [MotionBlur(), ShakeBlur(25)], but is {blurs!r}"
        )


def _blurs_values(blur: DrawnBlur) -> bool:
    """Whether it blurs values as they are; blurs of other kinds are of light."""
    return isinstance(blur, RandomBlur) and not blur.linear


def _crop(photo: Levels, side: int, generator: torch.Generator) -> Tensor:
    """A random square ``(3, side, side)``; where the photo is too small for the margin, it goes on as its mirror."""
    missing = [max(0, side - length) for length in photo.shape[:2]]
    if any(missing):
        photo = np.pad(photo, [*((length // 2, length - length // 2) for length in missing), (0, 0)], mode="symmetric")
    # Of a mapped file only the crop's own bytes are read.
    return torch.from_numpy(np.array(photo[random_place(photo.shape[:2], side, generator)])).permute(2, 0, 1)


def _resized(levels: Tensor, side: int) -> Tensor:
    """A square of 8 or 16 bits with another side, bicubic."""
    values = F.interpolate(levels[None].float(), size=(side, side), mode="bicubic", align_corners=False)[0]
    return values.round().clamp(0, torch.iinfo(levels.dtype).max).to(levels.dtype)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU many small operations on many threads wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Images of 8 and 16 bits in one tensor, of 16 bits if there are any."""
    if len({image.dtype for image in images}) > 1:
        # 257 / 65535 is 1 / 255. The types of 16 bits and fewer multiply in int32.
        deep = (image.int() * (257 if image.dtype == torch.uint8 else 1) for image in images)
        images = [image.to(torch.uint16) for image in deep]
    return torch.stack(list(images))


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator))


def _inner(image: Tensor, margin: int) -> Tensor:
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]
