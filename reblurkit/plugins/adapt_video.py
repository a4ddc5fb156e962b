"""``reblurkit adapt-video``: a trained network adapts to blurry clips without ground truth, and deblurs them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from reblurkit.blur import FlowKernelBlur, FlowLineBlur, FlowWarpBlur
from reblurkit.data.frames import Frames
from reblurkit.data.images import write_image
from reblurkit.data.paired import PairedFolder
from reblurkit.data.sampling import Draw, draw_generator
from reblurkit.data.video import VideoFolder
from reblurkit.errors import ArgumentError, PluginError, ReblurkitError
from reblurkit.networks import evaluating, finest_scale, frame_inputs, stack_length
from reblurkit.plugins.finite_loss import FiniteLoss
from reblurkit.plugins.flow_reblur import FlowReblurFinetuneCallback
from reblurkit.plugins.messages import hide_advice
from reblurkit.plugins.motion_logger import MotionLogger
from reblurkit.report.figures import comparison_grid

BLURS: dict[str, Callable[[float], nn.Module]] = {"kernel": FlowKernelBlur, "line": FlowLineBlur, "warp": FlowWarpBlur}
_CHUNK = 8  # frames that are read and deblurred together
_ROWS = 4  # clips in the comparison picture


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt; the defaults are the paper's (section 3.4), except for crop and batch, which are free there.

    Attributes:
        exposure: Half-length of the exposure in frame intervals.
        labelled: Root of the labelled data that goes on beside; None only with ``unsupervised``.
        layout: Its layout.
        split: Its split; None: not divided.
        unsupervised: Adapt by the unlabelled clips alone.
        steps: Optimizer steps.
        lr: Learning rate of both networks.
        weight: alpha of equation 10.
        blur: ``kernel``, ``line`` or ``warp``.
        flow: Name of the flow network.
        frames: 3, or 2 for steady motion.
        crop: Side of the crops in pixels.
        batch_size: Crops of clips, and labelled crops, in a step.
        workers: Processes that read.
        seed: Crops and order are a function of it.
    """

    exposure: float
    labelled: str | None = None
    layout: str = "folders"
    split: str | None = "train"
    unsupervised: bool = False
    steps: int = 200
    lr: float = 1e-4
    weight: float = 0.1
    blur: str = "kernel"
    flow: str = "raft-small"
    frames: int = 3
    crop: int = 128
    batch_size: int = 8
    workers: int = 2
    seed: int = 0


def run_adapt_video(clips: Sequence[str], output: str, network: nn.Module, options: AdaptOptions) -> list[str]:
    """Adapt a network to clips, one or a group (Table 4 of Reblur2Deblur), and deblur them with it.

    Writes the deblurred frames to ``CLIP/FRAME.png``, a picture ``comparison.png`` of the middle frames, the adapted
    weights ``network.pt``, and a training log with pictures of the motion below ``log``.

    Args:
        clips: Folders of frames, folders of such folders, or video files.
        output: Folder, new or empty.
        network: The trained network.
        options: How to adapt.

    Returns:
        The clips that could not be read, each with the reason; the others have been adapted to.

    Raises:
        ArgumentError: If an option is out of range, there is no labelled data and ``unsupervised`` is off, two clips
            have one name, or the folder holds files.
        ReblurkitError: If no clip can be read.
    """
    _check(options)
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"the output folder {folder} must be new or empty; choose another --output")
    length = _clip_length(network, options.frames)
    opened, failed = _open(clips, length, options)
    videos = _videos(opened)
    crop = _crop(network, videos, options.crop)
    for source in opened:  # known only now that all have been opened
        source.crop, source.augment = crop, True
    labelled = _labelled(network, options, crop)

    hide_advice()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.seed_everything(options.seed, verbose=False)
    examples = {name: _middle(video) for name, video in list(videos.items())[:_ROWS]}
    before = {name: _deblur(network, video, [index]) for name, (video, index) in examples.items()}
    network = _train(network, opened, labelled, options, folder)

    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, (video, index) in examples.items():
        after = _deblur(network, video, [index])
        rows.append({"blurry": video.read(index, index + 1)[0], "before": before[name][0], "after": after[0]})
    comparison_grid(rows).save(folder / "comparison.png")
    torch.save(network.state_dict(), folder / "network.pt")
    for name, video in videos.items():
        for start in range(0, len(video), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(video)))
            for index, image in zip(indices, _deblur(network, video, indices), strict=True):
                write_image(image, folder / name / f"{video.frame_name(index)}.png")
    return failed


def _check(options: AdaptOptions) -> None:
    if options.labelled is None and not options.unsupervised:
        raise ArgumentError(
            "labelled data must go on beside: the self-supervised loss alone leads to degenerate solutions, as many "
            "images blur to the observed one (Reblur2Deblur, section 3.4); give --labelled ROOT, or --unsupervised to "
            "do without all the same"
        )
    if options.labelled is not None and options.unsupervised:
        raise ArgumentError("--unsupervised does without labelled data; leave out --labelled")
    if options.blur not in BLURS:
        raise ArgumentError(f"--blur must be one of {', '.join(BLURS)}, but is {options.blur!r}")
    if not 0 < options.exposure < math.inf:
        raise ArgumentError(f"`exposure` must be greater than 0, but is {options.exposure}")
    numbers = {"steps": options.steps, "crop": options.crop, "batch-size": options.batch_size}
    for name, number in numbers.items():
        if number < 1:
            raise ArgumentError(f"--{name} must be at least 1, but is {number}")
    if not options.lr > 0 or options.workers < 0 or options.seed < 0:
        raise ArgumentError(
            f"--lr must be above 0, --workers and --seed at least 0, but are {options.lr}, {options.workers} and "
            f"{options.seed}"
        )


def _clip_length(network: nn.Module, frames: int) -> int:
    """Frames of a clip whose needed frames all have their neighbours; odd where the centre is in the middle."""
    return stack_length(network) - 1 + frames


def _open(clips: Sequence[str], length: int, options: AdaptOptions) -> tuple[list[VideoFolder], list[str]]:
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
        except ReblurkitError as error:
            first = first or error
            failed.append(f"{clip}: {error}")
        else:
            opened.append(source)
    if first is not None and not opened:
        raise first
    return opened, failed


def _videos(opened: list[VideoFolder]) -> dict[str, Frames]:
    videos: dict[str, Frames] = {}
    for video in (video for source in opened for video in source.videos):
        if video.name in videos or video.name in {"log", "comparison.png", "network.pt"}:
            raise ArgumentError(
                f"the name {video.name!r} is taken; rename the clip, or adapt to it in a run of its own"
            )
        videos[video.name] = video
    return videos


def _crop(network: nn.Module, videos: Mapping[str, Frames], wanted: int) -> int:
    multiple = int(getattr(network, "multiple", 1))
    smallest = min(min(video.size) for video in videos.values())
    crop = min(wanted, smallest) // multiple * multiple
    if crop < max(getattr(network, "smallest", 1), 1):
        raise ArgumentError(f"the network needs larger crops than {min(wanted, smallest)} x {min(wanted, smallest)}")
    return crop


def _labelled(network: nn.Module, options: AdaptOptions, crop: int) -> Dataset[Any]:
    if options.labelled is None:
        return _Nothing(options.steps * options.batch_size)
    data: PairedFolder | VideoFolder
    if stack_length(network) > 1:
        data = VideoFolder(
            options.labelled, options.layout, split=options.split, frames=stack_length(network), crop=crop, augment=True
        )
    else:
        data = PairedFolder(options.labelled, options.layout, split=options.split, crop=crop, augment=True)
    return _Draws([data], options.steps * options.batch_size, options.seed)


class _Nothing(Dataset[Tensor]):
    """Labelled data that there is none of."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(())


class _Draws(Dataset[Any]):
    """A fixed number of crops from data sets: all items, in an order of their own, again and again, never the same."""

    def __init__(self, data: Sequence[PairedFolder | VideoFolder], length: int, seed: int) -> None:
        self.items = [(source, index) for source in data for index in range(len(source))]
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        epoch, place = divmod(index, len(self.items))
        order = torch.randperm(len(self.items), generator=draw_generator(self.seed, Draw(0, epoch)))
        source, item = self.items[int(order[place])]
        return source[Draw(item, epoch)]


class _Adaptation(L.LightningModule):
    """The labelled part of the loss; the callback adds the other one."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network = network
        self.lr = lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if isinstance(batch, Tensor):  # no labelled data
            return torch.zeros((), device=self.device, requires_grad=True)
        loss = F.l1_loss(finest_scale(self.network(batch.get("frames", batch["blurry"]))), batch["sharp"])
        self.log("train/loss_labelled", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.lr)


def _train(
    network: nn.Module, opened: list[VideoFolder], labelled: Dataset[Any], options: AdaptOptions, folder: Path
) -> nn.Module:
    unlabelled = _Draws(opened, options.steps * options.batch_size, options.seed)
    finetune = FlowReblurFinetuneCallback(
        DataLoader(unlabelled, options.batch_size, num_workers=options.workers, collate_fn=_same_length),
        flow=options.flow,
        blur=BLURS[options.blur](options.exposure),
        weight=options.weight,
        frames=options.frames,
        flow_lr=options.lr,
    )
    trainer = L.Trainer(
        max_steps=options.steps,
        devices=1,
        logger=CSVLogger(str(folder), name="", version="log"),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[finetune, MotionLogger(every_n_steps=options.steps), FiniteLoss()],
    )
    trainer.fit(_Adaptation(network, options.lr), DataLoader(labelled, options.batch_size, num_workers=options.workers))
    if trainer.interrupted:
        raise PluginError("stopped before the last step; nothing has been deblurred")
    return network.cpu()


def _same_length(items: list[Mapping[str, Any]]) -> Tensor:
    """A batch of clips; of a group, all are cut to the shortest, around their centre."""
    shortest = min(len(item["frames"]) for item in items)
    cut = [len(item["frames"]) // 2 - shortest // 2 for item in items]
    return torch.stack([item["frames"][start : start + shortest] for start, item in zip(cut, items, strict=True)])


def _middle(video: Frames) -> tuple[Frames, int]:
    return video, len(video) // 2


@torch.inference_mode()
def _deblur(network: nn.Module, video: Frames, indices: Sequence[int]) -> list[Tensor]:
    """Frames of a video, deblurred whole, in [0, 1]."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reach = stack_length(network) // 2
    first, last = max(indices[0] - reach, 0), min(indices[-1] + reach, len(video) - 1)
    frames = video.read(first, last + 1)[None]
    height, width = frames.shape[-2:]
    multiple = int(getattr(network, "multiple", 1))
    missing = (0, -width % multiple, 0, -height % multiple, 0, 0)
    frames = F.pad(frames, missing, mode="replicate")
    with evaluating(network.to(device)):
        inputs = [frame_inputs(network, frames, [index - first]) for index in indices]
        images = [finest_scale(network(each.to(device)))[0, :, :height, :width] for each in inputs]
    return [image.clamp(0, 1).cpu() for image in images]
