"""Trains a module with both mixins on one or two processes; the caller compares the weights that every rank writes.

Each process takes its rows of every joined batch of four, so that one process and two see the same data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, Dataset

from reblurkit import ReblurLossMixin
from reblurkit.models import PatchGAN, ReblurNet
from reblurkit.plugins import AdversarialLossMixin
from tests.conftest import PlainNet


class Rows(Dataset):
    def __init__(self, rank, processes):
        images = torch.rand(2, 12, 4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        share = 4 // processes
        self.blurry, self.sharp = images[:, :, rank * share : (rank + 1) * share].flatten(1, 2)

    def __len__(self):
        return len(self.blurry)

    def __getitem__(self, index):
        return {"blurry": self.blurry[index], "sharp": self.sharp[index]}


class Module(ReblurLossMixin, AdversarialLossMixin, L.LightningModule):
    def __init__(self, processes):
        super().__init__()
        self.processes = processes
        self.network = PlainNet()
        self.configure_reblur(ReblurNet(width=4), warmup=2, every=2)
        self.configure_adversarial(PatchGAN(width=4, layers=1), adversarial="hinge", weight=0.1)
        self.double()

    def training_step(self, batch, batch_idx):
        deblurred = self.network(batch["blurry"])
        loss = torch.nn.functional.l1_loss(deblurred, batch["sharp"])
        loss = loss + self.adversarial_loss(deblurred, batch["sharp"])
        return loss + self.reblur_loss(deblurred, batch["sharp"], batch["blurry"])

    def train_dataloader(self):
        return DataLoader(Rows(self.global_rank, self.processes), batch_size=4 // self.processes)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=24)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def trainer(folder: Path, processes: int, **more) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        use_distributed_sampler=False,
        max_epochs=2,
        gradient_clip_val=0.05,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **more,
    )


def main(folder: Path, processes: int) -> None:
    torch.manual_seed(0)
    module = Module(processes)
    trainer(folder, processes).fit(module)
    torch.save(module.state_dict(), folder / f"{processes}-{module.global_rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
