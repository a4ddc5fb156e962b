"""Test-time adaptation in ``trainer.test``, ``trainer.validate`` and ``trainer.predict``, for any LightningModule."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from reblurkit.adaptation.batch import AdaptedCall, adapt_call
from reblurkit.adaptation.changes import changes_of
from reblurkit.adaptation.options import AdaptOptions
from reblurkit.core.calls import find_network
from reblurkit.errors import PluginError
from reblurkit.models.full_size import FullSize
from reblurkit.plugins.callbacks.adapting import AdaptingCallback
from reblurkit.plugins.callbacks.progress import show_beside_bar


@dataclass(frozen=True)
class AdaptedImage:
    """Record of one image: its place in the process's order, its losses before each step and after the last, time."""

    index: int
    losses: tuple[float, ...]
    seconds: float


class TestTimeAdaptCallback(AdaptingCallback):
    """Adapts the deblurring network to every image, without ground truth and without a change in the user's module.

    Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), see :func:`reblurkit.adaptation.adapt`. For
    the length of ``trainer.test``, ``trainer.validate`` or ``trainer.predict`` every call of the network returns what
    the network adapted to each image gives, in batches of any size. Inside ``fit`` it does nothing. The module's
    weights and buffers are never modified, and nothing of the callback stays on it afterwards, also after an error or
    Ctrl-C, nor on copies that are made meanwhile. In DDP every process adapts to its own images. An image whose loss
    becomes NaN keeps its plain output; the first is warned of, ``failures`` counts them. The run ends with a warning
    where the reblurring network seems to have learned too little for its images, or the loss rose instead of falling.

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
        super().__init__(network, metrics)
        self.reblur = reblur
        self.options = AdaptOptions(**options)
        self.history: list[AdaptedImage] = []
        self.failures = 0
        self._poor = self._risen = 0
        self._reblur_net: nn.Module | None = None

    def _prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, network: nn.Module) -> None:
        self._reblur_net = FullSize(self._reblur_network(pl_module))
        if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in network.parameters()):
            rank_zero_warn(
                f"the weights of {self.network!r} have half precision, which rounds adaptation's small steps away; "
                "keep them in float32 (`precision` 'bf16-mixed' or 32)"
            )
        self.history, self.failures, self._poor, self._risen = [], 0, 0, 0

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

    def _adapt(self, trainer: L.Trainer, network: nn.Module, arguments: Any, keywords: Any) -> tuple[Any, Tensor]:
        done = len(self.history)

        def report(image: int, step: int, loss: Tensor) -> None:
            show_beside_bar(
                trainer, lambda: f"image {done + image + 1}, step {step}/{self.options.steps}, loss {loss.item():.4g}"
            )

        assert self._reblur_net is not None  # of `_prepare`
        call = adapt_call(network, self._reblur_net, arguments, keywords, self.options, report)
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
        self._judge(call, arguments)
        return call.output, call.plain

    def _judge(self, call: AdaptedCall, arguments: Any) -> None:
        """Count images whose losses say that adaptation cannot help."""
        images = (each for each in arguments if isinstance(each, Tensor) and each.shape == call.plain.shape)
        if (blurry := next(images, None)) is not None:
            changes = changes_of(call, blurry)
            self._poor += sum(change.is_poor for change in changes)
            self._risen += sum(change.has_risen and not change.is_poor for change in changes)

    def _end(self, pl_module: L.LightningModule, step: str) -> None:
        adapting = self._replaced is not None
        super()._end(pl_module, step)
        if not adapting:
            return
        mine = torch.tensor([len(self.history), self._poor, self._risen], device=pl_module.device)
        photos, poor, risen = pl_module.trainer.strategy.reduce(mine, reduce_op="sum").tolist()
        if poor:
            rank_zero_warn(
                f"of {poor} of {photos} images the reblurring network makes others, as one does that has learned too "
                "little: adapted images may be worse than plain ones, which `metrics` tells where there are sharp ones"
            )
        if risen:
            rank_zero_warn(f"the loss of {risen} of {photos} images rose instead of falling: take a smaller `lr`")

    def _remove(self) -> None:
        super()._remove()
        self._reblur_net = None
