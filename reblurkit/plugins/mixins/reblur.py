"""The supervised reblurring loss for any LightningModule."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reblurkit.core.calls import check_two_networks, find_network, learns, preserved_rng
from reblurkit.core.checks import FirstBatchCheck
from reblurkit.core.numbers import check_whole, is_number, shown
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.losses.reblur import Sharpness, check_reblur_options, routed_reblur_loss
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.weights import read_lightning_checkpoint
from reblurkit.plugins.callbacks.auxiliary_optimizer import OptimizerFactory, SchedulerFactory
from reblurkit.plugins.crops import explained_by_crop
from reblurkit.plugins.mixins.auxiliary_networks import AuxiliaryNetworks


@dataclass
class _Options:
    network: str
    weight: float
    sharpness: Sharpness
    warmup: int
    every: int
    check_range: FirstBatchCheck = field(default_factory=FirstBatchCheck)


class ReblurLossMixin(AuxiliaryNetworks):
    """Adds the reblurring loss of Nah et al., *Clean Images are Hard to Reblur* (2021), to a LightningModule.

    A reblurring network M_R is trained beside the module's deblurring network. It learns to bring back the blur that
    is left in deblurred images; what it can bring back becomes a loss for the deblurring network. The user's
    optimizers, schedulers and Trainer flags stay as they are, in automatic and in manual optimization.

    See :class:`reblurkit.losses.ReblurLoss` for what the loss's value and gradients mean.

    Example:
        >>> import lightning as L
        >>> from reblurkit.models import UNet
        >>> class MyDeblur(ReblurLossMixin, L.LightningModule):
        ...     def __init__(self, network):
        ...         super().__init__()
        ...         self.network = network
        ...         self.configure_reblur()
        ...     def training_step(self, batch, batch_idx):
        ...         deblurred = self.network(batch["blurry"])
        ...         loss = torch.nn.functional.l1_loss(deblurred, batch["sharp"])
        ...         return loss + self.reblur_loss(deblurred, batch["sharp"], batch["blurry"])
        ...     def configure_optimizers(self):
        ...         return torch.optim.Adam(self.parameters(), 1e-4)
        >>> sum(p.numel() for p in MyDeblur(UNet(blocks=1, widths=(8, 8, 8))).reblur.parameters())
        214595
    """

    reblur: nn.Module

    def configure_reblur(
        self,
        reblur_net: nn.Module | None = None,
        *,
        network: str = "network",
        weight: float = 1.0,
        sharpness: Sharpness = "pseudo",
        warmup: int = 0,
        every: int = 1,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        """Register the reblurring network as ``self.reblur``; call it once, in ``__init__``, after the network is set.

        Args:
            reblur_net: M_R; default ``ReblurNet(blocks=1)``, initialised from, but without advancing, the global
                random state. A network of your own should have neither dropout, which draws from the global random
                state and differs between M_R(L) and M_R(S), nor reentrant activation checkpointing, which computes
                anew with weights that are not held fixed. With frozen weights (``requires_grad_(False)``) it judges
                and does not learn, for a fraction of the time; let it have learned before.
            network: Dotted path of the deblurring network in this module.
            weight: lambda of equation 6. With 0, M_R trains along and the deblurring network trains as without it.
            sharpness: What M_R must preserve (equation 3): ``"pseudo"``, ``"real"`` or ``None`` (Table 4).
            warmup: Optimizer steps of M_R at the start of ``fit`` during which the weight is 0.
            every: Reblur in the first of so many steps alone, with so many times the weight: the same loss on average,
                for a fraction of the time (not from the paper). M_R takes as many steps fewer.
            optimizer: Called with M_R's parameters when ``fit`` starts; default Adam with learning rate 1e-4.
            scheduler: Called with that optimizer when ``fit`` starts; steps with it. Default none.

        Raises:
            PluginError: If this is not a LightningModule, ``network`` names nothing, or ``self.reblur`` is taken.
            ArgumentError: If an argument is out of range or of the wrong kind, or both networks share parameters.
        """
        self._check_host("configure_reblur", "reblur", optimizer, scheduler)
        if not isinstance(reblur_net, nn.Module | None):
            raise ArgumentError(f"`reblur_net` must be an nn.Module, but is {type(reblur_net).__name__}")
        check_reblur_options(weight, sharpness)
        check_reblur_steps(warmup, every)
        deblur_net = find_network(self, network)
        if reblur_net is None:
            with preserved_rng(torch.get_default_device()):
                reblur_net = ReblurNet(blocks=1)
        check_two_networks(deblur_net, reblur_net, "reblurring")
        if warmup and not learns(reblur_net):
            raise ArgumentError(
                "`warmup` counts steps in which the reblurring network learns alone, but a frozen one does not learn; "
                f"leave out `warmup`, which is {warmup}"
            )
        self._reblur_options = _Options(network, weight, sharpness, warmup, every)
        self._add_auxiliary("reblur", reblur_net, network, optimizer, scheduler, every)

    def reblur_loss(self, deblurred: Tensor, sharp: Tensor, blurry: Tensor) -> Tensor:
        """The term to add to the training loss; call it in every training step.

        In ``fit`` it logs ``train/loss_reblur`` (equation 5), ``train/loss_blur`` (equation 2) and
        ``train/loss_sharp`` (equation 3), without weights. Without a Trainer nothing is logged, ``warmup`` and
        ``every`` do not count, and the reblurring network is the caller's to step.

        Args:
            deblurred: L = M_D(B), ``(B, 3, H, W)`` in [0, 1], with its graph; of a list the last, full-size image.
            sharp: S, the same shape.
            blurry: B, the same shape.

        Returns:
            Scalar with the value ``weight * L_Reblur`` and routed gradients.

        Raises:
            PluginError: Before ``configure_reblur``; or in ``fit`` when the callback that trains M_R is not attached.
            ShapeError: If the shapes differ.
            ArgumentError: If the first batch is not in [0, 1], or ``deblurred`` has been detached from its network.
        """
        options: _Options | None = self.__dict__.get("_reblur_options")
        if options is None:
            raise PluginError("call `self.configure_reblur()` in `__init__`, after `self.network` is set")
        options.check_range(sharp=sharp, blurry=blurry)

        fitting = self._is_fitting()
        if fitting and not self._auxiliary.has_turn("reblur"):
            # DDP waits for a gradient of every parameter; this one is 0, and dropped.
            return torch.stack([(0 * parameter).sum() for parameter in self.reblur.parameters()]).sum()
        warming_up = fitting and self._auxiliary.steps("reblur") < options.warmup and learns(self.reblur)
        with explained_by_crop(sharp, self.reblur):
            terms = routed_reblur_loss(
                find_network(self, options.network),
                self.reblur,
                deblurred,
                sharp,
                blurry,
                weight=0.0 if warming_up else options.weight * (options.every if fitting else 1),
                sharpness=options.sharpness,
            )
        if fitting:
            values = {"reblur": terms.reblur, "blur": terms.blur, "sharp": terms.sharp}
            self.log_dict({f"train/loss_{name}": value for name, value in values.items() if value is not None})
        return terms.loss


def check_reblur_steps(warmup: int, every: int) -> None:
    """Raise ArgumentError for what is no number of steps."""
    if not is_number(warmup, int) or warmup < 0:
        raise ArgumentError(f"`warmup` must be at least 0 steps and a whole number (int), but is {shown(warmup)}")
    check_whole(every=every, unit=" of steps")


def strip_reblur(
    checkpoint: Mapping[str, Any] | str | os.PathLike[str], *, network: str | None = None
) -> dict[str, Tensor]:
    """The plain deblurring network's weights in a Lightning checkpoint, for deployment.

    Args:
        checkpoint: Path of a checkpoint, or the dict that ``torch.load(path, weights_only=True)`` gave.
        network: Dotted path of the network in the LightningModule; default: what the checkpoint says, else
            ``"network"``.

    Returns:
        A state dict for ``network.load_state_dict(...)``, on the CPU if loaded from a path.

    Raises:
        WeightsError: If the file cannot be read, or is no Lightning checkpoint.
        ArgumentError: If the dict is no Lightning checkpoint, or there are no weights at that path.
    """
    if isinstance(checkpoint, str | os.PathLike):
        checkpoint = read_lightning_checkpoint(checkpoint)
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise ArgumentError("expected a Lightning checkpoint, a dict with the key 'state_dict'")
    path = network or checkpoint.get("reblurkit", {}).get("network", "network")
    weights = {
        # torch.compile wraps a network and its keys
        key.removeprefix(f"{path}.").replace("_orig_mod.", ""): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(f"{path}.")
    }
    if not weights:
        found = sorted({key.split(".")[0] for key in checkpoint["state_dict"]})
        raise ArgumentError(f"the checkpoint has no weights at {path!r}; it has: {', '.join(found)}; pass network=")
    return weights
