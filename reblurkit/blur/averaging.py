"""Blur as cameras make it: the mean over time."""

from __future__ import annotations

from torch import Tensor

from reblurkit.blur.light import widened
from reblurkit.core.numbers import check_positive, shown
from reblurkit.errors import ArgumentError, ShapeError


def average_frames(frames: Tensor, gamma: float | None = None) -> Tensor:
    """Synthetic motion blur: the mean of consecutive sharp frames.

    As the data of Reblur2Deblur is made (section 4.1: nine frames at 240 per second, the centre frame is the sharp
    image). The paper does not say whether a camera curve was taken into account; without ``gamma`` none is.

    Args:
        frames: Sharp frames, ``(B, T, C, H, W)``, in [0, 1].
        gamma: Exponent that maps the frames to linear light, greater than 0; the mean is mapped back with its inverse.
            The GoPro data set uses 2.2. None averages the values as they are.

    Returns:
        Blurry images, ``(B, C, H, W)``.

    Raises:
        ShapeError: If ``frames`` has not five dimensions or is empty.
        ArgumentError: If ``frames`` is no tensor of floating point, or ``gamma`` not greater than 0.

    Example:
        >>> import torch
        >>> frames = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1)
        >>> round(average_frames(frames).item(), 4), round(average_frames(frames, gamma=2.2).item(), 4)
        (0.5, 0.7297)
    """
    if not isinstance(frames, Tensor):
        raise ArgumentError(f"`frames` must be a tensor (B, T, C, H, W), but is {shown(frames)}")
    if frames.ndim != 5 or frames.numel() == 0:
        raise ShapeError(
            f"`frames` must be clips (B, T, C, H, W) with at least one pixel, but its shape is {tuple(frames.shape)}"
        )
    if not frames.is_floating_point():
        raise ArgumentError(
            f"`frames` must hold floating point values in [0, 1], but is {frames.dtype}; divide 8-bit frames by 255"
        )
    if gamma is None:
        return frames.mean(dim=1)
    check_positive(gamma=gamma, hint="; None averages the values as they are")
    # Frames may be a little below 0 after interpolation; such values have no power.
    linear = widened(frames.clamp(min=0)).pow(gamma).mean(dim=1)
    return linear.pow(1 / gamma).to(frames.dtype)
