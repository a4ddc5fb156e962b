"""Stop at the first number that is none, before it reaches a weight or a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from reblurkit.core.finite import first_broken_weight, first_not_finite, joint_norm
from reblurkit.errors import NonFiniteLossError, WeightsError
from reblurkit.plugins.callbacks.auxiliary_optimizer import AuxiliaryOptimizer


@dataclass
class _Backward:
    """A backward pass that no optimizer step has used yet."""

    names: list[str]
    loss: Tensor
    broken: Tensor
    gradients: Tensor | None = None


class FiniteLoss(L.Callback):
    """Stops training at a loss, a gradient or a weight that is NaN or infinite, and names the files of the batch.

    Loss and gradients are looked at right before the optimizer's step, by one norm, so weights, optimizer states and
    the last checkpoint stay good. Weights are looked at before a validation and before a checkpoint is written, so
    that none of broken weights is. Works with automatic and manual optimization, accumulation, auxiliary networks,
    and in ``16-mixed``, where steps whose scaled gradients overflow are skipped as usual.

    Raises:
        NonFiniteLossError: From the training step whose loss or gradient is not finite, or when broken weights are
            about to be validated or written.
        WeightsError: If a training, a validation, a test or a prediction begins with such weights.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._waiting: list[_Backward] = []
        self._stepped: list[str] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stand before the files that are written: hooks are not called for every checkpoint."""
        if stage == "fit":
            self._names, self._waiting, self._stepped = [], [], []
            io = trainer.strategy.checkpoint_io
            inner = io.inner if isinstance(io, _FiniteCheckpoints) else io
            trainer.strategy.checkpoint_io = _FiniteCheckpoints(inner, lambda: self._check_weights(trainer))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights that a training begins with."""
        self._check_loaded(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights that are about to be measured."""
        self._check_loaded(trainer)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights that are about to be used."""
        self._check_loaded(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch's names."""
        self._names = batch_names(batch)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Remember the loss."""
        loss = loss.detach()
        overflows = _scaler(trainer) is not None and loss.dtype == torch.float16  # it comes scaled
        self._waiting.append(_Backward(self._names, loss, (loss.isnan() if overflows else ~loss.isfinite()).any()))

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the gradients so far, where several batches make a step: one of them is to blame."""
        if trainer.accumulate_grad_batches > 1:
            self._waiting[-1].gradients = joint_norm(
                parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None
            )

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Check loss and gradients."""
        gradients = _gradients(trainer, pl_module, optimizer)
        norm = joint_norm(gradient for _, gradient in gradients)
        flags = [~norm.isfinite(), *(each.broken.to(norm.device) for each in self._waiting)]
        if torch.stack(flags).any():  # the only time that is waited for the device
            self._explain(trainer, first_not_finite(gradients))
        self._stepped = [name for each in self._waiting for name in each.names]
        self._waiting.clear()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Check losses that went by another way than Lightning's optimizer step."""
        if len(self._waiting) >= trainer.accumulate_grad_batches:
            if torch.stack([each.broken for each in self._waiting]).any():
                self._explain(trainer, None)
            self._waiting.clear()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights that are about to be measured, in ``fit`` those of the training so far."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._check_weights(trainer)
        else:
            self._check_loaded(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the weights that the training ends with."""
        self._check_weights(trainer)

    def _check_loaded(self, trainer: L.Trainer) -> None:
        if broken := first_broken_weight(trainer.lightning_module):
            what = f"{trainer.ckpt_path} holds" if trainer.ckpt_path else "the networks have"
            raise WeightsError(f"{what} NaN or infinite weights, the first in {broken}; take an earlier checkpoint")

    def _check_weights(self, trainer: L.Trainer) -> None:
        modules = [trainer.lightning_module, *(each for own in _auxiliaries(trainer) for each in own.outside)]
        broken = next(filter(None, map(first_broken_weight, modules)), None)
        if broken is not None:
            last = f"; files of its last step: {_listed(self._stepped)}" if self._stepped else ""
            raise NonFiniteLossError(
                f"the weights are NaN or infinite after {_place(trainer)}, the first in {broken}, and are not "
                f"saved{last}; lower the learning rate, and go on from the last checkpoint"
            )

    def _explain(self, trainer: L.Trainer, broken: str | None) -> None:
        """Say what is wrong, and with which batch; nothing is where the scaler will skip the step."""
        waiting, place, advice = self._waiting, _place(trainer), "look at these images, or lower the learning rate"
        if self._stepped:
            self._check_weights(trainer)  # broken by the step before, whatever this batch is
        for each in waiting:
            if each.broken:
                raise NonFiniteLossError(
                    f"the loss is {each.loss.float().mean().item()} in {place}; files of the batch: "
                    f"{_listed(each.names)}; {advice}"
                )
        scaler = _scaler(trainer)
        if broken is None or (scaler is not None and scaler.get_scale() >= 1):
            return
        if scaler is not None:
            advice = "no loss scale is small enough for half precision: train with `precision` 'bf16-mixed' or 32"
        guilty = [each for each in waiting if each.gradients is not None and not each.gradients.isfinite()][:1]
        names = [name for each in guilty or waiting for name in each.names]
        raise NonFiniteLossError(
            f"the gradient is NaN or infinite, though the loss is not, in {place}, the first of {broken}; files of the "
            f"batch: {_listed(names)}; {advice}"
        )


def batch_names(batch: Any) -> list[str]:
    """The names of a batch's files, none where it brings none."""
    names = batch.get("name", []) if isinstance(batch, Mapping) else []
    return [names] if isinstance(names, str) else [str(name) for name in names]


class _FiniteCheckpoints(CheckpointIO):
    """Writes no checkpoint before the weights have been looked at."""

    def __init__(self, inner: CheckpointIO, check: Callable[[], None]) -> None:
        self.inner = inner
        self._check = check

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._check()
        self.inner.save_checkpoint(*args, **kwargs)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.inner.remove_checkpoint(*args, **kwargs)

    def teardown(self) -> None:
        self.inner.teardown()


def _gradients(trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> list[tuple[str, Tensor]]:
    """The gradients that the step will use, those of auxiliary networks that step along included."""
    stepping = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    beside = [named for own in _auxiliaries(trainer) for named in own.stepping_with(optimizer)]
    own = [named for named in pl_module.named_parameters() if id(named[1]) in stepping]
    return [(name, parameter.grad) for name, parameter in [*own, *beside] if parameter.grad is not None]


def _auxiliaries(trainer: L.Trainer) -> list[AuxiliaryOptimizer]:
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set where mypy does not look
    return [callback for callback in callbacks if isinstance(callback, AuxiliaryOptimizer)]


def _scaler(trainer: L.Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)


def _place(trainer: L.Trainer) -> str:
    process = f" of process {trainer.global_rank + 1} of {trainer.world_size}" if trainer.world_size > 1 else ""
    return f"epoch {trainer.current_epoch}, step {trainer.global_step}{process}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "unnamed"
