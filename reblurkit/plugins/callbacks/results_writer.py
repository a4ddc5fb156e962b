"""A table of the test images, one by one."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from reblurkit.core.files import whole_file


class ResultsWriter(L.Callback):
    """Writes what ``test`` measures of each image to ``per_image.csv`` in the run folder.

    ``test_step`` must return a dict with ``metrics``, the values of the batch's images by name, as ``DeblurTask`` does;
    other modules are left alone. A table that is there stays, and the next name that is free is taken.

    Attributes:
        path: The last table, None before the first.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._rows: list[dict[str, Any]] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew, also after a test that was interrupted."""
        self._rows = []

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the values of a batch."""
        if not isinstance(outputs, Mapping) or not outputs.get("metrics"):
            return
        metrics = outputs["metrics"]
        images = len(next(iter(metrics.values())))
        names = batch.get("name") if isinstance(batch, Mapping) else None
        for index in range(images):
            # without names, the place in the loader of this process
            name = names[index] if names is not None else len(self._rows)
            self._rows.append({"name": name, **{key: float(values[index]) for key, values in metrics.items()}})

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table, of all processes."""
        rows = self._rows
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # all processes must ask: they agree on the answer
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        if not rows or not trainer.is_global_zero:
            return
        names = (f"per_image{ending}.csv" for ending in itertools.chain([""], (f"-{i}" for i in itertools.count(2))))
        self.path = next(path for name in names if not (path := folder / name).exists())
        with (
            whole_file(self.path) as partial,
            # names of files need not be text
            partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(
                {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
                for row in sorted(rows, key=lambda row: str(row["name"]))
            )
