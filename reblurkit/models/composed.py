"""A translator of blur and a deblurring network as one."""

from __future__ import annotations

import math

from torch import Tensor, nn

from reblurkit.core.calls import finest_scale, needs_of


class Composed(nn.Module):
    """A translator of blur and a deblurring network, one after the other.

    Args:
        translate: Maps unknown to known blur.
        deblur: Maps known blur to sharp images.

    Attributes:
        multiple: What height and width must divide by, as far as the networks say.
        smallest: The least height and width.
    """

    def __init__(self, translate: nn.Module, deblur: nn.Module) -> None:
        super().__init__()
        self.translate = translate
        self.deblur = deblur
        needs = needs_of(translate), needs_of(deblur)
        self.multiple = math.lcm(*(each.multiple for each in needs))
        self.smallest = max(each.smallest for each in needs)

    def forward(self, blurry: Tensor) -> Tensor:
        """Deblur ``(B, 3, H, W)`` in [0, 1]; the translated image is clamped between the networks, the result not."""
        return finest_scale(self.deblur(finest_scale(self.translate(blurry)).clamp(0, 1)))
