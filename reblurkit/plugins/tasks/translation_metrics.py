"""What is measured of a translator of blur, with and without sharp images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn
from torchmetrics import Metric

from reblurkit.metrics import PSNR, SSIM, ColourShift
from reblurkit.metrics.per_image import values_of_each


class TranslationMetrics(nn.Module):
    """Metrics of the translated images, and of the deblurred ones where there is a network for them.

    Args:
        score: A metric that needs no sharp image, of the deblurred images.
    """

    def __init__(self, score: Metric | None) -> None:
        super().__init__()
        metrics: dict[str, Metric] = {"content_ssim": SSIM(), "colour_shift": ColourShift()}
        for ending in ("", "_alone", "_blurry"):
            metrics |= {f"psnr{ending}": PSNR(), f"ssim{ending}": SSIM()}
        if score is not None:
            metrics["score"] = copy.deepcopy(score)
        self.metrics = nn.ModuleDict(metrics)
        self._measured: set[str] = set()

    def update(
        self,
        blurry: Tensor,
        translated: Tensor,
        deblurred: Tensor | None = None,
        alone: Tensor | None = None,
        sharp: Tensor | None = None,
        *,
        each: bool = False,
    ) -> dict[str, list[float]]:
        """Add a batch.

        Args:
            blurry: ``(B, 3, H, W)`` in [0, 1], as all others.
            translated: The blurry images translated.
            deblurred: Those deblurred.
            alone: The blurry images deblurred without translation.
            sharp: The truth.
            each: Also measure each image alone.

        Returns:
            The values of each image by name; empty without ``each``.
        """
        content = (translated, blurry)
        pairs: dict[str, tuple[Tensor, ...]] = {"content_ssim": content, "colour_shift": content}
        if deblurred is not None:
            if sharp is not None:
                for ending, image in (("", deblurred), ("_alone", alone), ("_blurry", blurry)):
                    if image is not None:
                        pairs |= {f"psnr{ending}": (image, sharp), f"ssim{ending}": (image, sharp)}
            if "score" in self.metrics:
                pairs["score"] = (deblurred,)
        self._measured.update(pairs)  # also where nothing counts: all processes must compute the same metrics
        values: dict[str, list[float]] = {}
        if len(blurry):
            for name, images in pairs.items():
                metric = cast(Metric, self.metrics[name])
                if each:
                    values |= values_of_each(metric, name, *images)
                else:
                    metric.update(*images)
        return values

    def compute(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of what was measured; starts anew."""
        for name, module in self.metrics.items():
            metric = cast(Metric, module)
            if name in self._measured:
                yield name, metric.compute().float()
                metric.reset()
        self._measured.clear()
