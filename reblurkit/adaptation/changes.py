"""What adaptation did to each image, in numbers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from reblurkit.adaptation.batch import AdaptedCall
from reblurkit.adaptation.own_blur import AdaptedToBlur
from reblurkit.core.calls import finest_scale

# A reblurring network that was trained brings back a part of the blur that the network has removed. Seen were
# self-reblur losses of up to 0.026, and 0.95 times what the network changes; of one after 200 steps 0.07, and 4 times.
_POOR, _POOR_HERE, _POOR_SHARE = 0.1, 0.03, 2.0
_RISEN = 10.0  # a step may raise it and still help, but not so much


class AdaptationChange(NamedTuple):
    """What adaptation did to an image.

    The self-reblur loss (equation 7) ``before`` the first step and ``after`` the last, the mean ``change`` of the
    image's values in grey levels of 255, and ``deblurred``, the mean of what the network itself changes, in [0, 1].
    """

    before: float
    after: float
    change: float
    deblurred: float

    @property
    def is_poor(self) -> bool:
        """Whether the reblurring network makes another image of it, as one does that has learned too little."""
        return self.before > _POOR or self.before > max(_POOR_HERE, _POOR_SHARE * self.deblurred)

    @property
    def has_risen(self) -> bool:
        """Whether the loss rose instead of falling."""
        return self.after > _RISEN * self.before


class BlurAdaptationChange(NamedTuple):
    """What adaptation to its own blur did to an image.

    The mean distance of the reblurred image from the photo ``before`` the first step and ``after`` the last, in [0, 1],
    NaN if the adapted image was not finite; the mean ``change`` of the image's values in grey levels of 255; the
    ``agreement`` of the photo's quarters on its blur, in [0, 1]; the share of what the network removed that is
    ``explained`` by it, in [0, 1]; and whether the image ``adapted``, which takes all.
    """

    before: float
    after: float
    change: float
    agreement: float
    explained: float
    adapted: bool


def changes_of(call: AdaptedCall, blurry: Tensor) -> list[AdaptationChange]:
    """What Algorithm 1 did to each image of a batch."""
    levels = 255 * _distances(finest_scale(call.output), call.plain)
    columns = (call.losses[:, 0], call.losses[:, -1], levels, _distances(call.plain, blurry))
    return [AdaptationChange(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def blur_changes_of(adapted: AdaptedToBlur) -> list[BlurAdaptationChange]:
    """What adaptation to its own blur did to each image of a batch."""
    levels = 255 * _distances(adapted.image, adapted.plain)
    columns = (*adapted.losses.T, levels, adapted.agreement, adapted.explained, adapted.adapted)
    return [BlurAdaptationChange(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _distances(images: Tensor, others: Tensor) -> Tensor:
    """The mean distance of each two images in [0, 1]."""
    return (images.clamp(0, 1) - others.clamp(0, 1)).abs().flatten(1).mean(1)
