"""Learning rates that follow the length of the training, of a resumed one too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class OverTraining(LambdaLR):
    """A learning rate that is the optimizer's times a factor of the step and of all steps of the training.

    Of a checkpoint only the place is restored: learning rate and length are those that the resumed training asks for.

    Args:
        optimizer: The optimizer; the schedule steps with it.
        steps: Steps of the whole training.
        factor: Called with the step and ``steps``.
    """

    def __init__(self, optimizer: Optimizer, steps: int, factor: Callable[[int, int], float]) -> None:
        self._factor: Callable[[int], float] = lambda step: factor(step, steps)
        super().__init__(optimizer, self._factor)

    def state_dict(self) -> dict[str, Any]:
        """The place in the training."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the place that a checkpoint names, of this schedule or of one that earlier versions used."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        bases: list[Any] = self.base_lrs
        for group, base in zip(self.optimizer.param_groups, bases, strict=True):
            group["initial_lr"], group["lr"] = base, base * self._factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def halved(step: int, steps: int) -> float:
    """Halved at 50, 75 and 90 % of the training: Nah et al., *Clean Images are Hard to Reblur* (2021), section S1."""
    return float(0.5 ** sum(step >= int(share * steps) for share in (0.5, 0.75, 0.9)))


def constant_then_linear(step: int, steps: int, parts: int = 3) -> float:
    """Constant for one in ``parts`` of the training, then linear to 0: a third is Blur2Blur's, half CycleGAN's."""
    return min(1.0, max(0.0, (steps - step) / max(steps - steps // parts, 1)))


def cosine(step: int, steps: int) -> float:
    """Along a cosine to 0."""
    return (1 + math.cos(math.pi * min(step / max(steps, 1), 1))) / 2
