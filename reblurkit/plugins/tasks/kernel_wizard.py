"""Training of the blur transfer network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reblurkit.core.checks import FirstBatchCheck, check_images
from reblurkit.core.numbers import check_positive
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.losses.reconstruction import CharbonnierLoss
from reblurkit.metrics import PSNR
from reblurkit.metrics.per_image import values_of_each
from reblurkit.models.full_size import FullSize
from reblurkit.models.kernel_wizard import KernelWizard
from reblurkit.plugins.mixins.own_names import OwnNames
from reblurkit.plugins.schedules import OverTraining, cosine
from reblurkit.plugins.shares import counted_images
from reblurkit.plugins.tasks.logged_rates import LoggedRates


class KernelWizardTask(OwnNames, LoggedRates):
    """Trains KernelWizard on pairs, for :class:`reblurkit.blur.BlurTransfer`.

    Tran et al., *Explore Image Deblurring via Encoded Blur Kernel Space* (2021): the code of a pair's blur, put on the
    pair's sharp image, must give back the blurry one; Charbonnier loss with epsilon 1e-6 inside the root, Adam with
    learning rate 1e-4 and beta 0.9, 0.99, crops of 256 pixels, batch 16. Different here: the loss is a mean, not a
    sum, which Adam does not notice, and the learning rate falls once along a cosine, without restarts.

    Batches are dicts with ``blurry`` and ``sharp``. Logs ``train/loss``, and ``val/psnr`` and ``test/psnr`` of the
    blurry image that came back, of whole images of any size; beside it ``psnr_sharp``, of the sharp image, which a
    network that learns must exceed.

    Args:
        network: The network; default ``KernelWizard()``, Blur2Blur's form without a distribution of codes.
        lr: Learning rate at the start.

    Raises:
        ArgumentError: If the network has a distribution of codes, whose training is another one, ``lr`` is not above 0,
            or the first batch is not in [0, 1].
        ShapeError: If crops do not divide by 128, or are smaller than 256 pixels.

    Example:
        >>> from reblurkit.models.kernel_wizard import KernelWizard
        >>> task = KernelWizardTask(KernelWizard(width=4, code_width=8, front_blocks=1, back_blocks=1))
        >>> sum(parameter.numel() for parameter in task.parameters())
        81103
    """

    def __init__(self, network: nn.Module | None = None, *, lr: float = 1e-4) -> None:
        super().__init__()
        check_positive(lr=lr)
        if getattr(network, "vae", False):
            raise ArgumentError("this trains networks with one code for a pair, as Blur2Blur uses: build it vae=False")
        self.network = network or KernelWizard()
        self.loss = CharbonnierLoss(1e-3)
        self.psnr = PSNR()
        self.psnr_sharp = PSNR()
        self.lr = lr
        self._check_range = FirstBatchCheck()

    def forward(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """The sharp images ``(B, 3, H, W)`` with the blur of the pairs; not clamped."""
        image: Tensor = self.network(sharp, blurry)
        return image

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        blurry, sharp = batch["blurry"], batch["sharp"]
        check_images(blurry=blurry, sharp=sharp)
        self._check_range(blurry=blurry, sharp=sharp)
        loss: Tensor = self.loss(self(sharp, blurry), blurry)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Measure a batch."""
        self._measure(batch, batch_idx, "val")

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """Measure a batch; returns the ``metrics`` of each image by name."""
        return {"metrics": self._measure(batch, batch_idx, "test")}

    def configure_optimizers(self) -> Any:
        """Adam, with a learning rate that falls along a cosine to zero."""
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise PluginError("the learning rate falls over the length of the training: set max_epochs or max_steps")
        optimizer = torch.optim.Adam(self.network.parameters(), self.lr, betas=(0.9, 0.99))
        return [optimizer], [{"scheduler": OverTraining(optimizer, int(steps), cosine), "interval": "step"}]

    def _measure(self, batch: Mapping[str, Any], batch_idx: int, stage: str) -> dict[str, list[float]]:
        blurry, sharp = batch["blurry"], batch["sharp"]
        each: dict[str, list[float]] = {}
        if counted := counted_images(self, len(blurry), batch_idx):
            back = FullSize(self.network)(sharp, blurry).clamp(0, 1)
            each = values_of_each(self.psnr, "psnr", back[:counted], blurry[:counted])
            each |= values_of_each(self.psnr_sharp, "psnr_sharp", sharp[:counted], blurry[:counted])
        self.log(f"{stage}/psnr", self.psnr, prog_bar=True)
        self.log(f"{stage}/psnr_sharp", self.psnr_sharp)
        return each
