"""How reblurkit calls a network that belongs to somebody else: without leaving a trace on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reblurkit.errors import ArgumentError, PluginError


def finest_scale(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The full-size image in a network's output.

    Args:
        output: What the network returned: an image, or a list of images from coarse to fine.

    Returns:
        The image itself, or the last of the list.

    Raises:
        ArgumentError: If the output is neither.
    """
    image = output[-1] if isinstance(output, list | tuple) and output else output
    if not isinstance(image, Tensor):
        raise ArgumentError(
            "a deblurring network must return an image tensor or a list of them, coarse to fine, "
            f"but it returned {type(output).__name__}"
        )
    return image


def find_network(module: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path.

    Raises:
        PluginError: If there is none; the message lists the submodules that exist.
    """
    try:
        if path == "":  # the module itself, in torch's reading
            raise AttributeError
        return module.get_submodule(path)
    except AttributeError:
        found = ", ".join(name for name, _ in module.named_children()) or "none"
        raise PluginError(
            f"{type(module).__name__} has no submodule at {path!r}; its submodules are: {found}"
        ) from None


@contextmanager
def preserved_rng(device: torch.device) -> Iterator[None]:
    """Put the random state of the CPU and of ``device`` back when the block ends."""
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            yield
    else:
        with torch.random.fork_rng(devices=[device], device_type=device.type):
            yield


def call_without_trace(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network with gradients, but without a change to its buffers or to the random state.

    BatchNorm statistics are updated in copies, and dropout draws from a fork of the random stream, so that training
    goes on as if the call had not been made.

    Args:
        network: Any deblurring network, in training or evaluation mode.
        image: Its input, ``(B, C, H, W)``; for a network of several frames ``(B, T, C, H, W)``.

    Returns:
        The full-size output.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with preserved_rng(image.device):
        return finest_scale(functional_call(network, buffers, (image,)))


def call_untouched(network: nn.Module, image: Tensor) -> Tensor:
    """As :func:`call_without_trace`, and without a graph."""
    with torch.no_grad():
        return call_without_trace(network, image)


def call_frozen(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network so that gradients pass to its input, but not to its parameters.

    Unlike ``requires_grad_(False)`` this leaves the parameters trainable by other terms of the same loss.

    Args:
        network: Any network.
        image: Its input, ``(B, C, H, W)``.

    Returns:
        The network's output; buffers are updated in copies only.
    """
    frozen = {name: parameter.detach() for name, parameter in network.named_parameters()}
    frozen |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    output: Tensor = functional_call(network, frozen, (image,))
    return output


def check_attached(network: nn.Module, deblurred: Tensor, loss: str) -> None:
    """Check that a network can learn from a loss of its output.

    Raises:
        ArgumentError: If the output has no graph, so that the network would silently learn nothing; a frozen network
            has none by right.
    """
    if not torch.is_grad_enabled() or deblurred.requires_grad:
        return
    if any(parameter.requires_grad for parameter in network.parameters()):
        raise ArgumentError(
            "`deblurred` must be the network's output with its graph, but has been detached: the network would learn "
            f"nothing from the {loss}; pass the output itself, or use weight=0"
        )


def check_two_networks(network: nn.Module, other: nn.Module, name: str) -> None:
    """Raise ArgumentError if two networks share parameters: their gradients could not be told apart."""
    if {*network.parameters()} & {*other.parameters()}:
        raise ArgumentError(f"the deblurring and the {name} network must not share parameters, but do")


class Frozen:
    """A trained network that a module uses and neither trains, saves, averages nor moves along.

    Args:
        network: Any network; a copy in evaluation mode without gradients of its parameters is used.

    Example:
        >>> Frozen(nn.Conv2d(3, 3, 1)).on(torch.zeros(1, 3, 4, 4, dtype=torch.float64)).weight.dtype
        torch.float64
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = copy.deepcopy(network).requires_grad_(False).eval()

    def on(self, image: Tensor) -> nn.Module:
        """The network on the image's device and in its precision."""
        with torch.inference_mode(False):  # weights that are moved in a test must still serve in training
            first = next(chain(self._network.parameters(), self._network.buffers()), image)
            if (first.device, first.dtype) != (image.device, image.dtype):
                self._network.to(image.device, image.dtype)
        return self._network

    def __repr__(self) -> str:
        return type(self._network).__name__
