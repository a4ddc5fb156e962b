"""What ``fit --model ReblurTask`` takes for granted: how long it may take, and which network it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace, dict_to_namespace

from reblurkit.models import list_pretrained, load_pretrained
from reblurkit.plugins.tasks.reblur import ReblurTask

_BUDGET = 10_000  # steps
_LIMITS = {"max_steps": -1, "max_epochs": None, "max_time": None}  # of the Trainer, where nothing is given


def complete_reblur_training(options: Namespace) -> None:
    """Write into the options of ``fit`` what is not given, so that the run's configuration holds it.

    The reblurring network that comes with the package is named by its class: another version may bring another one.

    Args:
        options: ``model`` and ``trainer``, as the parser has read them; only those of ``ReblurTask`` change.
    """
    package, _, name = options.model.class_path.rpartition(".")
    if name != "ReblurTask" or package.partition(".")[0] != "reblurkit":
        return
    if not _limits(options.trainer).keys() - {"max_time"}:  # the learning rate's schedule needs a number of steps
        options.trainer.max_steps = _BUDGET
    task = options.model.init_args
    if task.reblur_net is None:
        task.reblur_weights = task.reblur_weights or "base"
        card = load_pretrained(task.reblur_weights if task.reblur_weights in list_pretrained() else "base").card
        arguments = dict(card["reblur_net"]["arguments"])
        task.reblur_net = dict_to_namespace({"class_path": "reblurkit.models.ReblurNet", "init_args": arguments})


def reblur_budget(options: Namespace, task: ReblurTask) -> str:
    """How long the training may take, in one line."""
    limits = " or ".join(f"--trainer.{name} {value}" for name, value in _limits(options.trainer).items())
    if task.rest is None:
        return f"the reblurring network is trained for {limits}"
    return (
        f"the reblurring network is trained until reblur_psnr and preserved_psnr are at rest (--model.rest "
        f"{task.rest:g} dB), and no longer than {limits}"
    )


def _limits(trainer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: trainer[name] for name, default in _LIMITS.items() if trainer[name] != default}
