"""Clips of video: blurry as it is, or made blurry from sharp frames at a high rate."""

from __future__ import annotations

import os
import warnings
from itertools import groupby
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from reblurkit.blur.averaging import average_frames
from reblurkit.core.special_files import special_kind
from reblurkit.core.suggestions import near_path
from reblurkit.data.augmentation import WHOLE, flip_and_turn, random_place
from reblurkit.data.cache import CacheFolder
from reblurkit.data.frames import FrameFiles, Frames, natural_order
from reblurkit.data.images import SUFFIXES
from reblurkit.data.pairing import find_pairs
from reblurkit.data.patterns import result_names, walk_files
from reblurkit.data.sampling import DrawnItems
from reblurkit.data.unread import warn_unread
from reblurkit.data.video_reading import VIDEO_SUFFIXES, VideoFile
from reblurkit.errors import ArgumentError, DatasetNotFoundError, ShapeError


class VideoItem(TypedDict):
    """A clip ``(T, 3, H, W)``, its centre frame ``(3, H, W)`` with its name and, where known, its sharp version."""

    frames: Tensor
    blurry: Tensor
    sharp: NotRequired[Tensor]
    name: str


class VideoFolder(DrawnItems[VideoItem]):
    """Clips of consecutive frames.

    Three kinds of video:

    - Blurry video without ground truth (``layout="frames"``): every folder of image files below the root, and every
      video file, is one video.
    - The same with ``window``: the frames are sharp and at a high rate, and each blurry frame is the mean of
      ``window`` of them, the next one ``spacing`` later (Reblur2Deblur, section 4.1, averages 9 at 240 per second). The
      sharp frame is the one in the middle of the window.
    - A data set with blurry and sharp frames (``layout="gopro"``, ``"reds"``, ``"dvd"``, ``"bsd"`` or ``"folders"``),
      see :class:`reblurkit.data.PairedFolder`; frames of one folder are one video.

    Items are dicts with ``frames``, ``(T, 3, H, W)`` in [0, 1], ``blurry``, the centre frame ``frames[T // 2]``, and
    its ``name``; for the last two kinds also ``sharp``, ``(3, H, W)``, so that they serve as pairs too.

    Args:
        root: The folder; for the first two kinds also one video file.
        layout: ``"frames"``, or one of the layouts of :class:`reblurkit.data.PairedFolder`.
        split: A split of the data set, or a folder below the root; None: the root is not divided.
        blur: For data sets, the folder of the blurry frames where it is not the layout's.
        frames: Length T of the clips.
        stride: Frames from the beginning of one clip to that of the next.
        window: Sharp frames in one blurry frame; odd.
        spacing: Sharp frames from one blurry frame to the next; default ``window``, a shutter that is always open.
        gamma: Exponent of the curve that averaging takes into account, see :func:`reblurkit.blur.average_frames`.
        cache: Folder that keeps decoded frames, see :class:`reblurkit.data.cache.ImageCache`; ``True``: a folder in
            the cache of ``torch.hub``. Default: files are decoded each time, as video files always are.
        crop: Side of random square crops, the same in all frames; default: whole frames.
        augment: Flip and turn the crops.
        seed: Crop and augmentation are a function of (seed, epoch, index).

    Raises:
        DatasetNotFoundError: If there is no video, or all are shorter than a clip.
        ArgumentError: If an argument is out of range, or does not belong to the kind.
        ImageFileError: If a file cannot be decoded.
        ShapeError: If sizes differ within a video, or are smaller than the crop.
        BackendError: If there is a video file and PyAV is not installed.

    Example:
        >>> import tempfile
        >>> from reblurkit.data import write_image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for index in range(9):
        ...         write_image(torch.rand(3, 8, 9), f"{root}/{index}.png")
        ...     videos = VideoFolder(root), VideoFolder(root, window=3)
        ...     items = [video[0] for video in videos]
        >>> [(len(video), *item["frames"].shape) for video, item in zip(videos, items)]
        [(7, 3, 3, 8, 9), (1, 3, 3, 8, 9)]
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: str = "frames",
        *,
        split: str | None = None,
        blur: str | None = None,
        frames: int = 3,
        stride: int = 1,
        window: int | None = None,
        spacing: int | None = None,
        gamma: float | None = None,
        cache: CacheFolder = None,
        crop: int | None = None,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        _check_numbers(frames=frames, stride=stride, window=window or 1, spacing=spacing or 1, crop=crop or 1)
        if augment and crop is None:
            raise ArgumentError("`augment` turns the clips, which needs square crops: give `crop`")
        if window is not None and (window % 2 == 0 or layout != "frames"):
            raise ArgumentError(
                f"`window` must be odd, so that one frame is in the middle, and goes with layout='frames', but is "
                f"{window} with layout={layout!r}"
            )
        if window is None and (spacing is not None or gamma is not None):
            raise ArgumentError("`spacing` and `gamma` say how sharp frames are averaged: give `window` with them")
        if layout == "frames" and blur is not None:
            raise ArgumentError(
                "`blur` names the blurry frames of a data set: name its layout, or make the folder the root"
            )
        self.frames = frames
        self.window = window
        self.spacing = spacing or window or 1
        self.gamma = gamma
        self.crop = crop
        self.augment = augment
        self.seed = seed
        self.videos, self._truth = _videos(Path(root), layout, split, blur, cache)
        self.clips = [
            (index, start)
            for index, video in enumerate(self.videos)
            for start in range(0, self._blurry_frames(video) - frames + 1, stride)
        ]
        self._check_sizes(root)

    def __len__(self) -> int:
        return len(self.clips)

    def _item(self, index: int, generator: torch.Generator) -> VideoItem:
        number, start = self.clips[index]
        video, centre = self.videos[number], start + self.frames // 2
        place = WHOLE if self.crop is None else random_place(video.size, self.crop, generator)
        if self.window is not None:
            first = start * self.spacing
            sharp = video.read(first, first + (self.frames - 1) * self.spacing + self.window, place)
            windows = sharp.unfold(0, self.window, self.spacing).movedim(-1, 1)
            frames = average_frames(windows, self.gamma)
            truth = sharp[(self.frames // 2) * self.spacing + self.window // 2][None]
            name = video.frame_name(centre * self.spacing + self.window // 2)
        else:
            frames, name = video.read(start, start + self.frames, place), video.frame_name(centre)
            truth = self._truth[number].read(centre, centre + 1, place) if self._truth else frames[:0]
        images = torch.cat((frames, truth))
        if self.augment:
            images = flip_and_turn(images, generator)
        frames = images[: self.frames]
        item: VideoItem = {"frames": frames, "blurry": frames[self.frames // 2], "name": f"{video.name}/{name}"}
        if len(images) > self.frames:
            item["sharp"] = images[self.frames]
        return item

    def _blurry_frames(self, video: Frames) -> int:
        return len(video) if self.window is None else (len(video) - self.window) // self.spacing + 1

    def _check_sizes(self, root: str | os.PathLike[str]) -> None:
        if not self.clips:
            longest = max(self._blurry_frames(video) for video in self.videos)
            raise DatasetNotFoundError(
                f"no clip of {self.frames} frames in {root}: the longest of {len(self.videos)} videos has "
                f"{max(longest, 0)} blurry frames" + ("; frames=2 takes pairs" if longest == 2 else "")
            )
        for index in {index for index, _ in self.clips}:
            video = self.videos[index]
            if self.crop is not None and min(video.size) < self.crop:
                raise ShapeError(
                    f"video {video.name} has {video.size[1]} x {video.size[0]} pixels, fewer than the crop of "
                    f"{self.crop} x {self.crop}; choose a smaller `crop`"
                )
            if self._truth and self._truth[index].size != video.size:
                raise ShapeError(f"video {video.name}: blurry and sharp frames must have the same size, but differ")


def _videos(
    root: Path, layout: str, split: str | None, blur: str | None, cache: CacheFolder
) -> tuple[list[Frames], list[Frames]]:
    """The videos, and their sharp frames where the data set has them."""
    if layout == "frames":
        if split is not None and (Path(split).is_absolute() or ".." in Path(split).parts):
            raise ArgumentError(f"`split` must name a folder below the root {root}, but is {split!r}")
        return find_videos(root / (split or ""), cache), []
    pairs = find_pairs(root, layout, split=split, blur=blur)
    blurry: list[Frames] = []
    sharp: list[Frames] = []
    for folder, group in groupby(sorted(pairs, key=lambda pair: pair.blurry), lambda pair: pair.blurry.parent):
        of_one_video = sorted(group, key=lambda pair: natural_order(pair.blurry.name))
        name = folder.relative_to(root).as_posix()
        blurry.append(FrameFiles(name, [pair.blurry for pair in of_one_video], cache))
        sharp.append(FrameFiles(name, [pair.sharp for pair in of_one_video], cache))
    return blurry, sharp


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ArgumentError(f"`{name}` must be a whole number, at least 1, but is {number!r}")


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
        return [_complete(VideoFile(root.stem, root))]
    if root.is_file():
        raise DatasetNotFoundError(
            f"{root} is no video file: its name ends in none of {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    if (kind := special_kind(root)) not in (None, "a folder"):
        raise DatasetNotFoundError(f"no folder of video {root}: it is {kind}")
    if not root.is_dir():
        raise DatasetNotFoundError(f"no folder of video {root}{near_path(root)}")
    videos: list[Frames] = []
    found = sorted(walk_files(root), key=lambda path: (path.parent, path.name))
    warn_unread(found)
    names = result_names(path for path in found if path.suffix.lower() in VIDEO_SUFFIXES)
    folders = {path.parent for path in found if path.suffix.lower() in SUFFIXES}
    for folder, grouped in groupby(found, lambda path: path.parent):
        name = folder.relative_to(root).as_posix()
        files = sorted(grouped, key=lambda path: natural_order(path.name))
        files = [path for path in files if not path.name.startswith(".") and special_kind(path) is None]
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        if images:
            videos.append(FrameFiles(root.name if name == "." else name, images, cache))
        for path in files:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                own_name = path if names[path] in folders else names[path]
                video = VideoFile(own_name.relative_to(root).as_posix(), path)
                videos.append(_complete(video))
    if not videos:
        raise DatasetNotFoundError(
            f"no video in {root}: looked for folders of image files and for {', '.join(sorted(VIDEO_SUFFIXES))} files"
        )
    return videos


def _complete(video: VideoFile) -> VideoFile:
    """The video, with a warning if frames are lost."""
    if video.damage:
        warnings.warn(video.damage, stacklevel=3)
    return video
