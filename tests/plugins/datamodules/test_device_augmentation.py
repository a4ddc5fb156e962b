"""Augmentation of whole batches on their device."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
from kornia import augmentation as K
from torch import nn

from reblurkit.data.sampling import seeded
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.plugins import DeblurTask, PairedDataModule
from tests.data.test_paired import save
from tests.plugins.datamodules import test_synthetic
from tests.plugins.datamodules.test_folders import data, task


def flips_and_colours():
    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(20.0, p=0.7),
        K.ColorJiggle(0.2, 0.2, 0.2, 0.1, p=0.8),
        data_keys=["input", "input"],
    )


class Noise(nn.Module):
    """Draws on the images' device; a buffer shows that the module is moved there."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.tensor(0.01))

    def forward(self, blurry, sharp):
        return blurry + self.level * torch.randn_like(blurry), sharp


class Recorder(test_synthetic.Recorder):
    """Also draws from the global random numbers."""

    def __init__(self, stop_after=None, path=None):
        super().__init__(stop_after, path)
        self.drawn = []

    def on_train_batch_end(self, *arguments):
        self.drawn.append(torch.rand(()).item())
        super().on_train_batch_end(*arguments)


def fit(tmp_path, recorder, augmentation=None, module=None, ckpt_path=None, **flags):
    module = module or task()
    trainer = test_synthetic.trainer(tmp_path, recorder, **flags)
    torch.manual_seed(5)
    trainer.fit(module, data(device_augmentation=augmentation), ckpt_path=ckpt_path, weights_only=True)
    return module


def test_a_run_resumed_in_mid_epoch_is_bit_equal(tmp_path):
    whole, cut, rest = Recorder(), Recorder(3, tmp_path / "cut.ckpt"), Recorder()
    expected = fit(tmp_path, whole, flips_and_colours())
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, cut, flips_and_colours())
    resumed = fit(tmp_path, rest, flips_and_colours(), ckpt_path=tmp_path / "cut.ckpt")
    assert len(cut.batches) == 3
    for one, other in zip(cut.batches + rest.batches, whole.batches, strict=True):
        assert one["name"] == other["name"]
        assert torch.equal(one["blurry"], other["blurry"])
        assert torch.equal(one["sharp"], other["sharp"])
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_epochs_differ_unless_they_are_overfitted(tmp_path):
    plain, augmented, again = Recorder(), Recorder(), Recorder()
    fit(tmp_path, plain)
    fit(tmp_path, augmented, Noise())
    noise = [a["blurry"] - p["blurry"] for a, p in zip(augmented.batches, plain.batches, strict=True)]
    assert all(0.005 < part.std() < 0.015 for part in noise)
    assert all(torch.equal(a["sharp"], p["sharp"]) for a, p in zip(augmented.batches, plain.batches, strict=True))
    assert len({part.flatten()[0].item() for part in noise}) == len(noise) == 12
    fit(tmp_path, again, Noise(), overfit_batches=2)
    assert [batch["name"] for batch in again.batches[:2]] == [batch["name"] for batch in again.batches[2:]]
    assert torch.equal(again.batches[0]["blurry"], again.batches[2]["blurry"])


def test_the_users_random_numbers_go_on_as_without(tmp_path):
    plain, augmented = Recorder(), Recorder()
    fit(tmp_path, plain)
    fit(tmp_path, augmented, flips_and_colours())
    assert plain.drawn == augmented.drawn


def test_validation_is_untouched(tmp_path):
    plain, augmented = Recorder(), Recorder()
    for recorder, augmentation in ((plain, None), (augmented, flips_and_colours())):
        fit(tmp_path, recorder, augmentation, max_epochs=1, limit_val_batches=2, num_sanity_val_steps=1)
    assert len(plain.validated) == len(augmented.validated) >= 2
    for one, other in zip(plain.validated, augmented.validated, strict=True):
        assert torch.equal(one["blurry"], other["blurry"])
    assert not torch.equal(plain.batches[0]["sharp"], augmented.batches[0]["sharp"])


def test_pairs_stay_identical(tmp_path):
    """A file paired with its copy stays its copy, while the items of a batch are augmented differently."""
    for kind in ("blur", "sharp"):
        for number in range(4):
            save(tmp_path / "train" / kind / f"{number}.png", (24, 24))
    recorder = Recorder()
    module = PairedDataModule(
        tmp_path, batch_size=4, crop=24, augment=False, device_augmentation=flips_and_colours(), num_workers=0
    )
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[recorder], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task(), module)
    (batch,) = recorder.batches
    assert torch.equal(batch["blurry"], batch["sharp"])
    # The four files are the same picture.
    assert all(not torch.equal(batch["sharp"][0], other) for other in batch["sharp"][1:])


class Hooked(DeblurTask):
    """A user's module with the hook that the augmentation works in."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.called = True
        return batch


def test_without_augmentation_the_users_hook_is_called(tmp_path):
    module = Hooked(task().network)
    fit(tmp_path, Recorder(), module=module, max_epochs=1, limit_train_batches=1)
    assert module.called


@pytest.mark.parametrize("wrong", [lambda blurry, sharp: (blurry, sharp[..., :8]), lambda blurry, sharp: (sharp,)])
def test_a_wrong_augmentation_is_told(tmp_path, wrong):
    with pytest.raises(ShapeError, match=r"`device_augmentation` must return .* but returned \(2, 3, 16, 16\)"):
        fit(tmp_path, Recorder(), wrong, max_epochs=1)


@pytest.mark.parametrize(
    "wrong", [K.RandomHorizontalFlip(), K.AugmentationSequential(K.RandomHorizontalFlip(), data_keys=["input"])]
)
def test_kornias_own_errors_are_explained(tmp_path, wrong):
    with pytest.raises(ArgumentError, match=r"called with two tensors, .*data_keys=\[\"input\", \"input\"\]"):
        fit(tmp_path, Recorder(), wrong, max_epochs=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(tmp_path):
    """The random numbers of a GPU are forked and seeded as well."""
    device = torch.device("cuda")
    before = torch.cuda.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded((1, 2), device):
            draws.append(torch.rand(3, device=device))
    assert torch.equal(*draws)
    assert torch.equal(before, torch.cuda.get_rng_state())
    whole, cut, rest = Recorder(), Recorder(3, tmp_path / "cut.ckpt"), Recorder()
    fit(tmp_path, whole, Noise(), accelerator="gpu", devices=1)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, cut, Noise(), accelerator="gpu", devices=1)
    fit(tmp_path, rest, Noise(), ckpt_path=tmp_path / "cut.ckpt", accelerator="gpu", devices=1)
    assert rest.batches[0]["blurry"].is_cuda
    for one, other in zip(cut.batches + rest.batches, whole.batches, strict=True):
        assert torch.equal(one["blurry"], other["blurry"])


@pytest.mark.parametrize(
    "returned", [None, [None, None], {"blurry": 1, "sharp": 2}, [torch.rand(2, 1, 8, 8)] * 2, "ab"]
)
def test_what_is_no_pair_of_images_is_told(tmp_path, returned):
    with pytest.raises(ShapeError, match="`device_augmentation` must return the blurry and the sharp images"):
        fit(tmp_path, Recorder(), lambda blurry, sharp: returned)


def test_an_augmentation_by_name_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="`device_augmentation` must be a module or function, but is 'flip'"):
        PairedDataModule(tmp_path, device_augmentation="flip")
