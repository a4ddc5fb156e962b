"""The ways to name a trained network; nothing heavy is imported to check them."""

from __future__ import annotations

import json
from typing import Any

from reblurkit.errors import ArgumentError


def check_ways(
    checkpoint: str | None,
    config: str | None,
    model: str | None,
    network: str | None,
    network_args: str | None,
    weights: str | None,
) -> None:
    """Check that a network is named in exactly one way, see :func:`reblurkit.plugins.load_networks`.

    Raises:
        ArgumentError: If it is not, or its arguments are no JSON object.
    """
    if config is not None and checkpoint is None:
        raise ArgumentError("`config` says what the network of a `checkpoint` is; give both")
    if [checkpoint, model, network].count(None) != 2:
        raise ArgumentError(
            "give the network in one of three ways: by `checkpoint`, by `model` and `weights`, or by `network`, the "
            "dotted path of a class, with or without `weights`"
        )
    if checkpoint is not None and (weights is not None or network_args is not None):
        raise ArgumentError("`checkpoint` brings its own weights and arguments; leave out `weights` and `network_args`")
    network_arguments(network_args)


def network_arguments(text: str | None) -> dict[str, Any]:
    """The arguments of a network, which are written as JSON.

    Raises:
        ArgumentError: If they are no JSON object.
    """
    try:
        keywords = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"`network_args` must be JSON such as '{{\"width\": 32}}', but is {str(text)[:80]}"
        ) from error
    if not isinstance(keywords, dict):
        raise ArgumentError(f"`network_args` must be a JSON object, but is {str(text)[:80]}")
    return keywords
