"""A stand-in for a network's forward, for as long as it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MARK = "_replaced_by_reblurkit"


def replace_forward(network: nn.Module, replacement: Callable[[Any, Any], Any]) -> Callable[[], None]:
    """Call a function in place of ``network.forward``, but not within itself.

    On the instance, and not as a hook: a compiled LightningModule that has already run would go on without the hook.

    Args:
        network: The network.
        replacement: Is given positional and keyword arguments; it may call the network, which then is itself.

    Returns:
        What undoes it.
    """
    original = network.forward
    own = "forward" in vars(network)
    inside = False

    def forward(*arguments: Any, **keywords: Any) -> Any:
        nonlocal inside
        if inside:
            return original(*arguments, **keywords)
        inside = True
        try:
            return replacement(arguments, keywords)
        finally:
            inside = False

    def restore() -> None:
        if own:
            network.forward = original
        else:
            del network.forward

    forward = torch.compiler.disable(forward)  # type: ignore[no-untyped-call]  # torch gives it no types
    vars(forward)[_MARK] = True
    network.forward = forward
    return restore


def is_replaced(network: nn.Module) -> bool:
    """Whether a function stands in for the network's forward."""
    return getattr(network.forward, _MARK, False)
