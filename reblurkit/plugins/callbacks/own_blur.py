"""Adaptation to each photo's own blur in ``trainer.test``, ``trainer.validate`` and ``trainer.predict``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from reblurkit.adaptation.changes import BlurAdaptationChange, blur_changes_of
from reblurkit.adaptation.own_blur import AdaptToBlurOptions, adapt_to_blur
from reblurkit.adaptation.slicing import each_image, first_image, replace_finest
from reblurkit.core.calls import finest_scale
from reblurkit.errors import PluginError
from reblurkit.plugins.callbacks.adapting import AdaptingCallback
from reblurkit.plugins.callbacks.progress import show_beside_bar


class AdaptToBlurCallback(AdaptingCallback):
    """Adapts the deblurring network to every photo's own blur, without a reblurring network and without ground truth.

    Not from a paper, see :func:`reblurkit.adaptation.adapt_to_blur`. For the length of ``trainer.test``,
    ``trainer.validate`` or ``trainer.predict`` every call of the network returns what the network adapted to each photo
    gives, in batches of any size, in [0, 1]; where no blur of the photo was found, what the network gives by itself.
    Inside ``fit`` it does nothing. The module is never modified, and nothing of the callback stays on it afterwards. In
    DDP every process adapts to its own photos.

    Args:
        network: Dotted path of the deblurring network in the LightningModule.
        metrics: Measure plain and adapted images, clamped to [0, 1], against ``sharp`` of the batch, and log
            ``test/psnr_plain`` and ``test/psnr_adapted`` (``val/...``): a metric of two images or a collection, such
            as ``reblurkit.metrics.DeblurMetrics()``.
        **options: How to adapt, see :class:`reblurkit.adaptation.AdaptToBlurOptions`.

    Attributes:
        history: For each photo of this process in the last run: distance of the reblurred image from the photo
            ``before`` and ``after``, mean ``change`` in grey levels, ``agreement``, ``explained``, and whether the
            network ``adapted``.

    Raises:
        PluginError: When a run starts, if the path names nothing, if another callback adapts the same network, or
            with FSDP, DeepSpeed or ModelParallel; if the network is called with more than an image; when the run ends,
            if the network was never called.
        ArgumentError: If an option or an image is out of range.

    Example:
        >>> callback = AdaptToBlurCallback(steps=10)
        >>> trainer = L.Trainer(callbacks=[callback], logger=False, barebones=False)
        >>> callback.history
        []
    """

    def __init__(
        self, network: str = "network", *, metrics: Metric | MetricCollection | None = None, **options: Any
    ) -> None:
        super().__init__(network, metrics)
        self.options = AdaptToBlurOptions(**options)
        self.history: list[BlurAdaptationChange] = []

    def _prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, network: nn.Module) -> None:
        self.history = []

    def _adapt(self, trainer: L.Trainer, network: nn.Module, arguments: Any, keywords: Any) -> tuple[Any, Tensor]:
        inputs = (*arguments, *keywords.values())
        if len(inputs) != 1:
            raise PluginError(
                f"adaptation to a blur is for networks of one image, but {type(network).__name__} was called with "
                f"{len(inputs)} inputs; TestTimeAdaptCallback takes them"
            )
        blurry = first_image(inputs)
        with torch.no_grad():
            output = network(*arguments, **keywords)
        plain, images = finest_scale(output), []
        for photo, own in zip(each_image(blurry), each_image(plain), strict=True):
            adapted = adapt_to_blur(network, photo, **vars(self.options))
            self.history += blur_changes_of(adapted)
            images.append(adapted.image.to(own.dtype) if adapted.adapted else own)
            show_beside_bar(trainer, self._progress)
        return replace_finest(output, torch.cat(images)), plain

    def _progress(self) -> str:
        return f"image {len(self.history)}, {self._found()} adapted to"

    def _found(self) -> int:
        return sum(change.adapted for change in self.history)

    def _end(self, pl_module: L.LightningModule, step: str) -> None:
        adapting = self._replaced is not None
        super()._end(pl_module, step)
        if adapting and self.history and not self._found():
            rank_zero_warn(
                f"the network adapted to none of {len(self.history)} photos: no blur was found in them, see "
                "`agreement` and `explained` in `history`; it is for blur that is nearly the same all over a photo"
            )
