"""Folders of images without partners: sharp photos, which others will blur, and blurry ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TypedDict, TypeVar

from torch import Tensor
from torch.utils.data import Dataset

from reblurkit.data.cache import CacheFolder, reader
from reblurkit.data.images import Levels, image_size, to_image
from reblurkit.data.patterns import image_files, result_names
from reblurkit.errors import ShapeError

Item = TypeVar("Item", covariant=True)


class LoneImages(Dataset[Item]):
    """The images of a folder and of the folders below it, of any sizes, each by itself.

    Args:
        root: The folder.
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder
            in the cache of ``torch.hub``. Default: files are decoded each time.

    Raises:
        DatasetNotFoundError: If the folder is missing or holds no image.
    """

    def __init__(self, root: str | os.PathLike[str], *, cache: CacheFolder = None) -> None:
        self.root = Path(root)
        self.files = image_files(self.root)
        self.read = reader(cache)

    def __len__(self) -> int:
        return len(self.files)


class PhotoItem(TypedDict):
    """A photo ``(3, H, W)`` in [0, 1], and its path below the root without suffix."""

    sharp: Tensor
    name: str


class PhotoFolder(LoneImages[PhotoItem]):
    """Sharp photos alone; blurred by whoever uses them.

    Items are dicts with ``sharp``, ``(3, H, W)`` in [0, 1], and ``name``, the path below the root without suffix.

    Args:
        root: The folder.
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder
            in the cache of ``torch.hub``. Default: files are decoded each time.

    Raises:
        DatasetNotFoundError: If the folder is missing or holds no image.

    Example:
        >>> import tempfile, torch
        >>> from reblurkit.data import write_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     write_image(torch.rand(3, 8, 9), f"{root}/a.png")
        ...     item = PhotoFolder(root)[0]
        >>> item["name"], item["sharp"].shape
        ('a', torch.Size([3, 8, 9]))
    """

    def subset(self, numbers: Sequence[int]) -> PhotoFolder:
        """The same folder with some of its photos only."""
        part = copy(self)
        part.files = [self.files[number] for number in numbers]
        return part

    def __getitem__(self, index: int) -> PhotoItem:
        return {"sharp": to_image(self.levels(index)), "name": self.name(index)}

    def name(self, index: int) -> str:
        """A photo's path below the root without suffix."""
        return self.files[index].relative_to(self.root).with_suffix("").as_posix()

    def levels(self, index: int) -> Levels:
        """A photo's values as they are kept, ``(H, W, 3)`` of 8 or 16 bits."""
        return self.read(self.files[index])

    def check_size(self, smallest: int) -> None:
        """Check, from the files' headers, that crops of a size fit into every photo.

        Raises:
            ShapeError: If a photo is smaller.
            ImageFileError: If a file is empty or no image.
        """
        for path in self.files:
            height, width = image_size(path)
            if min(height, width) < smallest:
                raise ShapeError(
                    f"{path} has {width} x {height} pixels, fewer than the crop of {smallest} x {smallest}; choose a "
                    "smaller `crop`"
                )


class BlurryItem(TypedDict):
    """An image ``(3, H, W)`` in [0, 1], and its path below the root, without suffix where that is unique."""

    blurry: Tensor
    name: str


class BlurryFolder(LoneImages[BlurryItem]):
    """Blurry images alone, to be deblurred and judged without ground truth.

    Items are dicts with ``blurry``, ``(3, H, W)`` in [0, 1], and ``name``, the path below the root without suffix.

    Args:
        root: The folder.
        cache: Folder that keeps the decoded images, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder
            in the cache of ``torch.hub``. Default: files are decoded each time.

    Raises:
        DatasetNotFoundError: If the folder is missing or holds no image.

    Example:
        >>> import tempfile, torch
        >>> from reblurkit.data import write_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("night/a.png", "b.jpg", "b.png"):
        ...         write_image(torch.rand(3, 8, 9), f"{root}/{name}")
        ...     [item["name"] for item in BlurryFolder(root)]
        ['b.jpg', 'b', 'night/a']
    """

    def __init__(self, root: str | os.PathLike[str], *, cache: CacheFolder = None) -> None:
        super().__init__(root, cache=cache)
        self._names = result_names(self.files)

    def __getitem__(self, index: int) -> BlurryItem:
        path = self.files[index]
        return {"blurry": to_image(self.read(path)), "name": self._names[path].relative_to(self.root).as_posix()}
