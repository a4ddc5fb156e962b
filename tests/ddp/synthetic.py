"""Trains on synthetic pairs on one or two processes: whole, cut off in mid-epoch, and resumed.

Every rank writes what it saw, one line an item with the pair's digest, and the digests of its weights.
"""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as L
import torch

from reblurkit.blur import CameraNoise, MotionBlur, ShakeBlur
from reblurkit.models import UNet
from reblurkit.plugins import DeblurTask, SyntheticBlurDataModule


class PowerCutError(Exception):
    """Stops a run after a step."""


class Recorder(L.Callback):
    def __init__(self, stop_after=None, path=None):
        self.seen, self.stop_after, self.path = [], stop_after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, *pair in zip(batch["name"], batch["blurry"], batch["sharp"], strict=True):
            self.seen.append(f"{trainer.current_epoch} {name} {digest(pair)}")
        if trainer.global_step == self.stop_after:
            trainer.save_checkpoint(self.path)
            raise PowerCutError


def digest(tensors):
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


def fit(folder, processes, workers, recorder, ckpt_path=None):
    torch.manual_seed(0)
    task = DeblurTask(UNet(1, (4, 4, 4)))
    data = SyntheticBlurDataModule(
        folder / "photos",
        blur=[MotionBlur(largest=3), ShakeBlur(5)],
        noise=CameraNoise(jpeg_share=0.5),
        sharp_share=0.2,
        batch_size=4 // processes,
        crop=12,
        crops_per_photo=4,
        cache=folder / "cache",
        num_workers=workers,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=2,
        limit_val_batches=0,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    return [digest([value]) for value in task.state_dict().values()], trainer.global_rank


def main(folder: Path, processes: int) -> None:
    recorder = Recorder()
    weights, rank = fit(folder, processes, 0, recorder)
    results = {"whole": recorder.seen, "weights": weights}
    for workers in (0, 4):
        checkpoint = folder / f"{processes}-{workers}.ckpt"
        cut, resumed = Recorder(7, checkpoint), Recorder()
        with suppress(PowerCutError):
            fit(folder, processes, workers, cut)
        weights, _ = fit(folder, processes, workers, resumed, checkpoint)
        results[f"cut, {workers} workers"], results[f"resumed, {workers} workers"] = cut.seen, resumed.seen
        results[f"weights, {workers} workers"] = weights
    torch.save(results, folder / f"{processes}-{rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
