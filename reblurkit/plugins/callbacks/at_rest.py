"""Ends a training whose metrics have come to rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from reblurkit.core.suggestions import did_you_mean
from reblurkit.errors import ArgumentError

_FEWEST = 2  # validations in a quarter: one alone may be off


class AtRest(L.Callback):
    """Stops training when no metric gains any more: all of them, where ``EarlyStopping`` watches one.

    The last quarter of the steps so far is compared with the quarter before it, by the means of their validations, so
    that noise counts little. There is no number of validations to be chosen: the rule waits longer the longer a
    training has gone on, whatever the length of an epoch, and ends one that rests since step t at about 2t.

    Args:
        monitors: Metrics of the validation that are better when higher, for instance ``["val/psnr", "val/ssim"]``.
        gain: What one of them must have gained, in its own unit, for the training to go on.
        least_steps: Steps before which nothing is at rest.

    Raises:
        ArgumentError: If an argument is out of range, or in the first validation if a metric is not logged.

    Example:
        >>> AtRest(["val/psnr"], gain=0.05).monitors
        ['val/psnr']
    """

    def __init__(self, monitors: Sequence[str], *, gain: float = 0.1, least_steps: int = 1000) -> None:
        if isinstance(monitors, str) or not monitors:
            raise ArgumentError(f"`monitors` must be a list of metrics such as ['val/psnr'], but is {monitors!r}")
        if not 0 < gain < float("inf") or least_steps < 0:
            raise ArgumentError(
                f"`gain` must be above 0 and `least_steps` at least 0, but are {gain} and {least_steps}"
            )
        self.monitors = list(monitors)
        self.gain = gain
        self.least_steps = least_steps
        self._measured: list[tuple[int, list[float]]] = []

    @property
    def state_key(self) -> str:
        """Several of these keep their states apart."""
        return self._generate_state_key(monitors=self.monitors)

    def state_dict(self) -> dict[str, Any]:
        """What has been measured so far."""
        return {"measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._measured = [(step, list(values)) for step, values in state_dict["measured"]]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew, unless a training is resumed."""
        if trainer.ckpt_path is None:
            self._measured = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say so where nothing will be measured."""
        if not trainer.enable_validation:
            rank_zero_warn(f"training does not stop at rest: there is no validation that measures {self.monitors}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the last two quarters."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        metrics, step = trainer.callback_metrics, trainer.global_step
        for name in self.monitors:
            if name not in metrics:
                raise ArgumentError(f"the monitor {name!r} is not logged{did_you_mean(name, metrics)}")
        self._measured.append((step, [float(metrics[name]) for name in self.monitors]))
        before, last = (
            [values for at, values in self._measured if quarter * step < 4 * at <= (quarter + 1) * step]
            for quarter in (2, 3)
        )
        if step < self.least_steps or min(len(before), len(last)) < _FEWEST:
            return
        gains = [new - old for new, old in zip(_means(last), _means(before), strict=True)]
        if all(each < self.gain for each in gains):
            trainer.should_stop = True
            found = ", ".join(f"{name} {value:.2f}" for name, value in zip(self.monitors, _means(last), strict=True))
            rank_zero_info(f"stopped after {step} steps: at rest to {self.gain:g} in the last quarter of them: {found}")


def _means(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
