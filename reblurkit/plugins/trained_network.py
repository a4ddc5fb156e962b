"""The networks that a command line names: from a checkpoint, by name, or by class."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning.pytorch as L
import torch
import yaml
from torch import Tensor, nn

from reblurkit.core.calls import find_network
from reblurkit.core.finite import first_broken_weight
from reblurkit.core.kept_files import KeptFiles, kept_contents
from reblurkit.core.special_files import read_text
from reblurkit.core.suggestions import did_you_mean, near_module
from reblurkit.core.terminal import printable
from reblurkit.core.yaml_files import read_yaml, yaml_error_line
from reblurkit.errors import ArgumentError, ReblurkitError, WeightsError
from reblurkit.models import create_model, list_models
from reblurkit.models.deblur.mimo_unet import MIMOUNet
from reblurkit.models.pretrained import load_pretrained
from reblurkit.models.reblur_net import ReblurNet
from reblurkit.models.weight_files import read_state, renamed_for, shown, tensors_of
from reblurkit.models.weights import CHOOSE, NO_CHECKPOINT, OTHER_ARGUMENTS, load_weights, read_lightning_checkpoint
from reblurkit.plugins.class_parser import classes_from
from reblurkit.plugins.former_paths import present_paths
from reblurkit.plugins.found_config import class_of, misfit, network_from_data
from reblurkit.plugins.network_ways import check_ways, network_arguments
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
        config: The configuration that belongs to the checkpoint. Classes that it names are run, whatever they are.
            Default: the ``config.yaml`` of its run, which is data: it can name the networks of this package alone.
        model: A name that ``create_model`` knows; needs weights.
        network: Dotted path of a class.
        network_args: The arguments of model or class as JSON.
        weights: A file of weights. Of several networks in it that fit, the one at ``network`` is taken. Of a checkpoint
            of any module with :class:`reblurkit.ReblurLossMixin` the reblurring network is taken too, if it is a
            :class:`reblurkit.models.ReblurNet`.

    Raises:
        ArgumentError: If the ways are mixed, or a class, a file or an argument is not what it should be.
        WeightsError: If a file of weights cannot be used.
    """
    check_ways(checkpoint, config, model, network, network_args, weights)
    if checkpoint is not None:
        try:
            return _of_run(_Run(checkpoint, config))
        except WeightsError as error:
            if NO_CHECKPOINT not in str(error):
                raise
            advice = "weights alone are given by `weights`, with `model` or `network` to say what they are of"
            raise WeightsError(f"{error}; {advice}") from error
    built = _build(model, network, network_args)
    if weights is not None:
        _load(built, weights)
        return TrainedNetworks(built, _reblur_net(weights))
    if model is not None:
        raise ArgumentError(f"`model` {model} has random weights; give its trained ones by `weights`")
    print(printable(f"reblurkit: no --weights: {network} has the weights that it was built with"), file=sys.stderr)
    return TrainedNetworks(built)


def _load(built: nn.Module, weights: str) -> None:
    """Load weights; of a checkpoint with several networks that fit, those of the one that a task names ``network``."""
    try:
        choice = load_weights(built, weights).choice
    except WeightsError as error:
        if OTHER_ARGUMENTS in str(error):
            raise WeightsError(f"{error}; give those by `network_args`") from error
        if CHOOSE not in str(error):
            raise
        if "'network'" not in str(error):
            advice = "save_weights writes one to a file of its own, when load_weights(..., network=...) has read it"
            raise WeightsError(str(error).replace(CHOOSE, advice)) from error
        load_weights(built, weights, network="network")
        choice = f"{str(error).removeprefix(f'{weights}: ').removesuffix(CHOOSE)}'network' was taken"
    if choice:
        print(printable(f"reblurkit: {weights}: {choice}"), file=sys.stderr)


def _reblur_net(weights: str) -> ReblurNet | None:
    """The reblurring network in the checkpoint of a module that trained one, at ``reblur``; None if there is none."""
    if not Path(weights).is_file():  # a folder of parts, or an address
        return None
    prefix = "reblur."
    state = {name.removeprefix(prefix): value for name, value in read_state(weights).items() if name.startswith(prefix)}
    reblur_net = _plain_reblur_net(state)
    if reblur_net is None:
        return None
    try:
        load_weights(reblur_net, weights, network="reblur")
    except WeightsError:  # of a class of the user's own
        return None
    return reblur_net


def _plain_reblur_net(state: Mapping[str, Tensor]) -> ReblurNet | None:
    """A ReblurNet of the size of some weights, if they are of one that neither folds nor begins as the identity."""
    layers = [int(found[1]) for name in state if (found := re.fullmatch(r"layers\.(\d{1,3})\..*", name))]
    first = state.get("layers.0.weight")
    if first is None or first.ndim != 4 or max(layers) < 1:
        return None
    blocks, width = max(layers) - 1, len(first)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in ReblurNet(blocks, width).state_dict().items()}
    if shapes != {name: value.shape for name, value in state.items()}:
        return None
    return ReblurNet(blocks, width)


def _build(model: str | None, network: str | None, network_args: str | None) -> nn.Module:
    keywords = network_arguments(network_args)
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
            reason = f"{type(error).__name__}: {error}{near_module(error)}"
            raise ArgumentError(f"`network` must be the dotted path of a class, but {network}: {reason}") from error
        if not (isinstance(factory, type) and issubclass(factory, nn.Module)):
            raise ArgumentError(f"`network` must be a class of torch.nn.Module, but {network} is {_kind(factory)}")
    try:
        built: nn.Module = factory(**keywords)
    except ReblurkitError:
        raise
    except Exception as error:  # whatever a constructor finds wrong
        reason = f"{type(error).__name__}: {error}"
        given = str(keywords)[:200]
        raise ArgumentError(f"{model or network} cannot be built with {given}: {reason}") from error
    return built


def _kind(value: Any) -> str:
    return "another class" if isinstance(value, type) else f"a {type(value).__name__}"


class _Run:
    """A checkpoint and the configuration of its run.

    Attributes:
        path: The checkpoint.
        config: The configuration.
        is_program: The user has named the configuration: classes in it are theirs. One that is found is data.
        state: All weights of the checkpoint.
        task: Name of the LightningModule's class.
        options: Its arguments.
    """

    def __init__(self, checkpoint: str, config: str | None) -> None:
        self.path = Path(checkpoint)
        self.saved = read_lightning_checkpoint(self.path)
        self.state = tensors_of(self.saved["state_dict"], self.path)
        self.is_program = config is not None
        found = [Path(config)] if config else _configurations(self.path, self.saved)
        existing = [each for each in found if each.is_file()]
        if not existing:
            raise ArgumentError(
                f"the network of {self.path} is unknown: no configuration {' or '.join(map(str, found))}; give "
                "`config`, or `network` and `weights`"
            )
        self.config = existing[0]
        try:
            loaded = present_paths(read_yaml(read_text(self.config)))
        except (yaml.YAMLError, OSError, ValueError) as error:
            reason = yaml_error_line(error) if isinstance(error, yaml.YAMLError) else " ".join(str(error).split())
            raise ArgumentError(f"{self.config} is no configuration: {reason[:300]}") from error
        if not isinstance(loaded, dict) or not loaded.get("model"):
            raise ArgumentError(f"{self.config} is no configuration of a run: it has no `model`")
        self.model = loaded["model"]
        with self._blamed():
            path, self.options = class_of(self.model)
        self.task = path.rpartition(".")[2]

    def network(self, place: str, option: str, default: Callable[[], nn.Module] | None = None) -> nn.Module:
        """A network of the checkpoint with its weights; nothing else of the run is built.

        Args:
            place: Where the LightningModule has it.
            option: The argument that says what it is.
            default: Builds it where the argument is not given.
        """
        state = self.part(place)
        with self._blamed():
            spec = self.options.get(option)
            if spec is None and default is None and not self.is_program:
                raise ArgumentError(f"it does not say what the network is, by `{option}`; give `network` and `weights`")
            if spec is not None and not self.is_program:
                network = network_from_data(spec, state)
            else:
                network = self._program(place, option) if spec is not None or default is None else default()
                try:
                    network.load_state_dict(renamed_for(network.state_dict(), state))
                except RuntimeError as error:
                    raise WeightsError(misfit(error)) from error
        if broken := first_broken_weight(network):
            raise WeightsError(
                f"{self.path} holds NaN or infinite weights, the first in {place}.{broken}; take an earlier one"
            )
        return network

    def part(self, place: str) -> dict[str, Tensor]:
        """The weights of a network."""
        prefix = f"{place}."
        state = {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}
        if not state:
            found = sorted({shown(name.split(".")[0]) for name in self.state})
            raise WeightsError(f"{self.path} has no weights at {place!r}; it has: {', '.join(found[:10]) or 'none'}")
        return state

    def _program(self, place: str, option: str) -> nn.Module:
        """A network that the user's own configuration names, of whatever class."""
        named_classes()
        if option in self.options:
            return cast("nn.Module", classes_from({option: nn.Module}, {option: self.options[option]})[option])
        # of the module only what the checkpoint holds is used: files that it started from may be gone
        with KeptFiles(kept_contents(self.saved), restoring=True, needed=False).in_use():
            module = classes_from({"model": L.LightningModule}, {"model": self.model})["model"]
        return find_network(cast("nn.Module", module), place)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Errors that leave this block name the configuration and the checkpoint."""
        try:
            yield
        except ReblurkitError as error:
            raise type(error)(f"{self.config} and {self.path} do not make a network: {error}") from error
        except Exception as error:  # whatever a constructor of the user's finds wrong
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ArgumentError(f"{self.config} and {self.path} do not make a network: {reason[:300]}") from error


def _of_run(run: _Run) -> TrainedNetworks:
    network = run.network("network", "network")
    if not any(name.startswith("reblur.") for name in run.state):
        return TrainedNetworks(network)
    if run.options.get("reblur_net") is not None:
        return TrainedNetworks(network, run.network("reblur", "reblur_net"))
    plain: nn.Module | None = _plain_reblur_net(run.part("reblur"))
    shipped = load_pretrained().reblur_net.train()  # what ReblurTask trains where none is named
    if plain is None and shipped.state_dict().keys() == run.part("reblur").keys():
        plain = shipped
    return TrainedNetworks(network, None if plain is None else run.network("reblur", "reblur_net", lambda: plain))


def _configurations(path: Path, saved: Mapping[str, Any]) -> list[Path]:
    """Where a checkpoint's configuration may be: beside it or in a folder above, by the name that its run gave it."""
    noted = saved.get("reblurkit")
    name = noted.get("config") if isinstance(noted, Mapping) else None
    names = dict.fromkeys([_file_name(name), "config.yaml"])
    return [folder / each for each in names for folder in path.absolute().parents[:_ABOVE]]


def _file_name(noted: Any) -> str:
    name = Path(noted).name if isinstance(noted, str) and noted.isprintable() else ""
    return name or "config.yaml"


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


def load_translator(checkpoint: str, config: str | None = None) -> nn.Module:
    """The generator of a Blur2Blur run.

    Args:
        checkpoint: A checkpoint of Blur2BlurTranslator.
        config: The configuration that belongs to it, see :func:`load_networks`.

    Raises:
        ArgumentError: If the checkpoint is not of Blur2BlurTranslator, or has no configuration.
        WeightsError: If it cannot be used.
    """
    run = _Run(checkpoint, config)
    if run.task != Blur2BlurTranslator.__name__:
        raise ArgumentError(
            f"`translator` must be a checkpoint of Blur2BlurTranslator, but {checkpoint} is of {shown(run.task)}"
        )
    return run.network("generator", "generator", lambda: MIMOUNet(identity=True))
