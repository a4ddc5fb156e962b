"""What the command line leaves in the folder of a run: its configuration, and nothing where the run failed at once."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from reblurkit.cli.messages import say
from reblurkit.core.file_locks import sweep
from reblurkit.core.files import write_whole
from reblurkit.core.kept_files import KeptFiles
from reblurkit.errors import ArgumentError
from reblurkit.plugins.whole_checkpoints import local_path

_NAME = "config.yaml"
_LOGGERS_OWN = {"hparams.yaml", "metrics.csv"}
_OFTEN = "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.every_n_train_steps=100"
_LATEST = 10  # versions that are looked through
_BEGUN = re.compile(r"hparams\.yaml|events\.out\.tfevents\..*")  # before anything is logged


class SaveConfig(SaveConfigCallback):
    """Writes the run's whole configuration beside its log and its checkpoints, over no file that is there.

    The name, ``config.yaml`` or the next that is free everywhere, is kept in the run's checkpoints, and so is what has
    been read from files of weights that these do not hold.
    """

    def __init__(self, *arguments: Any, training: Training, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._training = training
        self._text = b""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file beside the log, once."""
        folder = trainer.log_dir  # all processes must ask: they agree on the answer
        if self.already_saved or folder is None:
            return
        if trainer.is_global_zero:
            self._check_given_files(trainer, folder)
            text = self.parser.dump(self.config, skip_none=False).encode()
            folders = [folder, *(checkpoint_folders(trainer, folder) if stage == "fit" else ())]
            self.config_filename = next(
                name for name in _names() if all(_is_free(os.path.join(each, name), text) for each in folders)
            )
            if self.config_filename != _NAME:
                taken = next(path for each in folders if not _is_free(path := os.path.join(each, _NAME), text))
                path = os.path.join(folder, self.config_filename)
                say(f"{taken} is there already and stays; the configuration of this run: {path}")
            self._text = text
            self._write(folder)
        self.already_saved = True

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it beside checkpoints that go elsewhere; Lightning has looked by now whether their folder is empty."""
        log_dir = trainer.log_dir  # all processes must ask
        if trainer.is_global_zero and log_dir is not None:
            for folder in checkpoint_folders(trainer, log_dir):
                self._write(folder)

    def _write(self, folder: str) -> None:
        path = os.path.join(folder, self.config_filename)
        files = get_filesystem(folder)
        if not files.exists(path):
            if (local := local_path(path)) is None:
                files.makedirs(folder, exist_ok=True)
                files.pipe_file(path, self._text)
            else:
                write_whole(local, self._text.decode())
            self._training.configurations.append(path)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what a checkpoint is used with."""
        checkpoint.setdefault("reblurkit", {}).update(config=self.config_filename, files=self._training.kept.used)

    def _check_given_files(self, trainer: L.Trainer, folder: str) -> None:
        """Refuse a given file where a logger would write one of its own."""
        given = {Path(str(path)).resolve() for path in self.config.get("config") or [] if path is not None}
        for name in _LOGGERS_OWN if trainer.loggers else ():
            path = Path(folder) / name
            if path.resolve() in given:
                raise ArgumentError(f"the logger would overwrite the configuration {path}: rename that file")


def checkpoint_folders(trainer: L.Trainer, log_dir: str) -> list[str]:
    """Folders of checkpoints that lie elsewhere than the log."""
    folders = [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    inside = Path(log_dir).resolve()
    return [str(path) for path in dict.fromkeys(folders) if path and not Path(path).resolve().is_relative_to(inside)]


def _is_free(path: str, text: bytes) -> bool:
    """Whether no file is there, or one that says the same."""
    files = get_filesystem(path)
    return not files.exists(path) or files.cat_file(path) == text


def _names() -> Iterator[str]:
    yield _NAME
    for number in itertools.count(2):
        yield f"config-{number}.yaml"


class RunFolder:
    """The folder of a run that is about to start.

    Args:
        folder: Its path, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._new = [path for path in (folder, *folder.parents) if not path.exists()]

    def remove_if_nothing_happened(self) -> None:
        """Remove what the run has made of folders, if nothing but its beginning is in them."""
        if self._folder not in self._new or not self._folder.is_dir():
            return
        files = list(self._folder.iterdir())
        if not all(path.is_file() and (_BEGUN.fullmatch(path.name) or not path.stat().st_size) for path in files):
            return
        for path in files:
            path.unlink()
        for made in self._new:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def run_folders(trainer: L.Trainer) -> list[RunFolder]:
    """The folders of a run, log and checkpoints; versions that no run has yet are taken."""
    taken = _take_versions(trainer) if trainer.is_global_zero else {}
    folder = trainer.log_dir  # all processes must ask
    folders = [] if folder is None or not trainer.is_global_zero else [folder, *checkpoint_folders(trainer, folder)]
    return [taken.get(each) or RunFolder(Path(each)) for each in folders]


def _take_versions(trainer: L.Trainer) -> dict[str, RunFolder]:
    """Make log folders now, so that a run that starts at the same time takes the next version."""
    taken = {}
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger | CSVLogger) or logger._version is not None:
            continue
        while local_path(logger.log_dir) is not None and logger.log_dir not in taken:
            folder = RunFolder(Path(logger.log_dir))
            try:
                Path(logger.log_dir).mkdir(parents=True)
                taken[logger.log_dir] = folder
                _sweep_versions(Path(logger.log_dir).parent)
            except FileExistsError:
                if not os.path.isdir(logger.log_dir):  # a file, or a link that leads nowhere: the same version again
                    raise
                logger._version = None
    return taken


def _sweep_versions(root: Path) -> None:
    """Remove what killed runs were writing: the one that goes on from them writes into another folder."""
    versions = sorted((path for path in root.glob("version_*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for version in versions[-_LATEST:]:
        for folder in (version, *(path for path in version.iterdir() if path.is_dir())):
            sweep(folder)


class Training(L.Callback):
    """What is known of a run: whether a training step was made, its folders and its checkpoint."""

    def __init__(self) -> None:
        self.under_way = False
        self.folders: list[RunFolder] = []
        self.configurations: list[str] = []
        self.kept = KeptFiles()
        self.checkpoint: str | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        """Note that from here on there is something to lose."""
        self.under_way = True

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Say how a training that was told to end goes on."""
        if self.under_way and isinstance(exception, KeyboardInterrupt | SystemExit):
            path = newest_checkpoint(trainer)
            newest = path and os.path.relpath(path)
            how = (
                f"newest checkpoint: {newest}; to go on, add --ckpt_path {shlex.quote(newest)} to the same command"
                if newest
                else f"nothing of this run is saved yet; the same command begins it again, and with {_OFTEN} it saves "
                "every 100 steps"
            )
            say(f"run folder: {trainer.log_dir}; {how}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Leave nothing of a run that fails in this block before its first step is done."""
        try:
            yield
        except BaseException:
            if not self.under_way:
                for path in self.configurations:
                    get_filesystem(path).rm(path)
                for folder in self.folders:
                    folder.remove_if_nothing_happened()
            raise


def newest_checkpoint(trainer: L.Trainer) -> str | None:
    """What this run has written last and that is there."""
    written = [
        path
        for each in trainer.checkpoint_callbacks
        if isinstance(each, ModelCheckpoint)
        for path in (each.best_model_path, each.last_model_path, *each.best_k_models)
        if path and os.path.isfile(path)
    ]
    return max(written, key=os.path.getmtime, default=None)
