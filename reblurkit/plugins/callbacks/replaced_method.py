"""A stand-in for a module's method, for as long as it is wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class ReplacedMethod:
    """A function in place of a method of one module, until :meth:`restore`.

    On the instance, and not as a hook: a compiled LightningModule that has already run would go on without the hook.
    Copies of the module, by ``copy.deepcopy`` or pickled, have the method that it had before; a shallow copy, which
    shares the weights, has it from :meth:`restore` on.

    Args:
        module: The module.
        name: The method.
        function: Is given the arguments; it may call the method, which then is itself.
    """

    def __init__(self, module: nn.Module, name: str, function: Callable[..., Any]) -> None:
        self.original = getattr(module, name)
        functools.update_wrapper(self, self.original)
        self._module, self._name, self._function = module, name, function
        self._own = name in vars(module)
        setattr(module, name, self)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **keywords)

    def __reduce__(self) -> tuple[Any, ...]:
        # The module is being copied, too: looked up on the copy, which has nothing of its own yet, the name is the
        # method of its class.
        return (_itself, (self.original,)) if self._own else (getattr, (self._module, self._name))

    def restore(self) -> None:
        """Take the function out again."""
        if vars(self._module).get(self._name) is self:
            if self._own:
                setattr(self._module, self._name, self.original)
            else:
                delattr(self._module, self._name)
        self._function = self.original  # for whoever still has this object


def replace_forward(network: nn.Module, replacement: Callable[[Any, Any], Any]) -> ReplacedMethod:
    """Call a function in place of ``network.forward``, but not within itself.

    Args:
        network: The network.
        replacement: Is given positional and keyword arguments; it may call the network, which then is itself.
    """
    inside = False

    def forward(*arguments: Any, **keywords: Any) -> Any:
        nonlocal inside
        if inside:
            return replaced.original(*arguments, **keywords)
        inside = True
        try:
            return replacement(arguments, keywords)
        finally:
            inside = False

    disabled = torch.compiler.disable(forward)  # type: ignore[no-untyped-call]  # torch gives it no types
    replaced = ReplacedMethod(network, "forward", disabled)
    return replaced


def is_replaced(network: nn.Module) -> bool:
    """Whether a function stands in for the network's forward."""
    return isinstance(network.forward, ReplacedMethod)


def _itself(value: Any) -> Any:
    return value
