"""The length of the exposure in the unit that the blur models use."""

from __future__ import annotations

from reblurkit.blur.arguments import check_exposure
from reblurkit.core.numbers import check_positive, check_whole, shown
from reblurkit.errors import ArgumentError


def exposure_from(
    *, window: int | None = None, stride: int | None = None, shutter: float | None = None, fps: float | None = None
) -> float:
    """Half-length of the exposure in frame intervals: the ``exposure`` of the blur models.

    The models spread the blur of frame t over the times t - exposure to t + exposure. (Reblur2Deblur calls it tau and
    sets it to 1, which means an exposure of two frame intervals; footage is usually at 0.5 or below.)

    Args:
        window: For synthetic blur: how many sharp frames were averaged into one blurry frame; at least 1.
        stride: For synthetic blur: sharp frames from one blurry frame to the next; at least 1.
        shutter: For a camera: time the shutter is open, in seconds; greater than 0.
        fps: For a camera: frames per second; greater than 0.

    Returns:
        ``window / stride / 2`` or ``shutter * fps / 2``.

    Raises:
        ArgumentError: If not exactly one of the two pairs is given, ``window`` or ``stride`` is not a whole number, or
            ``shutter``, ``fps`` or their product is not finite and greater than 0.

    Example:
        >>> exposure_from(window=9, stride=9)
        0.5
        >>> exposure_from(shutter=1 / 48, fps=24)
        0.25
    """
    frames, camera = (window, stride), (shutter, fps)
    if camera == (None, None) and window is not None and stride is not None:
        check_whole(window=window, stride=stride, unit=" of frames")
        return window / stride / 2
    if frames == (None, None) and shutter is not None and fps is not None:
        check_positive(shutter=shutter, unit=" of seconds")
        check_positive(fps=fps, unit=" of frames per second")
        exposure = float(shutter) * float(fps) / 2
        check_exposure(exposure)
        return exposure
    raise ArgumentError(
        "give either `window` and `stride` (synthetic blur) or `shutter` and `fps` (camera), but got "
        f"window={shown(window)}, stride={shown(stride)}, shutter={shown(shutter)}, fps={shown(fps)}"
    )
