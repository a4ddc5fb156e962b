"""What ``validate`` and ``test`` have measured, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from reblurkit.cli.metric_names import short_number, title


def show_results(metrics: Mapping[str, Tensor], console: Console | None = None) -> None:
    """Print a table of metrics by the names that they are logged by.

    Example:
        >>> import torch
        >>> show_results({"test/psnr": torch.tensor(28.1571)}, Console(width=40, color_system=None))
        <BLANKLINE>
         metric                         value
         ────────────────────────────────────
         test/psnr (dB) ↑               28.16
        <BLANKLINE>
    """
    if not metrics:
        return
    table = Table(box=box.SIMPLE_HEAD, expand=False, min_width=38, pad_edge=False)
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(title(name), short_number(float(value)))
    (console or Console()).print(table)


def nothing_learnt(metrics: Mapping[str, Tensor]) -> str | None:
    """What to say of a network whose images are no better than those that it was given; None of a better one.

    Example:
        >>> import torch
        >>> nothing_learnt({"val/psnr": torch.tensor(24.0), "val/psnr_blurry": torch.tensor(25.0)})
        'val/psnr is 24.00 dB, and that of the blurry images themselves 25.00 dB: the network makes the images worse'
    """
    for name, value in metrics.items():
        for ending in ("blurry", "deblurred", "sharp"):
            before = metrics.get(f"{name}_{ending}")
            if "psnr" not in name or before is None or not value <= before:
                continue
            does = "leaves the images as they are" if value == before else "makes the images worse"
            if "reblur_psnr" in name:
                does = "brings back no blur"
            return (
                f"{name} is {short_number(float(value))} dB, and that of the {ending} images themselves "
                f"{short_number(float(before))} dB: the network {does}"
            )
    return None
