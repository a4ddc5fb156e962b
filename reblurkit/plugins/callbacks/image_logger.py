"""Pictures while training, and files of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from reblurkit.data.images import write_image
from reblurkit.errors import ArgumentError, PluginError
from reblurkit.pictures.files import save_picture
from reblurkit.pictures.grid import comparison_grid


class ImageLogger(L.Callback):
    """Draws blurry, deblurred and sharp images of each validation, so that progress can be seen.

    Writes ``images/val-epoch=N.png`` below the log folder, and hands the picture to every logger that takes pictures
    (TensorBoard, Weights & Biases). The module's ``validation_step`` must return a dict with ``deblurred``, as
    ``DeblurTask`` does, or with ``pictures``, a dict from title to images; other modules are left alone.

    Args:
        images: Number of images, the first of the validation set; 0 draws nothing.

    Raises:
        ArgumentError: If the number is negative.
    """

    def __init__(self, images: int = 2) -> None:
        if images < 0:
            raise ArgumentError(f"`images` must be at least 0, but is {images}")
        self.images = images
        self._rows: list[dict[str, Tensor]] = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the first images."""
        if not isinstance(outputs, Mapping) or not isinstance(batch, Mapping):
            return
        pictures = outputs.get("pictures")
        if "deblurred" in outputs:
            pictures = {"blurry": batch["blurry"], "deblurred": outputs["deblurred"], "sharp": batch["sharp"]}
        if pictures:
            rows = [dict(zip(pictures, images, strict=True)) for images in zip(*pictures.values(), strict=True)]
            self._rows += rows[: self.images - len(self._rows)]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw them."""
        rows, self._rows = self._rows, []
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # all processes must ask: they agree on the answer
        if not rows or trainer.sanity_checking or not trainer.is_global_zero:
            return
        grid = comparison_grid(rows)
        log_picture(trainer, grid, folder / "images" / f"val-epoch={trainer.current_epoch}.png", "val/images")


def log_picture(trainer: L.Trainer, picture: Image.Image, path: Path, key: str) -> None:
    """Write a picture as a file, and hand it to every logger that takes pictures.

    Args:
        trainer: The running Trainer.
        picture: The picture.
        path: File to write; missing folders are made.
        key: Its name in the loggers.
    """
    save_picture(picture, path)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[picture], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, np.asarray(picture), trainer.global_step, dataformats="HWC")


class ImageWriter(L.Callback):
    """Writes predictions as PNG files, named as the blurry images, below their path in the data set.

    ``predict_step`` must return a dict with ``deblurred`` and ``name``, as ``DeblurTask`` does.

    Args:
        folder: Where to; default ``deblurred`` below the log folder.

    Raises:
        ArgumentError: If a file of that name exists already, or a name leads out of the folder.
        PluginError: If ``predict_step`` returns something else.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._target = Path()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Settle the folder, on which all processes must agree."""
        self._target = Path(self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "deblurred")

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Write the images of a batch."""
        if not isinstance(outputs, Mapping) or not {"deblurred", "name"} <= outputs.keys():
            found = sorted(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
            raise PluginError(
                f"ImageWriter writes what `predict_step` returns as a dict with 'deblurred', images (B, 3, H, W), and "
                f"'name', a list, but {type(pl_module).__name__}.predict_step returned {found}"
            )
        for image, name in zip(outputs["deblurred"], outputs["name"], strict=True):
            path = self._target / f"{name}.png"
            if not path.resolve().is_relative_to(self._target.resolve()):
                raise ArgumentError(f"cannot write the image {name!r}: its name leads out of the folder {self._target}")
            if path.exists():
                raise ArgumentError(f"{path} exists already and is not overwritten; choose another folder")
            write_image(image, path)
