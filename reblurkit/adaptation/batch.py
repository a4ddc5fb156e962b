"""Test-time adaptation, Algorithm 1 of Nah et al., *Clean Images are Hard to Reblur* (2021), in plain PyTorch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reblurkit.adaptation.histogram import match_histogram
from reblurkit.adaptation.image import SWAPPING, ImageAdaptation
from reblurkit.adaptation.options import AdaptOptions
from reblurkit.adaptation.slicing import each_image, first_image, join, map_tensors, replace_finest
from reblurkit.core.calls import check_two_networks, finest_scale, preserved_rng
from reblurkit.core.checks import check_images, check_range
from reblurkit.errors import ArgumentError, ShapeError


class Adapted(NamedTuple):
    """A batch of adapted images: ``image`` and ``plain`` ``(B, 3, H, W)``, ``losses`` ``(B, steps + 1)``.

    ``plain`` is what the network gives without adaptation, L^0. ``losses`` holds the self-supervised reblurring loss
    before each step and after the last.
    """

    image: Tensor
    plain: Tensor
    losses: Tensor


def adapt(
    network: nn.Module,
    reblur_net: nn.Module,
    blurry: Tensor,
    *inputs: Any,
    **options: Any,
) -> Adapted:
    """Deblur each image by weights adapted to it, without ground truth: Algorithm 1.

    For each image, a copy of the network's weights takes ``steps`` optimizer steps on the self-supervised reblurring
    loss (equation 7): what the reblurring network can bring back of the blur must become less. The loss's target, the
    deblurred image itself, is held fixed within a step and moves from step to step. Then the colours are matched to
    those of the un-adapted output. Images of a batch are adapted one by one, so a batch gives what its images give
    alone.

    Neither network is changed: not its weights, buffers, gradients or mode, and the random state stays as it was. A
    network in training mode runs in training mode; call ``eval()`` first. Under float16 autocast the adaptation runs
    in float32, bfloat16 autocast is kept. Several threads may adapt the same networks
    at a time, those in training mode one image after the other, as dropout draws from one random state; a plain call of
    a network from another thread in the same moment may see adapted weights, and random numbers that another thread
    draws meanwhile are not kept apart.

    The paper names neither optimizer nor details of the histogram matching; picked here: Adam as in its training, new
    for every image, and 8-bit histograms per channel over the whole image.

    Args:
        network: The trained deblurring network M_D; may return a list, coarse to fine, of which the last counts.
        reblur_net: The reblurring network M_R that was trained with it.
        blurry: ``(B, 3, H, W)`` in [0, 1], as the networks in float32 unless autocast is on.
        *inputs: Further positional inputs of the network. Tensors whose first dimension is B belong to the images
            one by one.
        **options: The ten options, see :class:`AdaptOptions`.

    Returns:
        The adapted images, the plain ones, and the losses. An image whose loss became NaN or infinite is the plain
        one. Of one that stopped early, the loss of the weights that were kept is repeated.

    Raises:
        ArgumentError: If an argument or an image is out of range, or no chosen parameter takes part in the output.
        ShapeError: If ``blurry`` is no batch of images, or the network cannot process its size or does not keep it.
        PluginError: If the network holds tensors made in inference mode.

    Example:
        >>> from reblurkit.models import ReblurNet, UNet
        >>> network, reblur_net = UNet(blocks=1, widths=(8, 8, 8)).eval(), ReblurNet(width=8)
        >>> adapted = adapt(network, reblur_net, torch.rand(2, 3, 16, 16), steps=3)
        >>> adapted.image.shape, adapted.losses.shape
        (torch.Size([2, 3, 16, 16]), torch.Size([2, 4]))
    """
    check_images(blurry=blurry)
    check_range(blurry=blurry)
    call = adapt_call(network, reblur_net, (blurry, *inputs), {}, AdaptOptions(**options))
    failed = (~call.losses.isfinite().all(1)).nonzero().flatten().tolist()
    if failed:
        warnings.warn(
            f"the loss became NaN or infinite, and the plain output is kept, of images {failed}", stacklevel=2
        )
    return Adapted(finest_scale(call.output), call.plain, call.losses)


class AdaptedCall(NamedTuple):
    """What a call of a network gives with adaptation: its output, in the network's own structure, and the record."""

    output: Any
    plain: Tensor
    losses: Tensor
    seconds: list[float]


def adapt_call(
    network: nn.Module,
    reblur_net: nn.Module,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    options: AdaptOptions,
    report: Callable[[int, int, Tensor], None] | None = None,
) -> AdaptedCall:
    """Call a network with adaptation, whatever its inputs and the structure of its output; see :func:`adapt`.

    Args:
        network: M_D.
        reblur_net: M_R.
        arguments: Positional inputs; the first tensor of all inputs is the blurry image.
        keywords: Keyword inputs.
        options: The options.
        report: Called with the image's place in the batch, the number of steps done, and the loss.
    """
    with SWAPPING:
        check_two_networks(network, reblur_net, "reblurring")
        names = chosen_parameters(network, options.parameters)
    inputs = (tuple(arguments), dict(keywords))
    device = first_image(inputs).device
    outputs, plain, losses, seconds = [], [], [], []
    half = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) is torch.float16
    # Gradients of a mean over an image vanish in float16, and nothing scales them here.
    precision = torch.autocast(device.type, enabled=False) if half else nullcontext()
    # Dropout draws from the one random state of all threads.
    is_random = any(module.training for part in (network, reblur_net) for module in part.modules())
    alone = SWAPPING if is_random else nullcontext()
    with torch.inference_mode(False), precision:
        if half:
            inputs = map_tensors(lambda tensor: tensor.float() if tensor.dtype is torch.float16 else tensor, inputs)
        for index, image_inputs in enumerate(each_image(inputs)):
            start = time.perf_counter()
            with alone, preserved_rng(device):
                # Not named: the weights of the last image must be gone before the next one's are made.
                before, after, image_losses = ImageAdaptation(network, reblur_net, names, image_inputs, options).adapt(
                    lambda *step, i=index: report(i, *step) if report else None
                )
            plain.append(finest_scale(before))
            if plain[-1].shape[-2:] != first_image(image_inputs).shape[-2:]:
                raise ShapeError(
                    f"{type(network).__name__} must return images of the size of its input, in a list the last, but "
                    f"made {tuple(plain[-1].shape)} of {tuple(first_image(image_inputs).shape)}"
                )
            if not image_losses.isfinite().all():
                after = before
            elif options.match_histogram:
                bins = options.histogram_bins
                after = replace_finest(after, match_histogram(finest_scale(after), plain[-1], bins=bins))
            outputs.append(after)
            losses.append(image_losses)
            seconds.append(time.perf_counter() - start)
        return AdaptedCall(join(outputs), torch.cat(plain), torch.stack(losses), seconds)


def chosen_parameters(network: nn.Module, chosen: str | Sequence[str]) -> list[str]:
    """Names of the parameters to adapt, see :class:`AdaptOptions`.

    Raises:
        ArgumentError: If there are none.
    """
    names = [name for name, parameter in network.named_parameters() if parameter.is_floating_point()]
    if not names:
        raise ArgumentError(f"{type(network).__name__} has no parameters that could be adapted")
    if chosen == "all":
        return names
    if chosen == "norm":
        patterns: Sequence[str] = [
            name
            for prefix, module in network.named_modules()
            if "norm" in type(module).__name__.lower()
            for name, _ in module.named_parameters(prefix, recurse=False)
        ]
    else:
        patterns = ["bias", "*.bias"] if chosen == "bias" else list(chosen)
    matching = [name for name in names if any(fnmatchcase(_plain(name), _plain(pattern)) for pattern in patterns)]
    if not matching:
        raise ArgumentError(
            f"no parameter of {type(network).__name__} is chosen by parameters={chosen!r}; its parameters are named "
            f"{', '.join(map(_plain, names[:6]))}{', ...' if len(names) > 6 else ''}"
        )
    return matching


def _plain(name: str) -> str:
    """A parameter's name without the wrapper that torch.compile puts around a module."""
    return name.replace("_orig_mod.", "")
