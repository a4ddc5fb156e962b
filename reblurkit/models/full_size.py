"""Images of any size through networks of particular needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reblurkit.core.calls import finest_scale, needs_of
from reblurkit.core.memory import is_out_of_memory
from reblurkit.core.numbers import is_number, shown
from reblurkit.errors import ArgumentError, ShapeError


class FullSize(nn.Module):
    """Any network on images of any size: padded to what it needs, cropped back, large ones tile by tile.

    The right and lower borders are reflected, as often as it takes where an image is smaller than what is added.
    With ``tile`` the network sees one tile at a time and the tiles are blended into one image, so that memory is that
    of a tile and of the images. A network whose receptive field is at most ``overlap`` pixels across gives the same
    image with tiles as without; others, among them all that pool over the whole image, give another one, without
    seams. Gradients flow either way, but keep the activations of all tiles.

    Args:
        network: Any network that keeps the size of its input, from one image or clip, or from several of the same
            size. Of a list of scales, from coarse to fine, the last is returned; in training mode all are, each
            cropped, for losses that use them. The mode at first is the network's.
        multiple: What height and width must divide by. None: what the network's attribute ``multiple`` says, and 1,
            no padding, where it says nothing. Its attribute ``smallest``, if it has one, is the shortest side that
            it takes.
        tile: Side of the square tiles in pixels, divisible by ``multiple``. None: the whole image at once.
        overlap: Pixels at which a tile's border makes no difference any more; neighbouring tiles share half as many
            again, if the tile is large enough, to blend over.

    Shape:
        ``(..., H, W)`` with any H, W >= 1 to the network's output, cropped to H x W; coarser scales in proportion.

    Raises:
        ArgumentError: If the arguments do not go together, images are no floating point tensors, or scales are
            wanted of an image of several tiles.
        ShapeError: If the network fails on a size or does not keep it.

    Example:
        >>> network = nn.PixelUnshuffle(2)  # needs even sizes
        >>> network = nn.Sequential(network, nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2))
        >>> FullSize(network, multiple=2, tile=64)(torch.rand(1, 3, 99, 201)).shape
        torch.Size([1, 3, 99, 201])
    """

    def __init__(
        self, network: nn.Module, multiple: int | None = None, tile: int | None = None, overlap: int = 32
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ArgumentError(f"`network` must be an nn.Module, but is {network!r}; create_model(name) builds one")
        self._knows_needs = multiple is not None or hasattr(network, "multiple")
        if multiple is None:
            multiple = needs_of(network).multiple
        if not is_number(multiple, int) or multiple < 1:
            raise ArgumentError(f"`multiple` must be a whole number of at least 1, but is {shown(multiple)}")
        if not is_number(overlap, int) or overlap < 0:
            raise ArgumentError(f"`overlap` must be at least 0 and a whole number, but is {shown(overlap)}")
        if tile is not None and (not is_number(tile, int) or tile < 1):
            raise ArgumentError(f"`tile` must be a whole number of pixels or None, but is {shown(tile)}")
        self.smallest = needs_of(network).smallest
        if tile is not None and (tile < multiple or tile % multiple):
            near = max(tile // multiple, -(-max(overlap + multiple, self.smallest) // multiple)) * multiple
            raise ArgumentError(f"`tile` must divide by {multiple}, which the network needs, but is {tile}; try {near}")
        shortest = max(overlap + multiple, self.smallest)
        if tile is not None and tile < shortest:
            raise ArgumentError(f"`tile` must be at least {shortest} with this overlap and network, but is {tile}")
        self.network = network
        self.training = network.training
        self.multiple = multiple
        self.tile = tile
        self.overlap = overlap

    def forward(self, *images: Tensor) -> Tensor | list[Tensor]:
        """Return the network's output on the images, at their size."""
        if not images or not all(isinstance(image, Tensor) for image in images):
            found = ", ".join(type(image).__name__ for image in images) or "nothing"
            raise ArgumentError(f"images must be tensors (..., channels, H, W), but came as {found}")
        if not all(image.is_floating_point() for image in images):
            raise ArgumentError(
                f"images must hold floating point values in [0, 1], but are {images[0].dtype}; divide 8-bit images by "
                "255"
            )
        size = images[0].shape[-2:]
        if any(image.ndim < 3 or image.shape[-2:] != size or 0 in size for image in images):
            found = " and ".join(str(tuple(image.shape)) for image in images)
            raise ShapeError(f"images must be (..., channels, H, W) of one size and not empty, but are {found}")
        rows, columns = (self._cover(length) for length in size)
        if len(rows) == len(columns) == 1:
            output = self._run(images, rows[0], columns[0])
            if self.training and not isinstance(output, Tensor):
                return [_crop(scale, size, (rows[0].size, columns[0].size)) for scale in output]
            return finest_scale(output)[..., : size[0], : size[1]]
        return _blend((row, column, self._run_tile(images, row, column)) for row in rows for column in columns)

    def _cover(self, length: int) -> list[_Span]:
        """The spans along one axis that the network sees one after the other."""
        padded = max(length, self.smallest)
        padded += -padded % self.multiple
        if self.tile is None or padded <= self.tile:
            return [_Span(0, padded, torch.ones(length))]
        ramp = min(self.overlap // 2, self.tile - self.overlap - self.multiple)
        step = (self.tile - self.overlap - ramp) // self.multiple * self.multiple
        starts = [*range(0, padded - self.tile, step), padded - self.tile]
        # A tile hands over to the next in the middle of what they share. The weights are differences of ramps that
        # rise one after the other from 0 to 1, so that those of a pixel sum to 1.
        middles = [(before + self.tile + after) / 2 for before, after in pairwise(starts)]
        places = torch.arange(length) + 0.5
        rises = [((places - middle) / max(ramp, 1) + 0.5).clamp(0, 1) for middle in middles]
        rises = [torch.ones(length), *rises, torch.zeros(length)]
        return [
            _Span(start, self.tile, rise - fall) for start, (rise, fall) in zip(starts, pairwise(rises), strict=True)
        ]

    def _run_tile(self, images: Sequence[Tensor], row: _Span, column: _Span) -> Tensor:
        output = self._run(images, row, column)
        if self.training and not isinstance(output, Tensor):
            raise ArgumentError(
                f"in training mode all scales of {type(self.network).__name__} are returned, which cannot be put "
                f"together from tiles of {self.tile} pixels: train on crops that fit into one tile, or call .eval()"
            )
        return finest_scale(output)

    def _run(self, images: Sequence[Tensor], row: _Span, column: _Span) -> Tensor | Sequence[Tensor]:
        tiles = [column.cut(row.cut(image, -2), -1) for image in images]
        size = tiles[0].shape[-2:]
        name = type(self.network).__name__
        advice = "; if sizes must divide by a number, such as 8, set `multiple = 8` in the class of the network"
        advice = "" if self._knows_needs else advice
        try:
            output: Tensor | Sequence[Tensor] = self.network(*tiles)
        except RuntimeError as error:
            if "should be the same" in str(error) and "type" in str(error):
                raise ArgumentError(
                    f"{name} cannot process images of {tiles[0].dtype}: {error}; convert the images to its type"
                ) from error
            if self._knows_needs or is_out_of_memory(error):
                raise
            raise ShapeError(f"{name} failed on {size[0]} x {size[1]} pixels: {error}{advice}") from error
        result = finest_scale(output)
        if result.shape[-2:] != size:
            raise ShapeError(
                f"{name} must keep the size of its input, {size[0]} x {size[1]}, but returned "
                f"{tuple(result.shape)}{advice}"
            )
        return output


def _crop(scale: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """The part of a scale that shows the image of ``size``, of which the network saw ``padded`` pixels."""
    height, width = (
        -(-side * length // whole) for side, length, whole in zip(scale.shape[-2:], size, padded, strict=True)
    )
    return scale[..., :height, :width]


class _Span(NamedTuple):
    """What the network sees along one axis, and what of it counts."""

    start: int
    size: int
    weights: Tensor  # of every place of the image

    @property
    def used(self) -> slice:
        """Where the weights are not zero."""
        places = self.weights.nonzero()
        return slice(int(places[0]), int(places[-1]) + 1)

    def cut(self, image: Tensor, axis: int) -> Tensor:
        """The span of an image, beyond its end reflected, back and forth without the border itself."""
        length = image.shape[axis]
        if self.start + self.size <= length:
            return image.narrow(axis, self.start, self.size)
        period = max(2 * (length - 1), 1)
        places = torch.arange(self.start, self.start + self.size, device=image.device) % period
        return image.index_select(axis, torch.minimum(places, period - places) if length > 1 else places)


def _blend(results: Iterator[tuple[_Span, _Span, Tensor]]) -> Tensor:
    """One image of tiles that come one after the other."""
    first = next(results)
    row, column, tile = first
    # half precision would round with every tile that is added
    wide = torch.promote_types(tile.dtype, torch.float32)
    image = tile.new_zeros((*tile.shape[:-2], len(row.weights), len(column.weights)), dtype=wide)
    for row, column, tile in chain([first], results):
        rows, columns = row.used, column.used
        weights = torch.outer(row.weights[rows], column.weights[columns]).to(image)
        part = tile[..., rows.start - row.start : rows.stop - row.start, :]
        part = part[..., columns.start - column.start : columns.stop - column.start]
        image[..., rows, columns] += part * weights
    return image.to(tile.dtype)
