"""What the tasks on pairs of blurry and sharp images share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from reblurkit.core.calls import finest_scale
from reblurkit.core.checks import FirstBatchCheck, check_images
from reblurkit.errors import ArgumentError, PluginError, ShapeError
from reblurkit.metrics.per_image import PerImageMetric, named_values, values_of_each
from reblurkit.models.full_size import FullSize
from reblurkit.plugins.mixins.auxiliary_networks import check_factories
from reblurkit.plugins.mixins.own_names import OwnNames
from reblurkit.plugins.schedules import OverTraining, halved
from reblurkit.plugins.shares import counted_images
from reblurkit.plugins.tasks.logged_rates import LoggedRates


class Images(NamedTuple):
    """What is measured of a batch: L in [0, 1], S, B, and M_R, where the task has one."""

    deblurred: Tensor
    sharp: Tensor
    blurry: Tensor
    reblur: Callable[[Tensor], Tensor]


class Measure(NamedTuple):
    """A metric, and which two images of a batch it compares."""

    metric: Metric
    pair: Callable[[Images], tuple[Tensor, Tensor]]


def deblurred_to_sharp(images: Images) -> tuple[Tensor, Tensor]:
    """How well L is deblurred."""
    return images.deblurred, images.sharp


def blurry_to_sharp(images: Images) -> tuple[Tensor, Tensor]:
    """How good B is already: what a network that has learnt nothing reaches."""
    return images.blurry, images.sharp


def deblurred_to_blurry(images: Images) -> tuple[Tensor, Tensor]:
    """How much of the blur is in L already: what an M_R that has learnt nothing reaches."""
    return images.deblurred, images.blurry


def reblurred_to_blurry(images: Images) -> tuple[Tensor, Tensor]:
    """How much of the blur M_R brings back in L."""
    return images.reblur(images.deblurred).clamp(0, 1), images.blurry


def preserved_to_sharp(images: Images) -> tuple[Tensor, Tensor]:
    """How little M_R changes clean images."""
    return images.reblur(images.sharp).clamp(0, 1), images.sharp


def check_metrics(metrics: Mapping[str, Metric | None]) -> None:
    """Check what a user wants measured.

    Raises:
        ArgumentError: If it is not metrics by name.
    """
    if not isinstance(metrics, Mapping):
        raise ArgumentError(f"`metrics` must be metrics by name, {{'lpips': LPIPS()}}, but is {metrics!r}")
    for name, metric in metrics.items():
        if not str(name).isidentifier() or hasattr(nn.ModuleDict, name):
            raise ArgumentError(f"the name of a metric must be one word, such as psnr_8_bit, but is {name!r}")
        if not isinstance(metric, Metric | None):
            raise ArgumentError(f"the metric {name!r} must be a torchmetrics Metric, but is {metric!r}")


def with_metrics(measures: dict[str, Measure], metrics: Mapping[str, Metric | None]) -> dict[str, Measure]:
    """A stage's measures with a user's, of L and S, in addition or in their place; None leaves one out."""
    wanted = {
        name: None if metric is None else Measure(copy.deepcopy(metric), deblurred_to_sharp)
        for name, metric in metrics.items()
    }
    return {name: measure for name, measure in {**measures, **wanted}.items() if measure is not None}


class PairedTask(OwnNames, LoggedRates):
    """Base of the tasks: reads and checks batches, deblurs, measures, and has the optimizer of the paper's recipe.

    Images that are measured and predicted may have any size, as for ``reblurkit deblur``; training calls the network
    itself.

    Checkpoints note what validation has measured last, for :func:`reblurkit.plugins.checkpoint_metrics`.

    A subclass names the network that it trains and its metrics, sets ``reblur`` if a metric reblurs, and brings the
    training step.

    Args:
        network: The deblurring network.
        optimizer: Called with the parameters; default Adam with learning rate 1e-4.
        scheduler: Called with the optimizer, steps every epoch; default: halved at 50, 75 and 90 % of the training.
    """

    reblur: nn.Module

    def __init__(
        self, network: nn.Module, optimizer: OptimizerCallable | None, scheduler: LRSchedulerCallable | None
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ArgumentError(f"`network` must be an nn.Module, but is {network!r}")
        check_factories(optimizer, scheduler)
        self.network = network
        self._make_optimizer = optimizer or partial(torch.optim.Adam, lr=1e-4)
        self._make_scheduler = scheduler
        self._check_range = FirstBatchCheck()
        self._measured: dict[str, float] = {}

    @property
    def _trained(self) -> nn.Module:
        """The network that the optimizer gets."""
        raise NotImplementedError

    def _set_metrics(self, **measures: dict[str, Measure]) -> None:
        """What is measured, by stage and name; the first of a stage is shown beside the progress bar."""
        self.metrics = nn.ModuleDict(
            {
                stage: nn.ModuleDict({name: measure.metric for name, measure in named.items()})
                for stage, named in measures.items()
            }
        )
        self._pairs = {
            stage: {name: measure.pair for name, measure in named.items()} for stage, named in measures.items()
        }

    def forward(self, blurry: Tensor) -> Tensor:
        """Deblur ``(B, 3, H, W)`` of any size in [0, 1]; the result is not clamped."""
        return self._deblur(blurry)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch; returns the deblurred images for loggers."""
        return self._measure(batch, batch_idx, "val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Measure a batch; returns the deblurred images, and the metrics of each by name."""
        return self._measure(batch, batch_idx, "test")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Deblur a batch; returns ``deblurred`` in [0, 1] and ``name``."""
        return {"deblurred": self._deblur(batch["blurry"]).clamp(0, 1), "name": batch["name"]}

    def validation_names(self) -> set[str] | None:
        """What validation will log; None where a metric of several values names them only when it is computed."""
        metrics = self._stage_metrics("val")
        if not all(isinstance(metric, PerImageMetric) for metric in metrics.values()):
            return None
        return {f"val/{name}" for name in metrics}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the networks can do."""
        super().on_save_checkpoint(checkpoint)
        checkpoint.setdefault("reblurkit", {})["measured"] = self._measured

    def configure_optimizers(self) -> Any:
        """One optimizer, for the network that the task trains."""
        optimizer = self._make_optimizer(self._trained.parameters())
        if self._make_scheduler is None:
            return [optimizer], [{"scheduler": self._halving(optimizer), "interval": "step"}]
        scheduler = self._make_scheduler(optimizer)
        # Lightning's own ReduceLROnPlateau names the metric that it watches
        return [optimizer], [{"scheduler": scheduler, "monitor": getattr(scheduler, "monitor", None)}]

    def _halving(self, optimizer: Optimizer) -> LRScheduler:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise PluginError(
                "the learning rate's schedule needs the length of the training: set max_epochs or max_steps"
            )
        return OverTraining(optimizer, int(steps), halved)

    def _images(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Mapping) or not {"blurry", "sharp"} <= batch.keys():
            found = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ArgumentError(f"a batch must be a dict with the keys 'blurry' and 'sharp', but is {found}")
        blurry, sharp = batch["blurry"], batch["sharp"]
        check_images(blurry=blurry, sharp=sharp)
        self._check_range(blurry=blurry, sharp=sharp)
        return blurry, sharp

    def _deblur(self, blurry: Tensor) -> Tensor:
        return self._finest(FullSize(self.network)(blurry), blurry)

    def _finest(self, scales: Tensor | list[Tensor], blurry: Tensor) -> Tensor:
        deblurred = finest_scale(scales)
        if deblurred.shape != blurry.shape:
            raise ShapeError(
                f"the network {type(self.network).__name__} must keep the shape of its input, {tuple(blurry.shape)}, "
                f"but returned {tuple(deblurred.shape)}"
            )
        return deblurred

    def _measure(self, batch: Mapping[str, Any], batch_idx: int, stage: Literal["val", "test"]) -> dict[str, Any]:
        blurry, sharp = self._images(batch)
        deblurred = self._deblur(blurry).clamp(0, 1)
        each: dict[str, list[float]] = {}
        if counted := counted_images(self, len(blurry), batch_idx):
            names = batch.get("name", ["an image"])
            each = self._update(stage, deblurred[:counted], sharp[:counted], blurry[:counted], names)
        return {"deblurred": deblurred, "metrics": each} if stage == "test" else {"deblurred": deblurred}

    def _update(
        self, stage: Literal["val", "test"], deblurred: Tensor, sharp: Tensor, blurry: Tensor, names: Sequence[str]
    ) -> dict[str, list[float]]:
        images = Images(deblurred, sharp, blurry, lambda image: finest_scale(FullSize(self.reblur)(image)))
        each: dict[str, list[float]] = {}
        try:
            for name, metric in self._stage_metrics(stage).items():
                pair = self._pairs[stage][name](images)
                if stage == "test":
                    each |= values_of_each(metric, name, *pair)
                else:
                    metric.update(*pair)
        except ShapeError as error:
            raise ShapeError(f"{', '.join(names)}: {error}") from error
        return each

    def _report(self, stage: Literal["val", "test"]) -> None:
        metrics = self._stage_metrics(stage)
        measured: dict[str, float] = {}
        for name, metric in metrics.items():
            values = {key: number.float() for key, number in named_values(name, metric.compute()).items()}
            logged = {f"{stage}/{key}": number for key, number in values.items()}
            # every process has the same value; Lightning warns where it is not told to agree on it
            self.log_dict(logged, prog_bar=name == next(iter(metrics)), sync_dist=True)
            measured |= {key: float(number) for key, number in values.items()}
            metric.reset()
        if stage == "val" and not self.trainer.sanity_checking:
            self._measured = {"step": self.trainer.global_step, **measured}

    def _stage_metrics(self, stage: Literal["val", "test"]) -> dict[str, Metric]:
        return cast("dict[str, Metric]", dict(cast("nn.ModuleDict", self.metrics[stage]).items()))
