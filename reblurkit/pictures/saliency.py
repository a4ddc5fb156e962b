"""What a deblurring network looks at: guided back-propagation (Reblur2Deblur, Figure 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from reblurkit.core.calls import call_without_trace, evaluating
from reblurkit.errors import ArgumentError
from reblurkit.pictures.grid import comparison_grid

Patch = tuple[int, int, int, int]

_RELUS = {torch.relu, torch.relu_, F.relu, Tensor.relu, Tensor.relu_}


def guided_saliency(network: nn.Module, blurry: Tensor, patch: Patch | None = None) -> Tensor:
    """How much each input value raises or lowers the deblurred image, by guided back-propagation.

    The gradient of the sum of the deblurred values, except that every ReLU passes back positive gradients only
    (Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2015). Finds all ReLUs that run,
    layers and calls of ``torch.relu`` alike. The network is used in evaluation mode and left as it was: its mode,
    buffers and gradients, and no hook stays behind.

    Args:
        network: Any deblurring network with ReLUs.
        blurry: Its input: images ``(B, 3, H, W)``, or clips ``(B, T, 3, H, W)`` for a network of several
            frames, in [0, 1].
        patch: Top, left, height and width of the part of the deblurred image that is looked at; default: all of it.

    Returns:
        The input's shape.

    Raises:
        ArgumentError: If the patch leaves the image, or no ReLU has run, so that nothing can be guided.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> saliency = guided_saliency(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()), image, (4, 4, 1, 1))
        >>> saliency.abs().sum((0, 1)).nonzero().amin(0), saliency.abs().sum((0, 1)).nonzero().amax(0)
        (tensor([3, 3]), tensor([5, 5]))
    """
    height, width = blurry.shape[-2:]
    top, left, high, wide = patch or (0, 0, height, width)
    if min(top, left) < 0 or min(high, wide) < 1 or top + high > height or left + wide > width:
        raise ArgumentError(
            f"`patch` must be (top, left, height, width) inside the image of {height} x {width}, but is {patch}"
        )
    with evaluating(network), torch.inference_mode(False), torch.enable_grad(), _GuidedReLUs() as guided:
        image = blurry.detach().clone().requires_grad_()
        deblurred = call_without_trace(network, image)
        score = deblurred[..., top : top + high, left : left + wide].sum()
    if not guided.calls:
        raise ArgumentError(
            f"guided back-propagation needs ReLUs, but {type(network).__name__} has run none; networks of other "
            "activations, compiled and scripted ones cannot be looked at in this way"
        )
    (saliency,) = torch.autograd.grad(score, image)
    return saliency


def saliency_colours(saliency: Tensor, scale: float | None = None) -> Tensor:
    """Draw saliency: red where a brighter input raises the output, green where it lowers it.

    Args:
        saliency: ``(B, 3, H, W)``; the channels are summed.
        scale: Value that has full colour; default: the 99.5th percentile of the magnitudes.

    Returns:
        ``(B, 3, H, W)`` in [0, 1].

    Example:
        >>> saliency_colours(torch.tensor([1.0, -1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2), scale=3)[0, :, 0]
        tensor([[1., 0.],
                [0., 1.],
                [0., 0.]])
    """
    total = saliency.detach().float().sum(1)
    full = scale or _full_colour(total)
    red, green = (total / full).clamp(0, 1), (-total / full).clamp(0, 1)
    return torch.stack((red, green, torch.zeros_like(red)), 1)


def saliency_figure(networks: Mapping[str, nn.Module], blurry: Tensor, patch: Patch | None = None) -> Image.Image:
    """Draw the saliency of networks side by side, for instance before and after fine-tuning, as Figure 5.

    Args:
        networks: Networks by the titles of their columns.
        blurry: One input of theirs, ``(1, 3, H, W)``, or a clip ``(1, T, 3, H, W)``; each frame becomes a row, all
            in one scale, so that frames can be compared. In [0, 1].
        patch: Top, left, height and width, in pixels, of the part of the deblurred image that is looked at.

    Returns:
        The picture, RGB.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
        >>> saliency_figure({"before": network, "after": network}, torch.rand(1, 3, 40, 60), (20, 20, 8, 8)).width
        1112
    """
    frames = blurry.flatten(0, -4)
    columns = {}
    for title, network in networks.items():
        saliency = guided_saliency(network, blurry, patch).flatten(0, -4)
        columns[title] = saliency_colours(saliency, _full_colour(saliency.float().sum(1)))
    return comparison_grid(
        [{**{title: images[t] for title, images in columns.items()}, "input": frames[t]} for t in range(len(frames))]
    )


class _GuidedReLUs(TorchFunctionMode):
    """While it is on, the gradient of every ReLU's output is cut at 0 before it passes back."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _RELUS and isinstance(output, Tensor) and output.requires_grad:
            self.calls += 1
            output.register_hook(_positive)  # type: ignore[no-untyped-call]  # lives and dies with this pass's graph
        return output


def _positive(gradient: Tensor) -> Tensor:
    return gradient.clamp(min=0)


def _full_colour(total: Tensor) -> float:
    magnitudes = total.abs().flatten()
    return max(float(magnitudes.kthvalue(max(int(0.995 * len(magnitudes)), 1)).values), 1e-12)
