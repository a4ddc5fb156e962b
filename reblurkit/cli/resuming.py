"""How ``fit --ckpt_path`` goes on, and how ``fit --start_from`` begins."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from reblurkit.cli.messages import say
from reblurkit.core.file_locks import sweep
from reblurkit.core.finite import first_broken_weight
from reblurkit.errors import ArgumentError, WeightsError
from reblurkit.models.weights import read_lightning_checkpoint
from reblurkit.plugins.callbacks.auxiliary_optimizer import AuxiliaryOptimizer
from reblurkit.plugins.resumed_optimizer import (
    Options,
    optimizer_options,
    resumed_optimizer,
    resumed_schedule,
    schedule_options,
)
from reblurkit.plugins.whole_checkpoints import WholeCheckpointIO, local_path

_READ_FROM = "read_from"  # key of a checkpoint that was read


class Resuming(L.Callback):
    """Lets a resumed training follow options that are asked for anew, and says in one line what is kept and new."""

    def __init__(self) -> None:
        self._now: Options = {}
        self._checkpoint: dict[str, Any] | None = None
        self._changes: list[str] = []

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep it: the optimizers do not exist yet."""
        self._checkpoint = checkpoint
        if trainer.state.fn == "fit":
            limits = {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}
            all_done(str(trainer.ckpt_path), length_of(checkpoint), limits)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note what this run asks for, and change accordingly what Lightning will restore next."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._now = {
            "length": {name: repr(getattr(trainer, name)) for name in ("max_epochs", "max_steps")},
            "optimizers": [optimizer_options(optimizer) for optimizer in trainer.optimizers],
            "schedulers": [schedule_options(scheduler) for scheduler in schedulers],
        }
        checkpoint = self._checkpoint if trainer.ckpt_path is not None else None
        if checkpoint is None:
            return
        before: Options = checkpoint.get("reblurkit", {}).get("training", {})
        length = before.get("length", {})
        self._changes = [f"{name} {length[name]} -> {now}" for name, now in self._now["length"].items()
                         if length.get(name, now) != now]  # fmt: skip
        states = checkpoint["optimizer_states"]
        for place, (optimizer, asked) in enumerate(_beside(trainer.optimizers, before.get("optimizers"), states)):
            states[place], news = resumed_optimizer(states[place], optimizer, asked)
            self._changes += news
        states = checkpoint["lr_schedulers"]
        for place, (scheduler, asked) in enumerate(_beside(schedulers, before.get("schedulers"), states)):
            states[place], news = resumed_schedule(states[place], scheduler, asked)
            self._changes += news

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it."""
        if self._checkpoint is None or trainer.ckpt_path is None:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set where mypy does not look
            if isinstance(callback, AuxiliaryOptimizer):
                self._changes += callback.changes
        new = ", ".join(dict.fromkeys(self._changes)) or "nothing"
        read = self._checkpoint.get(_READ_FROM, trainer.ckpt_path)
        say(
            f"resumed {read} at epoch {trainer.current_epoch}, step {trainer.global_step}; kept: weights, optimizers, "
            f"place in schedules and data; new: {new}"
        )
        self._checkpoint = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what this run asks for."""
        checkpoint.setdefault("reblurkit", {})["training"] = self._now


def length_of(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """How long the training of a checkpoint was, by the limits of the Trainer; 0 where it does not say."""
    epochs: Any = checkpoint  # its `epoch` is one less where that has ended
    for key in ("loops", "fit_loop", "epoch_progress", "current", "processed"):
        epochs = epochs.get(key) if isinstance(epochs, Mapping) else None
    length = {"max_epochs": epochs, "max_steps": checkpoint.get("global_step")}
    return {name: value if isinstance(value, int) else 0 for name, value in length.items()}


def all_done(path: str, length: Mapping[str, int], limits: Mapping[str, Any]) -> str | None:
    """What to say of a checkpoint that has all the training that is asked for; None where some is left.

    Args:
        path: The checkpoint.
        length: See :func:`length_of`.
        limits: ``max_epochs`` and ``max_steps`` of the Trainer; None and -1 are none.

    Raises:
        ArgumentError: If it has more.
    """
    for name, unit in {"max_epochs": "epochs", "max_steps": "steps"}.items():
        had, limit = length[name], limits[name]
        if limit is None or not 0 <= limit <= had:
            continue
        line = f"{path} has {had} {unit}, and --trainer.{name} asks for {limit} in all"
        if limit < had:
            raise ArgumentError(
                f"{line}: give more than {had} to go on, or begin anew from its weights by --start_from"
            )
        return f"{line}: nothing is left to do; give more to go on"
    return None


class FoundCheckpointIO(WholeCheckpointIO):
    """Reads what Lightning finds by the words ``last``, ``best`` and ``hpc``, or where SLURM queues a training anew.

    Args:
        resuming: Take the newest whole checkpoint of the folder in place of one that cannot be read; for ``fit``.
    """

    def __init__(self, *, resuming: bool) -> None:
        self._resuming = resuming

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, onto the CPU; ``read_from`` in it says which file it was."""
        if local_path(path) is None:
            return super().load_checkpoint(path, map_location, weights_only)
        if not self._resuming:
            return dict(read_lightning_checkpoint(path))
        found, checkpoint = whole_checkpoint(str(path))
        return {**checkpoint, _READ_FROM: found}


def whole_checkpoint(path: str) -> tuple[str, Mapping[str, Any]]:
    """A checkpoint to resume from; where it cannot be read, the newest of its folder that can.

    Returns:
        Its path and content.

    Raises:
        WeightsError: If none can be read: what is wrong with the one that was asked for.
    """
    sweep(Path(path).parent)
    try:
        return path, read_lightning_checkpoint(path)
    except WeightsError as error:
        if not Path(path).is_file():
            raise
        others = [other for other in Path(path).parent.glob("*.ckpt") if other.name != Path(path).name]
        for other in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
            with suppress(WeightsError):
                checkpoint = read_lightning_checkpoint(other)
                if "optimizer_states" in checkpoint:
                    say(f"{error}; going on from the newest whole one beside it, {other}")
                    return str(other), checkpoint
        raise


def _beside(objects: list[Any], asked: list[Options] | None, states: list[Any]) -> list[tuple[Any, Options | None]]:
    """Each object that has a state in a checkpoint, with what was asked of it, if that is known."""
    known = [*(asked or []), *[None] * len(objects)]
    return list(zip(objects, known, strict=False))[: len(states)]


def start_from_checkpoint(module: L.LightningModule, path: str, state: Mapping[str, Any]) -> None:
    """Give a module all weights of a checkpoint, for a training that begins anew.

    Networks that the module has and the checkpoint has not, or the other way round, are named.

    Raises:
        ArgumentError: If a network of both does not fit.
        WeightsError: If weights are NaN or infinite.
    """
    own = module.state_dict()
    mine, theirs = ({name.split(".")[0] for name in names} for names in (own, state))
    shared = mine & theirs
    wrong = [name for name in sorted(own.keys() ^ state.keys()) if name.split(".")[0] in shared]
    wrong = [f"{name} is only in the {'network' if name in own else 'file'}" for name in wrong]
    wrong += [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(own[name].shape)} in the network"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if wrong or not shared:
        raise ArgumentError(f"{path} does not fit the networks: {wrong[0] if wrong else 'they have no name in common'}")
    module.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    if broken := first_broken_weight(module):
        raise WeightsError(f"{path} holds NaN or infinite weights, the first in {broken}; take an earlier checkpoint")
    news = {"new": sorted(mine - theirs), "not used": sorted(theirs - mine)}
    rest = "".join(f"; {kind}: {', '.join(names)}" for kind, names in news.items() if names)
    say(f"started from the weights in {path}: {', '.join(sorted(shared))}{rest}; optimizers and schedules begin anew")
