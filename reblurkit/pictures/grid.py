"""Picture grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor
from torch.nn import functional as F

from reblurkit.data.images import to_uint8
from reblurkit.errors import ArgumentError

_GAP = 8
_HEADER = 30
_TALLEST = 20  # times the width of a column; of a taller image the drawing is narrower
_MARK = (255, 196, 0)


def comparison_grid(
    rows: Sequence[Mapping[str, Tensor]],
    *,
    kernels: Sequence[Mapping[str, Tensor]] | None = None,
    width: int = 360,
    detail: int = 128,
    gained: bool = False,
) -> Image.Image:
    """Draw versions of images side by side, each with an enlarged detail below.

    The detail is the same in a row: where the last column, by convention the sharp image, has the most texture.

    Args:
        rows: For each row a dict from column title to an image ``(3, H, W)`` in [0, 1]; one size a row.
        kernels: For each row a dict from column title to a kernel ``(h, w)``, drawn in the lower right corner of the
            image, its largest value white. Columns may be left out.
        width: Width of a column in pixels of the drawing.
        detail: Width of the detail in pixels of the images; it is half as high.
        gained: The detail is instead where the last column has gained the most texture over the first, if anywhere.

    Returns:
        An RGB picture.

    Raises:
        ArgumentError: If there are no rows, their titles differ, or kernels are not of these rows and titles.

    Example:
        >>> image = torch.rand(3, 60, 90)
        >>> comparison_grid([{"blurry": image, "sharp": image}], width=180, detail=32).size
        (384, 252)
    """
    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ArgumentError("a grid needs at least one row, and the same titles in every row")
    kernels = [{}] * len(rows) if kernels is None else kernels
    if len(kernels) != len(rows) or any(set(row) - set(rows[0]) for row in kernels):
        raise ArgumentError("`kernels` must hold a dict for each row of the grid, with titles of the grid")
    strips = []
    for row, corners in zip(rows, kernels, strict=True):
        first, *_, last = row.values() if len(row) > 1 else [*row.values()] * 2
        box = textured_window(last, detail, first if gained else None)
        strips.append([_cell(image, box, width, corners.get(title)) for title, image in row.items()])
    columns = len(rows[0])
    size = (columns * (width + _GAP) + _GAP, _HEADER + sum(strip[0].height + _GAP for strip in strips))
    grid = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(16)
    for column, title in enumerate(rows[0]):
        middle = _GAP + column * (width + _GAP) + width // 2
        draw.text((middle, _HEADER // 2), title, fill="black", font=font, anchor="mm")
    top = _HEADER
    for strip in strips:
        for column, cell in enumerate(strip):
            grid.paste(cell, (_GAP + column * (width + _GAP), top))
        top += strip[0].height + _GAP
    return grid


def textured_window(image: Tensor, detail: int, beyond: Tensor | None = None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the window with the most gradient; a wide window, to keep rows low.

    Args:
        image: ``(3, H, W)``.
        detail: Width of the window in pixels; it is half as high. Of a small image at most half the width.
        beyond: Only gradient beyond this image's counts, ``(3, H, W)``; all of it where no window has more.
    """
    height, width = image.shape[-2:]
    side = min(detail, width // 2)  # of a small image a smaller part, so that it is enlarged at all
    window = (min(height, max(side // 2, 1)), max(side, 1))
    strength = _gradient(image) if beyond is None else _gradient(image) - _gradient(beyond)
    # By rows, then by columns: a mean over the window at once costs forty times as much.
    means = F.avg_pool2d(F.avg_pool2d(strength[None, None], (window[0], 1), 1), (1, window[1]), 1)[0, 0]
    if beyond is not None and means.max() <= 0:
        return textured_window(image, detail)
    top, left = divmod(int(torch.argmax(means)), means.shape[1])
    return left, top, left + window[1], top + window[0]


def _gradient(image: Tensor) -> Tensor:
    """Strength of the gradient of each pixel, ``(H, W)``; 0 at the right and lower border."""
    grey = image.detach().float().cpu().mean(0)
    return F.pad((grey[1:, :-1] - grey[:-1, :-1]).abs() + (grey[:-1, 1:] - grey[:-1, :-1]).abs(), (0, 1, 0, 1))


def _cell(image: Tensor, box: tuple[int, int, int, int], width: int, kernel: Tensor | None) -> Image.Image:
    """The image at the column's width, the detail's place marked, and the detail below, enlarged to the same width."""
    picture = Image.fromarray(to_uint8(image))
    scale = min(width / picture.width, _TALLEST * width / picture.height)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    whole = picture.resize(size, Image.Resampling.LANCZOS)
    ImageDraw.Draw(whole).rectangle([scale * edge for edge in box], outline=_MARK, width=2)
    if kernel is not None:
        corner = _corner(kernel, min(whole.size) // 3)
        whole.paste(corner, (whole.width - corner.width, whole.height - corner.height))
    left, top, right, bottom = box
    # Nearest neighbour shows the pixels as they are; smoothing would add a blur of the drawing's own.
    height = max(round(width * (bottom - top) / (right - left)), 1)
    zoomed = picture.crop(box).resize((width, height), Image.Resampling.NEAREST)
    cell = Image.new("RGB", (width, whole.height + _GAP // 2 + zoomed.height), "white")
    cell.paste(whole, (0, 0))
    cell.paste(zoomed, (0, whole.height + _GAP // 2))
    return cell


def _corner(kernel: Tensor, largest: int) -> Image.Image:
    """A kernel with a white frame, each value a square of pixels as large as fits; black where it is not finite."""
    kernel = kernel.detach().float().cpu().nan_to_num(0)
    grey = Image.fromarray(to_uint8((kernel / kernel.amax().clamp(min=1e-12)).expand(3, -1, -1)))
    side = max(largest // max(grey.size), 1)
    grey = grey.resize((grey.width * side, grey.height * side), Image.Resampling.NEAREST)
    return ImageOps.expand(grey, 2, "white")
