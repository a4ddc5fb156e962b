"""Test-time adaptation in ``trainer.test``, ``trainer.validate`` and ``trainer.predict``, for any LightningModule."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from reblurkit.adaptation.batch import adapt_call
from reblurkit.adaptation.options import AdaptOptions
from reblurkit.core.calls import find_network, finest_scale
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.models.full_size import FullSize
from reblurkit.plugins.callbacks.first_to_hear import FirstToHear
from reblurkit.plugins.callbacks.progress import show_beside_bar
from reblurkit.plugins.callbacks.replaced_method import ReplacedMethod, is_replaced, replace_forward
from reblurkit.plugins.shares import counted_images

_STAGES = (TrainerFn.TESTING, TrainerFn.VALIDATING, TrainerFn.PREDICTING)


@dataclass(frozen=True)
class AdaptedImage:
    """Record of one image: its place in the process's order, its losses before each step and after the last, time."""

    index: int
    losses: tuple[float, ...]
    seconds: float


class TestTimeAdaptCallback(L.Callback):
    """Adapts the deblurring network to every image, without ground truth and without a change in the user's module.

    Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), see :func:`reblurkit.adaptation.adapt`. For
    the length of ``trainer.test``, ``trainer.validate`` or ``trainer.predict`` every call of the network returns what
    the network adapted to each image gives, in batches of any size. Inside ``fit`` it does nothing. The module's
    weights and buffers are never modified, and nothing of the callback stays on it afterwards, also after an error or
    Ctrl-C, nor on copies that are made meanwhile. In DDP every process adapts to its own images. An image whose loss
    becomes NaN keeps its plain output; the first is warned of, ``failures`` counts them.

    Args:
        network: Dotted path of the deblurring network in the LightningModule.
        reblur: Dotted path of the reblurring network that was trained with it, or the network itself.
        metrics: Measure plain and adapted images, clamped to [0, 1], against ``sharp`` of the batch, and log
            ``test/psnr_plain`` and ``test/psnr_adapted`` (``val/...``): a metric of two images or a collection, such
            as ``reblurkit.metrics.DeblurMetrics()``.
        **options: How to adapt, see :class:`reblurkit.adaptation.AdaptOptions`.

    Attributes:
        history: For each image of this process in the last run: ``index``, ``losses``, ``seconds``.
        failures: Number of images in the last run that kept their plain output.

    Raises:
        PluginError: When a run starts, if a path names nothing, if another such callback adapts the same network, or
            with FSDP, DeepSpeed or ModelParallel; when it ends, if the network was never called.
        ArgumentError: If an option is out of range.

    Example:
        >>> callback = TestTimeAdaptCallback(steps=3)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, barebones=False)
        >>> callback.history
        []
    """

    __test__ = False  # the name begins as those that pytest collects

    def __init__(
        self,
        network: str = "network",
        reblur: str | nn.Module = "reblur",
        *,
        metrics: Metric | MetricCollection | None = None,
        **options: Any,
    ) -> None:
        self.network = network
        self.reblur = reblur
        self.options = AdaptOptions(**options)
        if not isinstance(metrics, Metric | MetricCollection | None):
            raise ArgumentError(
                f"`metrics` must be a metric such as reblurkit.metrics.PSNR(), or a collection, but is {metrics!r}"
            )
        self.metrics = metrics
        self.history: list[AdaptedImage] = []
        self.failures = 0
        self._meters: dict[str, Metric | MetricCollection] = {}
        self._calls: list[tuple[Tensor, Tensor]] = []
        self._batches = 0
        self._replaced: ReplacedMethod | None = None
        self._first = FirstToHear(self._remove)

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
        network, reblur_net = find_network(pl_module, self.network), FullSize(self._reblur_network(pl_module))
        if is_replaced(network):
            raise PluginError(
                f"two TestTimeAdaptCallbacks adapt the network at {self.network!r}; keep one, as each would adapt "
                "what the other has adapted"
            )
        if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in network.parameters()):
            rank_zero_warn(
                f"the weights of {self.network!r} have half precision, which rounds adaptation's small steps away; "
                "keep them in float32 (`precision` 'bf16-mixed' or 32)"
            )
        self.history, self.failures, self._batches = [], 0, 0
        if self.metrics is not None and trainer.state.fn != TrainerFn.PREDICTING:
            self._meters = {name: copy.deepcopy(self.metrics).to(pl_module.device) for name in ("plain", "adapted")}
            for meter in self._meters.values():
                meter.reset()
        self._first.begin(trainer)
        self._replaced = replace_forward(network, lambda *inputs: self._adapt(trainer, network, reblur_net, *inputs))

    def _reblur_network(self, pl_module: L.LightningModule) -> nn.Module:
        if isinstance(self.reblur, nn.Module):
            with torch.inference_mode(False):  # a copy made in inference mode could take no part in a backward pass
                return copy.deepcopy(self.reblur).to(pl_module.device).to(pl_module.dtype).eval()
        try:
            return find_network(pl_module, self.reblur)
        except PluginError as error:
            raise PluginError(
                f"no reblurring network: {error}; train one with ReblurLossMixin, or pass reblur=<a trained network>"
            ) from None

    def _adapt(
        self, trainer: L.Trainer, network: nn.Module, reblur_net: nn.Module, arguments: Any, keywords: Any
    ) -> Any:
        done = len(self.history)

        def report(image: int, step: int, loss: Tensor) -> None:
            show_beside_bar(
                trainer, lambda: f"image {done + image + 1}, step {step}/{self.options.steps}, loss {loss.item():.4g}"
            )

        call = adapt_call(network, reblur_net, arguments, keywords, self.options, report)
        if self._meters:
            self._calls.append((call.plain, finest_scale(call.output).detach()))
        for index, (losses, seconds) in enumerate(zip(call.losses.tolist(), call.seconds, strict=True), done):
            self.history.append(AdaptedImage(index, tuple(losses), seconds))
        failed = ~call.losses.isfinite().all(1)
        if failed.any() and not self.failures:
            warnings.warn(
                f"the self-supervised reblurring loss of image {done + int(failed.int().argmax())} became NaN or "
                "infinite: its plain output is kept; further ones are counted in `failures`",
                stacklevel=2,
            )
        self.failures += int(failed.sum())
        return call.output

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
                "metrics of TestTimeAdaptCallback need batches with 'sharp' and one call of the network a batch that "
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
