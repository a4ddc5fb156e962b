"""The reblurring losses of Nah et al., *Clean Images are Hard to Reblur: A New Clue for Deblurring* (2021).

In the paper's letters: B is the blurry image, S the sharp one, L = M_D(B) the deblurred one and S^ = M_D(S) the
pseudo-sharp one; M_D is the deblurring network and M_R the reblurring network. All distances are L1 (section S1).

Who learns from what is part of each formula: equations 2 and 3 train M_R and hold M_D's images fixed, equations 5 and
7 train M_D and hold M_R's weights fixed. The paper alternates two optimisations; here the gradients are kept apart
inside one backward pass, which gives the same numbers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.calls import (
    call_frozen,
    call_routed,
    call_untouched,
    check_attached,
    check_two_networks,
    finest_scale,
    learns,
)
from reblurkit.core.checks import check_images
from reblurkit.core.numbers import check_not_negative
from reblurkit.errors import ArgumentError, ShapeError

Sharpness = Literal["pseudo", "real"] | None


def blur_reconstruction_loss(reblur_net: nn.Module, deblurred: Tensor, blurry: Tensor) -> Tensor:
    """L_Blur = ||M_R(L) - B||_1 (equation 2): M_R learns to bring back the blur that is left in L.

    Args:
        reblur_net: The reblurring network M_R; receives the gradient.
        deblurred: L, ``(B, 3, H, W)`` in [0, 1]; held fixed.
        blurry: B, the same shape.

    Returns:
        Scalar loss.
    """
    return _distance(reblur_net(deblurred.detach()), blurry)


def sharpness_preservation_loss(reblur_net: nn.Module, pseudo_sharp: Tensor) -> Tensor:
    """L_Sharp = ||M_R(S^) - S^||_1 (equation 3): M_R learns to leave sharp images as they are.

    Args:
        reblur_net: The reblurring network M_R; receives the gradient.
        pseudo_sharp: S^ = M_D(S), ``(B, 3, H, W)`` in [0, 1]; held fixed, as input and as target.

    Returns:
        Scalar loss.
    """
    pseudo_sharp = pseudo_sharp.detach()
    return _distance(reblur_net(pseudo_sharp), pseudo_sharp)


def reblur_loss(reblur_net: nn.Module, deblurred: Tensor, sharp: Tensor) -> Tensor:
    """L_Reblur = ||M_R(L) - M_R(S)||_1 (equation 5): blur left in L shows after reblurring.

    S is the real sharp image, not S^, which would make early training unstable (section 3.2).

    Args:
        reblur_net: The reblurring network M_R; its weights are held fixed.
        deblurred: L, ``(B, 3, H, W)`` in [0, 1]; receives the gradient.
        sharp: S, the same shape.

    Returns:
        Scalar loss.
    """
    with torch.no_grad():
        target = call_frozen(reblur_net, sharp)
    return _distance(call_frozen(reblur_net, deblurred), target)


def self_reblur_loss(reblur_net: nn.Module, deblurred: Tensor) -> Tensor:
    """L_Reblur^self = ||M_R(L) - L_*||_1 (equation 7), the same signal without ground truth.

    L_* has L's values and no gradient; otherwise L and M_R(L) could both become blurry to agree.

    Args:
        reblur_net: The reblurring network M_R; its weights are held fixed.
        deblurred: L, ``(B, 3, H, W)`` in [0, 1]; receives the gradient, through M_R only.

    Returns:
        Scalar loss.
    """
    return _distance(call_frozen(reblur_net, deblurred), deblurred.detach())


def _distance(reblurred: Tensor, target: Tensor) -> Tensor:
    """The L1 distance; images of one channel or pixel would be broadcast."""
    if not isinstance(reblurred, Tensor) or reblurred.shape != target.shape:
        came = tuple(reblurred.shape) if isinstance(reblurred, Tensor) else type(reblurred).__name__
        raise ShapeError(
            f"the reblurring network must keep the shape of its input, {tuple(target.shape)}, but returned {came}"
        )
    return F.l1_loss(reblurred, target)


class ReblurNetTerms(NamedTuple):
    """One evaluation of L_R: the ``loss`` to minimise, and each term's value for the log."""

    loss: Tensor
    blur: Tensor
    sharp: Tensor | None


def reblur_net_loss(
    network: nn.Module,
    reblur_net: nn.Module,
    deblurred: Tensor,
    sharp: Tensor,
    blurry: Tensor,
    *,
    sharpness: Sharpness,
) -> ReblurNetTerms:
    """L_R = L_Blur + L_Sharp (equation 4), what M_R is trained with; M_D gives S^ and is left untouched."""
    blur = blur_reconstruction_loss(reblur_net, deblurred, blurry)
    if sharpness is None:
        return ReblurNetTerms(blur, blur, None)
    preserved = _preservation(network, reblur_net, sharp, sharpness)
    return ReblurNetTerms(blur + preserved, blur, preserved)


def _preservation(network: nn.Module, reblur_net: nn.Module, sharp: Tensor, sharpness: Sharpness) -> Tensor:
    preserved = call_untouched(network, sharp) if sharpness == "pseudo" else sharp
    return sharpness_preservation_loss(reblur_net, preserved)


class ReblurTerms(NamedTuple):
    """One evaluation of the reblurring losses: the routed ``loss`` to add, and each term's value for the log."""

    loss: Tensor
    reblur: Tensor
    blur: Tensor | None
    sharp: Tensor | None


def routed_reblur_loss(
    network: nn.Module,
    reblur_net: nn.Module,
    deblurred: Tensor,
    sharp: Tensor,
    blurry: Tensor,
    *,
    weight: float,
    sharpness: Sharpness,
) -> ReblurTerms:
    """Evaluate equations 2 to 5 so that one backward pass trains both networks; see :class:`ReblurLoss`.

    With gradients disabled (a validation step), or with an M_R whose weights are frozen, only L_Reblur is evaluated:
    M_R's own terms are training terms.
    """
    deblurred = finest_scale(deblurred)
    check_images(deblurred=deblurred, sharp=sharp, blurry=blurry)
    if weight:
        check_attached(network, deblurred, "reblurring loss")
    if not (learns(reblur_net) and torch.is_grad_enabled()):
        reblur = reblur_loss(reblur_net, deblurred, sharp)
        return ReblurTerms(weight * reblur, reblur, None, None)

    # Equations 5 and 2 share the forward pass M_R(L), each with the gradient of its own function above.
    for_network, for_reblur_net = call_routed(reblur_net, deblurred if weight else deblurred.detach())
    with torch.no_grad():
        target = call_frozen(reblur_net, sharp)
    reblur = _distance(for_network, target)
    blur = _distance(for_reblur_net, blurry)
    own, preserved = blur, None
    if sharpness is not None:
        preserved = _preservation(network, reblur_net, sharp, sharpness)
        own = blur + preserved
    # L_R joins with its gradient, not with its value: the sum stays the paper's L_D (equation 6).
    loss = weight * reblur if weight else torch.zeros_like(reblur)
    return ReblurTerms(loss + (own - own.detach()), reblur, blur, preserved)


class ReblurLoss(nn.Module):
    """The supervised reblurring loss for a training loop without Lightning.

    The result's *value* is ``weight * L_Reblur`` (equation 5), so that added to L1 it gives the paper's L_D
    (equation 6). Its *gradients* are routed: after one ``backward()`` the parameters of ``network`` hold exactly
    ``weight * dL_Reblur`` and those of ``reblur_net`` exactly ``dL_R`` (equation 4), as two separate optimisations
    would give. Step one optimizer for each. Scale with ``weight``, not by multiplying the result, which would scale
    L_R too.

    A reblurring network whose weights are frozen (``requires_grad_(False)``) judges only, and costs a fraction.

    What differs from the paper: M_R learns from the L of the same forward pass instead of a second one (the paper
    leaves open which it uses), which saves a pass of M_D.

    Both networks are submodules of the loss: step optimizers over ``network.parameters()`` and
    ``reblur_net.parameters()``, not over the loss's.

    Args:
        network: The deblurring network M_D; used for S^ = M_D(S) without a trace on its buffers or the random state.
        reblur_net: The reblurring network M_R, for instance :class:`reblurkit.models.ReblurNet`.
        weight: lambda of equation 6.
        sharpness: What M_R must preserve (equation 3): ``"pseudo"`` S^ as in the paper, ``"real"`` S, or ``None`` to
            leave the term out (the three rows of Table 4).

    Raises:
        ArgumentError: If ``weight`` is negative, ``sharpness`` unknown, the networks share parameters, or
            ``deblurred`` has been detached from its network.

    Shape:
        ``(deblurred, sharp, blurry)``, each ``(B, 3, H, W)`` in [0, 1]; ``deblurred`` may be a list from coarse to
        fine, of which the last is used. Returns a scalar.

    Example:
        >>> from reblurkit.models import ReblurNet, UNet
        >>> network, reblur_net = UNet(blocks=1, widths=(8, 8, 8)), ReblurNet(width=8)
        >>> criterion = ReblurLoss(network, reblur_net, weight=0.5)
        >>> blurry, sharp = torch.rand(2, 1, 3, 16, 16)
        >>> criterion(network(blurry), sharp, blurry).shape
        torch.Size([])
    """

    def __init__(
        self, network: nn.Module, reblur_net: nn.Module, *, weight: float = 1.0, sharpness: Sharpness = "pseudo"
    ) -> None:
        super().__init__()
        check_reblur_options(weight, sharpness)
        check_two_networks(network, reblur_net, "reblurring")
        self.network = network
        self.reblur_net = reblur_net
        self.weight = weight
        self.sharpness = sharpness

    def forward(self, deblurred: Tensor, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Return the routed loss, a scalar."""
        return routed_reblur_loss(
            self.network, self.reblur_net, deblurred, sharp, blurry, weight=self.weight, sharpness=self.sharpness
        ).loss

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"weight={self.weight}, sharpness={self.sharpness!r}"


def check_reblur_options(weight: float, sharpness: Sharpness) -> None:
    """Raise ArgumentError for a negative weight or an unknown ``sharpness``."""
    check_not_negative(weight=weight)
    choices = (*get_args(get_args(Sharpness)[0]), None)
    if sharpness not in choices:
        raise ArgumentError(f"`sharpness` must be one of {choices}, but is {sharpness!r}")
