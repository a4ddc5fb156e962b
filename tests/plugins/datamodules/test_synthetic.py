"""Training on sharp photos alone: which photos, the same pairs however they are loaded, and resuming."""

from __future__ import annotations

import warnings

import lightning.pytorch as L
import pytest
import torch

from reblurkit.blur import CameraNoise, MotionBlur, ShakeBlur
from reblurkit.errors import ArgumentError, DatasetNotFoundError
from reblurkit.models import UNet
from reblurkit.plugins import DeblurTask, SyntheticBlurDataModule
from tests.data.test_cache import photo


@pytest.fixture
def root(tmp_path):
    for seed in range(5):
        photo(tmp_path / "photos" / f"{seed}.png", seed, size=(32, 36))
    return tmp_path / "photos"


def data(root, **options):
    options = {
        "blur": [MotionBlur(largest=3), ShakeBlur(5, 0.5, linear=False)],
        "noise": CameraNoise(jpeg_share=0.5),
        "sharp_share": 0.2,
        "soft_share": 0.3,
        "batch_size": 3,
        "crop": 16,
        "crops_per_photo": 3,
        "num_workers": 0,
        "seed": 1,
    } | options
    return SyntheticBlurDataModule(root, **options)


class Recorder(L.Callback):
    """Keeps all batches, and stops like a power cut after a step."""

    def __init__(self, stop_after=None, path=None):
        self.batches, self.validated, self.stop_after, self.path = [], [], stop_after, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(batch)
        if trainer.global_step == self.stop_after:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("power cut")

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.validated.append(batch)

    def pairs(self):
        """All pairs of training by epoch, counted by the batches, and name."""
        return [
            (name, blurry, sharp)
            for batch in self.batches
            for name, blurry, sharp in zip(batch["name"], batch["blurry"], batch["sharp"], strict=True)
        ]


def trainer(root, recorder, **flags):
    flags = {"max_epochs": 2, "limit_val_batches": 0, "accelerator": "cpu"} | flags
    return L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
        default_root_dir=root,
        **flags,
    )


def fit(root, recorder, module=None, ckpt_path=None, **flags):
    torch.manual_seed(0)
    task = DeblurTask(UNet(1, (4, 4, 4)))
    trainer(root, recorder, **flags).fit(task, module or data(root), ckpt_path=ckpt_path, weights_only=True)
    return task


def assert_same(ours, expected):
    assert [name for name, *_ in ours] == [name for name, *_ in expected]
    for one, other in zip(ours, expected, strict=True):
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])


@pytest.mark.parametrize("workers", [0, 4])
def test_a_run_resumed_in_mid_epoch_is_bit_equal(tmp_path, root, workers):
    options = {"num_workers": workers, "cache": tmp_path / "cache"}
    whole, cut, rest = Recorder(), Recorder(6, tmp_path / "cut.ckpt"), Recorder()
    expected = fit(root, whole, data(root))  # without workers, without a cache
    with pytest.raises(RuntimeError, match="power cut"):
        fit(root, cut, data(root, **options))
    resumed = fit(root, rest, data(root, **options), ckpt_path=tmp_path / "cut.ckpt")
    assert len(whole.batches) == 8
    assert len(cut.batches) == 6
    assert_same(cut.pairs() + rest.pairs(), whole.pairs())
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


def test_a_pair_is_the_same_in_batches_of_any_size(root):
    one, many = Recorder(), Recorder()
    fit(root, one, data(root, batch_size=1), max_epochs=1)
    fit(root, many, data(root, batch_size=6), max_epochs=1)
    singles = {name: (name, blurry, sharp) for name, blurry, sharp in one.pairs()}
    assert len(singles) == 12
    assert_same([singles[name] for name, *_ in many.pairs()], many.pairs())


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_is_on_held_out_photos_whose_blur_never_changes(root, workers):
    recorder = Recorder()
    fit(root, recorder, data(root, num_workers=workers), limit_val_batches=1.0, num_sanity_val_steps=0)
    assert {name.split("/")[0] for name, *_ in recorder.pairs()} == {"1", "2", "3", "4"}
    assert [batch["name"] for batch in recorder.validated] == [["0"], ["0"]]
    first, second = recorder.validated
    assert first["blurry"].shape == (1, 3, 32, 36)
    assert torch.equal(first["blurry"], second["blurry"])
    tested = Recorder()
    tested.on_test_batch_end = tested.on_validation_batch_end
    trainer(root, tested).test(DeblurTask(UNet(1, (4, 4, 4))), data(root, num_workers=workers), verbose=False)
    assert torch.equal(tested.validated[0]["blurry"], first["blurry"])


def test_folders_of_their_own(tmp_path, root):
    photo(tmp_path / "val" / "v.png", 8)
    photo(tmp_path / "test" / "t.png", 9)
    with pytest.raises(DatasetNotFoundError, match=r"on \(no folder \S*vall\): do without by `limit_val_batches` 0$"):
        data(root, val_root=tmp_path / "vall").setup("fit")
    module = data(root, val_root=tmp_path / "val", test_root=tmp_path / "test")
    recorder = Recorder()
    fit(root, recorder, module, max_epochs=1, limit_val_batches=1.0)
    assert {name.split("/")[0] for name, *_ in recorder.pairs()} == {"0", "1", "2", "3", "4"}
    assert recorder.validated[-1]["name"] == ["v"]
    predicted = trainer(root, Recorder()).predict(DeblurTask(UNet(1, (4, 4, 4))), module)
    assert [(item["name"], item["deblurred"].shape) for item in predicted] == [(["t"], (1, 3, 24, 30))]
    module.setup("test")
    assert [batch.names for batch in module.test_dataloader()] == [["t"]]


def test_overfitting_repeats_the_same_batches(root):
    recorder = Recorder()
    fit(root, recorder, overfit_batches=2)
    assert_same(recorder.pairs()[:6], recorder.pairs()[6:])


def test_noise_may_be_left_out(root):
    plain, noisy = Recorder(), Recorder()
    fit(root, plain, data(root, noise=False), max_epochs=1)
    fit(root, noisy, data(root, noise=True), max_epochs=1)
    assert [name for name, *_ in plain.pairs()] == [name for name, *_ in noisy.pairs()]
    blurry = torch.cat([batch["blurry"] for batch in plain.batches]) * 255
    assert ((blurry - blurry.round()).abs() > 0.01).any()


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_precision_of_the_trainer_changes_the_images_alone(root, precision, dtype):
    """Not the draws: a kernel in half precision would not sum to 1."""
    single, other = Recorder(), Recorder()
    fit(root, single, max_epochs=1)
    fit(root, other, max_epochs=1, precision=precision)
    for ours, expected in zip(other.batches, single.batches, strict=True):
        assert ours["blurry"].dtype == dtype
        assert torch.equal(ours["blurry"], expected["blurry"].to(dtype))


def test_bad_arguments(tmp_path, root):
    photo(tmp_path / "alone" / "a.png")
    module = data(tmp_path / "alone")
    with pytest.raises(DatasetNotFoundError, match=r"one photo in .* cannot both train and validate: add photos, or"):
        module.setup("fit")
    for blur in ([], MotionBlur()):
        with pytest.raises(ArgumentError, match="`blur` must be a list of random blurs"):
            data(root, blur=blur)


def test_blurs_that_no_photo_is_measured_with_are_told_of(root):
    with pytest.warns(UserWarning, match="1 photo to measure on: 1 of 2 blurs are not seen there; name a `val_root`"):
        data(root).dataset("val")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(root, val_root=root).dataset("val")
