"""How reblurkit calls a network that belongs to somebody else: without leaving a trace on it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from reblurkit.core.numbers import is_number, without_numpy
from reblurkit.errors import ArgumentError, PluginError


def finest_scale(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The full-size image in a network's output.

    Args:
        output: What the network returned: an image, or a list of images from coarse to fine.

    Returns:
        The image itself, or the last of the list, with a warning if others are as large.

    Raises:
        ArgumentError: If the output is neither.
    """
    scales = output if isinstance(output, list | tuple) and output else [output]
    image = scales[-1]
    if not isinstance(image, Tensor):
        raise ArgumentError(
            "a deblurring network must return an image tensor or a list of them, coarse to fine, "
            f"but it returned {type(output).__name__}"
        )
    if any(isinstance(scale, Tensor) and scale.shape == image.shape for scale in scales[:-1]):
        warnings.warn(
            f"of the {len(scales)} images that the network returned several have full size; the last is used, as of "
            "networks that go from coarse to fine. If another is the final one, of MPRNet the first, wrap the network "
            "in a module that returns it alone",
            stacklevel=2,
        )
    return image


def find_network(module: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path.

    Raises:
        PluginError: If there is none; the message lists the submodules that exist.
    """
    if not isinstance(path, str):
        raise PluginError(f"a network is named by its dotted path, such as 'network', but came a {type(path).__name__}")
    try:
        if path == "":  # the module itself, in torch's reading
            raise AttributeError
        return module.get_submodule(path)
    except AttributeError:
        found = ", ".join(name for name, _ in module.named_children()) or "none"
        raise PluginError(
            f"{type(module).__name__} has no submodule at {path!r}; its submodules are: {found}; name one of them, by "
            "its dotted path, once it is set"
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


def copied(network: nn.Module) -> nn.Module:
    """A copy of a network for itself, also where its modules hold tensors with a graph, as the older ``weight_norm``.

    Raises:
        ArgumentError: If the network holds something else that cannot be copied, such as a lock.
    """
    held = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
    try:
        return copy.deepcopy(network, {id(value): value.detach().clone() for value in held if not value.is_leaf})
    except (TypeError, RuntimeError) as error:  # of what cannot be pickled, and of tensors deeper inside
        raise ArgumentError(
            f"{type(network).__name__} must be a network that can be copied (copy.deepcopy), but: {error}"
        ) from error


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into its own when the block ends."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


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
    buffers = {name: buffer.clone() for name, buffer in buffer_places(network)}
    with preserved_rng(image.device):
        return finest_scale(functional_call(network, buffers, (image,), tie_weights=False))


def call_untouched(network: nn.Module, image: Tensor) -> Tensor:
    """As :func:`call_without_trace`, and without a graph."""
    with torch.no_grad():
        return call_without_trace(network, image)


class Needs(NamedTuple):
    """What a network asks of its input: it says so by attributes of these names, and asks for nothing by having none.

    Attributes:
        multiple: What height and width must divide by.
        smallest: The least height and width.
        frames: Frames that it takes at once, as ``(B, frames, 3, H, W)``; of 1, plain images ``(B, 3, H, W)``.
    """

    multiple: int = 1
    smallest: int = 1
    frames: int = 1


def needs_of(network: nn.Module) -> Needs:
    """What a network says of its input; an attribute that is no whole number, such as a layer, says nothing.

    Example:
        >>> from reblurkit.models import create_model
        >>> needs_of(create_model("dbn", width=4))
        Needs(multiple=8, smallest=1, frames=5)
    """
    said = {name: getattr(network, name, None) for name in Needs._fields}
    return Needs(**{name: without_numpy(value) for name, value in said.items() if is_number(value, int)})


def stack_length(network: nn.Module) -> int:
    """Frames that a network takes at once."""
    return needs_of(network).frames


def frame_inputs(network: nn.Module, clips: Tensor, wanted: Sequence[int]) -> Tensor:
    """What a network needs to deblur some frames of each clip.

    Args:
        network: A network of single frames, or one of several, see :func:`stack_length`.
        clips: ``(B, T, 3, H, W)``.
        wanted: Indices of the frames.

    Returns:
        The frames, ``(B * len(wanted), 3, H, W)``, or the stacks around them, ``(B * len(wanted), frames, 3, H, W)``,
        in which the clip's first and last frame are repeated beyond its ends.
    """
    length = stack_length(network)
    if length == 1:
        return clips[:, list(wanted)].flatten(0, 1)
    last = clips.shape[1] - 1
    around = [[min(max(t + step - length // 2, 0), last) for step in range(length)] for t in wanted]
    return torch.stack([clips[:, indices] for indices in around], 1).flatten(0, 1)


def learns(network: nn.Module) -> bool:
    """Whether anything of a network is to be trained."""
    return any(parameter.requires_grad for parameter in network.parameters())


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


def check_attached(network: nn.Module, deblurred: Tensor, loss: str) -> None:
    """Check that a network can learn from a loss of its output.

    Raises:
        ArgumentError: If the output has no graph, so that the network would silently learn nothing; a frozen network
            has none by right.
    """
    if not torch.is_grad_enabled() or deblurred.requires_grad:
        return
    if learns(network):
        raise ArgumentError(
            "`deblurred` must be the network's output with its graph, but has been detached: the network would learn "
            f"nothing from the {loss}; pass the output itself, or use weight=0"
        )


def check_two_networks(network: nn.Module, other: nn.Module, name: str) -> None:
    """Raise ArgumentError if one is no network, or both share parameters: their gradients could not be told apart."""
    for module, role in {network: "deblurring", other: name}.items():
        if not isinstance(module, nn.Module):
            raise ArgumentError(f"the {role} network must be an nn.Module, but is {module!r}")
    if {*network.parameters()} & {*other.parameters()}:
        raise ArgumentError(f"the deblurring and the {name} network must not share parameters, but do")


def call_routed(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Run a network once for two losses, of which one trains what made the image, and the other the network.

    Equal to ``call_frozen(network, image), network(image.detach())``, with one forward pass less; not differentiable
    twice.

    Args:
        network: Any network. One that is compiled runs twice: its backward graph can neither be used twice nor
            leave out what is not asked for.
        image: Its input, ``(B, C, H, W)``.

    Returns:
        The output twice: gradients of the first pass to the image alone, those of the second to the parameters alone.
    """
    if torch.compiler.is_compiling() or any(_is_compiled(module) for module in network.modules()):
        return call_frozen(network, image), network(image.detach())
    parameters = list(network.parameters())
    index = {id(parameter): number for number, parameter in enumerate(parameters)}
    places = {name: index[id(parameter)] for name, parameter in parameter_places(network)}
    for_image, for_parameters = _RoutedCall.apply(network, places, image, *parameters)
    return for_image, for_parameters


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or hasattr(module, "_orig_mod")


class _RoutedCall(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, network: nn.Module, places: dict[str, int], image: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in (image, *parameters)]
        with torch.enable_grad():
            # A view: hooks on what a module is called with, such as a FLOP counter's, must not meet a leaf.
            replaced = {name: leaves[1 + number] for name, number in places.items()}
            output = functional_call(network, replaced, (leaves[0].view_as(image),), tie_weights=False)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output, *leaves)  # with the output its graph, for as long as the caller's graph lives
        return output.detach(), output.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_image: Tensor | None, for_parameters: Tensor | None) -> tuple[Tensor | None, ...]:
        output, image, *parameters = ctx.saved_tensors

        def gradients(grad: Tensor | None, leaves: list[Tensor]) -> list[Tensor | None]:
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            if grad is None or not wanted:
                return [None] * len(leaves)
            found = iter(torch.autograd.grad(output, wanted, grad, retain_graph=True, allow_unused=True))
            return [next(found) if leaf.requires_grad else None for leaf in leaves]

        return None, None, *gradients(for_image, [image]), *gradients(for_parameters, parameters)


class Frozen:
    """A trained network that a module uses and neither trains, saves, averages nor moves along.

    Args:
        network: Any network; a copy in evaluation mode without gradients of its parameters is used.

    Example:
        >>> Frozen(nn.Conv2d(3, 3, 1)).on(torch.zeros(1, 3, 4, 4, dtype=torch.float64)).weight.dtype
        torch.float64
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = copied(network).requires_grad_(False).eval()

    def on(self, image: Tensor) -> nn.Module:
        """The network on the image's device and in its precision."""
        with torch.inference_mode(False):  # weights that are moved in a test must still serve in training
            first = next(chain(self._network.parameters(), self._network.buffers()), image)
            if (first.device, first.dtype) != (image.device, image.dtype):
                self._network.to(image.device, image.dtype)
        return self._network

    def __repr__(self) -> str:
        return type(self._network).__name__
