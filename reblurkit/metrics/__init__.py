"""Metrics, each defined once; ``docs/metrics.md`` says how they differ from what others report."""

from reblurkit.metrics.gradients import GradientStatistics
from reblurkit.metrics.psnr import PSNR, ReblurPSNR
from reblurkit.metrics.ssim import SSIM

__all__ = ["PSNR", "SSIM", "GradientStatistics", "ReblurPSNR"]
