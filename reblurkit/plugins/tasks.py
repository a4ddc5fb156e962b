"""LightningModules for users who bring a network only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR
from torchmetrics import Metric

from reblurkit.checks import check_images, check_range
from reblurkit.errors import ArgumentError, PluginError, ShapeError
from reblurkit.losses.reblur import Sharpness
from reblurkit.metrics import PSNR, SSIM, GradientStatistics, ReblurPSNR
from reblurkit.networks import finest_scale
from reblurkit.plugins.reblur_mixin import ReblurLossMixin


class DeblurTask(ReblurLossMixin, L.LightningModule):
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
        super().__init__()
        self.network = network
        self.loss = loss or nn.L1Loss()
        self._make_optimizer = optimizer or partial(torch.optim.Adam, lr=1e-4)
        self._make_scheduler = scheduler
        if reblur_net is not None:
            self.configure_reblur(
                reblur_net,
                weight=reblur_weight,
                sharpness=reblur_sharpness,
                warmup=reblur_warmup,
                optimizer=self._make_optimizer,
                scheduler=self._halving,
            )
        self._metrics = nn.ModuleDict({stage: _metrics(stage, self._reblurs) for stage in ("val", "test")})
        self._first_batch = True

    def forward(self, blurry: Tensor) -> Tensor:
        """Deblur ``(B, 3, H, W)`` in [0, 1]; the result is not clamped."""
        return self._deblur(blurry)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch: reconstruction, and reblurring if there is a reblurring network."""
        blurry, sharp = self._images(batch)
        deblurred = self._deblur(blurry)
        loss: Tensor = self.loss(deblurred, sharp)
        if self._reblurs:
            loss = loss + self.reblur_loss(deblurred, sharp, blurry)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch; returns the deblurred images for loggers."""
        return self._measure(batch, "val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch; returns the deblurred images."""
        return self._measure(batch, "test")

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Deblur a batch; returns ``deblurred`` in [0, 1] and ``name``."""
        return {"deblurred": self._deblur(batch["blurry"]).clamp(0, 1), "name": batch["name"]}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report("test")

    def configure_optimizers(self) -> Any:
        """One optimizer for the deblurring network; the reblurring network has its own."""
        optimizer = self._make_optimizer(self.network.parameters())
        if self._make_scheduler is None:
            return [optimizer], [{"scheduler": self._halving(optimizer), "interval": "step"}]
        scheduler = self._make_scheduler(optimizer)
        # Lightning's own ReduceLROnPlateau names the metric that it watches
        return [optimizer], [{"scheduler": scheduler, "monitor": getattr(scheduler, "monitor", None)}]

    @property
    def _reblurs(self) -> bool:
        return hasattr(self, "reblur")

    def _halving(self, optimizer: Optimizer) -> LRScheduler:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise PluginError(
                "the learning rate's schedule needs the length of the training: set max_epochs or max_steps"
            )
        return MultiStepLR(optimizer, [int(share * steps) for share in (0.5, 0.75, 0.9)], gamma=0.5)

    def _images(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Mapping) or not {"blurry", "sharp"} <= batch.keys():
            found = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise ArgumentError(f"a batch must be a dict with the keys 'blurry' and 'sharp', but is {found}")
        blurry, sharp = batch["blurry"], batch["sharp"]
        check_images(blurry=blurry, sharp=sharp)
        if self._first_batch:
            check_range(blurry=blurry, sharp=sharp)
            self._first_batch = False
        return blurry, sharp

    def _deblur(self, blurry: Tensor) -> Tensor:
        deblurred = finest_scale(self.network(blurry))
        if deblurred.shape != blurry.shape:
            raise ShapeError(
                f"the network {type(self.network).__name__} must keep the shape of its input, {tuple(blurry.shape)}, "
                f"but returned {tuple(deblurred.shape)}"
            )
        return deblurred

    def _measure(self, batch: Mapping[str, Any], stage: str) -> dict[str, Tensor]:
        blurry, sharp = self._images(batch)
        deblurred = self._deblur(blurry).clamp(0, 1)
        for metric in self._stage_metrics(stage).values():
            if isinstance(metric, ReblurPSNR):
                metric.update(self.reblur(deblurred).clamp(0, 1), blurry)
            else:
                metric.update(deblurred, sharp)
        return {"deblurred": deblurred}

    def _report(self, stage: str) -> None:
        for name, metric in self._stage_metrics(stage).items():
            value = metric.compute()
            values = value if isinstance(value, dict) else {name: value}
            logged = {f"{stage}/{key}": number.float() for key, number in values.items()}
            self.log_dict(logged, prog_bar=name == "psnr")
            metric.reset()

    def _stage_metrics(self, stage: str) -> dict[str, Metric]:
        return cast("dict[str, Metric]", self._metrics[stage])


def _metrics(stage: str, reblurs: bool) -> nn.ModuleDict:
    metrics: dict[str, Metric] = {"psnr": PSNR(), "ssim": SSIM()}
    if reblurs:
        metrics["reblur_psnr"] = ReblurPSNR()
    if stage == "test":
        metrics["gradients"] = GradientStatistics()
    return nn.ModuleDict(metrics)
