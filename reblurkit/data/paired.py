"""Folders of blurry and sharp images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from reblurkit.data.augmentation import WHOLE, augment_pair, random_place
from reblurkit.data.cache import CacheFolder, reader
from reblurkit.data.images import image_size, to_image
from reblurkit.data.pairing import find_pairs
from reblurkit.data.sampling import DrawnItems
from reblurkit.errors import ArgumentError, ShapeError


class PairedItem(TypedDict):
    """An item of a paired data set; images ``(3, H, W)`` in [0, 1]."""

    blurry: Tensor
    sharp: Tensor
    name: str


class PairedFolder(DrawnItems[PairedItem]):
    """Pairs of blurry and sharp image files.

    Layouts (their trees, splits and test protocols: ``docs/networks_and_data/data_sets.md``):

    - ``"folders"``: ``root/SPLIT/blur/**`` and ``root/SPLIT/sharp/**``, files of equal names (suffixes may differ).
    - ``"input-target"``: the same with ``input`` and ``target``, to which users of BasicSR convert GoPro, HIDE and
      RealBlur.
    - ``"gopro"``: the original GOPRO_Large, ``root/SPLIT/SEQUENCE/{blur,blur_gamma,sharp}/FRAME.png``; ``"val"`` reads
      the test split. ``blur="blur_gamma"``, averaged in linear light, is the default, as in the authors' library; most
      other deblurring code trains on ``blur="blur"``.
    - ``"reds"``, ``"realblur"``, ``"realblur-r"``, ``"rsblur"``, ``"hide"``, ``"dvd"``, ``"bsd"``, ``"lai"``,
      ``"kohler"``: these data sets as released.

    Items are dicts with ``blurry`` and ``sharp``, each ``(3, H, W)`` in [0, 1], and ``name``, the blurry file's path
    below the root without suffix. Sizes are checked when the set is built, from the files' headers.

    Args:
        root: The data set's folder.
        layout: One of the above.
        split: ``"train"``, ``"val"``, ``"test"``, another split of the layout or a folder's name; ``None`` where the
            root is not divided.
        blur: Name of the blurry images' folder, or a pattern with ``*`` relative to the root that overrides the
            layout's, for instance ``"{split}/blur/*"`` or ``"blur_*.png"``; what ``*`` stands for pairs the files. A
            pattern without ``{split}`` takes the files of all splits.
        sharp: The same for the sharp images.
        list_file: A file that names the pairs to take, one a line: sharp, white space, blurry, relative to the root;
            ``{split}`` in its name stands for the split. Default: the layout's; only RealBlur and RSBlur have any.
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder
            in the cache of ``torch.hub``. Default: files are decoded each time.
        crop: Side of random square crops; default: whole images.
        augment: Augment as in :func:`reblurkit.data.augmentation.augment_pair`; needs ``crop``.
        seed: Crop and augmentation are a function of (seed, epoch, index).

    Raises:
        DatasetNotFoundError: If the folder, its images or files of a list are missing.
        PairingError: If a file has no partner, or a line of a list names no pair of the layout.
        ImageFileError: If a file is empty or no image.
        ShapeError: If the two images of a pair differ in size, or are smaller than the crop.
        ArgumentError: If the layout or its split is unknown, a path leads out of the root, or ``augment`` is asked for
            without ``crop``.

    Example:
        >>> import tempfile
        >>> from reblurkit.data import write_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for kind in ("blur", "sharp"):
        ...         write_image(torch.rand(3, 8, 9), f"{root}/train/{kind}/1.png")
        ...     item = PairedFolder(root)[0]
        >>> item["name"], item["sharp"].shape
        ('train/blur/1', torch.Size([3, 8, 9]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: str = "folders",
        *,
        split: str | None = "train",
        blur: str | None = None,
        sharp: str | None = None,
        list_file: str | None = None,
        cache: CacheFolder = None,
        crop: int | None = None,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(crop, int | None) or (crop is not None and crop < 1) or (augment and crop is None):
            raise ArgumentError(f"`crop` must be at least 1 pixel, whole, and given with `augment`, but is {crop!r}")
        if seed < 0:
            raise ArgumentError(f"`seed` must be at least 0, but is {seed}")
        self.pairs = find_pairs(Path(root), layout, split=split, blur=blur, sharp=sharp, list_file=list_file)
        self.read = reader(cache)
        self.crop = crop
        self.augment = augment
        self.seed = seed
        for pair in self.pairs:
            blurry_size, sharp_size = image_size(pair.blurry), image_size(pair.sharp)
            if blurry_size != sharp_size:
                raise ShapeError(
                    f"{pair.blurry} and {pair.sharp} must have the same size, but have {_x(blurry_size)} and "
                    f"{_x(sharp_size)} pixels"
                )
            if crop is not None and min(blurry_size) < crop:
                raise ShapeError(
                    f"{pair.blurry} has {_x(blurry_size)} pixels, fewer than the crop of {crop} x {crop}; "
                    "choose a smaller `crop`"
                )

    def __len__(self) -> int:
        return len(self.pairs)

    def _item(self, index: int, generator: torch.Generator) -> PairedItem:
        pair = self.pairs[index]
        both = [self.read(path) for path in (pair.blurry, pair.sharp)]
        place = WHOLE if self.crop is None else random_place(both[0].shape[:2], self.crop, generator)
        images = torch.stack([to_image(levels[place]) for levels in both])
        if self.augment:
            images = augment_pair(images, generator)
        blurry, sharp = images
        return {"blurry": blurry, "sharp": sharp, "name": pair.name}


def _x(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
