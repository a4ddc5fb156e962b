"""The frames of one video, from a folder of images or a video file."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reblurkit.data.augmentation import WHOLE, Place
from reblurkit.data.cache import CacheFolder, reader
from reblurkit.data.images import SUFFIXES, ImageKind, image_kind, image_size, to_image
from reblurkit.data.patterns import walk_files
from reblurkit.data.unread import warn_unread
from reblurkit.errors import BackendError, DatasetNotFoundError, ImageFileError, PairingError, ShapeError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})


class Frames(ABC):
    """Frames of one video, all of one size.

    Attributes:
        name: The video's path below the data's root, without suffix.
        size: Height and width in pixels.
    """

    name: str
    size: tuple[int, int]

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


class VideoFile(Frames):
    """A video file of any kind that PyAV decodes (extra ``[video]``); its first video stream.

    Frames are found by their time stamps, and only the stretch from a key frame before the first one wanted is decoded.
    They are turned as the file says they are to be shown.

    Raises:
        BackendError: If PyAV is not installed.
        ImageFileError: If the file cannot be decoded.
    """

    def __init__(self, name: str, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise BackendError(
                f"reading the video file {path} needs PyAV: pip install 'reblurkit[video]', or extract its frames to a "
                "folder of image files"
            ) from None
        self._av = av
        self.name = name
        self.path = path
        try:
            with av.open(path) as container:
                stream = container.streams.video[0]
                packets = [packet for packet in container.demux(stream) if packet.pts is not None]
                self._stamps = sorted(int(packet.pts or 0) for packet in packets)
                self._keys = [
                    (int(packet.pts or 0), int(packet.dts if packet.dts is not None else packet.pts or 0))
                    for packet in packets
                    if packet.is_keyframe
                ]
                container.seek(0)
                first = next(container.decode(stream))
                # a phone films upright pictures lying on their side, and says so
                self._quarter_turns = round(first.rotation / 90) % 4
                self.size = (first.width, first.height) if self._quarter_turns % 2 else (first.height, first.width)
        except IndexError as error:
            raise ImageFileError(f"cannot read video {path}: it has no video stream") from error
        except (av.error.FFmpegError, OSError, StopIteration) as error:
            raise ImageFileError(f"cannot read video {path}: {error}") from error
        if not self._stamps:
            raise ImageFileError(f"cannot read video {path}: it has no frames")

    def __len__(self) -> int:
        return len(self._stamps)

    def read(self, start: int, stop: int, place: Place = WHOLE) -> Tensor:
        """Frames ``start`` to ``stop - 1``, or a place in them, ``(T, 3, H, W)`` in [0, 1]."""
        wanted = self._stamps[start:stop]
        before = [decoding for shown, decoding in self._keys if shown <= wanted[0]]
        frames: dict[int, NDArray[np.uint8]] = {}
        # Frames shown right after a key frame may refer to the one before it.
        for key in reversed(before):
            frames = self._decode(key, wanted)
            if len(frames) == len(wanted):
                array = np.stack([frames[stamp][place] for stamp in wanted])
                return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous() / 255
        raise ImageFileError(
            f"cannot read video {self.path}: of frames {start} to {stop - 1} only {len(frames)} can be decoded"
        )

    def _decode(self, key: int, wanted: list[int]) -> dict[int, NDArray[np.uint8]]:
        """Decode from a key frame on; what is found of the wanted frames, by time stamp."""
        frames: dict[int, NDArray[np.uint8]] = {}
        missing = set(wanted)
        try:
            with self._av.open(self.path) as container:
                stream = container.streams.video[0]
                container.seek(key, stream=stream, backward=True)
                for frame in container.decode(stream):
                    if frame.pts in missing:
                        image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                        frames[frame.pts] = np.rot90(image, self._quarter_turns)
                        missing.remove(frame.pts)
                    if not missing:
                        break
        except (self._av.error.FFmpegError, OSError) as error:
            raise ImageFileError(f"cannot read video {self.path}: {error}") from error
        return frames

    def frame_name(self, index: int) -> str:
        """The frame's number, from 0."""
        return f"{index:06}"


def find_videos(root: Path, cache: CacheFolder = None) -> list[Frames]:
    """All videos below a folder, sorted by name: folders that hold images, and video files.

    The frames of a folder are in the order of the numbers in their names.

    Args:
        root: A folder, or one video file.
        cache: As of :class:`FrameFiles`; video files are not cached.

    Raises:
        DatasetNotFoundError: If there is none.
    """
    if root.name in ("", ".."):
        root = root.resolve()  # which has a name for the video
    if root.is_file() and root.suffix.lower() in VIDEO_SUFFIXES:
        return [VideoFile(root.stem, root)]
    if root.is_file():
        raise DatasetNotFoundError(
            f"{root} is no video file: its name ends in none of {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    if not root.is_dir():
        raise DatasetNotFoundError(f"no folder of video {root}")
    videos: list[Frames] = []
    found = sorted(walk_files(root), key=lambda path: (path.parent, path.name))
    warn_unread(found)
    for folder, grouped in itertools.groupby(found, lambda path: path.parent):
        name = folder.relative_to(root).as_posix()
        files = sorted(grouped, key=lambda path: natural_order(path.name))
        files = [path for path in files if not path.name.startswith(".")]
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        if images:
            videos.append(FrameFiles(root.name if name == "." else name, images, cache))
        for path in files:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                videos.append(VideoFile(path.relative_to(root).with_suffix("").as_posix(), path))
    if not videos:
        raise DatasetNotFoundError(
            f"no video in {root}: looked for folders of image files and for {', '.join(sorted(VIDEO_SUFFIXES))} files"
        )
    return videos


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
