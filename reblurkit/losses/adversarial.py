"""Adversarial losses, with the gradients of both networks in one backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.calls import call_frozen, check_attached, finest_scale
from reblurkit.core.checks import check_images
from reblurkit.errors import ArgumentError

AdversarialKind = Literal["vanilla", "hinge", "lsgan", "wgan"]
Scores = Tensor | Sequence[Tensor]


class AdversarialLoss:
    """What a network and a discriminator minimise, of the discriminator's scores before any activation.

    ============ =============================================== ================================
    kind         discriminator                                   generator
    ============ =============================================== ================================
    ``vanilla``  -log s(D(real)) - log(1 - s(D(fake)))           -log s(D(fake))
    ``hinge``    max(0, 1 - D(real)) + max(0, 1 + D(fake))       -D(fake)
    ``lsgan``    (D(real) - 1)^2 + D(fake)^2                     (D(fake) - 1)^2
    ``wgan``     D(fake) - D(real)                               -D(fake)
    ============ =============================================== ================================

    with the sigmoid s, a mean over every map of scores, and a mean over maps where a discriminator returns a list
    (several scales). ``vanilla`` is that of Goodfellow et al. (2014) with their non-saturating generator term,
    ``hinge`` that of Lim and Ye (2017), ``lsgan`` that of Mao et al. (2017), ``wgan`` that of Arjovsky et al. (2017),
    which wants a :func:`gradient_penalty` or weights that are cut off. The two halves of the discriminator's loss are
    summed as in these papers; pix2pix and the programs derived from it, those of CycleGAN and Blur2Blur too, halve the
    sum.

    Args:
        kind: ``"vanilla"``, ``"hinge"``, ``"lsgan"`` or ``"wgan"``.

    Raises:
        ArgumentError: If ``kind`` is unknown.

    Example:
        >>> AdversarialLoss("hinge").discriminator(real=torch.tensor([0.5]), fake=torch.tensor([-2.0]))
        tensor(0.5000)
    """

    def __init__(self, kind: AdversarialKind = "vanilla") -> None:
        if kind not in get_args(AdversarialKind):
            raise ArgumentError(f"`kind` must be one of {', '.join(get_args(AdversarialKind))}, but is {kind!r}")
        self.kind = kind

    def generator(self, fake: Scores) -> Tensor:
        """The network's loss, of the discriminator's scores for its images."""
        if self.kind == "vanilla":
            return _mean(F.softplus(-scores) for scores in _maps(fake))
        if self.kind == "lsgan":
            return _mean((1 - scores).square() for scores in _maps(fake))
        return _mean(-scores for scores in _maps(fake))

    def discriminator(self, real: Scores, fake: Scores) -> Tensor:
        """The discriminator's loss, of its scores for real and for the network's images."""
        if self.kind == "vanilla":
            return _mean(F.softplus(-scores) for scores in _maps(real)) + _mean(map(F.softplus, _maps(fake)))
        if self.kind == "hinge":
            return _mean(F.relu(1 - scores) for scores in _maps(real)) + _mean(F.relu(1 + s) for s in _maps(fake))
        if self.kind == "lsgan":
            return _mean((1 - scores).square() for scores in _maps(real)) + _mean(s.square() for s in _maps(fake))
        return _mean(_maps(fake)) - _mean(_maps(real))

    def __repr__(self) -> str:
        return f"AdversarialLoss({self.kind!r})"


def gradient_penalty(discriminator: nn.Module, real: Scores, fake: Scores) -> Tensor:
    """E (||grad D(x)||_2 - 1)^2 at random points x between real and fake images.

    Gulrajani et al., *Improved Training of Wasserstein GANs* (2017), with weight 10; Blur2Blur, with weight 1e-4 on
    the full-size image. Each image has its own x = real + a (fake - real), a uniform in [0, 1], and its own norm; D
    is the sum of an image's scores. A discriminator with BatchNorm has no gradient of an image by itself and does not
    go with it.

    Args:
        discriminator: Receives the gradient.
        real: Real images ``(B, C, H, W)``; of a list the last.
        fake: As many of the network's images; held fixed.

    Returns:
        Scalar loss, to be weighted and added to the discriminator's.

    Raises:
        ShapeError: If the shapes differ.
        ArgumentError: If the discriminator returns no scores, or scores without a gradient.

    Example:
        >>> discriminator = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
        >>> _ = nn.init.constant_(discriminator[1].weight, 1.0)
        >>> gradient_penalty(discriminator, torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2))  # (sqrt(12) - 1)^2
        tensor(6.0718, grad_fn=<MeanBackward0>)
    """
    real, fake = finest_scale(real).detach(), finest_scale(fake).detach()
    check_images(real=real, fake=fake)
    with torch.enable_grad():
        share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
        mixed = torch.lerp(real, fake.to(real.dtype), share).requires_grad_()
        # A view: hooks on what a module is called with, such as a FLOP counter's, must not meet a leaf.
        score = torch.stack([scores.sum() for scores in _maps(discriminator(mixed.view_as(mixed)))]).sum()
        if not score.requires_grad:
            raise ArgumentError(
                f"the penalty needs the gradient of {type(discriminator).__name__}'s scores, but they have none: it "
                "detaches them, or runs in inference mode"
            )
        (gradient,) = torch.autograd.grad(score, mixed, create_graph=True)
        # The tiny constant keeps the second derivative finite where the discriminator is flat.
        norm = (gradient.flatten(1).square().sum(1) + 1e-16).sqrt()
        return ((norm - 1) ** 2).mean()


class AdversarialTerms(NamedTuple):
    """One evaluation: the routed ``loss`` to add, and each term's value for the log."""

    loss: Tensor
    adversarial: Tensor
    discriminator: Tensor | None
    penalty: Tensor | None


def routed_adversarial_loss(
    network: nn.Module,
    discriminator: nn.Module,
    deblurred: Scores,
    sharp: Tensor,
    *,
    adversarial: AdversarialLoss,
    weight: float,
    penalty_weight: float = 0.0,
) -> AdversarialTerms:
    """Evaluate both networks' losses so that one backward pass trains both.

    The result's value is ``weight`` times the generator's term. The parameters of ``network`` receive the gradient of
    that, those of ``discriminator`` the gradient of its own loss, with ``penalty_weight`` times the gradient penalty,
    on images that are held fixed. The usual programs alternate two steps; here both see the same weights.

    With gradients disabled (a validation step) only the generator's term is evaluated.
    """
    deblurred = finest_scale(deblurred)
    check_images(deblurred=deblurred, sharp=sharp)
    if weight:
        check_attached(network, deblurred, "adversarial loss")
    with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
        term = adversarial.generator(call_frozen(discriminator, deblurred))
        loss = weight * term if weight else torch.zeros_like(term)
    if not torch.is_grad_enabled():
        return AdversarialTerms(loss, term, None, None)

    fixed, penalty = deblurred.detach(), None
    value = own = adversarial.discriminator(discriminator(sharp), discriminator(fixed))
    if penalty_weight:
        penalty = gradient_penalty(discriminator, sharp, fixed)
        own = value + penalty_weight * penalty
    # The discriminator's loss joins with its gradient, not with its value.
    return AdversarialTerms(loss + (own - own.detach()), term, value, penalty)


def _maps(scores: Scores) -> list[Tensor]:
    maps = [scores] if isinstance(scores, Tensor) else scores
    if not isinstance(maps, list | tuple) or not maps or not all(isinstance(each, Tensor) for each in maps):
        raise ArgumentError(
            f"a discriminator must return a tensor of scores or a list of them, but returned {type(scores).__name__}"
        )
    return list(maps)


def _mean(maps: Iterable[Tensor]) -> Tensor:
    """The mean over maps of each map's mean, in float32 at least."""
    return torch.stack([each.to(torch.promote_types(each.dtype, torch.float32)).mean() for each in maps]).mean()
