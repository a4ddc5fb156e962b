"""What the tasks on unpaired images share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from reblurkit.core.calls import finest_scale
from reblurkit.core.checks import FirstBatchCheck, check_images
from reblurkit.data.sampling import seeded
from reblurkit.errors import ArgumentError, PluginError, ShapeError
from reblurkit.models.full_size import FullSize
from reblurkit.plugins.callbacks.translation_watch import TranslationWatch
from reblurkit.plugins.crops import explained_by_crop
from reblurkit.plugins.mixins.own_names import OwnNames
from reblurkit.plugins.schedules import OverTraining
from reblurkit.plugins.shares import counted_images
from reblurkit.plugins.tasks.logged_rates import LoggedRates
from reblurkit.plugins.tasks.translation_metrics import TranslationMetrics


class Versions(NamedTuple):
    """What is measured and shown of blurry images, all in [0, 1] and of their shape."""

    translated: Tensor
    deblurred: Tensor | None
    alone: Tensor | None
    """What the deblurring network makes of them without a translator, where there is one."""
    pictures: dict[str, Tensor]
    """By title, between the blurry and the sharp images."""


class UnpairedTask(OwnNames, LoggedRates):
    """Base of the tasks: reads and checks batches, seeds steps, measures, and warns when a training goes wrong.

    Optimization is manual: ``trainer.global_step`` and ``max_steps`` count all optimizers, and Lightning refuses
    ``gradient_clip_val`` and ``accumulate_grad_batches``. Random numbers of a step are a function of (seed, step,
    process), so that a resumed run is bit-equal to one that was not interrupted.

    A subclass says which network translates, what a training batch must hold, how to train on one, and what to measure.

    Args:
        score: A metric that needs no sharp image, of the deblurred images.
        seed: Random numbers of training are a function of it.
    """

    def __init__(self, score: Metric | None, seed: int) -> None:
        super().__init__()
        if seed < 0:
            raise ArgumentError(f"`seed` must be at least 0, but is {seed}")
        self.automatic_optimization = False
        self.seed = seed
        self.metrics = nn.ModuleDict({stage: TranslationMetrics(score) for stage in ("val", "test")})
        self._check_range = FirstBatchCheck()
        self._watch = TranslationWatch()

    @property
    @abstractmethod
    def _translating(self) -> nn.Module:
        """The network that is applied to blurry images."""

    @property
    @abstractmethod
    def _training_keys(self) -> Sequence[str]:
        """What a training batch must hold."""

    @abstractmethod
    def _step(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Train on a batch; returns what is logged."""

    @abstractmethod
    def _versions(self, blurry: Tensor) -> Versions:
        """What to measure and to show."""

    def _advice(self, keys: Sequence[str]) -> str:
        """What to do about a batch that lacks keys."""
        return ""

    def forward(self, blurry: Tensor) -> Tensor:
        """Translate ``(B, 3, H, W)`` of any size in [0, 1]; the result is the full size and not clamped."""
        return finest_scale(FullSize(self._translating)(blurry))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """One step of every network on a batch."""
        self._check(batch, self._training_keys)
        with seeded((self.seed, self.trainer.global_step, self.global_rank), batch["blurry"].device):
            terms = self._step(batch)
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        return terms

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Measure a batch; returns ``pictures`` for :class:`reblurkit.plugins.ImageLogger`."""
        return self._measure(batch, batch_idx, "val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Measure a batch; returns ``pictures``, and the ``metrics`` of each image by name."""
        return self._measure(batch, batch_idx, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report("test")

    def configure_callbacks(self) -> list[L.Callback]:
        """Adds the watch that warns when a training goes wrong."""
        return [*cast("list[L.Callback]", super().configure_callbacks()), self._watch]

    def _minimise(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _over_training(
        self, optimizers: Sequence[Optimizer], factor: Callable[[int, int], float]
    ) -> tuple[list[Optimizer], list[OverTraining]]:
        """Optimizers, each of which steps once a batch, with a learning rate that follows the training."""
        batches = self.trainer.estimated_stepping_batches
        if self.trainer.max_steps != -1:
            batches = min(batches, self.trainer.max_steps // len(optimizers))  # all of them count
        if math.isinf(batches):
            raise PluginError("the learning rate falls over the length of the training: set max_epochs or max_steps")
        return list(optimizers), [OverTraining(each, int(batches), factor) for each in optimizers]

    def _measure(self, batch: Mapping[str, Any], batch_idx: int, stage: str) -> dict[str, Any]:
        self._check(batch, ["blurry"])
        blurry, sharp = batch["blurry"], batch.get("sharp")
        versions = self._versions(blurry)
        pictures = {"blurry": blurry, **versions.pictures}
        counted = counted_images(self, len(blurry), batch_idx)
        extra = (versions.deblurred, versions.alone, sharp)
        each = self._stage_metrics(stage).update(
            blurry[:counted],
            versions.translated[:counted],
            *(None if image is None else image[:counted] for image in extra),
            each=stage == "test",
        )
        if sharp is not None:
            pictures["sharp"] = sharp
        return {"pictures": pictures, "metrics": each} if stage == "test" else {"pictures": pictures}

    def _report(self, stage: str) -> None:
        for name, value in self._stage_metrics(stage).compute():
            self.log(f"{stage}/{name}", value, prog_bar=name in ("psnr", "score"), sync_dist=True)

    def _stage_metrics(self, stage: str) -> TranslationMetrics:
        return cast(TranslationMetrics, self.metrics[stage])

    def _check(self, batch: Mapping[str, Any], keys: Sequence[str]) -> None:
        if not isinstance(batch, Mapping) or not set(keys) <= batch.keys():
            found = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ArgumentError(
                f"a batch must be a dict with the keys {', '.join(map(repr, keys))}, but is {found}{self._advice(keys)}"
            )
        images = {key: batch[key] for key in keys}
        for key, image in images.items():  # crops of different sets may differ in size
            check_images(**{key: image})
        self._check_range(**images)


def outputs_of(network: nn.Module, image: Tensor) -> list[Tensor]:
    """A generator's outputs, from coarse to fine.

    Raises:
        ShapeError: If the last is not of the image's shape.
    """
    with explained_by_crop(image, network):
        output = network(image)
        outputs = [output] if isinstance(output, Tensor) else list(output)
        if outputs[-1].shape != image.shape:
            raise ShapeError(
                f"the generator must keep the shape of its input, {tuple(image.shape)}, but returned "
                f"{tuple(outputs[-1].shape)}"
            )
    return outputs


@contextmanager
def held_fixed(*networks: nn.Module) -> Iterator[None]:
    """Gradients pass through the networks in this block, but not to their parameters."""
    for network in networks:
        network.requires_grad_(False)
    yield
    for network in networks:
        network.requires_grad_(True)


def mean_score(scores: Sequence[Tensor]) -> Tensor:
    """The mean over maps of scores, for the log."""
    return torch.stack([each.detach().float().mean() for each in scores]).mean()


def changes(translated: Tensor, blurry: Tensor) -> dict[str, Tensor]:
    """How translation changes contrast, as a ratio, and mean colour, in grey levels, for the log and the watch."""
    translated = translated.detach()
    return {
        "contrast": _contrast(translated) / _contrast(blurry),
        "colour_shift": 255 * (translated - blurry).mean((0, 2, 3)).abs().amax(),
    }


def _contrast(image: Tensor) -> Tensor:
    return image.std((2, 3)).mean() + 1 / 255  # a grey level more, so that flat crops have a ratio, too
