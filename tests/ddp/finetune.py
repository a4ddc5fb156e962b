"""Fine-tunes on unlabelled clips with one or two processes; the caller compares the weights that every rank writes."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from reblurkit import FlowReblurFinetuneCallback
from reblurkit.blur import FlowLineBlur
from tests.conftest import PlainNet, TinyFlow
from tests.ddp.train import Rows, trainer


class Module(L.LightningModule):
    def __init__(self, processes):
        super().__init__()
        self.processes = processes
        self.network = PlainNet()
        self.double()

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.l1_loss(self.network(batch["blurry"]), batch["sharp"])

    def train_dataloader(self):
        return DataLoader(Rows(self.global_rank, self.processes), batch_size=4 // self.processes)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def main(folder: Path, processes: int) -> None:
    torch.manual_seed(0)
    module = Module(processes)
    clips = torch.rand(8, 3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    finetune = FlowReblurFinetuneCallback(
        DataLoader(TensorDataset(clips), batch_size=4 // processes),
        flow=TinyFlow().double(),
        blur=FlowLineBlur(0.5),
        weight=1.0,
        mask=False,
    )
    fit = trainer(folder, processes, callbacks=[finetune]).fit
    torch.manual_seed(module.global_rank)  # what differs between processes must not matter
    fit(module)
    weights = {"deblur." + name: value for name, value in module.state_dict().items()}
    weights |= {"flow." + name: value for name, value in finetune.flow_network.state_dict().items()}
    torch.save(weights, folder / f"{processes}-{module.global_rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
