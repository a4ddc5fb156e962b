"""Photographs that come with scikit-image, blurred at random: data to try things on."""

from __future__ import annotations

from typing import Literal

import torch
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from reblurkit.blur.random_blur import DrawnBlur
from reblurkit.blur.shake import ShakeBlur
from reblurkit.core.numbers import check_whole, shown
from reblurkit.data.augmentation import flip_and_turn, random_crop
from reblurkit.data.paired import PairedItem
from reblurkit.data.sampling import DrawnItems
from reblurkit.errors import ArgumentError

_PHOTOS = {
    # The natural colour photographs that are bundled, so that no network is needed. Split by photo.
    "train": ("astronaut", "coffee", "rocket"),
    "test": ("chelsea", "stereo_motorcycle"),
}


class DemoPhotos(DrawnItems[PairedItem]):
    """Natural photographs bundled with scikit-image, blurred by :class:`reblurkit.blur.ShakeBlur` or another.

    Training items are random crops, flipped and turned, each with a blur of its own that changes every epoch. Test
    items are whole photos, none of which is among those for training, with one fixed blur each.

    Args:
        split: ``"train"`` or ``"test"``.
        crop: Side of the training crops.
        crops_per_photo: Training crops of each photo in an epoch.
        blur: The random blur; default ``ShakeBlur()``.
        seed: Crops, blur and augmentation are a function of (seed, epoch, index).

    Raises:
        ArgumentError: If the split is unknown, ``blur`` is none, or a number is out of range.

    Example:
        >>> [item["name"] for item in DemoPhotos("test")]
        ['chelsea', 'stereo_motorcycle']
    """

    def __init__(
        self,
        split: Literal["train", "test"] = "train",
        *,
        crop: int = 96,
        crops_per_photo: int = 64,
        blur: DrawnBlur | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(split, str) or split not in _PHOTOS:
            raise ArgumentError(f"`split` must be train or test, but is {shown(split)}")
        if blur is not None and not callable(blur):
            raise ArgumentError(f"`blur` must be a blur such as MotionBlur, or None, but is {shown(blur)}")
        check_whole(crop=crop, crops_per_photo=crops_per_photo)
        self.names = _PHOTOS[split]
        self.crop = crop if split == "train" else None
        self.repeats = crops_per_photo if split == "train" else 1
        self.blur = blur or ShakeBlur()
        self.seed = seed
        self.photos = [_photo(name) for name in self.names]
        """The whole sharp photos, ``(3, H, W)``."""
        # A margin lets real surroundings, not a replicated border, blur into the crops.
        self._margin = self.blur.border if split == "train" else 0
        self._padded = [F.pad(photo, [self._margin] * 4, mode="reflect") for photo in self.photos]

    def __len__(self) -> int:
        return len(self.names) * self.repeats

    def _item(self, index: int, generator: torch.Generator) -> PairedItem:
        number, crop = divmod(index, self.repeats)
        sharp = self._padded[number]
        if self.crop is None:
            blurry = self.blur(sharp[None], generator)[0]
            return {"blurry": blurry, "sharp": sharp, "name": self.names[number]}
        inner = slice(self._margin, self._margin + self.crop)
        sharp = random_crop(sharp, self.crop + 2 * self._margin, generator)
        pair = torch.stack([self.blur(sharp[None], generator)[0], sharp])
        pair = flip_and_turn(pair[..., inner, inner], generator)
        return {"blurry": pair[0], "sharp": pair[1], "name": f"{self.names[number]}/{crop}"}


def _photo(name: str) -> Tensor:
    photo = getattr(data, name)()
    if name == "stereo_motorcycle":
        photo = photo[0]  # the left view; the right one shows the same scene
    return torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 255
