"""Networks by name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Literal, NamedTuple, cast, get_args

from torch import nn

from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError

Kind = Literal["deblur", "flow", "reblur", "discriminator", "transfer"]


class _Entry(NamedTuple):
    kind: Kind
    module: str
    factory: str
    defaults: dict[str, Any]


_MODELS = {
    "unet": _Entry("deblur", "reblurkit.models.deblur.unet", "UNet", {}),
    "folded-unet": _Entry("deblur", "reblurkit.models.deblur.folded_unet", "FoldedUNet", {}),
    "flownet-s": _Entry("flow", "reblurkit.models.flow.flownet_s", "FlowNetS", {}),
    "pwc-net": _Entry("flow", "reblurkit.models.flow.pwc_net", "PWCNet", {}),
    "raft-small": _Entry("flow", "reblurkit.models.flow.raft", "RAFT", {"size": "small"}),
    "raft-large": _Entry("flow", "reblurkit.models.flow.raft", "RAFT", {"size": "large"}),
    "tvl1": _Entry("flow", "reblurkit.models.flow.tvl1", "TVL1", {}),
    "srn": _Entry("deblur", "reblurkit.models.deblur.srn", "SRN", {}),
    "dhn": _Entry("deblur", "reblurkit.models.deblur.dmphn", "DMPHN", {"patches": False}),
    "dmphn-1-2-4": _Entry("deblur", "reblurkit.models.deblur.dmphn", "DMPHN", {"levels": (1, 2, 4)}),
    "dmphn-1-2-4-8": _Entry("deblur", "reblurkit.models.deblur.dmphn", "DMPHN", {"levels": (1, 2, 4, 8)}),
    "msresnet": _Entry("deblur", "reblurkit.models.deblur.msresnet", "MSResNet", {}),
    "dbn": _Entry("deblur", "reblurkit.models.deblur.dbn", "DBN", {}),
    "deblurgan": _Entry("deblur", "reblurkit.models.deblur.deblurgan", "DeblurGAN", {}),
    **{
        f"nafnet-width{width}": _Entry("deblur", "reblurkit.models.deblur.nafnet", "NAFNet", {"width": width})
        for width in (32, 64)
    },
    "mimo-unet": _Entry("deblur", "reblurkit.models.deblur.mimo_unet", "MIMOUNet", {"blocks": 8}),
    "mimo-unet-plus": _Entry("deblur", "reblurkit.models.deblur.mimo_unet", "MIMOUNet", {"blocks": 20, "dropout": 0.1}),
    "restormer": _Entry("deblur", "reblurkit.models.deblur.restormer", "Restormer", {}),
    **{
        f"deblurgan-v2-{encoder}": _Entry(
            "deblur", "reblurkit.models.deblur.deblurgan_v2", "DeblurGANv2", {"encoder": encoder, "width": width}
        )
        for encoder, width in (("inception", 128), ("mobilenet", 64))
    },
    "kernel-wizard": _Entry("transfer", "reblurkit.models.kernel_wizard", "KernelWizard", {}),
    **{
        f"reblur-n{blocks}": _Entry("reblur", "reblurkit.models.reblur_net", "ReblurNet", {"blocks": blocks})
        for blocks in (1, 2, 3, 4)
    },
    "patchgan": _Entry("discriminator", "reblurkit.models.patchgan", "PatchGAN", {}),
}


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """Build a network by name, with fresh weights; nothing is downloaded.

    Args:
        name: One of :func:`list_models`.
        **kwargs: Arguments of the network's class, for instance ``width=32``.

    Raises:
        ArgumentError: If the name is unknown; the message suggests near ones. If the network has no such argument.

    Example:
        >>> sum(p.numel() for p in create_model("reblur-n2").parameters())
        419523
    """
    if not isinstance(name, str):
        raise ArgumentError(f"the name of a model must be a text, but is {name!r}")
    if name not in _MODELS:
        hint = did_you_mean(name, _MODELS, cutoff=0.4) or f"; known names: {', '.join(list_models())}"
        raise ArgumentError(f"unknown model {name!r}{hint}")
    entry = _MODELS[name]
    factory = getattr(importlib.import_module(entry.module), entry.factory)
    known = inspect.signature(factory).parameters
    if unknown := kwargs.keys() - known.keys():
        raise ArgumentError(
            f"{name!r} has no argument {', '.join(map(repr, sorted(unknown)))}; it has: {', '.join(known) or 'none'}"
        )
    model: nn.Module = factory(**{**entry.defaults, **kwargs})
    return model


def network_class(path: str) -> type[nn.Module] | None:
    """The class of a network of images by its name, alone or as a path in this package; None for any other.

    Nothing but this package is ever imported: the path may come from a stranger.

    Example:
        >>> network_class("reblurkit.models.UNet").__name__
        'UNet'
        >>> network_class("os.system") is None
        True
    """
    module, _, name = path.rpartition(".")
    homes = {entry.factory: entry.module for entry in _MODELS.values() if entry.kind != "flow"}
    homes["FullSize"] = "reblurkit.models.full_size"
    if name not in homes or module.split(".")[0] not in ("", "reblurkit"):
        return None
    return cast("type[nn.Module]", getattr(importlib.import_module(homes[name]), name))


def list_models(kind: Kind | None = None) -> list[str]:
    """The names that :func:`create_model` knows, sorted.

    Args:
        kind: Only networks of this kind: ``deblur``, ``flow``, ``reblur``, ``discriminator`` or ``transfer``.

    Raises:
        ArgumentError: If the kind is unknown.

    Example:
        >>> list_models("reblur")
        ['reblur-n1', 'reblur-n2', 'reblur-n3', 'reblur-n4']
    """
    if kind not in (None, *get_args(Kind)):
        raise ArgumentError(f"unknown kind {kind!r} of model; known kinds: {', '.join(get_args(Kind))}")
    return sorted(name for name, entry in _MODELS.items() if kind in (None, entry.kind))
