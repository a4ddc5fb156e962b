"""Fine-tuning on clips without ground truth, beside labelled data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from reblurkit.blur import FlowKernelBlur, FlowLineBlur, FlowWarpBlur
from reblurkit.cli.ending import interrupts_of_lightning
from reblurkit.cli.finetune_options import FinetuneOptions
from reblurkit.core.calls import finest_scale, needs_of, stack_length
from reblurkit.data.paired import PairedFolder
from reblurkit.data.sampling import Draw, draw_generator
from reblurkit.data.video import VideoFolder
from reblurkit.errors import ArgumentError
from reblurkit.plugins.callbacks.finite_loss import FiniteLoss
from reblurkit.plugins.callbacks.flow_reblur import FlowReblurFinetuneCallback
from reblurkit.plugins.callbacks.motion_logger import MotionLogger

_BLURS: dict[str, Callable[[float], nn.Module]] = {"kernel": FlowKernelBlur, "line": FlowLineBlur, "warp": FlowWarpBlur}


class VideoFinetuning:
    """Fine-tuning of a network on clips, one or a group (Table 4 of Reblur2Deblur), ready to run.

    Args:
        network: The trained network; it is the one that learns.
        sources: The clips; they are set to give crops.
        options: How to fine-tune.

    Raises:
        ArgumentError: If the network takes no crops as small as the clips.
        ReblurkitError: If there is something wrong with the labelled data.
    """

    def __init__(self, network: nn.Module, sources: Sequence[VideoFolder], options: FinetuneOptions) -> None:
        self.network = network
        self.options = options
        crop = _crop(network, sources, options.crop)
        for source in sources:
            source.crop, source.augment = crop, True
        crops = options.steps * options.batch_size
        self._unlabelled = _Draws(sources, crops, options.seed)
        self._labelled = _labelled(network, options, crop)

    def run(self, folder: Path) -> None:
        """Train; writes ``log`` with pictures of the motion below the folder, and leaves the network on the CPU."""
        options = self.options
        finetune = FlowReblurFinetuneCallback(
            DataLoader(self._unlabelled, options.batch_size, num_workers=options.workers, collate_fn=_same_length),
            flow=options.flow,
            blur=_BLURS[options.blur](options.exposure),
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
        labelled = DataLoader(self._labelled, options.batch_size, num_workers=options.workers)
        with interrupts_of_lightning():
            trainer.fit(_LabelledTask(self.network, options.lr), labelled)
        self.network.cpu()


def _crop(network: nn.Module, sources: Sequence[VideoFolder], wanted: int) -> int:
    needs = needs_of(network)
    smallest = min(min(video.size) for source in sources for video in source.videos)
    crop = min(wanted, smallest) // needs.multiple * needs.multiple
    if crop < max(needs.smallest, 1):
        raise ArgumentError(f"the network needs larger crops than {min(wanted, smallest)} x {min(wanted, smallest)}")
    return crop


def _labelled(network: nn.Module, options: FinetuneOptions, crop: int) -> Dataset[Any]:
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


class _LabelledTask(L.LightningModule):
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


def _same_length(items: list[Mapping[str, Any]]) -> Tensor:
    """A batch of clips; of a group, all are cut to the shortest, around their centre."""
    shortest = min(len(item["frames"]) for item in items)
    cut = [len(item["frames"]) // 2 - shortest // 2 for item in items]
    return torch.stack([item["frames"][start : start + shortest] for start, item in zip(cut, items, strict=True)])
