"""Metrics, each defined once; ``docs/reference/metrics.md`` says how they differ from what others report."""

from reblurkit.metrics.colour_shift import ColourShift
from reblurkit.metrics.deblur_metrics import DeblurMetrics
from reblurkit.metrics.deep_distance import DeepDistance
from reblurkit.metrics.gradients import GradientStatistics
from reblurkit.metrics.lpips import LPIPS
from reblurkit.metrics.max_over_order import MaxOverOrder
from reblurkit.metrics.niqe import NIQE
from reblurkit.metrics.niqe_model import PristineModel, fit_pristine
from reblurkit.metrics.psnr import PSNR, ReblurPSNR
from reblurkit.metrics.remaining_blur import grid_of_places, remaining_blur_kernel, spread
from reblurkit.metrics.ssim import SSIM

__all__ = [
    "LPIPS",
    "NIQE",
    "PSNR",
    "SSIM",
    "ColourShift",
    "DeblurMetrics",
    "DeepDistance",
    "GradientStatistics",
    "MaxOverOrder",
    "PristineModel",
    "ReblurPSNR",
    "fit_pristine",
    "grid_of_places",
    "remaining_blur_kernel",
    "spread",
]
