"""Histogram matching, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from reblurkit.core.checks import check_images
from reblurkit.core.numbers import is_number, shown
from reblurkit.errors import ArgumentError


def match_histogram(image: Tensor, reference: Tensor, *, bins: int | None = 256) -> Tensor:
    """Give every channel of every image the histogram of the same channel of its reference.

    The mapping is that of ``skimage.exposure.match_histograms(image, reference, channel_axis=-1)``: a value goes to the
    reference's value at its quantile, with linear interpolation between the values that occur. ``bins=256`` takes the
    quantiles from 8-bit levels, as on ``uint8`` images; values between two levels move by what interpolation between
    these levels' moves gives, so that the output is not quantised. ``bins=None`` lets every float value be a level of
    its own, which matches ranks exactly, as on float images.

    Matching an image to itself returns it, clamped.

    Args:
        image: ``(B, C, H, W)`` in [0, 1]; values outside are clamped first.
        reference: The same shape; clamped likewise.
        bins: Number of levels in [0, 1], at least 2, or None.

    Returns:
        The matched image in [0, 1], in the dtype of ``image``, without a graph.

    Raises:
        ShapeError: If the shapes differ.
        ArgumentError: If ``bins`` is below 2, or an image is not floating point.

    Example:
        >>> dark, bright = torch.rand(2, 1, 3, 16, 16)
        >>> match_histogram(dark / 2, bright, bins=None).sort().values.equal(bright.sort().values)
        False
        >>> matched = match_histogram(dark / 2, bright, bins=None)
        >>> matched.flatten(2).sort().values.equal(bright.flatten(2).sort().values)
        True
    """
    check_images(image=image, reference=reference)
    check_bins(bins)
    for name, values in {"image": image, "reference": reference}.items():
        if values.isnan().any():
            raise ArgumentError(f"`{name}` must be free of NaN, which has no place in a histogram")
    match = _match_ranks if bins is None else _match_levels
    with torch.no_grad():
        channels = [
            match(one.double().clamp(0, 1), other.double().clamp(0, 1), bins or 0)
            for one, other in zip(image.flatten(0, 1), reference.flatten(0, 1), strict=True)
        ]
        return torch.stack(channels).clamp(0, 1).to(image.dtype).reshape(image.shape)


def check_bins(bins: int | None) -> None:
    """Raise ArgumentError for a number of bins that defines no histogram."""
    if bins is not None and not (is_number(bins) and 2 <= bins < 2**31 and bins == int(bins)):
        given = shown(bins)
        raise ArgumentError(f"the number of histogram bins must be at least 2, or None for exact ranks, but is {given}")


def _match_ranks(channel: Tensor, reference: Tensor, _: int) -> Tensor:
    _, level, counts = torch.unique(channel, return_inverse=True, return_counts=True)
    reference_values, reference_counts = torch.unique(reference, return_counts=True)
    return _at_same_quantiles(counts, reference_values, reference_counts)[level]


def _match_levels(channel: Tensor, reference: Tensor, bins: int) -> Tensor:
    values = torch.arange(bins, dtype=channel.dtype, device=channel.device) / (bins - 1)
    counts, reference_counts = (
        torch.bincount((image.flatten() * (bins - 1)).round().long(), minlength=bins) for image in (channel, reference)
    )
    present, reference_present = counts > 0, reference_counts > 0
    matched = _at_same_quantiles(counts, values[reference_present], reference_counts[reference_present])
    # Moves, not values, are interpolated: equal histograms then change nothing, to the last bit.
    return channel + _interpolate(channel, values[present], (matched - values)[present])


def _at_same_quantiles(counts: Tensor, reference_values: Tensor, reference_counts: Tensor) -> Tensor:
    """For each level, whose pixels ``counts`` counts, the reference's value at its quantile."""
    quantiles, reference_quantiles = (n.cumsum(0) / n.sum().double() for n in (counts, reference_counts))
    return _interpolate(quantiles, reference_quantiles, reference_values)


def _interpolate(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through ``(nodes, values)``, constant outside; ``numpy.interp`` on any device."""
    right = torch.searchsorted(nodes, x).clamp(max=len(nodes) - 1)
    left = (right - 1).clamp(min=0)
    gap = (nodes[right] - nodes[left]).clamp(min=torch.finfo(x.dtype).tiny)
    return torch.lerp(values[left], values[right], ((x - nodes[left]) / gap).clamp(0, 1))
