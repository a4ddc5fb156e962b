"""Tests a module with adaptation on one or two processes; every rank writes what its images became.

The five images do not divide by two: one process has three, the other two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader

from reblurkit import TestTimeAdaptCallback
from reblurkit.metrics import PSNR
from reblurkit.models import ReblurNet
from tests.conftest import BatchNormNet


class Module(L.LightningModule):
    def __init__(self, processes):
        super().__init__()
        self.processes = processes
        self.network, self.reblur = BatchNormNet(), ReblurNet(width=4)
        self.images = {}

    def test_dataloader(self):
        images = torch.rand(5, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        rows = [{"blurry": blurry, "sharp": sharp, "name": str(i)} for i, (blurry, sharp) in enumerate(images)]
        return DataLoader(rows[self.global_rank :: self.processes], batch_size=2)

    def test_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        self.images |= {name: image.clone() for name, image in zip(batch["name"], deblurred, strict=True)}


def main(folder: Path, processes: int) -> None:
    torch.manual_seed(0)
    module, callback = Module(processes), TestTimeAdaptCallback(lr=1e-2, metrics=PSNR())
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        use_distributed_sampler=False,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    (metrics,) = trainer.test(module, verbose=False)
    result = {"images": module.images, "metrics": metrics, "history": [image.losses for image in callback.history]}
    torch.save(result, folder / f"{processes}-{module.global_rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
