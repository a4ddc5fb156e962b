"""Crops of a size that a network cannot train on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from reblurkit.core.calls import Needs, needs_of
from reblurkit.core.checks import FULL_SIZE
from reblurkit.core.memory import is_out_of_memory
from reblurkit.errors import ReblurkitError, ShapeError
from reblurkit.models.full_size import FullSize


@contextmanager
def explained_by_crop(image: Tensor, *networks: nn.Module) -> Iterator[None]:
    """Tell what fails in this block by the images' size, where that is none that a network says it takes.

    Of a network that says nothing of sizes, the error is completed by what to try. Nothing is refused beforehand: a
    network may pad what does not divide by its ``multiple``.

    Args:
        image: What the networks are called with, ``(..., H, W)``.
        *networks: With the attributes ``multiple`` and ``smallest`` that :class:`reblurkit.models.FullSize` reads, or
            without.

    Raises:
        ShapeError: If the block fails and the size does not suit one of them; it names crops that do.
    """
    try:
        yield
    except Exception as error:  # whatever a network of the user's raises
        if isinstance(error, ReblurkitError) and not isinstance(error, ShapeError):
            raise
        height, width = image.shape[-2:]
        for network in networks:
            needs = needs_of(network)
            fits = height % needs.multiple == width % needs.multiple == 0 and min(height, width) >= needs.smallest
            if fits or isinstance(network, FullSize) or is_out_of_memory(error):
                continue
            least = f" and be at least {needs.smallest}" if min(height, width) < needs.smallest else ""
            raise ShapeError(
                f"height and width of what {type(network).__name__} trains on must divide by {needs.multiple}{least}, "
                f"but are {height} x {width}; choose a `crop` of {_near(min(height, width), needs)}, or {FULL_SIZE}"
            ) from error
        silent = " or ".join(type(each).__name__ for each in networks if not _tells(each))
        if silent and _is_of_size(error):
            raise ShapeError(
                f"in training on {height} x {width} pixels: {' '.join(str(error).split())}; if {silent} needs sizes "
                "that divide by a number, such as 8, choose such a `crop`, or set `multiple = 8` in its class and "
                f"{FULL_SIZE}"
            ) from error
        raise


def check_room(
    images: Sequence[Tensor], borders: Sequence[int], discriminator: nn.Module, generator: nn.Module
) -> None:
    """Refuse crops of which a discriminator gets too little at one of several scales.

    Args:
        images: A crop at every scale, the full size last.
        borders: Pixels at each of its sides that the discriminator does not see.
        discriminator: May say by ``smallest`` what it needs; else it gets at least a pixel.
        generator: Its attributes ``multiple`` and ``smallest`` bound the crops that are named.

    Raises:
        ShapeError: If they are too small; it names the smallest that are not.
    """
    least = needs_of(discriminator).smallest
    sides = [min(image.shape[-2:]) for image in images]
    full = sides[-1]
    left, tightest = min((side - 2 * border, side) for side, border in zip(sides, borders, strict=True))
    if left >= least:
        return
    enough = [-(-(least + 2 * border) * full // side) for side, border in zip(sides, borders, strict=True)]
    needs = needs_of(generator)
    crop = -(-max(*enough, needs.smallest) // needs.multiple) * needs.multiple
    border = borders[-1]
    scale = f" at its smallest scale, 1/{round(full / tightest)}" if tightest < full else ""
    less = ", or less blur" if border else ""
    rim = f", without the {border} pixels at every side that the known blur reaches into" if border else ""
    raise ShapeError(
        f"the discriminator needs images of at least {least} x {least} pixels, but a crop of {full} x {full} leaves it "
        f"{max(left, 0)} x {max(left, 0)}{scale}{rim}; use a `crop` of at least {crop}{less}"
    )


def _tells(network: nn.Module) -> bool:
    """Whether a network says what it needs, or is of this package, whose others take any size."""
    return hasattr(network, "multiple") or type(network).__module__.startswith("reblurkit.")


def _is_of_size(error: Exception) -> bool:
    """Whether a network of which nothing is known may have failed because of a size."""
    text = str(error)
    if is_out_of_memory(error) or isinstance(error, AttributeError | TypeError | LookupError | OSError):
        return False
    if "channel" in text or "non-singleton dimension 1" in text or _is_of_channels(text):
        return False
    return isinstance(error, ShapeError) or re.search("size|shape|divisible", text, re.IGNORECASE) is not None


def _is_of_channels(text: str) -> bool:
    """Whether two shapes in a message differ, and not in height and width."""
    shapes = [found.split(", ") for found in re.findall(r"\((\d+(?:, \d+){2,})\)", text)]
    return len(shapes) == 2 and shapes[0] != shapes[1] and shapes[0][-2:] == shapes[1][-2:]


def _near(side: int, needs: Needs) -> str:
    """The nearest sizes of crops that a network takes."""
    least = -(-needs.smallest // needs.multiple) * needs.multiple
    below = side // needs.multiple * needs.multiple
    return " or ".join(str(size) for size in sorted({max(below, least), max(below + needs.multiple, least)}))
