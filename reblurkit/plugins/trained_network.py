"""The networks that a command line names: from a checkpoint, by name, or by class."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import yaml
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

from reblurkit.core.calls import find_network
from reblurkit.core.finite import first_broken_weight
from reblurkit.core.kept_files import KeptFiles, kept_contents
from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError, ReblurkitError, WeightsError
from reblurkit.models import create_model, list_models
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.weight_files import read_state, renamed_for
from reblurkit.models.weights import load_weights, read_lightning_checkpoint
from reblurkit.plugins.former_paths import present_paths
from reblurkit.plugins.short_names import named_classes
from reblurkit.plugins.tasks.blur2blur import Blur2BlurTranslator

_ABOVE = 4  # folders in which a checkpoint's configuration may be: names such as epoch=1/val/psnr=30 hold slashes


class TrainedNetworks(NamedTuple):
    """A trained deblurring network, and the reblurring network that was trained with it, if any.

    Attributes:
        network: The deblurring network, with its weights.
        reblur_net: The reblurring network M_R, or None.
    """

    network: nn.Module
    reblur_net: nn.Module | None = None


def load_networks(
    *,
    checkpoint: str | None = None,
    config: str | None = None,
    model: str | None = None,
    network: str | None = None,
    network_args: str | None = None,
    weights: str | None = None,
) -> TrainedNetworks:
    """A trained network, and the reblurring network that was trained with it, in exactly one of three ways.

    Args:
        checkpoint: A checkpoint of ``reblurkit fit``; its ``network`` is taken, and ``reblur`` where it has one.
        config: The configuration that belongs to the checkpoint; default: the ``config.yaml`` of its run.
        model: A name that ``create_model`` knows; needs weights.
        network: Dotted path of a class.
        network_args: The arguments of model or class as JSON.
        weights: A file of weights; of a checkpoint of any module with :class:`reblurkit.ReblurLossMixin` the reblurring
            network is taken too, if it is a :class:`reblurkit.models.ReblurNet`.

    Raises:
        ArgumentError: If the ways are mixed, or a class, a file or an argument is not what it should be.
        WeightsError: If a file of weights cannot be used.
    """
    if config is not None and checkpoint is None:
        raise ArgumentError("`config` says what the network of a `checkpoint` is; give both")
    if [checkpoint, model, network].count(None) != 2:
        raise ArgumentError(
            "give the network in one of three ways: by `checkpoint`, by `model` and `weights`, or by `network`, the "
            "dotted path of a class, with or without `weights`"
        )
    if checkpoint is not None:
        if weights is not None or network_args is not None:
            raise ArgumentError(
                "`checkpoint` brings its own weights and arguments; leave out `weights` and `network_args`"
            )
        module = load_module(checkpoint, config)
        return TrainedNetworks(find_network(module, "network"), dict(module.named_children()).get("reblur"))
    built = _build(model, network, network_args)
    if weights is not None:
        report = load_weights(built, weights)
        if report.choice:
            print(f"reblurkit: {weights}: {report.choice}", file=sys.stderr)
        return TrainedNetworks(built, _reblur_net(weights))
    if model is not None:
        raise ArgumentError(f"`model` {model} has random weights; give its trained ones by `weights`")
    print(f"reblurkit: no --weights: {network} has the weights that it was built with", file=sys.stderr)
    return TrainedNetworks(built)


def _reblur_net(weights: str) -> ReblurNet | None:
    """The reblurring network in the checkpoint of a module that trained one, at ``reblur``; None if there is none."""
    if not Path(weights).is_file():  # a folder of parts, or an address
        return None
    prefix = "reblur."
    state = {name.removeprefix(prefix): value for name, value in read_state(weights).items() if name.startswith(prefix)}
    layers = [int(found[1]) for name in state if (found := re.match(r"layers\.(\d+)\.", name))]
    if "layers.0.weight" not in state or max(layers) < 1:
        return None
    reblur_net = ReblurNet(blocks=max(layers) - 1, width=len(state["layers.0.weight"]))
    try:
        load_weights(reblur_net, weights, network="reblur")
    except WeightsError:  # of a class of the user's own
        return None
    return reblur_net


def _build(model: str | None, network: str | None, network_args: str | None) -> nn.Module:
    try:
        keywords = json.loads(network_args or "{}")
    except json.JSONDecodeError as error:
        raise ArgumentError(
            f"`network_args` must be JSON such as '{{\"width\": 32}}', but is {network_args}"
        ) from error
    if not isinstance(keywords, dict):
        raise ArgumentError(f"`network_args` must be a JSON object, but is {network_args}")
    factory: Callable[..., Any]
    if model is not None:
        if model not in list_models("deblur"):
            near = did_you_mean(model, list_models("deblur"))
            raise ArgumentError(f"unknown network {model!r}{near}; known ones: {', '.join(list_models('deblur'))}")

        def factory(**kwargs: Any) -> nn.Module:
            return create_model(model, **kwargs)

    else:
        package, _, name = str(network).rpartition(".")
        if not package:
            raise ArgumentError(f"`network` must be the dotted path of a class, such as my_net.MyNet, but is {network}")
        try:
            factory = getattr(importlib.import_module(package), name)
        except Exception as error:  # whatever the user's file raises when it is imported
            reason = f"{type(error).__name__}: {error}"
            raise ArgumentError(f"`network` must be the dotted path of a class, but {network}: {reason}") from error
    try:
        built = factory(**keywords)
    except ReblurkitError:
        raise
    except Exception as error:  # whatever a constructor finds wrong
        reason = f"{type(error).__name__}: {error}"
        raise ArgumentError(f"{model or network} cannot be built with {keywords}: {reason}") from error
    if not isinstance(built, nn.Module):
        raise ArgumentError(f"{network} must be a class of torch.nn.Module, but makes {type(built).__name__}")
    return built


def load_module(checkpoint: str, config: str | None = None) -> L.LightningModule:
    """The LightningModule of a run's configuration, with a checkpoint's weights.

    Args:
        checkpoint: A checkpoint of ``reblurkit fit``.
        config: The configuration that belongs to it; default: the ``config.yaml`` of its run.

    Raises:
        ArgumentError: If there is no configuration, or both do not make a module.
        WeightsError: If the checkpoint cannot be used.
    """
    named_classes()

    path = Path(checkpoint)
    saved = read_lightning_checkpoint(path)
    state = saved["state_dict"]
    found = [Path(config)] if config else _configurations(path, saved)
    existing = [each for each in found if each.is_file()]
    if not existing:
        raise ArgumentError(
            f"the network of {path} is unknown: no configuration {' or '.join(map(str, found))}; give `config`, "
            "or `network` and `weights`"
        )
    try:
        loaded = present_paths(yaml.safe_load(existing[0].read_text()))
        if not isinstance(loaded, dict) or "model" not in loaded:
            raise ArgumentError(f"{existing[0]} is no configuration of a run: it has no `model`")
        parser = LightningArgumentParser(exit_on_error=False)
        parser.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
        # of the module only what the checkpoint holds is used: files that it started from may be gone
        with KeptFiles(kept_contents(saved), restoring=True, needed=False).in_use():
            module: L.LightningModule = parser.instantiate_classes(
                parser.parse_object({"model": loaded["model"]})
            ).model
        module.load_state_dict(renamed_for(module.state_dict(), state))
        broken = first_broken_weight(module)
        if broken is not None:
            raise WeightsError(f"{path} holds NaN or infinite weights, the first in {broken}; take an earlier one")
    except ReblurkitError:
        raise
    except Exception as error:  # whatever YAML, the parser or a constructor finds wrong
        reason = " ".join(str(error).split())
        raise ArgumentError(f"{existing[0]} and {path} do not make a network: {reason[:300]}") from error
    return module


def _configurations(path: Path, saved: Mapping[str, Any]) -> list[Path]:
    """Where a checkpoint's configuration may be: beside it or in a folder above, by the name that its run gave it."""
    noted = saved.get("reblurkit")
    name = noted.get("config") if isinstance(noted, Mapping) else None
    names = dict.fromkeys([Path(str(name or "config.yaml")).name, "config.yaml"])
    return [folder / each for each in names for folder in path.absolute().parents[:_ABOVE]]


def checkpoint_metrics(checkpoint: str | os.PathLike[str]) -> dict[str, float]:
    """What the validation before a checkpoint measured of its networks, by name, with the ``step`` that it came after.

    Of a task with a reblurring network M_R, ``reblur_psnr`` and ``preserved_psnr`` say how much of the blur M_R brings
    back, and how little it changes sharp images.

    Args:
        checkpoint: A checkpoint of a task of this package.

    Returns:
        The metrics; empty where nothing was measured, or an earlier version wrote the file.

    Raises:
        WeightsError: If the file cannot be read, or is no Lightning checkpoint.
    """
    noted = read_lightning_checkpoint(checkpoint).get("reblurkit")
    measured = noted.get("measured") if isinstance(noted, Mapping) else None
    return dict(measured) if isinstance(measured, Mapping) else {}


def load_translator(checkpoint: str) -> nn.Module:
    """The generator of a Blur2Blur run.

    Raises:
        ArgumentError: If the checkpoint is not of Blur2BlurTranslator, or has no configuration.
        WeightsError: If it cannot be used.
    """
    module = load_module(checkpoint)
    if not isinstance(module, Blur2BlurTranslator):
        raise ArgumentError(
            f"`translator` must be a checkpoint of Blur2BlurTranslator, but {checkpoint} is of {type(module).__name__}"
        )
    return module.generator
