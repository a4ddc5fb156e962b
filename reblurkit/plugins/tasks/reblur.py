"""A LightningModule for users who have a trained deblurring network and want a reblurring network to go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from reblurkit.core.calls import check_two_networks
from reblurkit.errors import ArgumentError
from reblurkit.losses.reblur import Sharpness, check_reblur_options, reblur_net_loss
from reblurkit.metrics import PSNR, SSIM, GradientStatistics, ReblurPSNR
from reblurkit.models.starting_weights import start_from
from reblurkit.plugins.tasks.paired import (
    Measure,
    PairedTask,
    blurry_to_sharp,
    deblurred_to_blurry,
    deblurred_to_sharp,
    preserved_to_sharp,
    reblurred_to_blurry,
)


class ReblurTask(PairedTask):
    """Trains a reblurring network M_R beside a deblurring network M_D that is trained already and stays as it is.

    For networks of which only the weights are to be had: the checkpoint holds both networks, as ``network`` and
    ``reblur``, which is what test-time adaptation needs. With ``sharpness=None`` M_R is trained with L_Blur alone, as
    for Table 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), where both networks are trained independently.

    M_R minimises L_R = L_Blur + L_Sharp (equations 2 to 4) by the paper's recipe: Adam with learning rate 1e-4, halved
    at 50, 75 and 90 % of the training. What differs from the paper: M_D does not learn along, so that M_R sees the
    blur that one network leaves, not that of a whole training. M_D is in evaluation mode throughout, without
    gradients, and not in the optimizer.

    Logs ``train/loss`` (equation 4), ``train/loss_blur`` (2) and ``train/loss_sharp`` (3). Over validation and test
    images ``reblur_psnr``, of M_R(L) to B: how much of the blur M_R brings back, to be high while M_R trains; beside it
    ``reblur_psnr_deblurred``, of L to B, which an M_R that learns must exceed; and ``preserved_psnr``, of M_R(S) to S:
    how little it changes clean images. Over test images also ``psnr``, ``ssim`` and the gradient statistics of the
    deblurred images L, clamped to [0, 1], and ``psnr_blurry`` of the blurry ones.

    Batches are dicts with ``blurry``, ``sharp`` and ``name``.

    Args:
        network: The deblurring network: images ``(B, 3, H, W)`` in [0, 1] to the same shape, or to a list of images
            from coarse to fine, of which the last is used. Its parameters are frozen in place.
        reblur_net: The reblurring network to train, for instance ``reblurkit.models.ReblurNet``.
        weights: File with the weights of ``network``, see :func:`reblurkit.models.load_weights`; without, ``network``
            must come with its trained weights, or get them from a checkpoint of this task.
        sharpness: What the reblurring network must preserve: ``pseudo``, ``real`` or ``null`` (Table 4).
        optimizer: Called with the reblurring network's parameters; default Adam with learning rate 1e-4.
        scheduler: Called with the optimizer, steps every epoch; default: the paper's halving.

    Raises:
        WeightsError: If the file cannot be read, or its weights do not fit the network.
        ShapeError: If the network's output has another shape than its input.
        ArgumentError: If ``sharpness`` is unknown, both networks share parameters, a batch lacks a key, or the first
            batch is not in [0, 1].

    Example:
        >>> from reblurkit.models import ReblurNet, UNet
        >>> task = ReblurTask(UNet(blocks=1, widths=(8, 8, 8)), ReblurNet(width=8))
        >>> sum(p.numel() for p in task.parameters() if p.requires_grad)
        4427
    """

    def __init__(
        self,
        network: nn.Module,
        reblur_net: nn.Module,
        *,
        weights: str | None = None,
        sharpness: Sharpness = "pseudo",
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(network, optimizer, scheduler)
        check_reblur_options(1.0, sharpness)
        check_two_networks(network, reblur_net, "reblurring")
        if not any(parameter.requires_grad for parameter in reblur_net.parameters()):
            raise ArgumentError(
                f"`reblur_net` is what is trained, but {type(reblur_net).__name__} has nothing to train"
            )
        start_from(network, weights, trained=True)
        self.network = network.requires_grad_(False).eval()
        self.reblur = reblur_net
        self.weights = weights
        self.sharpness: Sharpness = sharpness
        self._set_metrics(val=_reblur_measures(), test={**_reblur_measures(), **_deblur_measures()})

    def train(self, mode: bool = True) -> Self:
        """Set the reblurring network's mode; the deblurring network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """L_R of a batch."""
        blurry, sharp = self._images(batch)
        with torch.no_grad():
            deblurred = self._deblur(blurry)
        terms = reblur_net_loss(self.network, self.reblur, deblurred, sharp, blurry, sharpness=self.sharpness)
        self.log("train/loss", terms.loss, prog_bar=True)
        values = {"blur": terms.blur, "sharp": terms.sharp}
        self.log_dict({f"train/loss_{name}": value for name, value in values.items() if value is not None})
        return terms.loss

    @property
    def _trained(self) -> nn.Module:
        return self.reblur


def _reblur_measures() -> dict[str, Measure]:
    return {
        "reblur_psnr": Measure(ReblurPSNR(), reblurred_to_blurry),
        "reblur_psnr_deblurred": Measure(ReblurPSNR(), deblurred_to_blurry),
        "preserved_psnr": Measure(PSNR(), preserved_to_sharp),
    }


def _deblur_measures() -> dict[str, Measure]:
    return {
        "psnr": Measure(PSNR(), deblurred_to_sharp),
        "psnr_blurry": Measure(PSNR(), blurry_to_sharp),
        "ssim": Measure(SSIM(), deblurred_to_sharp),
        "gradients": Measure(GradientStatistics(), deblurred_to_sharp),
    }
