"""LightningModules for users who bring a network only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from reblurkit.losses.reblur import Sharpness
from reblurkit.metrics import PSNR, SSIM, GradientStatistics, ReblurPSNR
from reblurkit.plugins.paired_task import PairedTask
from reblurkit.plugins.reblur_mixin import ReblurLossMixin


class DeblurTask(ReblurLossMixin, PairedTask):
    """Trains any deblurring network, with or without the reblurring loss.

    The defaults are the recipe of Nah et al., *Clean Images are Hard to Reblur* (2021), section S1: L1, Adam with
    learning rate 1e-4, halved at 50, 75 and 90 % of the training. Logs ``train/loss``, and over validation and test
    images ``psnr`` and ``ssim``, over test images also the gradient statistics, of the output clamped to [0, 1];
    with a reblurring network also ``reblur_psnr``.

    Batches are dicts with ``blurry``, ``sharp`` and ``name``.

    Args:
        network: The deblurring network: images ``(B, 3, H, W)`` in [0, 1] to the same shape, or to a list of images
            from coarse to fine, of which the last is used.
        reblur_net: The reblurring network, for instance ``reblurkit.models.ReblurNet``; ``null`` trains without the
            reblurring loss.
        loss: Called with the deblurred and the sharp images; default L1.
        reblur_weight: Weight of the reblurring loss; with 0 the reblurring network trains along without a say.
        reblur_sharpness: What the reblurring network must preserve: ``pseudo``, ``real`` or ``null``.
        reblur_warmup: Steps at the start during which the weight is 0.
        optimizer: Called with the parameters, of each of the two networks; default Adam with learning rate 1e-4.
        scheduler: Called with the optimizer, steps every epoch; default: the paper's halving. The reblurring
            network's learning rate always follows the paper's.

    Raises:
        ShapeError: If the network's output has another shape than its input.
        ArgumentError: If a batch lacks a key, or the first batch is not in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        reblur_net: nn.Module | None = None,
        *,
        loss: nn.Module | None = None,
        reblur_weight: float = 1.0,
        reblur_sharpness: Sharpness = "pseudo",
        reblur_warmup: int = 0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(network, optimizer, scheduler)
        self.loss = loss or nn.L1Loss()
        if reblur_net is not None:
            self.configure_reblur(
                reblur_net,
                weight=reblur_weight,
                sharpness=reblur_sharpness,
                warmup=reblur_warmup,
                optimizer=self._make_optimizer,
                scheduler=self._halving,
            )
        self._set_metrics(**{stage: _metrics(stage, self._reblurs) for stage in ("val", "test")})

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch: reconstruction, and reblurring if there is a reblurring network."""
        blurry, sharp = self._images(batch)
        deblurred = self._deblur(blurry)
        loss: Tensor = self.loss(deblurred, sharp)
        if self._reblurs:
            loss = loss + self.reblur_loss(deblurred, sharp, blurry)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    @property
    def _trained(self) -> nn.Module:
        return self.network  # the reblurring network has an optimizer of its own

    @property
    def _reblurs(self) -> bool:
        return hasattr(self, "reblur")


def _metrics(stage: str, reblurs: bool) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {"psnr": PSNR(), "ssim": SSIM()}
    if reblurs:
        metrics["reblur_psnr"] = ReblurPSNR()
    if stage == "test":
        metrics["gradients"] = GradientStatistics()
    return metrics
