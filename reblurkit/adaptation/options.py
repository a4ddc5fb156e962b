"""The options of adaptation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from reblurkit.adaptation.histogram import check_bins
from reblurkit.core.numbers import check_not_negative, check_rate, is_number, shown
from reblurkit.errors import ArgumentError

OptimizerFactory = Callable[[list[Tensor]], Optimizer]
_SUBSETS = ("all", "norm", "bias")


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """How to adapt by Algorithm 1: keywords of :func:`reblurkit.adaptation.adapt` and ``TestTimeAdaptCallback``.

    Args:
        steps: Adaptation steps N; 5 in the paper. More steps sharpen more and stray further from the truth.
        lr: Learning rate; 3e-6 in the paper.
        parameters: What adapts: ``"all"``, ``"norm"`` (the parameters of normalisation modules), ``"bias"``, or a list
            of patterns of parameters' names such as ``["decoder.*"]``. ``requires_grad`` plays no part.
        optimizer: An optimizer class, which is given ``lr``; or a function of the parameters, whose learning rate is
            its own. Default Adam.
        match_histogram: Match the colours; without, the image is not clamped.
        histogram_bins: Levels of the matching, None for exact ranks; see
            :func:`reblurkit.adaptation.match_histogram`.
        early_stop: End an image's adaptation at the first step that raises its loss, and take that step back.
        anchor: Weight of ``|weights - original weights|^2`` as a further loss that keeps the weights near.
        tile: Take the loss's gradient from tiles of this side, in turn, as their mean; the image itself is then
            computed whole, without gradients. Bounds the memory of large images.
        checkpointing: Compute activations anew in the backward pass, one network at a time, to save memory.

    Raises:
        ArgumentError: If an option is out of range.
    """

    steps: int = 5
    lr: float = 3e-6
    parameters: str | Sequence[str] = "all"
    optimizer: OptimizerFactory | None = None
    match_histogram: bool = True
    histogram_bins: int | None = 256
    early_stop: bool = False
    anchor: float = 0.0
    tile: int | None = None
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not is_number(self.steps, int) or self.steps < 0:
            raise ArgumentError(f"`steps` of adaptation must be a whole number, at least 0, but is {shown(self.steps)}")
        check_rate(lr=self.lr)
        check_not_negative(anchor=self.anchor)
        check_tile(self.tile)
        if not isinstance(self.parameters, Iterable) or not all(isinstance(name, str) for name in self.parameters):
            raise ArgumentError(f"`parameters` must be a word or a list of name patterns, but is {self.parameters!r}")
        if isinstance(self.parameters, str) and self.parameters not in _SUBSETS:
            raise ArgumentError(
                f"`parameters` must be one of {', '.join(map(repr, _SUBSETS))}, or a list of name patterns, but is "
                f"{self.parameters!r}"
            )
        if isinstance(self.optimizer, Optimizer) or not (self.optimizer is None or callable(self.optimizer)):
            raise ArgumentError(
                "`optimizer` must be an optimizer class or a function of the parameters, because every image gets its "
                f"own, but is a {type(self.optimizer).__name__} object; write optimizer=lambda parameters: ..."
            )
        check_bins(self.histogram_bins)

    def make_optimizer(self, parameters: list[Tensor]) -> Optimizer:
        """A new optimizer for one image's weights."""
        make: Callable[..., Optimizer] = self.optimizer or torch.optim.Adam
        optimizer = make(parameters, lr=self.lr) if isinstance(make, type) else make(parameters)
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
            raise ArgumentError(
                "`optimizer` must make an optimizer that steps on one gradient, such as torch.optim.Adam, but made a "
                f"{type(optimizer).__name__}"
            )
        return optimizer


def check_tile(tile: int | None) -> None:
    """Raise ArgumentError for what is no side of a tile."""
    if tile is not None and (not is_number(tile, int) or tile < 1):
        raise ArgumentError(f"`tile` must be a number of pixels, at least 1 (int), or None, but is {shown(tile)}")
