"""The callback against the pure function."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

from reblurkit import AdaptToBlurCallback, TestTimeAdaptCallback
from reblurkit.adaptation import adapt_to_blur
from reblurkit.errors import ArgumentError, PluginError, ShapeError
from reblurkit.metrics import PSNR
from tests.blur.test_kernel_estimate import blurred, kernel_of, scene
from tests.conftest import MultiScaleNet, PlainNet
from tests.plugins.callbacks.test_adaptation import Module

OPTIONS = {"steps": 1, "kernel_size": 9, "lr": 1e-3, "least_agreement": 0.0, "least_explained": 0.0}


@pytest.fixture(scope="module")
def pairs():
    """Three shaken photos."""
    sharp = torch.cat([scene(seed=seed, side=96, shapes=60) for seed in range(3)])
    return [{"blurry": blurred(photo[None], kernel_of(7, 1))[0], "sharp": photo} for photo in sharp]


def run(tmp_path, module, pairs, callback=None, entry="test", **flags):
    """What the step got of each photo, and the metrics."""
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else [],
        **flags,
    )
    module.seen = []
    getattr(trainer, entry)(module, DataLoader(pairs, batch_size=2))
    return torch.cat(module.seen), trainer.callback_metrics


@pytest.mark.parametrize("network", [PlainNet, MultiScaleNet])
@pytest.mark.parametrize("entry", ["test", "validate", "predict"])
def test_every_photo_is_adapted_to_in_every_entry_point(tmp_path, pairs, entry, network):
    module, callback = Module(network()), AdaptToBlurCallback(**OPTIONS)
    module.eval()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    wanted = torch.cat([adapt_to_blur(module.network, pair["blurry"][None], **OPTIONS).image for pair in pairs])
    plain, _ = run(tmp_path, module, pairs, entry=entry)
    images, _ = run(tmp_path, module, pairs, callback, entry)
    assert torch.equal(images, wanted)
    assert not torch.equal(images, plain)
    assert [change.adapted for change in callback.history] == [True] * 3
    assert torch.equal(run(tmp_path, module, pairs, entry=entry)[0], plain)
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_plain_and_adapted_images_are_measured(tmp_path, pairs):
    module = Module()
    images, logged = run(tmp_path, module, pairs, AdaptToBlurCallback(metrics=PSNR(), **OPTIONS))
    plain, _ = run(tmp_path, module, pairs)
    for which, made in {"plain": plain, "adapted": images}.items():
        metric = PSNR()
        metric.update(made.clamp(0, 1), torch.stack([pair["sharp"] for pair in pairs]))
        torch.testing.assert_close(logged[f"test/psnr_{which}"], metric.compute().float())


def test_where_no_blur_is_found_the_networks_own_output_stays(tmp_path, pairs):
    module, callback = Module(), AdaptToBlurCallback(steps=1, kernel_size=9, least_agreement=1.0)
    plain, _ = run(tmp_path, module, pairs)
    with pytest.warns(UserWarning, match="adapted to none of 3 photos"):
        images, _ = run(tmp_path, module, pairs, callback)
    assert torch.equal(images, plain)
    assert [change.adapted for change in callback.history] == [False] * 3


def test_it_does_nothing_inside_fit(tmp_path, pairs):
    callback = AdaptToBlurCallback(**OPTIONS)
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, callbacks=[callback], logger=False, max_steps=1, barebones=False
    )
    trainer.fit(Module(), DataLoader(pairs[:1]), DataLoader(pairs[:1]))
    assert callback.history == []


def test_mistakes_are_told(tmp_path, pairs):
    with pytest.raises(ArgumentError, match="`steps`"):
        AdaptToBlurCallback(steps=0)
    with pytest.raises(ArgumentError, match="`kernel_size`"):
        AdaptToBlurCallback(kernel_size=8)
    with pytest.raises(PluginError, match="deblurrer"):
        run(tmp_path, Module(), pairs, AdaptToBlurCallback("deblurrer", **OPTIONS))

    class Twice(Module):
        def step(self, batch):
            return self.network(batch["blurry"], batch["blurry"])

    with pytest.raises(PluginError, match="called with 2 positional and 0 keyword"):
        run(tmp_path, Twice(), pairs, AdaptToBlurCallback(**OPTIONS))

    class Idle(Module):
        def step(self, batch):
            return batch["blurry"]

    with pytest.raises(PluginError, match=r"nothing was adapted: Idle\.test_step never called"):
        run(tmp_path, Idle(), pairs, AdaptToBlurCallback(**OPTIONS))


def test_two_ways_to_adapt_one_network_are_refused(tmp_path, pairs):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, callbacks=[TestTimeAdaptCallback(), AdaptToBlurCallback(**OPTIONS)]
    )
    with pytest.raises(PluginError, match="two callbacks adapt the network at 'network'"):
        trainer.test(Module(), DataLoader(pairs), verbose=False)


def test_a_network_that_writes_into_its_input_adapts_to_the_photo_itself(tmp_path, pairs):
    class WritesIntoInput(PlainNet):
        def forward(self, image):
            return super().forward(image.mul_(0.5).add_(0.25))

    module = Module(WritesIntoInput())
    wanted = adapt_to_blur(module.network, pairs[0]["blurry"][None].clone(), **OPTIONS).image
    images, _ = run(tmp_path, module, pairs[:1], AdaptToBlurCallback(**OPTIONS))
    assert torch.equal(images, wanted)


def test_images_that_the_steps_ruin_are_told_and_counted(tmp_path, pairs):
    module, callback = Module(), AdaptToBlurCallback(**OPTIONS | {"lr": 1e30})
    plain, _ = run(tmp_path, module, pairs)
    with pytest.warns(UserWarning, match="the image of photo 0 became NaN or infinite") as warned:
        images, _ = run(tmp_path, module, pairs, callback)
    assert torch.equal(images, plain)
    assert callback.failures == 3
    assert not [each for each in warned if "adapted to none" in str(each.message)]


@pytest.mark.parametrize(
    ("photo", "error", "message"),
    [
        (torch.rand(1, 64, 64), ShapeError, "needs RGB photos"),
        (torch.rand(2, 3, 64, 64), ShapeError, "batch of images"),
        (torch.full((3, 64, 64), torch.nan), ArgumentError, "finite"),
        (255 * torch.rand(3, 64, 64), ArgumentError, r"\[0, 1\]"),
    ],
)
def test_small_images_are_checked_like_others(tmp_path, photo, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, Module(), [{"blurry": photo, "sharp": photo}], AdaptToBlurCallback(**OPTIONS))


def test_photos_that_are_too_small_are_told_and_counted_and_the_others_adapted_to(tmp_path, pairs):
    pairs = [pairs[0], {"blurry": torch.rand(3, 70, 96), "sharp": torch.rand(3, 70, 96)}]
    module, callback = Module(), AdaptToBlurCallback(**OPTIONS)
    wanted = adapt_to_blur(module.network, pairs[0]["blurry"][None], **OPTIONS).image
    trainer = L.Trainer(
        accelerator="cpu", logger=False, barebones=False, callbacks=[callback], default_root_dir=tmp_path
    )
    module.seen = []
    with pytest.warns(UserWarning, match="photos of 70 x 96 pixels stay as the network makes them.* 80 pixels a side"):
        trainer.test(module, DataLoader(pairs))
    assert torch.equal(module.seen[0], wanted)
    assert torch.equal(module.seen[1], module.network(pairs[1]["blurry"][None]))
    assert callback.too_small == 1
    assert [change.adapted for change in callback.history] == [True, False]


def test_two_callbacks_do_not_disturb_each_other(tmp_path, pairs):
    def run_both(module, first, second):
        trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[first, second])
        trainer.test(module, DataLoader(pairs[:1]), verbose=False)

    module = Module(torch.nn.Sequential(PlainNet(), PlainNet()))
    for paths in (("network", "network.0"), ("network.0", "network")):
        with pytest.raises(PluginError, match="or a part of it"):
            run_both(module, *(AdaptToBlurCallback(path, **OPTIONS) for path in paths))
    both = [AdaptToBlurCallback(f"network.{index}", metrics=PSNR(), **OPTIONS) for index in range(2)]
    with pytest.raises(PluginError, match="give `metrics` to one of them"):
        run_both(module, *both)
    for callback in both[1:]:
        callback.metrics = None
    run_both(module, *both)
    assert [len(callback.history) for callback in both] == [1, 1]


def test_networks_that_cannot_adapt_are_told_before_the_first_photo(tmp_path, pairs):
    with pytest.raises(ArgumentError, match="no parameters"):
        run(tmp_path, Module(torch.nn.Identity()), pairs, AdaptToBlurCallback(**OPTIONS))
    for wrong in ({"lr": 1e300}, {"tile": "auto"}, {"tile": 0}):
        with pytest.raises(ArgumentError, match=f"`{next(iter(wrong))}`"):
            AdaptToBlurCallback(**wrong)
