"""Measures three images on one or two processes, which cannot share them evenly; every rank writes its results."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from reblurkit import TestTimeAdaptCallback
from reblurkit.metrics import PSNR
from reblurkit.models import ReblurNet
from reblurkit.plugins import Blur2BlurTranslator, DeblurTask, ReblurTask
from tests.conftest import BatchNormNet, PlainNet

CASES = [(3, 1), (5, 2), (1, 1)]  # images and batch: an uneven share, uneven batches, fewer images than processes


def tasks():
    """Tasks whose weights do not depend on what the runs before have drawn."""
    made = [
        lambda: (DeblurTask(BatchNormNet(), ReblurNet(width=4)), []),
        lambda: (ReblurTask(PlainNet(), ReblurNet(width=4)), []),
        lambda: (
            DeblurTask(PlainNet(), ReblurNet(width=4)),
            [TestTimeAdaptCallback(lr=1e-2, steps=1, metrics=PSNR())],
        ),
        lambda: (
            Blur2BlurTranslator(
                PlainNet(), nn.Conv2d(3, 1, 3), known_blur=nn.AvgPool2d(3, 1, 1), deblur_network=PlainNet()
            ),
            [],
        ),
    ]
    for make in made:
        torch.manual_seed(0)
        yield make()


def loader(images, batch):
    data = torch.rand(5, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))[:images]
    rows = [{"blurry": blurry, "sharp": sharp, "name": str(index)} for index, (blurry, sharp) in enumerate(data)]
    return DataLoader(rows, batch_size=batch)


def make_trainer(folder, processes, callbacks=()):
    return L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        max_epochs=1,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def main(folder: Path, processes: int) -> None:
    warnings.filterwarnings("error", ".*sync_dist.*")
    results = {}
    for number, (task, callbacks) in enumerate(tasks()):
        for case in CASES if number == 0 else CASES[::2]:
            trainer = make_trainer(folder, processes, callbacks)
            (values,) = trainer.test(task, loader(*case), verbose=False)
            results |= {f"{number} {case} {name}": value for name, value in values.items()}
    # weights that stay as they are, so that the validation in `fit` can be compared
    torch.manual_seed(0)
    still = DeblurTask(PlainNet(), optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0))
    trainer = make_trainer(folder, processes)
    trainer.fit(still, loader(4, 1), loader(3, 1))
    results["in fit"] = trainer.callback_metrics["val/psnr"].item()
    torch.save(results, folder / f"{processes}-{trainer.global_rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
