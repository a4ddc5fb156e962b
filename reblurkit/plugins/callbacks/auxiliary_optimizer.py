"""A callback that trains networks beside the user's own, without a word in the user's ``configure_optimizers``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from reblurkit.core.calls import learns
from reblurkit.errors import PluginError
from reblurkit.plugins.callbacks.first_to_hear import FirstToHear
from reblurkit.plugins.resumed_optimizer import (
    Options,
    optimizer_options,
    resumed_optimizer,
    resumed_schedule,
    schedule_options,
)

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


@dataclass
class _Auxiliary:
    module: nn.Module
    beside: nn.Module
    make_optimizer: OptimizerFactory
    make_scheduler: SchedulerFactory | None
    outside: bool
    every: int
    optimizer: Optimizer | None = None
    scheduler: LRScheduler | None = None
    leader: Optimizer | None = None
    options: Options | None = None
    schedule_options: Options | None = None
    steps: int = 0
    turns: int = 0
    """Steps of the user's optimizer, with or without one of this network."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "steps": self.steps,
            "turns": self.turns,
            "options": self.options,
            "schedule_options": self.schedule_options,
        }


class AuxiliaryOptimizer(L.Callback):
    """Owns the optimizers of auxiliary networks (the reblurring network, a flow network, a discriminator).

    One instance serves a LightningModule and holds every auxiliary network by name. At the start of ``fit`` it takes
    their parameters out of the user's optimizers, so that the user may write ``self.parameters()``; it then steps its
    own optimizers right before the step of the user's optimizer that trains the network beside. Gradients come from
    the user's single backward pass; the loss must route them (see :class:`reblurkit.losses.ReblurLoss`).

    Accumulation, manual optimization, the fp16 scaler and resuming from a checkpoint behave as for the user's own
    optimizers, ``global_step`` counts the user's steps only, and the Trainer's ``gradient_clip_val`` clips each
    auxiliary network by its own norm. Logs ``lr-<name>``.

    Raises:
        PluginError: At the start of ``fit`` with FSDP, DeepSpeed or ModelParallel, which split or replace the
            parameters that this callback holds, beside LBFGS, or if a network has no parameters.
    """

    def __init__(self) -> None:
        self._networks: dict[str, _Auxiliary] = {}
        self._restored: dict[str, dict[str, Any]] = {}
        self.attached = False
        self._first = FirstToHear(self._detach)
        """Whether a running ``fit`` calls this callback."""
        self.changes: list[str] = []
        """What a resumed ``fit`` has been asked for anew."""

    def add(
        self,
        name: str,
        module: nn.Module,
        *,
        beside: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        outside: bool = False,
        every: int = 1,
    ) -> None:
        """Register an auxiliary network.

        Args:
            name: Its name in checkpoints and in the log.
            module: The network to train.
            beside: The user's network; the auxiliary one steps with the first optimizer that holds a part of it.
            optimizer: Called with the parameters when ``fit`` starts.
            scheduler: Called with the optimizer when ``fit`` starts; steps with it.
            outside: The network is no part of the LightningModule, so that DDP does not average its gradients over the
                processes; they are averaged here.
            every: The network has its turn in the first of so many steps of the user's optimizer; its gradients of the
                others are dropped.

        Raises:
            PluginError: If the name is taken.
        """
        if name in self._networks:
            raise PluginError(f"an auxiliary network named {name!r} is registered already")
        self._networks[name] = _Auxiliary(module, beside, optimizer, scheduler, outside, every)

    def __contains__(self, name: str) -> bool:
        return name in self._networks

    def update(self, name: str, module: nn.Module, beside: nn.Module) -> None:
        """Follow networks that have been replaced since they were registered."""
        self._networks[name].module = module
        self._networks[name].beside = beside

    def steps(self, name: str) -> int:
        """Optimizer steps that the network has taken, over all resumed runs."""
        return self._networks[name].steps

    def has_turn(self, name: str) -> bool:
        """Whether the network steps with the next step of the user's optimizer."""
        return self._networks[name].turns % self._networks[name].every == 0

    def stepping_with(self, optimizer: Optimizer) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters of the networks that step right before an optimizer of the user's."""
        return [
            (f"{name}.{path}", parameter)
            for name, auxiliary in self._networks.items()
            if auxiliary.leader is optimizer
            for path, parameter in auxiliary.module.named_parameters()
        ]

    @property
    def outside(self) -> list[nn.Module]:
        """The networks that are no part of the LightningModule."""
        return [auxiliary.module for auxiliary in self._networks.values() if auxiliary.outside]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse strategies under which routed gradients would silently be wrong."""
        if stage == "fit" and isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise PluginError(
                f"{', '.join(self._networks)}: auxiliary networks cannot be trained under "
                f"{type(trainer.strategy).__name__}, which splits or replaces parameters; use `strategy` 'ddp'"
            )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Build the optimizers: the module is on its device, the user's optimizers exist, states are not loaded yet."""
        self.attached = True
        self._first.begin(trainer)
        self.changes = []
        if trainer.ckpt_path is None:
            self._restored = {}  # a checkpoint that `validate` or `test` has read is not resumed from
        for name, auxiliary in self._networks.items():
            _claim(name, auxiliary.module, trainer.optimizers)
            auxiliary.leader = leading_optimizer(auxiliary.beside, trainer.optimizers)
            if isinstance(auxiliary.leader, torch.optim.LBFGS):
                raise PluginError(
                    f"{name}: LBFGS evaluates the loss several times a step; nothing can be trained beside it"
                )
            if next(auxiliary.module.parameters(), None) is None:
                raise PluginError(
                    f"{name}: {type(auxiliary.module).__name__} has no parameters, so nothing can be trained"
                )
            auxiliary.optimizer = auxiliary.make_optimizer(auxiliary.module.parameters())
            auxiliary.scheduler = auxiliary.make_scheduler(auxiliary.optimizer) if auxiliary.make_scheduler else None
            if isinstance(auxiliary.scheduler, ReduceLROnPlateau):
                raise PluginError(
                    f"{name}: the scheduler steps with the optimizer, so ReduceLROnPlateau cannot be used"
                )
            auxiliary.options = optimizer_options(auxiliary.optimizer)
            if auxiliary.scheduler is not None:
                auxiliary.schedule_options = schedule_options(auxiliary.scheduler)
            auxiliary.steps = auxiliary.turns = 0
            state = self._restored.pop(name, None)
            if state is not None and state["optimizer"] is not None:
                resumed, news = resumed_optimizer(state["optimizer"], auxiliary.optimizer, state.get("options"))
                auxiliary.optimizer.load_state_dict(resumed)
                self.changes += news
                if auxiliary.scheduler is not None and state["scheduler"] is not None:
                    asked = state.get("schedule_options")
                    resumed, news = resumed_schedule(state["scheduler"], auxiliary.scheduler, asked)
                    auxiliary.scheduler.load_state_dict(resumed)
                    self.changes += news
                auxiliary.steps = state["steps"]
                auxiliary.turns = state.get("turns", state["steps"])  # once every step was a turn

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop gradients that were left from before ``fit``."""
        for auxiliary in self._networks.values():
            auxiliary.module.zero_grad()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the learning rates, which Lightning's LearningRateMonitor does not see."""
        for name, auxiliary in self._networks.items():
            if auxiliary.optimizer is not None:
                pl_module.log(f"lr-{name}", auxiliary.optimizer.param_groups[0]["lr"])

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Drop gradients of a batch whose other gradients the user has dropped, of a NaN loss for instance."""
        for auxiliary in self._networks.values():
            if auxiliary.leader is not None and not _has_gradient(auxiliary.leader):
                auxiliary.module.zero_grad()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Step every auxiliary network whose user's network is about to step."""
        for name, auxiliary in self._networks.items():
            if auxiliary.leader is optimizer:
                if self.has_turn(name):
                    self._step(auxiliary, trainer, pl_module)
                else:
                    auxiliary.module.zero_grad()
                auxiliary.turns += 1

    def _step(self, auxiliary: _Auxiliary, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        own = auxiliary.optimizer
        assert own is not None
        # Adam moves weights even on a zero gradient: no gradient, no step.
        if all(parameter.grad is None for parameter in auxiliary.module.parameters()):
            return
        if auxiliary.outside and trainer.world_size > 1:
            for parameter in auxiliary.module.parameters():
                if parameter.grad is not None:
                    parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            scaler.unscale_(own)
        pl_module.clip_gradients(
            own,
            gradient_clip_val=trainer.gradient_clip_val,
            gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        )
        if scaler is not None:
            scaler.step(own)  # the user's step makes the only `scaler.update()`
        else:
            own.step()
        own.zero_grad()
        auxiliary.steps += 1
        if auxiliary.scheduler is not None:
            auxiliary.scheduler.step()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say once if a network has never been trained."""
        if trainer.current_epoch == 0 and trainer.global_step:
            for name, auxiliary in self._networks.items():
                if auxiliary.steps == 0 and learns(auxiliary.module):
                    rank_zero_warn(
                        f"the auxiliary network {name!r} got no gradient in the first epoch; is its loss part of what "
                        "`training_step` returns?"
                    )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the run is over."""
        self._first.end(trainer)
        self._detach()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Note that the run is over."""
        self._detach()

    def _detach(self) -> None:
        self.attached = False

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, scheduler and step count of every network."""
        return {name: auxiliary.state_dict() for name, auxiliary in self._networks.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until ``on_fit_start`` has built the optimizers."""
        for name in self._networks.keys() - state_dict.keys():
            rank_zero_warn(f"the checkpoint has no state of the auxiliary network {name!r}; its optimizer starts anew")
        self._restored = dict(state_dict)


def _claim(name: str, module: nn.Module, optimizers: list[Optimizer]) -> None:
    """Take the module's parameters out of the user's optimizers; groups stay, for the user's schedulers."""
    mine = {id(parameter) for parameter in module.parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            kept = [index for index, parameter in enumerate(group["params"]) if id(parameter) not in mine]
            if group["params"] and not kept:
                rank_zero_warn(
                    f"a parameter group of your {type(optimizer).__name__} holds nothing but parameters of {name!r}, "
                    "which has an optimizer of its own; the group's settings are not used"
                )
            for key in ("params", "param_names"):
                if key in group:
                    group[key] = [group[key][index] for index in kept]


def _has_gradient(optimizer: Optimizer) -> bool:
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in parameters)


def leading_optimizer(network: nn.Module, optimizers: list[Optimizer]) -> Optimizer | None:
    """The first optimizer that holds a part of the network; the first of all while the network is frozen."""
    parameters = {id(parameter) for parameter in network.parameters()}
    for optimizer in optimizers:
        if any(id(parameter) in parameters for group in optimizer.param_groups for parameter in group["params"]):
            return optimizer
    return optimizers[0] if optimizers else None
