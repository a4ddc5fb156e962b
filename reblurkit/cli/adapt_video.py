"""``reblurkit adapt-video``: a trained network adapts to blurry clips without ground truth, and deblurs them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import lightning.pytorch as L
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from torch import Tensor, nn

from reblurkit.cli.finetune_options import FinetuneOptions
from reblurkit.cli.messages import hide_advice
from reblurkit.cli.video_finetuning import VideoFinetuning
from reblurkit.core.calls import evaluating, stack_length
from reblurkit.core.files import new_folder, nothing_left_of_failures
from reblurkit.core.tensor_files import save_tensors
from reblurkit.core.terminal import printable
from reblurkit.data.frames import Frames
from reblurkit.data.images import write_image
from reblurkit.data.video import VideoFolder
from reblurkit.data.video_reading import VideoFile
from reblurkit.data.video_writing import video_suffix, write_video
from reblurkit.errors import ArgumentError, ReblurkitError
from reblurkit.inference import Deblurrer, frame_stacks
from reblurkit.models.full_size import FullSize
from reblurkit.pictures.files import save_picture
from reblurkit.pictures.grid import comparison_grid
from reblurkit.pictures.saliency import Patch, guided_saliency, saliency_figure

_CHUNK = 8  # frames that are read and deblurred together
_ROWS = 4  # clips in the comparison picture


def run_adapt_video(
    clips: Sequence[str],
    output: str,
    network: nn.Module,
    options: FinetuneOptions,
    *,
    tile: int | Literal["auto"] | None = None,
    saliency: Patch | None = None,
    video: bool = False,
) -> list[str]:
    """Adapt a network to clips, one or a group (Table 4 of Reblur2Deblur), and deblur them with it.

    Writes the deblurred frames to ``CLIP/FRAME.png``, a picture ``comparison.png`` of the middle frames, the adapted
    weights ``network.pt``, and a training log with pictures of the motion below ``log``.

    Args:
        clips: Folders of frames, folders of such folders, or video files.
        output: Folder, new or empty.
        network: The trained network.
        options: How to adapt.
        tile: Side of the tiles in which frames are deblurred, see :class:`reblurkit.inference.Deblurrer`; None: whole.
        saliency: Top, left, height and width of a patch in the middle frame of the first clip: ``saliency.png`` shows
            what it depends on, before and after (Figure 5).
        video: Write a video beside the frames of each video file, see
            :func:`reblurkit.data.video_writing.write_video`.

    Returns:
        The clips that could not be read, and those that are damaged, each with the reason; the others, and what can be
        read of the damaged ones, have been adapted to.

    Raises:
        ArgumentError: If two clips have one name, the folder holds files, the tile does not fit the network, the patch
            leaves the frame, or the network has no ReLUs whose saliency could be shown.
        ReblurkitError: If no clip can be read.
    """
    full_size = FullSize(network, tile=None if tile == "auto" else tile)
    with new_folder(Path(output), "output folder"):
        return _adapt_into(Path(output), clips, full_size, options, tile, saliency, video)


def _adapt_into(
    folder: Path,
    clips: Sequence[str],
    full_size: FullSize,
    options: FinetuneOptions,
    tile: int | Literal["auto"] | None,
    saliency: Patch | None,
    video: bool,
) -> list[str]:
    network = full_size.network
    length = _clip_length(network, options.frames)
    opened, failed = _open(clips, length, options)
    videos = _videos(opened)
    finetuning = VideoFinetuning(network, opened, options)
    original, [looked_at] = copy.deepcopy(full_size), frame_stacks(network, *_middle(next(iter(videos.values()))))
    if saliency is not None:
        guided_saliency(original, looked_at, saliency)  # what is wrong shows before the training

    hide_advice()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.seed_everything(options.seed, verbose=False)
    examples = {name: _middle(frames) for name, frames in list(videos.items())[:_ROWS]}
    before = _deblurred(network, tile, examples)
    with nothing_left_of_failures(folder):
        finetuning.run(folder)
    save_tensors(network.state_dict(), folder / "network.pt")
    if saliency is not None:
        figure = saliency_figure({"before": original, "after": full_size}, looked_at, saliency)
        save_picture(figure, folder / "saliency.png")
    after = _deblurred(network, tile, examples)
    rows = [
        {"blurry": frames.read(middle[0], middle[0] + 1)[0], "before": before[name], "after": after[name]}
        for name, (frames, middle) in examples.items()
    ]
    save_picture(comparison_grid(rows), folder / "comparison.png")
    deblurrer = Deblurrer(network, tile=tile)
    for name, frames in videos.items():
        targets = [folder / name / f"{frames.frame_name(index)}.png" for index in range(len(frames))]
        deblurred = deblurrer.each_frame(frames, range(len(frames)))
        what = f"Deblurring {escape(printable(name))}"
        for index, image in track(deblurred, what, len(frames), console=Console(stderr=True)):
            write_image(image, targets[index])
        if video and isinstance(frames, VideoFile):
            write_video(targets, frames, folder / f"{name}{video_suffix(frames)}")
    return failed


def _clip_length(network: nn.Module, frames: int) -> int:
    """Frames of a clip whose needed frames all have their neighbours; odd where the centre is in the middle."""
    return stack_length(network) - 1 + frames


def _open(clips: Sequence[str], length: int, options: FinetuneOptions) -> tuple[list[VideoFolder], list[str]]:
    opened: list[VideoFolder] = []
    failed: list[str] = []
    first: ReblurkitError | None = None
    for clip in clips:
        try:
            try:
                source = VideoFolder(clip, frames=length, seed=options.seed)
            except ReblurkitError:
                # Shorter than the stacks of a network of several frames: its ends are repeated.
                source = VideoFolder(clip, frames=options.frames, seed=options.seed)
            _read_through(source)
        except ReblurkitError as error:
            first = first or error
            failed.append(f"{clip}: {error}")
        else:
            opened.append(source)
            failed += [f"{clip}: {video.damage}" for video in source.videos if video.damage is not None]
    if first is not None and not opened:
        raise first
    return opened, failed


def _read_through(source: VideoFolder) -> None:
    """Find damaged frames now, rather than after the training."""
    for video in source.videos:
        for start in range(0, len(video), _CHUNK):
            video.read(start, min(start + _CHUNK, len(video)))


def _videos(opened: list[VideoFolder]) -> dict[str, Frames]:
    videos: dict[str, Frames] = {}
    for video in (video for source in opened for video in source.videos):
        if video.name in videos or video.name in {"log", "comparison.png", "network.pt", "saliency.png"}:
            raise ArgumentError(
                f"the name {video.name!r} is taken; rename the clip, or adapt to it in a run of its own"
            )
        videos[video.name] = video
    return videos


def _middle(video: Frames) -> tuple[Frames, list[int]]:
    """A video and the one frame of it that is shown."""
    return video, [len(video) // 2]


def _deblurred(
    network: nn.Module, tile: int | Literal["auto"] | None, examples: Mapping[str, tuple[Frames, list[int]]]
) -> dict[str, Tensor]:
    """The frames that are shown, deblurred; the network keeps its mode, in which it may have to train."""
    with evaluating(network):
        deblurrer = Deblurrer(network, tile=tile)
        return {name: next(deblurrer.each_frame(video, middle))[1] for name, (video, middle) in examples.items()}
