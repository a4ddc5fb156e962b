"""The networks in the box: a deblurring network and the reblurring network trained beside it, inside the package."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from reblurkit.core.files import whole_file
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.models.registry import create_model

_FOLDER = Path(__file__).parent


class Pretrained(NamedTuple):
    """A trained pair, in evaluation mode, and its card.

    Attributes:
        network: The deblurring network, ``(B, 3, H, W)`` in [0, 1] to the same.
        reblur_net: The reblurring network M_R that was trained beside it.
        card: States data, recipe, results and limits.
    """

    network: nn.Module
    reblur_net: nn.Module
    card: Mapping[str, Any]


def list_pretrained() -> list[str]:
    """The names that :func:`load_pretrained` knows.

    Example:
        >>> list_pretrained()
        ['base']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_pretrained(name: str = "base", folder: str | os.PathLike[str] = _FOLDER) -> Pretrained:
    """A deblurring network and the reblurring network M_R that was trained beside it; nothing is downloaded.

    Args:
        name: One of :func:`list_pretrained`.
        folder: Where card and weights lie; default: inside the package.

    Raises:
        ArgumentError: If the name is unknown.
        WeightsError: If the files are damaged or do not belong together.

    Example:
        >>> network, reblur_net, card = load_pretrained()
        >>> network(torch.rand(1, 3, 50, 60)).shape
        torch.Size([1, 3, 50, 60])
    """
    card_path, weights_path = Path(folder) / f"{name}.json", Path(folder) / f"{name}.safetensors"
    if not card_path.is_file():
        raise ArgumentError(f"no pretrained networks {name!r}; there are: {', '.join(list_pretrained())}")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        weights = load_file(weights_path)
        pair = []
        for part in ("network", "reblur_net"):
            built = create_model(card[part]["name"], **card[part]["arguments"])
            built.load_state_dict(
                {key.removeprefix(f"{part}."): value for key, value in weights.items() if key.startswith(f"{part}.")}
            )
            pair.append(built.eval())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{card_path} and {weights_path.name} make no pair of networks: {reason}") from error
    return Pretrained(pair[0], pair[1], card)


def save_pretrained(
    folder: str | os.PathLike[str], name: str, network: nn.Module, reblur_net: nn.Module, card: Mapping[str, Any]
) -> None:
    """Write a pair in half precision, and its card.

    Args:
        folder: Where to.
        name: Of the two files.
        network: The deblurring network.
        reblur_net: The reblurring network.
        card: Its parts ``network`` and ``reblur_net`` say how each is built: a ``name`` of
            :func:`reblurkit.models.create_model` and its ``arguments``.

    Raises:
        WeightsError: If a weight is not finite in half precision.
    """
    weights = {
        f"{part}.{key}": value.detach().to("cpu", torch.float16 if value.is_floating_point() else None).contiguous()
        for part, module in (("network", network), ("reblur_net", reblur_net))
        for key, value in module.state_dict().items()
    }
    for key, value in weights.items():
        if not value.isfinite().all():
            raise WeightsError(f"{key} is not finite in half precision; take an earlier checkpoint")
    with whole_file(Path(folder) / f"{name}.safetensors", sync=True) as partial:
        partial.write_bytes(save(weights))  # save_file makes a file that only its owner may read
    with whole_file(Path(folder) / f"{name}.json", sync=True) as partial:
        partial.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
