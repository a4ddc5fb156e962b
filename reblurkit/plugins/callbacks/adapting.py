"""What callbacks share that adapt a network to every image in ``test``, ``validate`` and ``predict``."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sized
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from reblurkit.core.calls import find_network, finest_scale
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.plugins.callbacks.first_to_hear import FirstToHear
from reblurkit.plugins.callbacks.replaced_method import ReplacedMethod, is_replaced, replace_forward
from reblurkit.plugins.shares import counted_images

_STAGES = (TrainerFn.TESTING, TrainerFn.VALIDATING, TrainerFn.PREDICTING)


class AdaptingCallback(L.Callback, ABC):
    """Has every call of a network return what the network adapted to each image gives, for the length of a run.

    Args:
        network: Dotted path of the deblurring network in the LightningModule.
        metrics: Measure plain and adapted images, or None.

    Attributes:
        history: A record of each image of this process in the last run.
    """

    history: Sized

    def __init__(self, network: str, metrics: Metric | MetricCollection | None) -> None:
        self.network = network
        if not isinstance(metrics, Metric | MetricCollection | None):
            raise ArgumentError(
                f"`metrics` must be a metric such as reblurkit.metrics.PSNR(), or a collection, but is {metrics!r}"
            )
        self.metrics = metrics
        self._meters: dict[str, Metric | MetricCollection] = {}
        self._calls: list[tuple[Tensor, Tensor]] = []
        self._batches = 0
        self._replaced: ReplacedMethod | None = None
        self._first = FirstToHear(self._remove)

    @abstractmethod
    def _prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, network: nn.Module) -> None:
        """Begin a run: empty the history."""

    @abstractmethod
    def _adapt(self, trainer: L.Trainer, network: nn.Module, arguments: Any, keywords: Any) -> tuple[Any, Tensor]:
        """Call the network with adaptation: its output, in its own structure, and the plain images."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse strategies that split parameters."""
        if stage != "fit" and isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise PluginError(
                f"a network cannot be adapted under {type(trainer.strategy).__name__}, which splits or replaces "
                "parameters; test on one device or with `strategy` 'ddp'"
            )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave nothing behind."""
        self._first.end(trainer)
        self._remove()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the adaptation in place of the network's forward."""
        self._start(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same, outside ``fit``."""
        self._start(trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same."""
        self._start(trainer, pl_module)

    def on_test_batch_start(self, *_: Any) -> None:
        """Count."""
        self._start_batch()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Count."""
        self._start_batch()

    def on_predict_batch_start(self, *_: Any) -> None:
        """Count."""
        self._start_batch()

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *place: int
    ) -> None:
        """Measure."""
        self._measure(pl_module, batch, place)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *place: int
    ) -> None:
        """Measure."""
        self._measure(pl_module, batch, place)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the metrics."""
        self._log_metrics(pl_module, "test")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the metrics."""
        self._log_metrics(pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the adaptation out again."""
        self._end(pl_module, "test_step")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same."""
        self._end(pl_module, "validation_step")

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same."""
        self._end(pl_module, "predict_step")

    def _start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn not in _STAGES:  # fit validates too
            return
        self._remove()
        network = find_network(pl_module, self.network)
        self._check_others(trainer, pl_module, network)
        self._prepare(trainer, pl_module, network)
        self._batches = 0
        if self.metrics is not None and trainer.state.fn != TrainerFn.PREDICTING:
            self._meters = {name: copy.deepcopy(self.metrics).to(pl_module.device) for name in ("plain", "adapted")}
            for meter in self._meters.values():
                meter.reset()
        self._first.begin(trainer)
        self._replaced = replace_forward(network, lambda *inputs: self._call(trainer, network, *inputs))

    def _check_others(self, trainer: L.Trainer, pl_module: L.LightningModule, network: nn.Module) -> None:
        """Refuse what another callback of this kind would disturb."""
        adapted = [module for module in pl_module.modules() if is_replaced(module)]
        if any(other in network.modules() or network in other.modules() for other in adapted):
            raise PluginError(
                f"two callbacks adapt the network at {self.network!r}, or a part of it; keep one, as each would adapt "
                "what the other has adapted"
            )
        others = [each for each in trainer.callbacks if isinstance(each, AdaptingCallback) and each is not self]  # type: ignore[attr-defined]
        if self.metrics is not None and any(other.metrics is not None for other in others):
            raise PluginError(
                "two callbacks that adapt would log their metrics by the same names; give `metrics` to one of them"
            )

    def _call(self, trainer: L.Trainer, network: nn.Module, arguments: Any, keywords: Any) -> Any:
        output, plain = self._adapt(trainer, network, arguments, keywords)
        if self._meters:
            self._calls.append((plain, finest_scale(output).detach()))
        return output

    def _start_batch(self) -> None:
        self._batches += 1
        self._calls.clear()

    def _measure(self, pl_module: L.LightningModule, batch: Any, place: tuple[int, ...]) -> None:
        if not self._meters:
            return
        sharp = batch.get("sharp") if isinstance(batch, Mapping) else None
        shapes = [tuple(image.shape) for _, image in self._calls]
        if isinstance(sharp, Tensor):  # of a network that was given the image padded, the image counts
            height, width = sharp.shape[-2:]
            self._calls = [(plain[..., :height, :width], image[..., :height, :width]) for plain, image in self._calls]
        if not isinstance(sharp, Tensor) or [image.shape for _, image in self._calls] != [sharp.shape]:
            raise PluginError(
                f"metrics of {type(self).__name__} need batches with 'sharp' and one call of the network a batch that "
                f"gives its shape, but sharp is {tuple(sharp.shape) if isinstance(sharp, Tensor) else sharp!r} and the "
                f"network gave {shapes}; measure in the module's own step instead"
            )
        if counted := counted_images(pl_module, len(sharp), *place):
            for meter, image in zip(self._meters.values(), self._calls[0], strict=True):
                meter.update(image[:counted].clamp(0, 1), sharp[:counted])

    def _log_metrics(self, pl_module: L.LightningModule, stage: str) -> None:
        for which, meter in self._meters.items():
            value = meter.compute()
            values = value if isinstance(value, dict) else {type(meter).__name__.lower(): value}
            pl_module.log_dict(
                {f"{stage}/{name}_{which}": number.float() for name, number in values.items()}, sync_dist=True
            )
        self._meters = {}

    def _end(self, pl_module: L.LightningModule, step: str) -> None:
        if self._replaced is None:
            return
        self._first.end(pl_module.trainer)
        self._remove()
        if self._batches and not self.history:
            raise PluginError(
                f"nothing was adapted: {type(pl_module).__name__}.{step} never called the network at "
                f"{self.network!r}; pass network=<the path of the network that it calls>"
            )

    def _remove(self) -> None:
        if self._replaced is not None:
            self._replaced.restore()
            self._replaced = None
        self._meters = {}
        self._calls.clear()
