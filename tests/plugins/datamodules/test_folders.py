"""Order, sharding and resuming of the training loaders."""

from __future__ import annotations

import time
from itertools import islice

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import Dataset

from reblurkit.blur import ShakeBlur
from reblurkit.data import write_image
from reblurkit.data.sampling import DrawSampler, TrainLoader
from reblurkit.errors import ArgumentError
from reblurkit.models import ReblurNet, UNet
from reblurkit.plugins import (
    DeblurTask,
    DemoDataModule,
    FiniteLoss,
    PairedDataModule,
    SyntheticBlurDataModule,
    UnpairedDataModule,
    VideoDataModule,
)
from tests.data.test_layouts import realblur


def data(**options):
    options = {"batch_size": 2, "crop": 16, "crops_per_photo": 4, "blur": ShakeBlur(5, 0.5), "seed": 1} | options
    return DemoDataModule(**options)


def task():
    torch.manual_seed(0)
    return DeblurTask(UNet(1, (4, 4, 4)), ReblurNet(width=4))


class Recorder(L.Callback):
    """Notes the names of all batches, and stops like a power cut after a step."""

    def __init__(self, stop_after=None, path=None):
        self.names, self.stop_after, self.path = [], stop_after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.names.append(batch["name"])
        if trainer.global_step == self.stop_after:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("power cut")


def fit(tmp_path, recorder, ckpt_path=None, **flags):
    module = task()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[recorder],
        default_root_dir=tmp_path,
        **flags,
    )
    trainer.fit(module, data(), ckpt_path=ckpt_path, weights_only=True)
    return module


@pytest.mark.parametrize("stop_after", [3, 6, 7])  # mid-epoch, an epoch's last batch, an epoch's first
def test_a_resumed_run_is_bit_equal(tmp_path, stop_after):
    whole = Recorder()
    expected = fit(tmp_path, whole)
    cut = Recorder(stop_after, tmp_path / "cut.ckpt")
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, cut)
    rest = Recorder()
    resumed = fit(tmp_path, rest, ckpt_path=tmp_path / "cut.ckpt")
    assert cut.names + rest.names == whole.names
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_a_checkpoint_that_was_only_measured_does_not_move_the_loader(tmp_path):
    cut = Recorder(3, tmp_path / "cut.ckpt")
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, cut)
    module, recorder = data(), Recorder()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": False, "default_root_dir": tmp_path}
    L.Trainer(**quiet).validate(task(), module, ckpt_path=tmp_path / "cut.ckpt", verbose=False, weights_only=True)
    L.Trainer(**quiet, max_epochs=1, limit_val_batches=0, callbacks=[recorder]).fit(task(), module)
    assert len(recorder.names) == 6


def test_epochs_cut_short_start_at_their_beginning(tmp_path):
    recorder = Recorder()
    fit(tmp_path, recorder, limit_train_batches=2)
    full = Recorder()
    fit(tmp_path, full)
    assert recorder.names == [name for epoch in range(3) for name in full.names[6 * epoch : 6 * epoch + 2]]


def test_overfitting_repeats_the_same_batches(tmp_path):
    recorder = Recorder()
    fit(tmp_path, recorder, overfit_batches=2)
    assert recorder.names[:2] * 3 == recorder.names


def test_workers_do_not_change_the_data():
    epochs = []
    for workers in (0, 2):
        module = data(num_workers=workers)
        module.setup("fit")
        epochs.append([batch["blurry"] for batch in module.train_dataloader()])
    assert all(torch.equal(one, other) for one, other in zip(*epochs, strict=True))


def test_processes_share_an_epoch():
    items = list(range(10))
    shares = [DrawSampler(items, seed=2, replicas=2, rank=rank) for rank in range(2)]
    drawn = [draw.item for share in shares for draw in share]
    assert sorted(drawn) == items
    assert [draw.item for draw in DrawSampler(items, seed=2)] != items


def test_small_sets_make_one_batch():
    items = list(range(3))
    loader = TrainLoader(items, DrawSampler(items), batch_size=8)
    assert len(loader) == 1


class Marked(Dataset):
    """Leaves a file for every item that is read."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 5

    def __getitem__(self, draw):
        (self.folder / f"{draw.epoch}-{draw.item}").touch()
        return torch.tensor([draw.epoch, draw.item])


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_follow_each_other(tmp_path, workers):
    """Whole batches of each, in its order; epochs may be cut short, left out and repeated."""
    data = Marked(tmp_path)
    sampler = DrawSampler(data, seed=3)
    loader, orders = TrainLoader(data, sampler, batch_size=2, num_workers=workers), []
    for epoch in range(4):
        plain = DrawSampler(data, seed=3)
        plain.set_epoch(epoch)
        orders.append([[draw.epoch, draw.item] for draw in plain][:4])
    processes = set()
    for epoch, batches in ((0, 2), (1, 2), (2, 1), (3, 2), (1, 2), (2, 2)):
        sampler.set_epoch(epoch)
        seen = torch.cat(list(islice(loader, batches))).tolist()
        assert seen == orders[epoch][: 2 * batches]
        if workers:
            processes.add(tuple(worker.pid for worker in loader._iterator._workers))
    assert len(processes) == (1 if workers else 0), "workers live as long as the loader"


def test_workers_read_the_next_epoch_while_one_is_trained_on(tmp_path):
    sampler = DrawSampler(Marked(tmp_path), seed=3)
    loader = TrainLoader(sampler.dataset, sampler, batch_size=2, num_workers=1)
    batches = iter(loader)
    next(batches)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("1-*")):
        assert time.monotonic() < deadline, "the second epoch is not read before the first has ended"
        time.sleep(0.01)


def test_every_split_of_a_layout_is_read_by_its_list(tmp_path):
    realblur(tmp_path)
    for split in ("train", "test"):
        lines = (tmp_path / f"RealBlur_J_{split}_list.txt").read_text().splitlines()
        (tmp_path / f"first_{split}.txt").write_text(lines[0])
    options = {"crop": 4, "augment": False, "num_workers": 0, "batch_size": 1}
    for choice, count in (({}, 2), ({"list_file": "first_{split}.txt", "val_split": "test"}, 1)):
        module = PairedDataModule(tmp_path, "realblur", **options, **choice)
        module.setup("fit")
        module.setup("test")
        loaders = module.train_dataloader(), module.val_dataloader(), module.test_dataloader()
        assert [len(loader) for loader in loaders] == [count] * 3
        scenes = [{name.split("/")[1] for batch in loader for name in batch["name"]} for loader in loaders]
        assert scenes == [{"scene001"}, {"scene230"}, {"scene230"}]


def test_bad_numbers():
    with pytest.raises(ArgumentError, match="`batch_size` must be at least 1"):
        data(batch_size=0)


def test_a_nan_loss_stops_before_the_weights_are_touched(tmp_path):
    module = task()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.network.register_forward_hook(lambda network, inputs, output: output * float("nan"))
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[FiniteLoss()], default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"the loss is nan in epoch 0, step 0; files of the batch: \w+/\d, \w+/\d;"):
        trainer.fit(module, data())
    assert torch.equal(module.network.enter.weight, before["network.enter.weight"])


def test_every_module_of_image_files_keeps_what_it_decodes(tmp_path):
    for folder in ("train/blur", "train/sharp", "val/blur", "val/sharp", "trainA", "trainB", "testA"):
        for index in range(1 if folder == "trainB" else 3):
            write_image(torch.rand(3, 20, 24), tmp_path / folder / f"{index}.png")
    options = {"crop": 8, "num_workers": 2, "batch_size": 1}
    modules = {
        "paired": lambda **more: PairedDataModule(tmp_path, **options, **more),
        "unpaired": lambda **more: UnpairedDataModule(tmp_path, **options, **more),
        "video": lambda **more: VideoDataModule(tmp_path / "trainA", **options, **more),
        "synthetic": lambda **more: SyntheticBlurDataModule(tmp_path / "trainA", **options, **more),
    }
    files = {"paired": 12, "unpaired": 7, "video": 3, "synthetic": 3}
    for name, make in modules.items():
        batches = []
        for more in ({}, {"cache": tmp_path / name}, {"cache": str(tmp_path / name)}):
            module = make(**more)
            module.setup("fit")
            loaders = (module.train_dataloader(), module.val_dataloader())
            read = [module.on_after_batch_transfer(batch, 0) for loader in loaders for batch in loader]
            batches.append(read)
        assert len(list((tmp_path / name).iterdir())) == files[name]
        for ours, kept, again in zip(*batches, strict=True):
            for key in ("blurry", "sharp") if "sharp" in ours else ("blurry",):
                assert torch.equal(ours[key], kept[key])
                assert torch.equal(ours[key], again[key])
