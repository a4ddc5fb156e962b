"""Folders of images that do not belong together: blurry ones, sharp ones, and pairs of known blur."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from reblurkit.data.augmentation import random_crop, random_place
from reblurkit.data.cache import CacheFolder, reader
from reblurkit.data.images import image_size, to_image
from reblurkit.data.patterns import image_files
from reblurkit.data.sampling import DrawnItems
from reblurkit.errors import ArgumentError, DatasetNotFoundError, PairingError, ShapeError


class UnpairedItem(TypedDict):
    """Crops ``(3, crop, crop)`` in [0, 1], and the blurry file's path below its folder without suffix."""

    blurry: Tensor
    sharp: Tensor
    known_blurry: NotRequired[Tensor]
    known_sharp: NotRequired[Tensor]
    name: str


class UnpairedFolder(DrawnItems[UnpairedItem]):
    """Training crops for the translation of blur: two unpaired folders of one camera, and pairs of known blur.

    The folders' default names are those of Blur2Blur: ``trainA``, blurry images of the camera whose blur is unknown;
    ``trainB``, sharp images of the same camera, of other scenes; ``trainC`` and ``trainD``, blurry and sharp images of
    the known blur, paired in sorted order. The last two may be absent, for known blur that needs no pairs; items then
    lack ``known_blurry`` and ``known_sharp``.

    An item is one blurry image in turn and a random one of each other set. Crops of blurry, sharp and known images are
    at random places, the same in both known images; blurry and sharp crops are flipped left to right at random.

    Args:
        root: The folder that holds the others.
        blurry: Folder of the camera's blurry images, below the root or absolute.
        sharp: Folder of its sharp images.
        known_blurry: Folder of blurry images of the known blur.
        known_sharp: Folder of their sharp versions.
        ratio: Take the first ``ratio`` of the blurry files and the last ``1 - ratio`` of the sharp ones, in sorted
            order, which makes a paired set unpaired; 0.6 in the paper. None: all of both.
        resize: Shorter side to which blurry and sharp images are resized before the crop, bicubic; 512 in the authors'
            program, which does not resize the test images. None, the default: as they are.
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder
            in the cache of ``torch.hub``. Default: files are decoded each time.
        crop: Side of the crops.
        seed: Choice, crop and flip are a function of (seed, epoch, index).

    Raises:
        DatasetNotFoundError: If a folder is missing or holds no image.
        PairingError: If two folders are the same, or the known images are not as many blurry as sharp ones.
        ImageFileError: If a file is empty or no image.
        ShapeError: If known images differ in size, or an image is smaller than the crop.
        ArgumentError: If a number is out of range, or leaves a set empty.

    Example:
        >>> import tempfile
        >>> from reblurkit.data import write_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for folder in ("trainA", "trainB"):
        ...         write_image(torch.rand(3, 40, 50), f"{root}/{folder}/1.png")
        ...     item = UnpairedFolder(root, crop=32)[0]
        >>> sorted(item), item["sharp"].shape
        (['blurry', 'name', 'sharp'], torch.Size([3, 32, 32]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        blurry: str = "trainA",
        sharp: str = "trainB",
        known_blurry: str | None = "trainC",
        known_sharp: str | None = "trainD",
        ratio: float | None = None,
        resize: int | None = None,
        cache: CacheFolder = None,
        crop: int = 256,
        seed: int = 0,
    ) -> None:
        if crop < 1 or (resize is not None and resize < crop) or (ratio is not None and not 0 < ratio < 1):
            raise ArgumentError(
                f"`crop` must be at least 1 pixel, `resize` at least the crop and `ratio` between 0 and 1, but are "
                f"{crop}, {resize} and {ratio}"
            )
        self.root = Path(root)
        _check_folders(self.root, blurry=blurry, sharp=sharp, known_blurry=known_blurry, known_sharp=known_sharp)
        self.blurry, self.sharp = image_files(self.root / blurry), image_files(self.root / sharp)
        if ratio is not None:
            self.blurry = self.blurry[: round(ratio * len(self.blurry))]
            self.sharp = self.sharp[round(ratio * len(self.sharp)) :]
            if not self.blurry or not self.sharp:
                raise ArgumentError(f"`ratio`={ratio} leaves no image of one of the sets; give more images")
        self.known = self._known(known_blurry, known_sharp)
        self._folder = self.root / blurry
        self.read = reader(cache)
        self.resize = resize
        self.crop = crop
        self.seed = seed
        for path in [*([] if resize else self.blurry + self.sharp), *(blurry for blurry, _ in self.known)]:
            height, width = image_size(path)
            if min(height, width) < crop:
                raise ShapeError(
                    f"{path} has {width} x {height} pixels, fewer than the crop of {crop} x {crop}; choose a smaller "
                    "`crop`"
                )

    def __len__(self) -> int:
        return max(len(self.blurry), len(self.sharp))

    def _item(self, index: int, generator: torch.Generator) -> UnpairedItem:
        blurry = self.blurry[index % len(self.blurry)]
        sharp = self.sharp[_index(len(self.sharp), generator)]
        item: UnpairedItem = {
            "blurry": self._crop(blurry, generator),
            "sharp": self._crop(sharp, generator),
            "name": blurry.relative_to(self._folder).with_suffix("").as_posix(),
        }
        if self.known:
            pair = [self.read(path) for path in self.known[_index(len(self.known), generator)]]
            place = random_place(pair[0].shape[:2], self.crop, generator)
            item["known_blurry"], item["known_sharp"] = (to_image(levels[place]) for levels in pair)
        return item

    def _crop(self, path: Path, generator: torch.Generator) -> Tensor:
        levels = self.read(path)
        if self.resize is None:
            image = to_image(levels[random_place(levels.shape[:2], self.crop, generator)])
        else:
            shorter = min(levels.shape[:2])
            size = [round(side * self.resize / shorter) for side in levels.shape[:2]]
            image = F.interpolate(to_image(levels)[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
            image = random_crop(image, self.crop, generator)
        return image.flip(-1) if torch.rand((), generator=generator) < 0.5 else image

    def _known(self, blurry: str | None, sharp: str | None) -> list[tuple[Path, Path]]:
        """The known pairs; none if neither folder is there."""
        folders = [self.root / folder for folder in (blurry, sharp) if folder is not None]
        if not any(folder.is_dir() for folder in folders):
            if (blurry, sharp) not in ((None, None), ("trainC", "trainD")):  # they were asked for by name
                raise DatasetNotFoundError(f"no folders of known blur {', '.join(map(str, folders))}")
            return []
        if len(folders) < 2:
            raise PairingError(f"known blur needs blurry and sharp images, but there is {folders[0]} only")
        pairs = [image_files(folder) for folder in folders]
        if len(pairs[0]) != len(pairs[1]):
            raise PairingError(
                f"known images are paired in sorted order, but {folders[0]} holds {len(pairs[0])} and {folders[1]} "
                f"{len(pairs[1])}"
            )
        for one, other in zip(*pairs, strict=True):
            if image_size(one) != image_size(other):
                raise ShapeError(f"{one} and {other} are a pair in sorted order and must have the same size")
        return list(zip(*pairs, strict=True))


def _check_folders(root: Path, **folders: str | None) -> None:
    """No two sets may be the same folder, under whatever name."""
    seen: dict[Path, str] = {}
    for name, folder in folders.items():
        if folder is not None:
            path = Path(os.path.realpath(root / folder))
            if path in seen:
                raise PairingError(f"{seen[path]} and {name} images are the same folder, {root / folder}; name two")
            seen[path] = name


def _index(length: int, generator: torch.Generator) -> int:
    return int(torch.randint(length, (), generator=generator))
