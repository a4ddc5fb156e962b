"""An adversarial loss for any LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reblurkit.core.calls import check_two_networks, find_network, preserved_rng
from reblurkit.core.checks import named_as
from reblurkit.core.numbers import check_not_negative
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.losses.adversarial import AdversarialKind, AdversarialLoss, routed_adversarial_loss
from reblurkit.models.patchgan import PatchGAN
from reblurkit.plugins.callbacks.auxiliary_optimizer import OptimizerFactory, SchedulerFactory
from reblurkit.plugins.mixins.auxiliary_networks import AuxiliaryNetworks


@dataclass
class _Options:
    network: str
    adversarial: AdversarialLoss
    weight: float
    gradient_penalty: float


class AdversarialLossMixin(AuxiliaryNetworks):
    """Adds an adversarial loss to a LightningModule that has a deblurring network.

    The discriminator is trained beside the network, by an optimizer of its own, on the images of the same step, as
    the reblurring network is by :class:`reblurkit.ReblurLossMixin`, with which this goes together. The user's
    optimizers, schedulers and Trainer flags stay as they are.

    Nah et al., *Clean Images are Hard to Reblur* (2021), Tables 5 and S6, add 0.001 L_Adv; the kind of loss and the
    discriminator are not given. The defaults: ``vanilla``, as in the first author's earlier public program, and
    :class:`reblurkit.models.PatchGAN`, whose scores do not depend on the size of the crop.

    Example:
        >>> import lightning as L
        >>> from reblurkit.models import UNet
        >>> class MyDeblur(AdversarialLossMixin, L.LightningModule):
        ...     def __init__(self, network):
        ...         super().__init__()
        ...         self.network = network
        ...         self.configure_adversarial(weight=0.001)
        ...     def training_step(self, batch, batch_idx):
        ...         deblurred = self.network(batch["blurry"])
        ...         loss = torch.nn.functional.l1_loss(deblurred, batch["sharp"])
        ...         return loss + self.adversarial_loss(deblurred, batch["sharp"])
        ...     def configure_optimizers(self):
        ...         return torch.optim.Adam(self.parameters(), 1e-4)
        >>> sum(p.numel() for p in MyDeblur(UNet(blocks=1, widths=(8, 8, 8))).discriminator.parameters())
        2764737
    """

    discriminator: nn.Module

    def configure_adversarial(
        self,
        discriminator: nn.Module | None = None,
        *,
        network: str = "network",
        adversarial: AdversarialLoss | AdversarialKind = "vanilla",
        weight: float = 0.001,
        gradient_penalty: float = 0.0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        """Register the discriminator as ``self.discriminator``; call it once, in ``__init__``, after the network.

        Args:
            discriminator: Any module that maps images to a tensor of scores or a list of them, without an activation
                at its end; default ``PatchGAN()``, initialised without advancing the global random state.
            network: Dotted path of the deblurring network in this module.
            adversarial: An :class:`reblurkit.losses.AdversarialLoss`, or its kind.
            weight: Factor of the generator's term; with 0 the discriminator trains along.
            gradient_penalty: Factor of :func:`reblurkit.losses.gradient_penalty` in the discriminator's loss; with 0
                it is not computed.
            optimizer: Called with the discriminator's parameters when ``fit`` starts; default Adam with learning
                rate 1e-4.
            scheduler: Called with that optimizer when ``fit`` starts; steps with it. Default none.

        Raises:
            PluginError: If this is not a LightningModule, ``network`` names nothing, or ``self.discriminator`` is
                taken.
            ArgumentError: If an argument is out of range or of the wrong kind, or both networks share parameters.
        """
        self._check_host("configure_adversarial", "discriminator", optimizer, scheduler)
        if not isinstance(discriminator, nn.Module | None):
            raise ArgumentError(f"`discriminator` must be an nn.Module, but is {type(discriminator).__name__}")
        check_not_negative(weight=weight, gradient_penalty=gradient_penalty)
        if isinstance(adversarial, str):
            with named_as(kind="adversarial"):
                adversarial = AdversarialLoss(adversarial)
        if discriminator is None:
            with preserved_rng(torch.get_default_device()):
                discriminator = PatchGAN()
        check_two_networks(find_network(self, network), discriminator, "discriminator")
        self._adversarial_options = _Options(network, adversarial, weight, gradient_penalty)
        self._add_auxiliary("discriminator", discriminator, network, optimizer, scheduler)

    def adversarial_loss(self, deblurred: Tensor | Sequence[Tensor], sharp: Tensor) -> Tensor:
        """The term to add to the training loss; call it in every training step.

        In ``fit`` it logs ``train/loss_adversarial`` (the generator's term), ``train/loss_discriminator`` and, where
        it is used, ``train/gradient_penalty``, all without weights. Without a Trainer nothing is logged, and the
        discriminator is the caller's to step.

        Args:
            deblurred: The network's output with its graph, ``(B, 3, H, W)``; of a list the last, full-size image.
            sharp: Sharp images, the same shape.

        Returns:
            Scalar with the value of ``weight`` times the generator's term; the network's parameters receive its
            gradient, the discriminator's that of its own loss.

        Raises:
            PluginError: Before ``configure_adversarial``; or in ``fit`` when the callback that trains the
                discriminator is not attached.
            ShapeError: If the shapes differ.
            ArgumentError: If ``deblurred`` has been detached from its network.
        """
        options: _Options | None = self.__dict__.get("_adversarial_options")
        if options is None:
            raise PluginError("call `self.configure_adversarial()` in `__init__`, after `self.network` is set")
        fitting = self._is_fitting()
        terms = routed_adversarial_loss(
            find_network(self, options.network),
            self.discriminator,
            deblurred,
            sharp,
            adversarial=options.adversarial,
            weight=options.weight,
            penalty_weight=options.gradient_penalty,
        )
        if fitting:
            values = {
                "train/loss_adversarial": terms.adversarial,
                "train/loss_discriminator": terms.discriminator,
                "train/gradient_penalty": terms.penalty,
            }
            self.log_dict({name: value for name, value in values.items() if value is not None})
        return terms.loss
