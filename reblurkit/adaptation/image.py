"""Algorithm 1 for one image; :mod:`reblurkit.adaptation` is the public side."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from reblurkit.adaptation.options import AdaptOptions
from reblurkit.adaptation.slicing import each_tile, first_image, map_tensors
from reblurkit.core.calls import buffer_places, finest_scale, parameter_places
from reblurkit.errors import ArgumentError, PluginError, ReblurkitError, ShapeError
from reblurkit.losses.reblur import self_reblur_loss
from reblurkit.models.full_size import FullSize

SWAPPING = threading.RLock()
"""Held while functional_call has other tensors in a module, and by whoever reads a module's tensors meanwhile."""

_OTHER = " or the reblurring network"


class ImageAdaptation:
    """One image, and copies of the network's weights that adapt to it.

    Args:
        network: M_D.
        reblur_net: M_R.
        names: Names of the parameters that adapt.
        inputs: Positional and keyword inputs of M_D for this image.
        options: The options of :func:`reblurkit.adaptation.adapt`.
    """

    def __init__(
        self, network: nn.Module, reblur_net: nn.Module, names: list[str], inputs: Any, options: AdaptOptions
    ) -> None:
        self.network, self.reblur_net, self.options = network, reblur_net, options
        # Tensors made in inference mode can take no part in a backward pass; their copies made here can.
        self.inputs = map_tensors(lambda tensor: tensor.detach().clone(), inputs)
        with SWAPPING:
            parameters = dict(network.named_parameters())
            places = [*parameter_places(network), *buffer_places(network)]
            copies = {buffer: buffer.clone() for buffer in network.buffers()}
        self.originals = [_normal(parameters[name]) for name in names]
        self.weights = [original.clone().requires_grad_() for original in self.originals]
        copies |= {parameters[name]: weight for name, weight in zip(names, self.weights, strict=True)}
        self.tensors = {name: copies[tensor] if tensor in copies else _normal(tensor) for name, tensor in places}

    def adapt(self, report: Callable[[int, Tensor], None]) -> tuple[Any, Any, Tensor]:
        """The network's output before and after adaptation, and the losses ``(steps + 1,)``."""
        steps, early_stop = self.options.steps, self.options.early_stop
        optimizer = self.options.make_optimizer(self.weights)
        losses: list[Tensor] = []
        previous: list[Tensor] = []
        plain = output = None
        for step in range(steps + 1):
            loss, output = self._evaluate(gradients=step < steps, whole=step in (0, steps))
            if early_stop and losses and loss > losses[-1]:
                self._restore(previous)
                output = self._detached(self.inputs)
                losses += [losses[-1]] * (steps + 1 - step)
                break
            losses.append(loss)
            report(step, loss)
            if step == 0:
                plain = output
            if step < steps:
                previous = [weight.detach().clone() for weight in self.weights] if early_stop else []
                optimizer.step()
        return plain, output, torch.stack(losses)

    def _evaluate(self, *, gradients: bool, whole: bool) -> tuple[Tensor, Any]:
        """The loss, with gradients into the weights' ``grad``, and the output of the whole image where asked for."""
        tile = self.options.tile
        tiles = [self.inputs] if tile is None else each_tile(self.inputs, tile)
        losses = []
        for weight in self.weights:
            weight.grad = None
        for inputs in tiles:
            with torch.set_grad_enabled(gradients), explained(self.network, inputs, _OTHER):
                output = self._call(inputs)
                finest = finest_scale(output)
                # Not the output itself: the graphs of coarser scales would live through the backward pass.
                output = map_tensors(torch.Tensor.detach, output) if whole and not tile else None
                loss = self._checkpointed(self._loss, finest) / len(tiles)
                if gradients:
                    self._accumulate(loss)
            losses.append(loss.detach())
        if gradients and self.options.anchor:
            self._pull_back()
        total = torch.stack(losses).sum()
        total = total.to(torch.promote_types(total.dtype, torch.float32))
        if not whole:
            return total, None
        return total, self._detached(self.inputs) if tile else output

    def _call(self, inputs: Any) -> Any:
        def run() -> Any:
            with SWAPPING:
                return functional_call(self.network, self.tensors, *inputs, tie_weights=False)

        torch.clear_autocast_cache()  # it would still hold the weights from before the last step
        return self._checkpointed(run)

    def _detached(self, inputs: Any) -> Any:
        with torch.no_grad(), explained(self.network, inputs, _OTHER):
            return self._call(inputs)

    def _loss(self, deblurred: Tensor) -> Tensor:
        with SWAPPING:
            return self_reblur_loss(self.reblur_net, deblurred)

    def _checkpointed(self, function: Callable[..., Any], *arguments: Tensor) -> Any:
        if self.options.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)

    def _accumulate(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.weights, allow_unused=True) if loss.requires_grad else [None]
        if all(gradient is None for gradient in gradients):
            raise ArgumentError(
                f"none of the {len(self.weights)} chosen parameters takes part in the output of "
                f"{type(self.network).__name__}; choose others, and see that its forward does not switch gradients off"
            )
        for weight, gradient in zip(self.weights, gradients, strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)

    def _pull_back(self) -> None:
        for weight, original in zip(self.weights, self.originals, strict=True):
            if weight.grad is not None:
                weight.grad = torch.add(weight.grad, weight.detach() - original, alpha=2 * self.options.anchor)

    def _restore(self, previous: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, previous, strict=True):
                weight.copy_(value)


def _normal(tensor: Tensor) -> Tensor:
    return tensor.detach().clone() if tensor.is_inference() else tensor.detach()


@contextmanager
def explained(network: nn.Module, inputs: Any, other: str = "") -> Iterator[None]:
    """Say what to do about errors that come from torch.

    Args:
        network: The network that is called.
        inputs: What it is called with.
        other: For the message, what else may have raised them.
    """
    padded = isinstance(network, FullSize)  # to what it says that it needs, which may be too little
    name = f"{type(network.network if padded else network).__name__}{other}"
    try:
        yield
    except torch.OutOfMemoryError as error:
        error.add_note("adaptation needs the memory of training on one image; tile=512 or checkpointing=True need less")
        raise
    except RuntimeError as error:
        if isinstance(error, ReblurkitError):
            raise
        if "nference tensor" in str(error):
            raise PluginError(
                f"{name} keeps a tensor that it made in inference mode, in an earlier call, "
                "and that cannot take part in a backward pass; run all calls under torch.no_grad() instead, in "
                "Lightning by Trainer(inference_mode=False)"
            ) from error
        if "channels" in str(error):
            raise ShapeError(
                f"{name} cannot process images of {first_image(inputs).shape[-3]} channels: {error}; colour images "
                "have 3, grey ones are repeated to as many"
            ) from error
        if "should be the same" in str(error) and "type" in str(error):
            raise ArgumentError(
                f"{name} cannot process images of {first_image(inputs).dtype}: {error}; convert the images to the "
                "networks' type"
            ) from error
        if re.search("size|shape", str(error), re.IGNORECASE):
            pad = (
                "set `multiple` in its class"
                if padded
                else "call it as reblurkit.models.FullSize(network), which pads and crops"
            )
            raise ShapeError(
                f"{name} cannot process an input of {tuple(first_image(inputs).shape)}: {error}; {pad}, or choose "
                "other tiles"
            ) from error
        raise
