"""What a class takes, on one screen: ``--model.help DeblurTask``, ``--data.help``, ``--model.network.help DMPHN``.

The parser's own answer lists every class of every library for every argument, thousands of lines.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import docstring_parser
import lightning.pytorch as L
import torch
from torch import nn
from torchmetrics import Metric

from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError
from reblurkit.plugins.short_names import named_classes

_HELP = re.compile(r"--(?P<option>[\w.]+)\.help(=(?P<name>.*))?")
_WIDTH = 110
# What an argument of each kind may be given; the first that fits.
_KINDS: Mapping[str, type] = {
    "model": L.LightningModule,
    "data": L.LightningDataModule,
    "callbacks": L.Callback,
    "logger": L.loggers.Logger,
    "metrics": Metric,
    "optimizer": torch.optim.Optimizer,
    "scheduler": torch.optim.lr_scheduler.LRScheduler,
}

_NETWORKS = "reblurkit.models."
_PARTS = {"ReblurNet": "reblur_net", "PatchGAN": "discriminator"}  # of a model; others are its network


def known_classes() -> dict[str, type]:
    """Classes that a short name stands for: this package's, and Lightning's and torch's that go with them."""
    packages = (torch.optim, torch.optim.lr_scheduler, L.loggers, L.callbacks)
    public = {name: getattr(package, name, None) for package in packages for name in package.__all__}
    return {name: value for name, value in public.items() if isinstance(value, type)} | named_classes()


def known_names(option: str) -> list[str]:
    """The short names of what an option takes, such as ``model``."""
    kind = _KINDS.get(option.rpartition(".")[2], nn.Module)
    return _names(cls for cls in known_classes().values() if issubclass(cls, kind))


def class_help(words: Sequence[str]) -> str | None:
    """The answer to a command line that asks about a class, None for others.

    Args:
        words: The command line.

    Raises:
        ArgumentError: If there is no such class.
    """
    for index, word in enumerate(words):
        if match := _HELP.fullmatch(word):
            name = match["name"] or next(iter(words[index + 1 : index + 2]), "")
            option = match["option"]
            if not name or name.startswith("-"):
                return _choices(option)
            cls = _class(name)
            return _described(cls, _place(cls, option))
    return None


def _place(cls: Callable[..., Any], option: str) -> str:
    """The option that takes a class: a network is asked about as a model, too, and given to a part of one."""
    if option != "model" or not isinstance(cls, type) or not issubclass(cls, nn.Module):
        return option
    if issubclass(cls, L.LightningModule) or not (cls.__module__ + ".").startswith(_NETWORKS):
        return option
    return f"model.{_PARTS.get(cls.__name__, 'network')}"


def _choices(option: str) -> str:
    """The classes of this package that an option takes."""
    kind = _KINDS.get(option.rpartition(".")[2], nn.Module)
    known = known_classes()
    lines = [
        f"--{option} takes one of these classes, or any other {kind.__name__} by its dotted path:",
        "",
        *(f"  {name:30}{_summary(cls)}" for name, cls in sorted(known.items()) if issubclass(cls, kind)),
        "",
        f"`--{option}.help NAME` lists the arguments of one.",
    ]
    return "\n".join(lines)


def _described(cls: Callable[..., Any], option: str) -> str:
    """A class and its arguments."""
    told = docstring_parser.parse(inspect.getdoc(cls) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    meanings = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in told.params}
    lines = [f"{cls.__name__}: {_plain(' '.join((told.short_description or '').split()))}", ""]
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        default = "required" if required else f"default: {_shown(parameter.default)}"
        lines.append(f"  --{option}.{name}  {_type(parameter.annotation)}  ({default})")
        text = _plain(meanings.get(name, ""))
        lines += textwrap.wrap(text, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    classes = _takes(cls)
    if classes:
        lines += ["", "Classes are given by name, with `--OPTION.help NAME` for their arguments. Of this package:"]
        for kind, names in classes.items():
            text = f"{kind}: {', '.join(names)}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)


def _takes(cls: Callable[..., Any]) -> dict[str, list[str]]:
    """Which classes of this package the arguments may be, by kind."""
    annotations = " ".join(str(parameter.annotation) for parameter in inspect.signature(cls).parameters.values())
    found: dict[str, list[str]] = {}
    if re.search(r"nn\.Module|WeightedLoss", annotations):
        modules = [each for each in named_classes().values() if issubclass(each, nn.Module)]
        for package, title in {"models": "networks", "losses": "losses", "blur": "blurs"}.items():
            found[title] = _names(each for each in modules if each.__module__.split(".")[1] == package)
    if "Metric" in annotations:
        found["metrics"] = _names(each for each in named_classes().values() if issubclass(each, Metric))
    return {kind: names for kind, names in found.items() if names}


def _names(classes: Iterable[type]) -> list[str]:
    return sorted(cls.__name__ for cls in classes)


def _class(name: str) -> Callable[..., Any]:
    """The class of a short name or a dotted path."""
    known = known_classes()
    if name in known:
        return known[name]
    module, _, last = name.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        near = did_you_mean(name, known) or "; one of another package is named by its dotted path, my_net.MyNet"
        raise ArgumentError(f"unknown class {name}{near}") from error
    return found


def _summary(cls: type) -> str:
    return textwrap.shorten(_plain((inspect.getdoc(cls) or "").split("\n\n")[0]), _WIDTH - 32, placeholder=" ...")


def _plain(text: str) -> str:
    """Docstring without its markup."""
    return re.sub(r"(:\w+)?:?`+~?([^`]*)`+", r"\2", text)


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return "" if annotation is inspect.Parameter.empty else text.replace("os.PathLike[str]", "path")


def _shown(default: Any) -> str:
    return "null" if default is None else str(default)
