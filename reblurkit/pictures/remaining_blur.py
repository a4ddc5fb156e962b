"""Images side by side, each with the blur that remains in it (Clean Images are Hard to Reblur, Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from reblurkit.metrics.remaining_blur import remaining_blur_kernel, spread
from reblurkit.pictures.grid import comparison_grid, textured_window


def remaining_blur_figure(
    rows: Sequence[Mapping[str, Tensor]], *, size: int = 21, width: int = 360, detail: int = 128
) -> Image.Image:
    """Draw versions of images side by side, in a corner of each the kernel that makes the sharp one into it.

    As Figure 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), does for deblurred images and their reblurred
    counterparts. The kernel is that of the enlarged detail, where the image has texture to tell it; the paper takes the
    middle of the image. Behind a title stand, row by row, :func:`reblurkit.metrics.spread` of its kernels.

    Args:
        rows: For each row a dict from column title to an image ``(3, H, W)`` in [0, 1], the last one sharp; for
            instance ``{"blurry": ..., "deblurred": ..., "reblurred": ..., "sharp": ...}``.
        size: Side of the kernels in pixels.
        width: Width of a column in pixels of the drawing.
        detail: Width of the detail in pixels of the images.

    Returns:
        An RGB picture.

    Raises:
        ArgumentError: As :func:`comparison_grid` and :func:`reblurkit.metrics.remaining_blur_kernel` say.
        ShapeError: If an image has no room for such a kernel.

    Example:
        >>> import torch
        >>> image = torch.rand(3, 80, 100)
        >>> remaining_blur_figure([{"moved": image.roll(1, -1), "sharp": image}], size=9, width=180, detail=40).size
        (384, 276)
    """
    kernels = [_kernels(row, size, detail) for row in rows]
    titles = list(rows[0]) if rows else []
    spreads = {title: [float(spread(row[title])) for row in kernels if title in row] for title in titles}
    named = {
        title: f"{title} ({', '.join(f'{value:.1f}' for value in spreads[title])} px)" if spreads[title] else title
        for title in titles
    }
    return comparison_grid(
        [{named.get(title, title): image for title, image in row.items()} for row in rows],
        kernels=[{named[title]: kernel for title, kernel in row.items()} for row in kernels],
        width=width,
        detail=detail,
    )


def _kernels(row: Mapping[str, Tensor], size: int, detail: int) -> dict[str, Tensor]:
    *versions, last = row
    sharp = row[last]
    left, top, right, bottom = textured_window(sharp, detail)
    patch = min(5 * size, min(sharp.shape[-2:]) - size)
    room = size // 2 + patch // 2
    middle = (top + bottom) // 2, (left + right) // 2
    place = tuple(
        min(max(where, room), length - room - patch % 2) for where, length in zip(middle, sharp.shape[-2:], strict=True)
    )
    return {
        title: remaining_blur_kernel(row[title][None], sharp[None], size, (place[0], place[1]), patch=patch)[0]
        for title in versions
    }
