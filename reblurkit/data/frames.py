"""The frames of one video: what all videos have in common, and folders of images."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from reblurkit.data.augmentation import WHOLE, Place
from reblurkit.data.cache import CacheFolder, reader
from reblurkit.data.images import ImageKind, image_kind, image_size, to_image
from reblurkit.errors import PairingError, ShapeError


class Frames(ABC):
    """Frames of one video, all of one size.

    Attributes:
        name: The video's path below the data's root, without suffix.
        size: Height and width in pixels.
        damage: What of the video is lost or spoilt, as far as it has shown.
    """

    name: str
    size: tuple[int, int]
    damage: str | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def read(self, start: int, stop: int, place: Place = WHOLE) -> Tensor:
        """Frames ``start`` to ``stop - 1``, or a place in them, ``(T, 3, H, W)`` in [0, 1]."""

    @abstractmethod
    def frame_name(self, index: int) -> str:
        """A frame's name within its video."""

    def kind(self, index: int) -> ImageKind:
        """How a frame is stored, as far as an image file can keep it."""
        return ImageKind()


class FrameFiles(Frames):
    """Image files in the order of the video.

    Args:
        name: The video's name.
        paths: The files.
        cache: Folder that keeps the decoded frames, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder
            in the cache of ``torch.hub``. Default: files are decoded each time.

    Raises:
        ImageFileError: If a file is no image.
        PairingError: If two differ in nothing but the suffix.
        ShapeError: If their sizes differ.
    """

    def __init__(self, name: str, paths: Sequence[Path], cache: CacheFolder = None) -> None:
        self.name = name
        self.paths = list(paths)
        self._read = reader(cache)
        by_stem: dict[str, Path] = {}
        for path in self.paths:
            if (first := by_stem.setdefault(path.stem, path)) != path:
                raise PairingError(f"{first} and {path} have the same name; which is the frame of the video?")
        self.size = image_size(self.paths[0])
        for path in self.paths:
            if (size := image_size(path)) != self.size:
                raise ShapeError(
                    f"all frames of a video must have one size, but {path} has {_x(size)} pixels and {self.paths[0]} "
                    f"{_x(self.size)}"
                )

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int, place: Place = WHOLE) -> Tensor:
        """Frames ``start`` to ``stop - 1``, or a place in them, ``(T, 3, H, W)`` in [0, 1]."""
        return torch.stack([to_image(self._read(path)[place]) for path in self.paths[start:stop]])

    def frame_name(self, index: int) -> str:
        """The file's name without suffix."""
        return self.paths[index].stem

    def kind(self, index: int) -> ImageKind:
        """Bits and colour profile of the file."""
        return image_kind(self.paths[index])


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sort key by which ``frame_10`` comes after ``frame_9``: video programs do not always write leading zeros.

    Example:
        >>> sorted(["f10.png", "f9.png", "f09.png"], key=natural_order)
        ['f09.png', 'f9.png', 'f10.png']
    """
    words = re.split(r"(\d+)", name)
    return [int(word) if number % 2 else word for number, word in enumerate(words)], name


def _x(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
