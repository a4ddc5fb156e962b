"""The length of the exposure in the unit that the blur models use."""

from __future__ import annotations

import math

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
        ArgumentError: If not exactly one of the two pairs is given, or a number is not greater than 0.

    Example:
        >>> exposure_from(window=9, stride=9)
        0.5
        >>> exposure_from(shutter=1 / 48, fps=24)
        0.25
    """
    numbers: tuple[float | None, ...] = (window, stride) if shutter is None and fps is None else (shutter, fps)
    given = [number for number in (window, stride, shutter, fps) if number is not None]
    if None in numbers or len(given) != 2:
        raise ArgumentError(
            "give either `window` and `stride` (synthetic blur) or `shutter` and `fps` (camera), but got "
            f"window={window}, stride={stride}, shutter={shutter}, fps={fps}"
        )
    if not all(math.isfinite(number) and number > 0 for number in given):
        raise ArgumentError(
            "`window`, `stride`, `shutter` and `fps` must be finite and greater than 0, but came as "
            f"window={window}, stride={stride}, shutter={shutter}, fps={fps}"
        )
    first, second = given
    return (first * second if shutter is not None else first / second) / 2
