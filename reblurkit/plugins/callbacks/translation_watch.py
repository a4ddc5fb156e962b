"""Says so when the training of a translator goes wrong, while there is time to stop it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor


class TranslationWatch(L.Callback):
    """Warns of the ways in which unpaired translation fails; ``Blur2BlurTranslator`` and ``CycleTranslator`` bring it.

    Means over a window of steps are looked at, so a GPU is waited for once a window. Each warning comes once a run:

    - the translated images lose their contrast, or gain far too much: the generator collapses;
    - their mean colour drifts by more than two grey levels;
    - the discriminator tells real and translated images apart without an error, so that the generator learns nothing
      from it.

    Args:
        window: Steps of a mean.
    """

    def __init__(self, window: int = 200) -> None:
        self.window = window
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._said: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        self._sums, self._steps, self._said = {}, 0, set()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a step; look at the means at the end of a window."""
        if not isinstance(outputs, Mapping):
            return
        for name in ("contrast", "colour_shift", "loss_discriminator"):
            self._sums[name] = self._sums.get(name, torch.zeros(())).to(outputs[name].device) + outputs[name]
        self._steps += 1
        if self._steps == self.window:
            means = {name: float(total) / self.window for name, total in self._sums.items()}
            self._sums, self._steps = {}, 0
            kind = getattr(getattr(pl_module, "adversarial", None), "kind", "")
            for name, message in _findings(means, kind).items():
                if name not in self._said:
                    self._said.add(name)
                    rank_zero_warn(f"step {trainer.global_step}: {message}")


def _findings(means: Mapping[str, float], kind: str) -> dict[str, str]:
    """What is wrong, and what to do about it."""
    findings = {}
    contrast, shift, loss = means["contrast"], means["colour_shift"], means["loss_discriminator"]
    if not 0.5 < contrast < 2:  # also NaN
        findings["contrast"] = (
            f"the translated images have {contrast:.3g} times the contrast of the blurry ones: the generator has "
            "collapsed; go back to an earlier checkpoint with a lower `lr`, or a higher weight of what keeps content "
            "(`perceptual_weight`, `cycle_weight`)"
        )
    if shift > 2:
        findings["colour_shift"] = (
            f"the translated images' mean colour is {shift:.1f} grey levels off: the two sets of the target camera "
            "differ in colour or brightness, or the weight of what keeps the content (`perceptual_weight`, "
            "`cycle_weight`) is too low"
        )
    # A hinge loss starts at 2, the vanilla loss at 2 log 2, that of least squares near 1; WGAN's has no bound.
    if kind in ("hinge", "vanilla", "lsgan") and loss < 0.05:
        findings["discriminator"] = (
            f"the discriminator tells translated images and real ones apart without an error (loss {loss:.3g}): look "
            "for differences other than blur, such as resolution, noise, compression or scenes, or use a weaker one"
        )
    return findings
