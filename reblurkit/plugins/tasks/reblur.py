"""A LightningModule for users who have a trained deblurring network and want a reblurring network to go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from reblurkit.core.calls import check_two_networks, learns
from reblurkit.errors import ArgumentError
from reblurkit.losses.reblur import Sharpness, check_reblur_options, reblur_net_loss
from reblurkit.metrics import PSNR, SSIM, GradientStatistics, ReblurPSNR
from reblurkit.models.pretrained import load_pretrained
from reblurkit.models.starting_weights import start_from
from reblurkit.plugins.callbacks.at_rest import AtRest
from reblurkit.plugins.crops import explained_by_crop
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
    ``reblur``, which is what test-time adaptation needs, and what validation last measured of them, which
    :func:`reblurkit.plugins.checkpoint_metrics` reads. With ``sharpness=None`` M_R is trained with L_Blur alone, as
    for Table 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), where both networks are trained independently.

    M_R minimises L_R = L_Blur + L_Sharp (equations 2 to 4) by the paper's recipe: Adam with learning rate 1e-4, halved
    at 50, 75 and 90 % of the training. What differs from the paper: M_D does not learn along, so that M_R sees the
    blur that one network leaves, not that of a whole training. M_D is in evaluation mode throughout, without
    gradients, and not in the optimizer. And training stops, by :class:`reblurkit.plugins.AtRest`, when ``reblur_psnr``
    and ``preserved_psnr`` have come to rest, before the learning rate has fallen; what is given to the Trainer as
    ``max_steps`` or ``max_epochs`` is the most that it may take, which ``reblurkit fit`` sets to 10 000 steps where
    nothing is given.

    Logs ``train/loss`` (equation 4), ``train/loss_blur`` (2) and ``train/loss_sharp`` (3). Over validation and test
    images ``reblur_psnr``, of M_R(L) to B: how much of the blur M_R brings back, to be high while M_R trains; beside it
    ``reblur_psnr_deblurred``, of L to B, which an M_R that learns must exceed; and ``preserved_psnr``, of M_R(S) to S:
    how little it changes clean images. Over test images also ``psnr``, ``ssim`` and the gradient statistics of the
    deblurred images L, clamped to [0, 1], and ``psnr_blurry`` of the blurry ones.

    Batches are dicts with ``blurry``, ``sharp`` and ``name``.

    Args:
        network: The deblurring network: images ``(B, 3, H, W)`` in [0, 1] to the same shape, or to a list of images
            from coarse to fine, of which the last is used. Its parameters are frozen in place.
        reblur_net: The reblurring network to train, for instance ``reblurkit.models.ReblurNet``; default: that of
            :func:`reblurkit.models.load_pretrained`, from its weights.
        weights: File with the weights of ``network``, see :func:`reblurkit.models.load_weights`; without, ``network``
            must come with its trained weights, or get them from a checkpoint of this task.
        reblur_weights: What ``reblur_net`` starts from: a file, or a name of :func:`reblurkit.models.list_pretrained`
            where it has the shapes of the reblurring network that comes with the package.
        sharpness: What the reblurring network must preserve: ``pseudo``, ``real`` or ``null`` (Table 4).
        rest: Training stops when the last quarter of the steps has brought neither metric so many dB; ``null``: never.
        optimizer: Called with the reblurring network's parameters; default Adam with learning rate 1e-4.
        scheduler: Called with the optimizer, steps every epoch; default: the paper's halving.

    Raises:
        WeightsError: If a file cannot be read, or weights do not fit their network.
        ShapeError: If the network's output has another shape than its input.
        ArgumentError: If ``sharpness`` is unknown, ``rest`` is not above 0, both networks share parameters, a batch
            lacks a key, or the first batch is not in [0, 1].

    Example:
        >>> from reblurkit.models import ReblurNet, UNet
        >>> task = ReblurTask(UNet(blocks=1, widths=(8, 8, 8)), ReblurNet(width=8))
        >>> sum(p.numel() for p in task.parameters() if p.requires_grad)
        4427
    """

    def __init__(
        self,
        network: nn.Module,
        reblur_net: nn.Module | None = None,
        *,
        weights: str | None = None,
        reblur_weights: str | None = None,
        sharpness: Sharpness = "pseudo",
        rest: float | None = 0.1,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(network, optimizer, scheduler)
        check_reblur_options(1.0, sharpness)
        if reblur_net is None:
            reblur_net = load_pretrained().reblur_net.train()
        check_two_networks(network, reblur_net, "reblurring")
        if not learns(reblur_net):
            raise ArgumentError(
                f"`reblur_net` is what is trained, but {type(reblur_net).__name__} has nothing to train"
            )
        if rest is not None and not 0 < rest < float("inf"):
            raise ArgumentError(f"`rest` must be above 0 dB, or null to never stop early, but is {rest}")
        start_from(network, weights, trained=True)
        start_from(reblur_net, reblur_weights, trained=True, part="reblur_net")
        self.network = network.requires_grad_(False).eval()
        self.reblur = reblur_net
        self.weights = weights
        self.sharpness: Sharpness = sharpness
        self.rest = rest
        monitors = ["val/reblur_psnr", "val/preserved_psnr"]
        self._at_rest = None if rest is None else AtRest(monitors, gain=rest)
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
        with explained_by_crop(blurry, self.network, self.reblur):
            terms = reblur_net_loss(self.network, self.reblur, deblurred, sharp, blurry, sharpness=self.sharpness)
        self.log("train/loss", terms.loss, prog_bar=True)
        values = {"blur": terms.blur, "sharp": terms.sharp}
        self.log_dict({f"train/loss_{name}": value for name, value in values.items() if value is not None})
        return terms.loss

    def configure_callbacks(self) -> list[L.Callback]:
        """Adds the rule by which training stops."""
        inherited = cast("list[L.Callback]", super().configure_callbacks())
        return [*inherited, *([] if self._at_rest is None else [self._at_rest])]

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
