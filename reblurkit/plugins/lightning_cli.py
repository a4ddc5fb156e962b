"""``reblurkit fit | validate | test | predict``: any LightningModule on any data, from YAML or the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from reblurkit.errors import ArgumentError, PluginError

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
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and path not in {"best", "last", "hpc", "registry"}:
            _check_checkpoint(path)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ImageLogger, "image_logger")
        parser.add_lightning_class_args(ImageWriter, "image_writer")

    def before_instantiate_classes(self) -> None:
        options = self.config[self.subcommand]
        options["weights_only"] = True  # checkpoints are untrusted files
        if self.subcommand == "predict":
            # Predictions are written as they come; collecting them would fill the memory.
            options["return_predictions"] = False


def _check_checkpoint(path: str) -> None:
    """Read a checkpoint before anything is built for it, so that a bad file is named as such."""
    if not Path(path).is_file():
        raise ArgumentError(f"ckpt_path: no checkpoint file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        complete = "state_dict" in checkpoint and "loops" in checkpoint
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise ArgumentError(f"ckpt_path: {path} cannot be read as a checkpoint of nothing but weights") from error
    if not complete:
        raise ArgumentError(f"ckpt_path: {path} is no Lightning checkpoint")


def run_lightning_cli(arguments: Sequence[str]) -> None:
    """Run one Trainer entry point.

    Args:
        arguments: Command line without the program's name, for instance ``["fit", "--config", "run.yaml"]``.

    Raises:
        ArgumentError: If arguments, configuration files or the checkpoint are wrong.
        PluginError: If Lightning refuses the configuration.
    """
    hide_advice()
    try:
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
    except MisconfigurationException as error:
        raise PluginError(str(error)) from error
    except RuntimeError as error:
        if "Error(s) in loading state_dict" in str(error):
            _, first, *others = str(error).splitlines()
            more = f" (and {len(others)} more)" if others else ""
            raise ArgumentError(f"the checkpoint does not fit the network: {first.strip()}{more}") from error
        raise


# Lines of jsonargparse's messages that repeat the input or list alternatives nobody meant.
_NOISE = re.compile(
    r"Parser key|Does not validate against|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|"
    r"Expected a path but|Problem with given class_path|$"
)


def _one_line(message: str) -> str:
    """The gist of a parser's complaint: the key, the class, and what is wrong with it."""
    lines = [line.strip(" -") for line in message.splitlines()]
    reasons = [line for line in lines if not _NOISE.match(line)]
    keys = re.findall(r'Parser key "(.+?)"', message)
    classes = re.findall(r"Problem with given class_path '(.+?)'", message)
    if not keys or not reasons:
        return re.sub(r'^Parser key "(.+?)":', r"\1:", " ".join(line for line in lines if line))
    return ": ".join([".".join(keys), *classes[-1:], " ".join(reasons)])
