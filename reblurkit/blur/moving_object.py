"""Random motion of an object before its background."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reblurkit.blur.line_blur import flow_line_blur
from reblurkit.blur.motion import MotionBlur
from reblurkit.blur.random_blur import RandomExtentBlur
from reblurkit.errors import ShapeError

_SCENE = (9, 4, 4)  # planes of control points: twice two flows of u and v, and the outline
_STILL = (1 / 3, 1 / 6)  # how often the background stands still, and how often the object does


class MovingObjectBlur(RandomExtentBlur):
    """Blurs every image of a batch as a scene in which an object moves before a background that moves otherwise.

    Streets are such scenes: people pass by before houses that stand still, or stay in place while the camera follows
    them. Blur then changes at an edge, where :class:`MotionBlur` changes smoothly, and the background shows through the
    object where the exposure saw both.

    A random region of about half of the image, with a sharp outline, is the object. Object and background move as
    :class:`MotionBlur` draws it, each by itself; in one image of three the background stands still, in one of six the
    object does. With the object's matte m, 1 on it and 0 elsewhere, the sharp image x, and the blurs K_o along the
    object's motion and K_b along the background's, the blurry image is ``K_o (m x) + (1 - K_o m) K_b x``. The sensor
    adds up just this while an opaque layer moves, if one of the two stands still; if both move, their meeting at the
    outline is taken as independent. Where the object hides the background, the background looks like the object.

    Args:
        largest: Longest motion of either in half of the exposure, in pixels.
        smallest: The shortest of their longest motions, where they move.
        seed: Makes the sequence of scenes of this object reproducible; default: the global random state.
        linear: Blur in linear light; ``False`` blurs the values as they are.

    Images, and errors of theirs, are those of :class:`RandomBlur`.

    Raises:
        ArgumentError: If not ``0 < smallest <= largest``, or ``seed`` is not a whole number.

    Example:
        >>> MovingObjectBlur(largest=8, seed=0)(torch.rand(2, 3, 32, 40)).shape
        torch.Size([2, 3, 32, 40])
    """

    def __init__(
        self, largest: float = 14.0, smallest: float = 1.0, seed: int | None = None, linear: bool = True
    ) -> None:
        super().__init__(largest, smallest, seed, linear)
        self.motion = MotionBlur(largest, smallest)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw motions and outlines at control points, ``(count, 9, 4, 4)``.

        Four planes are the background's motion as of :meth:`MotionBlur.draw`, four the object's, one is positive on it.
        """
        return torch.stack([self._draw(generator or self._generator) for _ in range(count)])

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        motions = self.motion.draw(2, generator)
        which = torch.rand((), generator=generator)
        moves = torch.stack([which >= _STILL[0], (which < _STILL[0]) | (which >= sum(_STILL))])
        outline = torch.randn(1, *motions.shape[-2:], generator=generator)
        return torch.cat([(motions * moves.view(2, 1, 1, 1, 1)).flatten(0, 2), outline])

    def blur_values(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur values as they are."""
        if drawn.shape[1:] != _SCENE:
            raise ShapeError(f"expected scenes of `draw`, (B, 9, 4, 4), but came {tuple(drawn.shape)}")
        size = (image.shape[-2], image.shape[-1])
        background, moving = drawn[:, :8].reshape(-1, 2, 2, 2, *drawn.shape[-2:]).unbind(1)
        outline = F.interpolate(drawn[:, 8:], size=size, mode="bicubic", align_corners=True)
        matte = (outline > 0).to(image)
        layer = flow_line_blur(torch.cat([image * matte, matte], 1), *self.motion.flows(moving, size))
        behind = flow_line_blur(image, *self.motion.flows(background, size))
        return layer[:, :-1] + (1 - layer[:, -1:]) * behind
