"""``reblurkit fit | validate | test | predict``: any LightningModule on any data, from YAML or the command line."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import lightning.pytorch as L
import torch
import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from reblurkit.blur import BlurTransfer
from reblurkit.cli.adaptation_lines import reblurring_line
from reblurkit.cli.class_help import class_help
from reblurkit.cli.ending import interrupts_of_lightning, leave_sigterm_to_lightning
from reblurkit.cli.log_interval import LogInterval
from reblurkit.cli.messages import hide_advice, say
from reblurkit.cli.misplaced import argument_of_a_part
from reblurkit.cli.monitors import KnownMonitors
from reblurkit.cli.reblur_training import complete_reblur_training, reblur_budget
from reblurkit.cli.results import nothing_learnt, show_results
from reblurkit.cli.resuming import (
    FoundCheckpointIO,
    Resuming,
    all_done,
    length_of,
    start_from_checkpoint,
    whole_checkpoint,
)
from reblurkit.cli.run_folder import SaveConfig, Training, newest_checkpoint, run_folders
from reblurkit.cli.usage import errors_by_flags, one_line, required_options, unknown_keys, unknown_options
from reblurkit.cli.words import NEGATIVE_NUMBER, TRAINER_COMMANDS
from reblurkit.core.kept_files import KeptFiles, kept_contents
from reblurkit.core.yaml_files import check_yaml
from reblurkit.errors import ArgumentError, PluginError, ReblurkitError, WeightsError
from reblurkit.models.weights import NO_CHECKPOINT, read_lightning_checkpoint
from reblurkit.plugins.callbacks.adaptation import TestTimeAdaptCallback
from reblurkit.plugins.callbacks.finite_loss import FiniteLoss
from reblurkit.plugins.callbacks.image_logger import ImageLogger, ImageWriter
from reblurkit.plugins.callbacks.results_writer import ResultsWriter
from reblurkit.plugins.class_parser import check_classes
from reblurkit.plugins.former_paths import present_paths
from reblurkit.plugins.found_config import misfit
from reblurkit.plugins.short_names import named_classes
from reblurkit.plugins.tasks.blur2blur import Blur2BlurTranslator
from reblurkit.plugins.tasks.reblur import ReblurTask
from reblurkit.plugins.trained_network import checkpoint_metrics
from reblurkit.plugins.whole_checkpoints import use_whole_checkpoints

_HINT = "`--model.help DeblurTask` and `--data.help PairedDataModule` list the options of a class."

_load_yaml = get_loader("yaml")


def _load_configuration(text: str) -> Any:
    check_yaml(text)
    return present_paths(_load_yaml(text))


set_loader("yaml", _load_configuration, (yaml.YAMLError,))


class _UsageError(ArgumentError):
    def __init__(self, message: str, parser: _Parser) -> None:
        super().__init__(message)
        self.parser = parser


class _Parser(LightningArgumentParser):
    """Raises its complaint as one line instead of printing a usage text and leaving the process.

    Options are written out: an abbreviation that works today may mean another option tomorrow.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, allow_abbrev=False, **keywords)
        self._negative_number_matcher = NEGATIVE_NUMBER

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if self.exit_on_error:
            raise _UsageError(one_line(message), self) from ex
        super().error(message, ex)


class _Done(Exception):  # noqa: N818  # it is no error
    """Nothing is left to do; the message says why."""


class _ReblurkitCLI(LightningCLI):
    _start: Mapping[str, Any] | None = None
    _resumed: Mapping[str, int] | None = None

    def __init__(self, command: str, *arguments: Any, **keywords: Any) -> None:
        self._command = command
        super().__init__(*arguments, **keywords)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that was asked for: a parser of all of Lightning's takes a second each."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    @property
    def _training(self) -> Training:
        training: Training = self.trainer_defaults["callbacks"][-1]
        return training

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # The inherited method warns whenever arguments are handed over, as `main` does.
        self.config = parser.parse_args(args)
        check_classes(self.config)
        seed = self.config[self.config.subcommand].get("seed_everything")
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise ArgumentError(f"--seed_everything must be from 0 to {2**32 - 1}, but is {str(seed)[:40]}")
        path = self.config[self.config.subcommand].get("ckpt_path")
        self._training.checkpoint = path
        if path is not None and path not in {"best", "last", "hpc", "registry"}:
            # before anything is built: a bad file is named as such
            if self.config.subcommand == "fit":
                path, checkpoint = whole_checkpoint(path)
                self.config.fit.ckpt_path = path
            else:
                checkpoint = read_lightning_checkpoint(path)
            if self.config.subcommand == "fit" and "optimizer_states" not in checkpoint:
                raise ArgumentError(f"{path} holds weights only and cannot be resumed; give it by --start_from")
            self._resumed = length_of(checkpoint)
            self._training.kept = KeptFiles(kept_contents(checkpoint), restoring=True)
        start = self.config[self.config.subcommand].get("start_from")
        if start is not None:
            if self.config.subcommand != "fit" or path is not None:
                raise ArgumentError("--start_from begins a new `fit`; --ckpt_path names the checkpoint of the others")
            checkpoint = read_lightning_checkpoint(start)
            self._training.kept = KeptFiles(kept_contents(checkpoint), restoring=True)
            self._start = checkpoint["state_dict"]

    def _parse_ckpt_path(self) -> None:
        """Lightning would build what a checkpoint's hyper-parameters name; of a stranger's file weights are enough."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        titles = {"model": "What is trained; --model.help lists", "data": "What it is trained on; --data.help lists"}
        for option, title in titles.items():  # of Lightning's classes in general it has next to nothing to say
            parser.groups[option].title = f"{title} this package's"  # type: ignore[index]
        parser.add_lightning_class_args(ImageLogger, "image_logger")
        parser.add_lightning_class_args(ImageWriter, "image_writer")
        parser.add_argument(
            "--start_from",
            type=str | None,
            default=None,
            metavar="FILE",
            help="fit: a checkpoint to take all weights from, those of M_R and discriminators, too; all else is new",
        )

    def after_instantiate_classes(self) -> None:
        use_whole_checkpoints(self.trainer, FoundCheckpointIO(resuming=self.subcommand == "fit"))
        slurm = self.trainer._accelerator_connector.cluster_environment
        if isinstance(slurm, SLURMEnvironment) and slurm.auto_requeue:
            leave_sigterm_to_lightning()
        self._training.folders = run_folders(self.trainer)

    def before_fit(self) -> None:
        if self._start is not None:
            start_from_checkpoint(self.model, self.config.fit.start_from, self._start)
        if isinstance(self.model, ReblurTask):
            warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # its frozen network
            if self.model.weights is None and self._get(self.config, "ckpt_path") is None:
                say("no --model.weights: the deblurring network keeps the weights that it was built with")
            say(reblur_budget(self.config.fit, self.model))
        if isinstance(self.model, Blur2BlurTranslator):
            self._warn_of_fresh_helpers()

    def after_fit(self) -> None:
        saved = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or newest_checkpoint(self.trainer)
        say(_folder_line(self.trainer) + (f"; checkpoint: {os.path.relpath(saved)}" if saved else ""))
        self._warn_of_nothing_learnt()

    def _show_results(self) -> None:
        if self._shows_results and self.trainer.is_global_zero:
            show_results(self.trainer.callback_metrics)
        writer = next(each for each in self.trainer_defaults["callbacks"] if isinstance(each, ResultsWriter))
        each_image = f"; each image: {writer.path}" if writer.path else ""
        say(f"{_folder_line(self.trainer)}{each_image}")
        self._warn_of_nothing_learnt()

    after_validate = after_test = _show_results  # the names that LightningCLI looks for

    def _warn_of_nothing_learnt(self) -> None:
        if warning := nothing_learnt(self.trainer.callback_metrics):
            say(warning)

    def after_predict(self) -> None:
        folder = self._get(self.config_init, "image_writer").folder
        say(f"images: {folder or os.path.join(self.trainer.log_dir or self.trainer.default_root_dir, 'deblurred')}")

    def _warn_of_fresh_weights(self) -> None:
        options = self.config[self.subcommand]
        if options.get("ckpt_path") is None:
            weights = options.model.get("init_args", {}).get("weights")
            origin = f"of {weights}" if weights else "that it was built with"
            say(f"no --ckpt_path: the network has the weights {origin}")

        elif any(isinstance(each, TestTimeAdaptCallback) for each in self.trainer.callbacks):  # type: ignore[attr-defined]
            path = options.ckpt_path
            if os.path.isfile(path) and (line := reblurring_line(checkpoint_metrics(path))):
                say(line)  # of what images are adapted with

    before_validate = before_test = before_predict = _warn_of_fresh_weights

    def _warn_of_fresh_helpers(self) -> None:
        """Of the networks that a translator uses and does not train."""
        options = self.config[self.subcommand].model.init_args
        if options.get("deblur_network") and not options.get("deblur_weights"):
            say("no --model.deblur_weights: the deblurring network has the weights that it was built with")
        known_blur = options.get("known_blur") or {}
        if isinstance(self.model.known_blur, BlurTransfer) and not known_blur.get("init_args", {}).get("weights"):
            say("no weights of BlurTransfer: the known blur is made by the weights that its network was built with")

    def instantiate_classes(self) -> None:
        with errors_by_flags(self.config[self.subcommand]), self._training.kept.in_use():
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        with errors_by_flags(self.config[subcommand]):
            super()._run_subcommand(subcommand)

    def before_instantiate_classes(self) -> None:
        options = self.config[self.subcommand]
        options["weights_only"] = True  # checkpoints are untrusted files
        if self.subcommand == "fit":
            complete_reblur_training(options)
            if self._resumed and (line := all_done(options.ckpt_path, self._resumed, options.trainer)):
                raise _Done(line)
        # One table of results, with digits that mean something, instead of Lightning's.
        self._shows_results = options.get("verbose", False)
        if self.subcommand in ("validate", "test"):
            options["verbose"] = False
        if self.subcommand == "predict":
            # Predictions are written as they come; collecting them would fill the memory.
            options["return_predictions"] = False


def run_lightning_cli(arguments: Sequence[str]) -> None:
    """Run one Trainer entry point.

    Args:
        arguments: Command line without the program's name, for instance ``["fit", "--config", "run.yaml"]``.

    Raises:
        ArgumentError: If arguments, configuration files or the checkpoint are wrong.
        PluginError: If Lightning refuses the configuration, or anything fails before the first training step.
    """
    if (answer := class_help(arguments)) is not None:
        print(answer)
        return
    hide_advice()
    if not {"-h", "--help"} & set(arguments):
        named_classes()  # imports all networks: too much for a list of options
    training = Training()
    callbacks = (FiniteLoss(), KnownMonitors(), LogInterval(), ResultsWriter(), Resuming())
    try:
        with training.watched(), interrupts_of_lightning():
            _ReblurkitCLI(
                arguments[0],
                L.LightningModule,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                parser_class=_Parser,
                parser_kwargs={
                    arguments[0]: {"description": f"{TRAINER_COMMANDS[arguments[0]].capitalize()}. {_HINT}"},
                },
                save_config_callback=SaveConfig,
                save_config_kwargs={"training": training},
                trainer_defaults={"callbacks": [*callbacks, training]},
                auto_configure_optimizers=False,
                args=list(arguments),
            )
        # A process group that is still alive when Python ends may abort the process.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except _Done as done:
        say(str(done))
    except _UsageError as error:
        message = (
            unknown_options(arguments, error.parser)
            or unknown_keys(str(error), arguments, error.parser)
            or argument_of_a_part(str(error), arguments)
            or required_options(str(error), arguments[0])
        )
        raise ArgumentError(message) from error
    except ReblurkitError as error:
        if NO_CHECKPOINT not in str(error):
            raise
        raise WeightsError(f"{error}; DeblurTask takes weights alone by --model.weights") from error
    except MisconfigurationException as error:
        advice = "; leave out --trainer.accelerator, or give cpu" if "backend found" in str(error) else ""
        raise PluginError(f"{error}{advice}") from error
    except Exception as error:
        # Until the first training step is done, what fails is what the user has put together: one line is enough,
        # `--debug` shows the rest. Later, hours may hang on the traceback.
        if training.under_way:
            raise
        where = f"{training.checkpoint}: " if training.checkpoint and _is_of_checkpoint(error) else ""
        raise PluginError(where + _gist(error)) from error


def _folder_line(trainer: L.Trainer) -> str:
    if trainer.log_dir is None:
        return "no run folder: --trainer.fast_dev_run keeps no log and no checkpoint"
    return f"run folder: {trainer.log_dir}"


def _is_of_checkpoint(error: Exception) -> bool:
    """Whether an error comes from what Lightning restores of a checkpoint."""
    return any(
        frame.name.lstrip("_").startswith(("restore", "resume")) and "checkpoint_connector" in frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _gist(error: Exception) -> str:
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    if "Error(s) in loading state_dict" in message:
        return f"the checkpoint does not fit the networks: {misfit(error)}"
    return f"{type(error).__name__}: {' '.join(message.split())} (--debug shows where)"
