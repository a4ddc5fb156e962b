"""LightningModules for users who bring a network only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from reblurkit.core.checks import named_as
from reblurkit.core.kept_files import is_restoring
from reblurkit.core.numbers import check_not_negative, is_number, shown
from reblurkit.errors import ArgumentError
from reblurkit.losses.adversarial import AdversarialKind, AdversarialLoss
from reblurkit.losses.reblur import Sharpness, check_reblur_options
from reblurkit.losses.reconstruction import MultiScaleLoss
from reblurkit.metrics import PSNR, SSIM, GradientStatistics, ReblurPSNR
from reblurkit.models.starting_weights import start_from
from reblurkit.plugins.crops import explained_by_crop
from reblurkit.plugins.mixins.adversarial import AdversarialLossMixin
from reblurkit.plugins.mixins.reblur import ReblurLossMixin, check_reblur_steps
from reblurkit.plugins.tasks.paired import (
    Measure,
    PairedTask,
    blurry_to_sharp,
    check_metrics,
    deblurred_to_sharp,
    preserved_to_sharp,
    reblurred_to_blurry,
    with_metrics,
)

_TAKEN = {"reblur", "blur", "sharp", "adversarial", "discriminator"}  # what other losses are logged by


@dataclass(frozen=True)
class WeightedLoss:
    """A loss that :class:`DeblurTask` adds to its reconstruction loss.

    Args:
        loss: Called with the deblurred and the sharp images, for instance ``reblurkit.losses.VGGLoss``.
        weight: Its factor.

    Example:
        >>> WeightedLoss(nn.MSELoss(), 0.1).weight
        0.1
    """

    loss: nn.Module
    weight: float = 1.0


class DeblurTask(ReblurLossMixin, AdversarialLossMixin, PairedTask):
    """Trains any deblurring network, with or without the reblurring loss, and with any other losses.

    The defaults are the recipe of Nah et al., *Clean Images are Hard to Reblur* (2021), section S1: L1, Adam with
    learning rate 1e-4, halved at 50, 75 and 90 % of the training. Logs ``train/loss`` and every other loss by its
    name, without weights, and the learning rates, ``lr-network``, ``lr-reblur`` and ``lr-discriminator``; over
    validation and test images ``psnr`` and ``ssim``, over test images also the gradient statistics, of the output
    clamped to [0, 1]; beside them ``psnr_blurry``, of the blurry images, which a network that learns must exceed; with
    a reblurring network M_R also ``reblur_psnr``, of M_R(L) to B, and ``preserved_psnr``, of M_R(S) to S.

    Batches are dicts with ``blurry``, ``sharp`` and ``name``.

    Args:
        network: The deblurring network: images ``(B, 3, H, W)`` in [0, 1] to the same shape, or to a list of images
            from coarse to fine, of which the last is used.
        weights: What the network starts from: a file, see :func:`reblurkit.models.load_weights`, or a name of
            :func:`reblurkit.models.list_pretrained` where it has the shapes of the network that comes with the package.
        reblur_net: The reblurring network, for instance ``reblurkit.models.ReblurNet``; ``null`` trains without the
            reblurring loss.
        loss: Called with the deblurred and the sharp images; default L1. A ``MultiScaleLoss`` is given all scales
            of a multi-scale network, any other loss the full-size image.
        reblur_weight: Weight of the reblurring loss; with 0 the reblurring network trains along without a say.
        reblur_sharpness: What the reblurring network must preserve: ``pseudo``, ``real`` or ``null``.
        reblur_warmup: Steps of the reblurring network at the start during which the weight is 0.
        reblur_every: Reblur in the first of so many steps alone, with so many times the weight; saves most of the time.
        reblur_weights: What the reblurring network starts from: a file, or a name of
            :func:`reblurkit.models.list_pretrained` where it has the shapes of the one that comes with the package.
        reblur_learns: Whether the reblurring network learns along, as in the paper. One that has learned before may
            judge alone, with its weights frozen in place, for a fraction of the time.
        extra_losses: Further losses and their weights by name, for instance ``vgg`` with weight 0.3 (Tables 5, S5).
        discriminator: A discriminator, for instance ``reblurkit.models.PatchGAN``; ``null`` trains without an
            adversarial loss (Tables 5, S6).
        adversarial: Kind of the adversarial loss: ``vanilla``, ``hinge``, ``wgan``, or an ``AdversarialLoss``.
        adversarial_weight: Weight of the adversarial loss.
        gradient_penalty: Weight of the gradient penalty in the discriminator's loss.
        metrics: Further metrics by the name to log them by, of the output and the sharp images, for instance ``lpips:
            LPIPS`` or ``psnr_8_bit: PSNR(quantize=True)``; ``null`` leaves out one of the above.
        optimizer: Called with the parameters, of each network; default Adam with learning rate 1e-4.
        scheduler: Called with the optimizer, steps every epoch; default: the paper's halving. The learning rates of
            the reblurring network and the discriminator always follow the paper's.

    Raises:
        WeightsError: If a file cannot be read, or weights do not fit their network.
        ShapeError: If the network's output has another shape than its input.
        ArgumentError: If an option is out of range, a batch lacks a key, or the first batch is not in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        reblur_net: nn.Module | None = None,
        *,
        weights: str | None = None,
        loss: nn.Module | None = None,
        reblur_weight: float = 1.0,
        reblur_sharpness: Sharpness = "pseudo",
        reblur_warmup: int = 0,
        reblur_every: int = 1,
        reblur_weights: str | None = None,
        reblur_learns: bool = True,
        extra_losses: dict[str, WeightedLoss] | None = None,
        discriminator: nn.Module | None = None,
        adversarial: AdversarialLoss | AdversarialKind = "vanilla",
        adversarial_weight: float = 0.001,
        gradient_penalty: float = 0.0,
        metrics: dict[str, Metric | None] | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(network, optimizer, scheduler)
        check_not_negative(
            reblur_weight=reblur_weight, adversarial_weight=adversarial_weight, gradient_penalty=gradient_penalty
        )
        start_from(network, weights, trained=True)
        if not (loss is None or callable(loss)):
            raise ArgumentError(f"`loss` must be called with two images, but is {loss!r}")
        self.loss = loss or nn.L1Loss()
        extra_losses = extra_losses or {}
        _check_extra_losses(extra_losses)
        self.extra_losses = nn.ModuleDict({name: extra.loss for name, extra in extra_losses.items()})
        self._extra_weights = {name: extra.weight for name, extra in extra_losses.items()}
        recipe: dict[str, Any] = {"optimizer": self._make_optimizer, "scheduler": self._halving}
        with named_as(sharpness="reblur_sharpness", warmup="reblur_warmup", every="reblur_every"):
            check_reblur_options(reblur_weight, reblur_sharpness)  # without a network, too: nobody else would say
            check_reblur_steps(reblur_warmup, reblur_every)
            _check_reblur_start(reblur_net, reblur_weights, reblur_learns)
            if reblur_net is not None:
                start_from(reblur_net, reblur_weights, trained=True, part="reblur_net")
                if not reblur_learns:
                    reblur_net.requires_grad_(False)
                self.configure_reblur(
                    reblur_net,
                    weight=reblur_weight,
                    sharpness=reblur_sharpness,
                    warmup=reblur_warmup,
                    every=reblur_every,
                    **recipe,
                )
        if discriminator is not None:
            self.configure_adversarial(
                discriminator,
                adversarial=adversarial,
                weight=adversarial_weight,
                gradient_penalty=gradient_penalty,
                **recipe,
            )
        check_metrics(metrics or {})
        self._set_metrics(
            **{stage: with_metrics(_measures(stage, self._reblurs), metrics or {}) for stage in ("val", "test")}
        )

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch: reconstruction and whatever else is asked for."""
        blurry, sharp = self._images(batch)
        with explained_by_crop(blurry, self.network):
            scales = self.network(blurry)
            deblurred = self._finest(scales, blurry)
        loss: Tensor = self.loss(scales if isinstance(self.loss, MultiScaleLoss) else deblurred, sharp)
        for name, extra in self.extra_losses.items():
            value = extra(deblurred, sharp)
            self.log(f"train/loss_{name}", value)
            loss = loss + self._extra_weights[name] * value
        if self._reblurs:
            loss = loss + self.reblur_loss(deblurred, sharp, blurry)
        if hasattr(self, "discriminator"):
            loss = loss + self.adversarial_loss(deblurred, sharp)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    @property
    def _trained(self) -> nn.Module:
        return self.network  # the reblurring network and the discriminator have optimizers of their own

    @property
    def _reblurs(self) -> bool:
        return hasattr(self, "reblur")


def _check_reblur_start(reblur_net: nn.Module | None, weights: str | None, learns: bool) -> None:
    if not isinstance(learns, bool):
        raise ArgumentError(f"`reblur_learns` must be true or false, but is {shown(learns)}")
    if reblur_net is None and (weights is not None or not learns):
        given = "reblur_learns" if weights is None else "reblur_weights"
        raise ArgumentError(f"`{given}` is of the reblurring network, but there is none; pass `reblur_net`")
    if not learns and weights is None and not is_restoring():  # a checkpoint brings them
        raise ArgumentError(
            "with `reblur_learns` false the reblurring network must have learned before; name its weights by "
            "`reblur_weights`, or pass a `reblur_net` that you froze (requires_grad_(False))"
        )


def _check_extra_losses(losses: Mapping[str, WeightedLoss]) -> None:
    if not isinstance(losses, Mapping):
        raise ArgumentError(
            f"`extra_losses` must be losses by name, {{'vgg': WeightedLoss(loss, 0.3)}}, but is {type(losses).__name__}"
        )
    for name, extra in losses.items():
        if not name.isidentifier() or name in _TAKEN or hasattr(nn.ModuleDict, name):
            raise ArgumentError(
                f"the name of an extra loss must be one word that no other loss is logged by, but is {name!r}"
            )
        if not isinstance(extra, WeightedLoss):
            raise ArgumentError(f"the extra loss {name!r} must be a WeightedLoss(loss, weight), but is {extra!r}")
        if not isinstance(extra.loss, nn.Module):
            raise ArgumentError(f"the extra loss {name!r} must be an nn.Module object, but is {extra.loss!r}")
        if not is_number(extra.weight) or not 0 <= extra.weight < float("inf"):
            raise ArgumentError(
                f"the weight of the extra loss {name!r} must be at least 0 and finite, but is {shown(extra.weight)}"
            )


def _measures(stage: str, reblurs: bool) -> dict[str, Measure]:
    measures = {
        "psnr": Measure(PSNR(), deblurred_to_sharp),
        "psnr_blurry": Measure(PSNR(), blurry_to_sharp),
        "ssim": Measure(SSIM(), deblurred_to_sharp),
    }
    if reblurs:
        measures["reblur_psnr"] = Measure(ReblurPSNR(), reblurred_to_blurry)
        measures["preserved_psnr"] = Measure(PSNR(), preserved_to_sharp)
    if stage == "test":
        measures["gradients"] = Measure(GradientStatistics(), deblurred_to_sharp)
    return measures
