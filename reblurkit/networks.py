"""How reblurkit calls a network that belongs to somebody else: without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def parameter_places(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every place of a parameter in a network, as ``functional_call(..., tie_weights=False)`` needs them.

    A tensor that two modules share is given by both names. A module that sits at two paths is given once: with tensors
    replaced under both paths, ``functional_call`` restores them in the wrong order and leaves the new ones in place.
    """
    for prefix, module in network.named_modules():
        yield from module.named_parameters(prefix, recurse=False, remove_duplicate=False)


def buffer_places(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The same of buffers."""
    for prefix, module in network.named_modules():
        yield from module.named_buffers(prefix, recurse=False, remove_duplicate=False)


@contextmanager
def preserved_rng(device: torch.device) -> Iterator[None]:
    """Put the random state of the CPU and of ``device`` back when the block ends."""
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            yield
    else:
        with torch.random.fork_rng(devices=[device], device_type=device.type):
            yield


def call_untouched(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network without gradients and without a change to its buffers or to the random state.

    BatchNorm statistics are updated in copies, and dropout draws from a fork of the random stream, so that training
    goes on as if the call had not been made.

    Args:
        network: Any deblurring network, in training or evaluation mode.
        image: Its input, ``(B, C, H, W)``.

    Returns:
        The full-size output, without a graph.
    """
    buffers = {name: buffer.clone() for name, buffer in buffer_places(network)}
    with preserved_rng(image.device), torch.no_grad():
        return finest_scale(functional_call(network, buffers, (image,), tie_weights=False))


def call_frozen(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network so that gradients pass to its input, but not to its parameters.

    Unlike ``requires_grad_(False)`` this leaves the parameters trainable by other terms of the same loss.

    Args:
        network: Any network.
        image: Its input, ``(B, C, H, W)``.

    Returns:
        The network's output; buffers are updated in copies only.
    """
    frozen = {name: parameter.detach() for name, parameter in parameter_places(network)}
    frozen |= {name: buffer.clone() for name, buffer in buffer_places(network)}
    output: Tensor = functional_call(network, frozen, (image,), tie_weights=False)
    return output
