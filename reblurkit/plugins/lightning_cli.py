"""``reblurkit fit | validate | test | predict``: any LightningModule on any data, from YAML or the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import lightning.pytorch as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from reblurkit.errors import ArgumentError

# Imported so that YAML files may name them without their package.
from reblurkit.losses import CharbonnierLoss, FrequencyLoss
from reblurkit.models import ReblurNet, UNet
from reblurkit.plugins.datamodules import DemoDataModule, PairedDataModule
from reblurkit.plugins.finite_loss import FiniteLoss
from reblurkit.plugins.image_logger import ImageLogger, ImageWriter
from reblurkit.plugins.messages import hide_advice
from reblurkit.plugins.tasks import DeblurTask

__all__ = [
    "CharbonnierLoss",
    "DeblurTask",
    "DemoDataModule",
    "FrequencyLoss",
    "PairedDataModule",
    "ReblurNet",
    "UNet",
    "run_lightning_cli",
]


class _Parser(LightningArgumentParser):
    """Raises its complaint as one line instead of printing a usage text and leaving the process."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if self.exit_on_error:
            raise ArgumentError(_one_line(message)) from ex
        super().error(message, ex)


class _ReblurkitCLI(LightningCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # The inherited method warns whenever arguments are handed over, as `main` does.
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ImageLogger, "image_logger")
        parser.add_lightning_class_args(ImageWriter, "image_writer")

    def before_predict(self) -> None:
        # Predictions are written as they come; collecting them would fill the memory.
        self.config[self.subcommand]["return_predictions"] = False


def run_lightning_cli(arguments: Sequence[str]) -> None:
    """Run one Trainer entry point.

    Args:
        arguments: Command line without the program's name, for instance ``["fit", "--config", "run.yaml"]``.

    Raises:
        ArgumentError: If arguments or configuration files are wrong.
    """
    hide_advice()
    _ReblurkitCLI(
        L.LightningModule,
        L.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        parser_class=_Parser,
        parser_kwargs={"prog": "reblurkit", "description": "Train and test deblurring networks."},
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [FiniteLoss()]},
        auto_configure_optimizers=False,
        args=list(arguments),
    )


def _one_line(message: str) -> str:
    """The gist of a parser's complaint: its key and the reason that names what the user wrote."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return " ".join(lines)
