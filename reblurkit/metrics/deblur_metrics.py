"""The metrics of deblurring papers, together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from reblurkit.core.checks import check_images
from reblurkit.errors import ArgumentError, BackendError, DownloadError, PluginError, ShapeError
from reblurkit.metrics.gradients import GradientStatistics
from reblurkit.metrics.lpips import LPIPS
from reblurkit.metrics.niqe import NIQE
from reblurkit.metrics.psnr import PSNR
from reblurkit.metrics.ssim import SSIM

_DEFAULTS: dict[str, Callable[[], Metric]] = {
    "psnr": PSNR,
    "ssim": SSIM,
    "gradients": GradientStatistics,
    "niqe": NIQE,
    "lpips": LPIPS,
}


class DeblurMetrics(Metric):
    """PSNR, SSIM, gradient statistics, NIQE and LPIPS at once; what cannot be measured is reported, not fatal.

    A metric is unavailable, and a warning says so, if its weights cannot be downloaded, if it needs an extra that is
    not installed, or if an image does not suit it (NIQE needs two blocks of 96 x 96 pixels); a mean over the other
    images would be another number. Everything else that is wrong, such as a damaged local file, raises as usual.

    Args:
        **metrics: By name, a metric or what makes one, for instance ``deep_distance=DeepDistance``; None leaves out a
            default one. They replace or join the defaults ``psnr``, ``ssim``, ``gradients``, ``niqe``, ``lpips``.

    Shape:
        ``update(preds, target)`` with ``(B, 3, H, W)`` in [0, 1]; ``compute()`` returns a dict of float64 scalars by
        name (a metric that is a dict itself, by its own names).

    Raises:
        ArgumentError: If a value is neither of these.

    Example:
        >>> metrics = DeblurMetrics(niqe=None, lpips=None, psnr_8_bit=PSNR(quantize=True))
        >>> metrics.update(torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.1))
        >>> list(metrics.compute())
        ['psnr', 'ssim', 'gradient_ratio', 'gradient_distance', 'psnr_8_bit']
        >>> metrics.unavailable
        {}
    """

    is_differentiable = False
    full_state_update = False
    refused: Tensor

    def __init__(self, **metrics: Metric | Callable[[], Metric] | None) -> None:
        super().__init__()
        chosen = {name: metric for name, metric in {**_DEFAULTS, **metrics}.items() if metric is not None}
        self._names = tuple(chosen)
        self._metrics = nn.ModuleDict()
        self._missing: dict[str, str] = {}
        self._unsuited: dict[str, str] = {}
        for name, metric in chosen.items():
            try:
                built = metric if isinstance(metric, Metric) else metric()
            except (BackendError, DownloadError) as error:
                self._missing[name] = str(error)
                warnings.warn(f"{name} is not measured: {error}", stacklevel=2)
                continue
            if not isinstance(built, Metric):
                raise ArgumentError(f"`{name}` must be a torchmetrics Metric or make one, but is {built!r}")
            self._metrics[name] = built
        # Counts over all processes, so that all of them agree on which metrics to add up: with one missing in one
        # process, the others would wait for it forever.
        missing = torch.tensor([int(name in self._missing) for name in self._names], dtype=torch.int64)
        self.add_state("refused", missing, dist_reduce_fx="sum")

    @property
    def unavailable(self) -> dict[str, str]:
        """Names of the metrics that cannot be measured, each with the reason."""
        return {**self._missing, **self._unsuited}

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images."""
        check_images(preds=preds, target=target)
        for index, name in enumerate(self._names):
            if name in self.unavailable:
                continue
            try:
                self._metric(name).update(preds, target)
            except ShapeError as error:
                self._unsuited[name] = str(error)
                self.refused[index] += 1
                warnings.warn(f"{name} is not measured: {error}", stacklevel=2)

    def compute(self) -> dict[str, Tensor]:
        """The values of the available metrics."""
        values: dict[str, Tensor] = {}
        for name, refused in zip(self._names, self.refused.tolist(), strict=True):
            if refused:
                if name not in self.unavailable:
                    self._unsuited[name] = "another process could not measure it"
                continue
            value = self._metric(name).compute()
            values.update(value if isinstance(value, dict) else {name: value})
        return values

    def reset(self) -> None:
        """Forget all images; metrics that images did not suit are available again."""
        super().reset()
        self._unsuited.clear()
        for metric in self._metrics.values():
            cast("Metric", metric).reset()

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported: there are no values of single batches."""
        raise PluginError("DeblurMetrics has no values of single batches; call update(preds, target), then compute()")

    def _metric(self, name: str) -> Metric:
        return cast("Metric", self._metrics[name])
