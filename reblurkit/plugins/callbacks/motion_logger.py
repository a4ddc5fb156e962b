"""Pictures of fine-tuning on video, while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from reblurkit.core.calls import evaluating, find_network, preserved_rng
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.losses.flow_reblur import FlowReblurTerms
from reblurkit.pictures.motion import motion_figure
from reblurkit.plugins.callbacks.flow_reblur import FlowReblurFinetuneCallback
from reblurkit.plugins.callbacks.image_logger import log_picture


class MotionLogger(L.Callback):
    """Draws what :class:`FlowReblurFinetuneCallback` changes, as Figure 4 of Reblur2Deblur.

    The first unlabelled clips, always the same, with the flow before and after, the deblurred frame before and after,
    and how well it blurs back to what the camera saw. "Before" is when ``fit`` began. Writes
    ``images/motion-step=N.png`` below the log folder, and hands the picture to every logger that takes pictures.

    Args:
        clips: Number of clips.
        every_n_steps: Optimizer steps from one picture to the next; there is one at the end too.

    Raises:
        ArgumentError: If a number is below 1, or the unlabelled data set cannot be indexed.
        PluginError: If there is no ``FlowReblurFinetuneCallback`` among the Trainer's callbacks.
    """

    def __init__(self, clips: int = 1, every_n_steps: int = 50) -> None:
        if clips < 1 or every_n_steps < 1:
            raise ArgumentError(f"`clips` and `every_n_steps` must be at least 1, but are {clips} and {every_n_steps}")
        self.clips = clips
        self.every_n_steps = every_n_steps
        self._finetune: FlowReblurFinetuneCallback | None = None
        self._frames = torch.empty(0)
        self._before: FlowReblurTerms | None = None
        self._drawn = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the callback whose work is drawn."""
        if stage == "fit":
            callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set where mypy does not look
            found = [callback for callback in callbacks if isinstance(callback, FlowReblurFinetuneCallback)]
            if not found:
                raise PluginError(
                    "MotionLogger draws what FlowReblurFinetuneCallback does, but the Trainer has no such callback"
                )
            self._finetune, self._before, self._drawn = found[0], None, -1

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first evaluation, before any step."""
        if self._before is None:
            assert self._finetune is not None
            with preserved_rng(torch.get_default_device()):
                self._frames = self._finetune.first_clips(self.clips)
            self._before = self._evaluate(pl_module)
            self._drawn = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw every so many optimizer steps."""
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what has come out."""
        if self._before is not None:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._drawn == trainer.global_step:
            return
        self._drawn = trainer.global_step
        assert self._before is not None
        after = self._evaluate(pl_module)  # in every process: a network may have layers that talk to each other
        observed = self._frames[:, self._frames.shape[1] // 2]
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # all processes must ask: they agree on the answer
        if trainer.is_global_zero:
            path = folder / "images" / f"motion-step={trainer.global_step}.png"
            log_picture(trainer, motion_figure(self._before, after, observed), path, "train/motion")

    @torch.no_grad()
    def _evaluate(self, pl_module: L.LightningModule) -> FlowReblurTerms:
        """The terms on the CPU, with the network in evaluation mode, as it will be used."""
        assert self._finetune is not None
        network = find_network(pl_module, self._finetune.network)
        frames = pl_module.trainer.precision_plugin.convert_input(self._frames.to(pl_module.device))
        with evaluating(network):
            terms = self._finetune.evaluate(network, frames)
        return FlowReblurTerms(*(term.cpu() for term in terms))
