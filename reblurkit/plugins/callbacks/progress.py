"""What is shown beside Lightning's progress bars."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as L
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.trainer.states import TrainerFn

_STAGES = {TrainerFn.TESTING: "test", TrainerFn.VALIDATING: "val", TrainerFn.PREDICTING: "predict"}


def show_beside_bar(trainer: L.Trainer, text: Callable[[], str]) -> None:
    """Put a text beside the bar of ``test``, ``validate`` or ``predict``.

    Args:
        trainer: The running Trainer.
        text: Gives the text; not called where there is no bar, as it may wait for the GPU.
    """
    bar = trainer.progress_bar_callback
    if not isinstance(bar, TQDMProgressBar | RichProgressBar) or not bar.is_enabled or trainer.state.fn not in _STAGES:
        return
    stage = _STAGES[trainer.state.fn]
    if isinstance(bar, TQDMProgressBar):
        getattr(bar, f"{stage}_progress_bar").set_postfix_str(text())
    elif bar.progress is not None:
        name = {"val": "validation"}.get(stage, stage)
        task = getattr(bar, f"{stage}_progress_bar_id")
        if task is not None:
            bar.progress.update(task, description=f"{getattr(bar, f'{name}_description')}: {text()}")
            bar.refresh()
