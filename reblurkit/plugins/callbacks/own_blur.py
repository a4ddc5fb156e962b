"""Adaptation to each photo's own blur in ``trainer.test``, ``trainer.validate`` and ``trainer.predict``."""

from __future__ import annotations

import math
import warnings
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from reblurkit.adaptation.changes import BlurAdaptationChange, blur_changes_of
from reblurkit.adaptation.image import explained
from reblurkit.adaptation.own_blur import (
    AdaptedToBlur,
    AdaptToBlurOptions,
    adapt_to_blur,
    check_adaptable,
    check_photos,
)
from reblurkit.adaptation.slicing import each_image, replace_finest
from reblurkit.core.calls import finest_scale
from reblurkit.errors import PluginError
from reblurkit.plugins.callbacks.adapting import AdaptingCallback
from reblurkit.plugins.callbacks.progress import show_beside_bar


class AdaptToBlurCallback(AdaptingCallback):
    """Adapts the deblurring network to every photo's own blur, without a reblurring network and without ground truth.

    Not from a paper, see :func:`reblurkit.adaptation.adapt_to_blur`. For the length of ``trainer.test``,
    ``trainer.validate`` or ``trainer.predict`` every call of the network returns what the network adapted to each
    photo gives, in batches of any size, in [0, 1]; where no blur of the photo was found, or the photo is too small
    for it, what the network gives by itself. Inside ``fit`` it does nothing. The module is never modified, and
    nothing of the callback stays on it afterwards. In DDP every process adapts to its own photos.

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
        failures: Number of photos in the last run whose images became NaN or infinite; they are as the network makes
            them.
        too_small: Number of photos in the last run that were too small, likewise; their distances are NaN.

    Raises:
        PluginError: When a run starts, if the path names nothing, if another callback adapts the same network, or
            with FSDP, DeepSpeed or ModelParallel; if the network is called with anything but one image; when the run
            ends, if the network was never called.
        ArgumentError: If an option or an image is out of range, or the network cannot adapt.
        ShapeError: If photos are not RGB, see :func:`reblurkit.adaptation.adapt_to_blur`.

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
        self.failures = self.too_small = 0

    def _prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, network: nn.Module) -> None:
        check_adaptable(network, pl_module.device)
        self.history, self.failures, self.too_small = [], 0, 0

    def _adapt(self, trainer: L.Trainer, network: nn.Module, arguments: Any, keywords: Any) -> tuple[Any, Tensor]:
        if len(arguments) != 1 or keywords or not isinstance(arguments[0], Tensor):
            raise PluginError(
                f"adaptation to a blur is for networks that are called with one image, network(blurry), but "
                f"{type(network).__name__} was called with {len(arguments)} positional and {len(keywords)} keyword "
                "arguments; TestTimeAdaptCallback takes them"
            )
        (blurry,) = arguments
        check_photos(blurry)
        with torch.no_grad(), explained(network, arguments):
            output = network(blurry.clone())  # some write into their input
        plain, images = finest_scale(output), []
        if min(blurry.shape[-2:]) < self.options.least_side:
            self._leave(blurry)
            return output, plain
        for photo, own in zip(each_image(blurry), each_image(plain), strict=True):
            adapted = adapt_to_blur(network, photo, **vars(self.options))
            images.append(adapted.image.to(own.dtype) if adapted.adapted else own)
            self._note(adapted)
            show_beside_bar(trainer, self._progress)
        return replace_finest(output, torch.cat(images)), plain

    def _leave(self, blurry: Tensor) -> None:
        if not self.too_small:
            warnings.warn(
                f"photos of {blurry.shape[-2]} x {blurry.shape[-1]} pixels stay as the network makes them: adaptation "
                f"to their blur needs {self.options.least_side} pixels a side; such photos are counted in `too_small`",
                stacklevel=2,
            )
        self.too_small += len(blurry)
        self.history += [BlurAdaptationChange(math.nan, math.nan, 0.0, 0.0, 0.0, False)] * len(blurry)

    def _note(self, adapted: AdaptedToBlur) -> None:
        self.history += blur_changes_of(adapted)
        if not adapted.losses.isfinite().all():
            if not self.failures:
                warnings.warn(
                    f"the image of photo {len(self.history) - 1} became NaN or infinite: it is as the network makes "
                    "it; a smaller `lr` may help; further ones are counted in `failures`",
                    stacklevel=2,
                )
            self.failures += 1

    def _progress(self) -> str:
        return f"image {len(self.history)}, {self._found()} adapted to"

    def _found(self) -> int:
        return sum(change.adapted for change in self.history)

    def _end(self, pl_module: L.LightningModule, step: str) -> None:
        adapting = self._replaced is not None
        super()._end(pl_module, step)
        if not adapting:
            return
        judged = len(self.history) - self.failures - self.too_small
        mine = torch.tensor([judged, self._found()], device=pl_module.device)
        photos, found = pl_module.trainer.strategy.reduce(mine, reduce_op="sum").tolist()
        if photos and not found:
            rank_zero_warn(
                f"the network adapted to none of {photos} photos: no blur was found in them, see `agreement` and "
                "`explained` in `history`; it is for blur that is nearly the same all over a photo"
            )
