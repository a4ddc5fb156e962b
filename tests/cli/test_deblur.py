"""``reblurkit deblur``, as a user meets it: files and folders in, files out, one line when it fails."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageCms
from skimage.data import astronaut, chelsea
from tifffile import imwrite

import reblurkit.cli.deblur
import reblurkit.inference
from reblurkit import Blur2BlurTranslator, ReblurLossMixin
from reblurkit.adaptation import AdaptToBlurOptions, adapt, adapt_to_blur
from reblurkit.blur import make_consistent
from reblurkit.cli import main
from reblurkit.cli.adaptation_lines import adaptation_line
from reblurkit.cli.deblur import deblur_files
from reblurkit.core.file_locks import claimed
from reblurkit.data import read_image, write_image
from reblurkit.data.frames import FrameFiles
from reblurkit.data.images import ImageKind, image_kind
from reblurkit.errors import ArgumentError
from reblurkit.inference import AdaptationChange, BlurAdaptationChange, Deblurrer
from reblurkit.models import DBN, FullSize, MultiScale, ReblurNet, UNet, create_model, load_pretrained
from reblurkit.plugins import DeblurTask, load_networks
from tests.blur.test_kernel_estimate import blurred, kernel_of, scene
from tests.data.test_video import encoded

SMALL = {"blocks": 1, "widths": [4, 4, 4]}
UNET = ("--model", "unet", "--network-args", '{"blocks": 1, "widths": [4, 4, 4]}', "--weights", "unet.pt")
OWN = """
import torch
from torch import nn


class NotANumber(nn.Module):
    def forward(self, image):
        return image * float("nan") if image.shape[-1] == 30 else image


class Even(nn.Module):
    def forward(self, image):
        return nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(image, 2), 2)


class Lost(nn.Module):
    def forward(self, image):
        return {}["image"]


class Levels(nn.Module):
    def forward(self, image):
        return (255 * image).to(torch.uint8)


class Twice(nn.Module):
    def forward(self, image):
        return torch.cat([image, image])


class Unbuilt(nn.Module):
    def __init__(self):
        raise ValueError("no width")


class Hungry(nn.Module):
    def forward(self, image):
        raise torch.OutOfMemoryError("CUDA out of memory.")


class Starving(nn.Module):
    def forward(self, image):
        return torch.empty(1 << 50)
"""


def photo(path, size=(33, 41), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(astronaut()[100 : 100 + size[0], 100 : 100 + size[1]]).save(path, **options)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "owned", raising=False)
    (tmp_path / "owned.py").write_text(OWN)
    photo(tmp_path / "photos" / "a.png")
    photo(tmp_path / "photos" / "deep" / "b.jpg", (20, 30))
    torch.save(network().state_dict(), "unet.pt")
    return tmp_path


def network():
    torch.manual_seed(3)
    return UNet(**SMALL).eval()


def deblur(*words, inputs=("photos",), output="out", by=UNET):
    return main(["deblur", *inputs, "--output", output, *by, "--device", "cpu", *words])


def fails(capsys, *words, **options):
    capsys.readouterr()
    assert deblur(*words, **options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "reblurkit: error: " in line]
    return line


def written(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def levels(image):
    """As an 8-bit file keeps it."""
    return (image.clamp(0, 1) * 255).round() / 255


def checkpoint(folder, module, **model):
    """A run's checkpoint and configuration."""
    folder.mkdir()
    torch.save({"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.0"}, folder / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    return str(folder / "last.ckpt")


def reblur_run(work):
    """A network with its reblurring network."""
    task = DeblurTask(network(), ReblurNet(width=4)).eval()
    options = {
        "network": {"class_path": "UNet", "init_args": SMALL},
        "reblur_net": {"class_path": "ReblurNet", "init_args": {"width": 4}},
    }
    return task, checkpoint(work / "run", task, class_path="DeblurTask", init_args=options)


def test_images_of_a_folder_keep_their_place_and_equal_the_networks_output(work, capsys):
    assert deblur() == 0
    assert written(work / "out") == ["a.png", "deep/b.png"]
    for source, target in {"a.png": "a.png", "deep/b.jpg": "deep/b.png"}.items():
        blurry = read_image(work / "photos" / source)[None]
        with torch.no_grad():
            expected = levels(FullSize(network())(blurry)[0])
        torch.testing.assert_close(read_image(work / "out" / target), expected, rtol=0, atol=1e-6)
    assert "reblurkit: images deblurred: 2; folder: out" in capsys.readouterr().err


def test_single_files_go_right_into_the_folder_and_an_input_given_twice_is_one(work):
    assert deblur(inputs=["photos/deep/b.jpg", "photos/a.png", "photos/a.png"]) == 0
    assert written(work / "out") == ["a.png", "b.png"]


def test_tiles_are_those_of_full_size(work):
    photo(work / "large.png", (96, 150))
    assert deblur("--tile", "64", inputs=["large.png"]) == 0
    with torch.no_grad():
        expected = FullSize(network(), tile=64)(read_image(work / "large.png")[None])[0]
    torch.testing.assert_close(read_image(work / "out" / "large.png"), levels(expected), rtol=0, atol=1e-6)


def test_16_bits_orientation_and_colour_profile_survive(work):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), dtype=np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (work / "kinds").mkdir()
    imwrite(work / "kinds" / "deep.tif", deep, photometric="rgb", iccprofile=profile)
    photo(work / "kinds" / "profile.png", icc_profile=profile)
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    photo(work / "kinds" / "phone.jpg", exif=exif)
    assert deblur(inputs=["kinds"], by=("--network", "torch.nn.Identity")) == 0
    out = work / "out"
    torch.testing.assert_close(read_image(out / "deep.png"), read_image(work / "kinds" / "deep.tif"), rtol=0, atol=0)
    assert image_kind(out / "deep.png")[:2] == (16, profile)
    assert image_kind(out / "profile.png") == ImageKind(8, profile)
    assert Image.open(out / "deep.png").info["icc_profile"] == profile
    assert image_kind(out / "phone.png") == ImageKind()
    assert read_image(out / "phone.png").shape == (3, 41, 33)
    torch.testing.assert_close(read_image(out / "phone.png"), read_image(work / "kinds" / "phone.jpg"))


@pytest.mark.parametrize("tile", [None, 64])
def test_adaptation_is_that_of_the_library_for_every_image(work, tile):
    task, path = reblur_run(work)
    words = ["--adapt", "2", "--adapt-lr", "0.01", *(("--tile", str(tile)) if tile else ())]
    photo(work / "photos" / "a.png", (70, 66))
    assert deblur(*words, by=("--checkpoint", path)) == 0
    for source, target in {"a.png": "a.png", "deep/b.jpg": "deep/b.png"}.items():
        blurry = read_image(work / "photos" / source)[None]
        full_size = FullSize(task.network, tile=tile).eval()
        adapted = adapt(full_size, FullSize(task.reblur), blurry, steps=2, lr=0.01, tile=tile)
        assert (adapted.image - adapted.plain).abs().max() > 0.01
        result = read_image(work / "out" / target)
        torch.testing.assert_close(result, levels(adapted.image[0]), rtol=0, atol=1.1 / 255)


class Foreign(ReblurLossMixin, L.LightningModule):
    """A user's own module, with a network at a path of its own."""

    def __init__(self):
        super().__init__()
        self.deblurrer = network()
        self.configure_reblur(ReblurNet(blocks=2, width=4), network="deblurrer")


def test_the_checkpoint_of_any_module_brings_its_reblurring_network(work, capsys):
    module = Foreign()
    torch.save({"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.0"}, "own.ckpt")
    by = ("--network", "reblurkit.models.UNet", "--network-args", '{"blocks": 1, "widths": [4, 4, 4]}')
    words = ("--adapt", "2", "--adapt-lr", "0.01")
    assert deblur(*words, inputs=["photos/a.png"], by=(*by, "--weights", "own.ckpt")) == 0
    blurry = read_image(work / "photos" / "a.png")[None]
    adapted = adapt(FullSize(module.deblurrer).eval(), FullSize(module.reblur), blurry, steps=2, lr=0.01)
    assert (adapted.image - adapted.plain).abs().max() > 0.01
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(adapted.image[0]), rtol=0, atol=1.1 / 255)
    line = fails(capsys, *words, by=(*by, "--weights", "unet.pt"), output="out2")
    assert "or --network and as --weights the checkpoint of a module with ReblurLossMixin" in line


def test_averaged_weights_are_named(work, capsys):
    averaged = network()
    raw = {name: torch.zeros_like(value) for name, value in averaged.state_dict().items()}
    torch.save({"ema": averaged.state_dict(), "model": raw}, "both.pt")
    assert deblur(by=(*UNET[:-1], "both.pt")) == 0
    assert "reblurkit: both.pt: the weights 'ema' were taken, not model" in capsys.readouterr().err
    with torch.no_grad():
        expected = FullSize(averaged)(read_image(work / "photos" / "a.png")[None])[0]
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(expected), rtol=0, atol=1e-6)


def test_checkpoints_of_compiled_networks_and_with_slashes_in_their_names(work):
    task, path = reblur_run(work)
    saved = torch.load(path, weights_only=True)
    compiled = {name.replace("network.", "network._orig_mod."): value for name, value in saved["state_dict"].items()}
    assert set(compiled) != set(saved["state_dict"])
    (work / "run" / "checkpoints" / "epoch=1" / "val").mkdir(parents=True)
    deep = str(work / "run" / "checkpoints" / "epoch=1" / "val" / "psnr=30.ckpt")
    torch.save(saved | {"state_dict": compiled}, deep)
    assert deblur(by=("--checkpoint", deep)) == 0
    with torch.no_grad():
        expected = FullSize(task.network)(read_image(work / "photos" / "a.png")[None])[0]
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(expected), rtol=0, atol=1e-6)


def test_adaptation_says_what_it_did_to_each_image(work, capsys):
    task, path = reblur_run(work)
    assert deblur("--adapt", "2", "--adapt-lr", "0.01", by=("--checkpoint", path)) == 0
    lines = capsys.readouterr().err.splitlines()
    for name in ("photos/a.png", "photos/deep/b.jpg"):
        blurry = read_image(work / name)[None]
        adapted = adapt(FullSize(task.network), FullSize(task.reblur), blurry, steps=2, lr=0.01)
        change = 255 * (adapted.image.clamp(0, 1) - adapted.plain.clamp(0, 1)).abs().mean()
        before, after = adapted.losses[0, 0], adapted.losses[0, -1]
        line = f"reblurkit: {name}: self-reblur loss {before:.5f} before, {after:.5f} after adaptation; mean change "
        assert any(each.startswith(f"{line}{change:.2f} grey levels") for each in lines), lines
    # this reblurring network was never trained
    assert sum("the reblurring network makes another image of it" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("change", "poor"),
    [
        (AdaptationChange(0.026, 0.02, 1.0, 0.0483), False),
        (AdaptationChange(0.0094, 0.009, 1.0, 0.001), False),  # a photo that is sharp already
        (AdaptationChange(0.07, 0.06, 1.0, 0.012), True),
        (AdaptationChange(0.07, 0.06, 1.0, 0.05), False),
        (AdaptationChange(0.2, 0.06, 1.0, 0.15), True),
    ],
)
def test_a_reblurring_network_that_makes_another_image_is_told(change, poor):
    assert ("has learned too little" in adaptation_line(change)) == poor


def test_what_a_network_changes_is_measured(work):
    task, _ = reblur_run(work)
    blurry = read_image(work / "photos" / "a.png")[None]
    deblurrer = Deblurrer(task.network, reblur_net=task.reblur, steps=1, lr=0.01, device="cpu")
    deblurrer(blurry)
    with torch.no_grad():
        plain = FullSize(task.network)(blurry).clamp(0, 1)
    assert deblurrer.changes[0].deblurred == pytest.approx(float((plain - blurry).abs().mean()), rel=1e-5)


def test_a_poor_reblurring_network_is_told_by_what_its_checkpoint_says(work, capsys):
    _, path = reblur_run(work)
    assert deblur("--adapt", "1", by=("--checkpoint", path)) == 0
    assert "in its validation" not in capsys.readouterr().err  # an old checkpoint says nothing
    measured = {"step": 9, "reblur_psnr": 28.0, "reblur_psnr_deblurred": 29.0, "preserved_psnr": 21.0}
    torch.save(torch.load(path, weights_only=True) | {"reblurkit": {"measured": measured}}, path)
    assert deblur("--adapt", "1", "--existing", "overwrite", by=("--checkpoint", path)) == 0
    assert (
        "reblurkit: the reblurring network in its validation: reblur_psnr 28.00 dB (29.00 without it), preserved_psnr "
        "21.00 dB; it is poor, as it brings back no blur and changes sharp images: adapted images may be worse than "
        "others\n"
    ) in capsys.readouterr().err
    assert deblur("--existing", "overwrite", by=("--checkpoint", path)) == 0
    assert "in its validation" not in capsys.readouterr().err
    by = ("--network", "reblurkit.models.UNet", "--network-args", json.dumps(SMALL))
    assert deblur("--adapt", "1", "--existing", "overwrite", by=(*by, "--weights", path)) == 0
    assert "it is poor, as it brings back no blur and changes sharp images" in capsys.readouterr().err
    torch.save(torch.load(path, weights_only=True)["state_dict"], "weights.pth")  # which know nothing of a validation
    assert deblur("--adapt", "1", "--existing", "overwrite", by=(*by, "--weights", "weights.pth")) == 0
    assert "in its validation" not in capsys.readouterr().err


def test_a_network_of_other_arguments_is_told_which_option_has_them(work, capsys):
    _, path = reblur_run(work)
    by = ("--network", "reblurkit.models.UNet", "--weights", path)
    line = fails(capsys, by=(*by, "--network-args", json.dumps(SMALL | {"widths": [4, 4, 6]})))
    assert "(4, 4, 3, 3) instead of (6, 6, 3, 3)" in line
    assert line.endswith("; UNet had other arguments when it was trained; give those by --network-args")


def test_of_several_networks_that_fit_the_one_named_network_is_taken(work, capsys):
    task = DeblurTask(ReblurNet(1, 4), ReblurNet(1, 4))
    torch.save(task.state_dict(), "both.pth")
    networks = load_networks(network="reblurkit.models.ReblurNet", network_args='{"width": 4}', weights="both.pth")
    assert "several networks in it fit, 'network' and 'reblur'; 'network' was taken" in capsys.readouterr().err
    assert all(map(torch.equal, networks.network.state_dict().values(), task.network.state_dict().values()))
    renamed = {name.replace("network.", "other."): value for name, value in task.state_dict().items()}
    torch.save(renamed, "both.pth")
    line = fails(
        capsys,
        by=("--network", "reblurkit.models.ReblurNet", "--network-args", '{"width": 4}', "--weights", "both.pth"),
    )
    assert line.endswith(
        "several networks in it fit, 'other' and 'reblur'; save_weights writes one to a file of its own, when "
        "load_weights(..., network=...) has read it"
    )
    line = fails(capsys, by=("--network", "reblurkit.models.ReblurNt"))
    assert "has no attribute 'ReblurNt'; did you mean ReblurNet" in line


def test_steps_that_change_nothing_are_told(work, capsys):
    task, _ = reblur_run(work)
    with torch.no_grad():
        task.reblur.layers[-1].weight.zero_()
        task.reblur.layers[-1].bias.zero_()
    task.reblur.global_residual = True
    deblurrer = Deblurrer(task.network, reblur_net=task.reblur, steps=1, lr=1e-9, device="cpu")
    lines = []
    deblur_files(["photos/a.png"], "out", deblurrer, report=lines.append)
    assert len(lines) == 1
    assert lines[0].endswith("mean change 0.00 grey levels, which nobody sees: more steps or a larger rate change more")


def test_a_purpose_sets_steps_and_learning_rate(work, capsys):
    task, path = reblur_run(work)
    assert deblur("--adapt-for", "sharpness", inputs=["photos/a.png"], by=("--checkpoint", path)) == 0
    blurry = read_image(work / "photos" / "a.png")[None]
    adapted = adapt(FullSize(task.network), FullSize(task.reblur), blurry, steps=3, lr=3e-5)
    assert not torch.equal(adapted.image, adapted.plain)
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(adapted.image[0]), rtol=0, atol=1.1 / 255)
    line = fails(capsys, "--adapt-for", "fidelity", "--adapt", "2", by=("--checkpoint", path), output="out2")
    assert "--adapt-for sets steps and learning rate; leave out --adapt and --adapt-lr" in line


def test_a_photo_is_adapted_to_by_its_own_blur_without_a_reblurring_network(work, capsys):
    blurry = blurred(scene(seed=2, side=256, shapes=300), kernel_of(15, 2), noise=0.004)
    write_image(blurry[0], "shaken.png")
    assert deblur("--adapt-to-blur", "--adapt", "3", "--compare", inputs=["shaken.png"], by=()) == 0
    shown = capsys.readouterr().err
    assert "shaken.png: blurred again, " in shown
    assert "grey levels from the photo before adaptation to its blur and" in shown
    with Image.open("out/shaken_compare.jpg") as picture:
        assert picture.width > 3 * 560
    expected = adapt_to_blur(load_pretrained().network, read_image("shaken.png")[None], steps=3)
    torch.testing.assert_close(read_image("out/shaken.png"), levels(expected.image[0]), rtol=0, atol=1.1 / 255)


def test_a_photo_whose_parts_do_not_agree_on_a_blur_is_left_to_the_network(work, capsys):
    write_image(torch.full((3, 96, 96), 0.5), "flat.png")
    assert deblur("--adapt-to-blur", inputs=["flat.png", "photos/a.png"], by=UNET) == 1
    shown = capsys.readouterr().err
    assert "flat.png: its blur was not found: its quarters agree on one by 0.00 of 1" in shown
    assert "photos/a.png: adaptation to a blur, with kernels of 9 pixels, needs photos" in shown
    assert "pixels a side" in shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (BlurAdaptationChange(0.02, 0.01, 2.0, 0.9, 0.5, True), "mean change 2.00 grey levels"),
        (
            BlurAdaptationChange(0.02, math.nan, 0.0, 0.9, 0.5, False),
            "the image is not adapted: steps of a smaller --adapt-lr",
        ),
        (BlurAdaptationChange(0.02, 0.2, 90.0, 0.9, 0.5, True), "the distance rose instead of falling: take a smaller"),
        (BlurAdaptationChange(0.02, 0.02, 0.0, 0.9, 0.5, True), "which nobody sees"),
        (BlurAdaptationChange(0.02, 0.02, 0.0, 0.5, 0.5, False), "agree on one by 0.50 of 1, 0.8 is asked"),
        (
            BlurAdaptationChange(0.02, 0.02, 0.0, 0.9, 0.09, False),
            "brings back 9% of what the network removed, 20% is asked",
        ),
    ],
)
def test_what_adaptation_to_a_blur_did_is_said(change, said):
    assert said in adaptation_line(change)
    assert adaptation_line(change).endswith("grey levels") == (change.change == 2.0)


def test_adaptation_to_a_blur_has_steps_and_a_rate_of_its_own_in_python():
    options = Deblurrer(UNet(**SMALL), to_blur=True, device="cpu").options
    assert (options.steps, options.lr) == (20, 1e-4)
    assert AdaptToBlurOptions() == AdaptToBlurOptions(steps=options.steps, lr=options.lr)
    with pytest.raises(ArgumentError, match="at least 1 of `steps`"):
        Deblurrer(UNet(**SMALL), to_blur=True, steps=0, device="cpu")


def test_images_that_adaptation_to_a_blur_ruins_are_counted():
    blurry = blurred(scene(seed=2, side=256, shapes=300), kernel_of(15, 2), noise=0.004)
    network = load_pretrained().network
    plain = network(blurry).detach().clamp(0, 1)
    deblur_ = Deblurrer(network, to_blur=True, steps=2, lr=1e30, device="cpu")
    torch.testing.assert_close(deblur_(blurry), plain)
    assert (deblur_.not_adapted, deblur_.changes[0].adapted) == (1, False)


def test_one_way_to_adapt_at_a_time(work, capsys):
    line = fails(capsys, "--adapt-to-blur", "--adapt", "0", by=())
    assert "--adapt-to-blur takes at least one step, but --adapt is 0" in line
    line = fails(capsys, "--adapt-to-blur", "--adapt-for", "fidelity", by=())
    assert "--adapt-for is a way to adapt, and --adapt-to-blur another: leave one of them out" in line


def test_without_a_network_it_is_the_one_in_the_box(work, capsys):
    assert deblur("--adapt", "1", inputs=["photos/a.png"], by=()) == 0
    shown = capsys.readouterr().err
    assert "reblurkit: no network is named: the pretrained one of this package" in shown
    assert "photos/a.png: self-reblur loss" in shown
    network, reblur_net, _ = load_pretrained()
    blurry = read_image(work / "photos" / "a.png")[None]
    adapted = adapt(FullSize(network), FullSize(reblur_net), blurry, steps=1)
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(adapted.image[0]), rtol=0, atol=1.1 / 255)


def test_the_network_in_the_box_works_at_three_scales_unless_it_adapts(work):
    network = load_pretrained().network
    write_image(blurred(scene(seed=2, side=160, shapes=80), kernel_of(21, 2))[0], work / "photos" / "a.png")
    blurry = read_image(work / "photos" / "a.png")[None]
    with torch.inference_mode():
        expected = {scales: levels(MultiScale(network, scales)(blurry)[0]) for scales in (1, 2, 3)}
    for words, scales in {(): 3, ("--scales", "2"): 2, ("--scales", "1"): 1}.items():
        assert deblur(*words, "--existing", "overwrite", inputs=["photos/a.png"], by=()) == 0
        found = read_image(work / "out" / "a.png")
        torch.testing.assert_close(found, expected[scales], rtol=0, atol=1.1 / 255)
    assert (expected[1] - expected[3]).abs().max() > 10 / 255


def test_a_network_of_ones_own_works_at_the_scales_that_are_asked_for(work):
    network = Deblurrer(UNet(**SMALL), scales=2, device="cpu").network
    assert isinstance(network, MultiScale)
    results = []
    for words in ((), ("--scales", "1"), ("--scales", "2")):
        assert deblur(*words, "--existing", "overwrite", inputs=["photos/a.png"]) == 0
        results.append(read_image(work / "out" / "a.png"))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("number", ["0", "9", "two"])
def test_scales_that_are_none(work, capsys, number):
    line = fails(capsys, "--scales", number)
    assert f"--scales: must be a whole number from 1 to 5, but is {number}" in line


def test_scales_are_for_networks_of_single_images():
    with pytest.raises(ArgumentError, match="for networks of single images, but DBN takes 5 frames"):
        Deblurrer(DBN(width=4), scales=2, device="cpu")


def test_a_photo_of_one_blur_is_corrected_by_it(work, capsys):
    network = load_pretrained().network
    write_image(blurred(scene(seed=1, side=256), kernel_of(15, 1))[0], "photos/a.png")
    blurry = read_image("photos/a.png")[None]
    with torch.inference_mode():
        plain, scales = (MultiScale(network, count)(blurry).clamp(0, 1) for count in (1, 3))
    corrected = make_consistent(blurry, scales)
    assert corrected.accepted.all()
    torch.save(network.state_dict(), "box.pt")
    built = load_pretrained().card["network"]
    box = ("--model", built["name"], "--network-args", json.dumps(built["arguments"]), "--weights", "box.pt")
    for words, by, expected in [
        ((), (), corrected.image),
        (("--no-consistent",), (), scales),
        ((), box, plain),
        (("--consistent",), box, make_consistent(blurry, plain).image),
    ]:
        assert deblur(*words, "--existing", "overwrite", inputs=["photos/a.png"], by=by) == 0
        lines = capsys.readouterr().err
        said = "photos that have one blur, corrected to agree with it: 1 of 1" in lines
        assert said == ("photos/a.png: has one blur, corrected" in lines)
        assert said == (expected is not plain and expected is not scales)
        torch.testing.assert_close(read_image("out/a.png"), levels(expected[0]), rtol=0, atol=1.1 / 255)


def test_what_adaptation_changed_is_seen_beside_a_corrected_image():
    blurry = blurred(scene(seed=1), kernel_of(15, 1))
    network = load_pretrained().network
    deblur_ = Deblurrer(network, to_blur=True, steps=1, lr=1e-9, consistent=True, device="cpu")
    image = deblur_(blurry)
    assert deblur_.changes[0].adapted
    assert deblur_.corrected == 1
    torch.testing.assert_close(deblur_.plain, image, rtol=0, atol=1e-3)  # such a rate changes nothing


def test_small_photos_frames_and_networks_of_several_frames_are_not_corrected(work):
    network = UNet(**SMALL)
    with pytest.raises(ArgumentError, match="`consistent` is for networks of single images, but DBN takes 5 frames"):
        Deblurrer(DBN(width=4), consistent=True, device="cpu")
    with pytest.raises(ArgumentError, match="`consistent` must be true or false, but is 1"):
        Deblurrer(network, consistent=1, device="cpu")
    blurry = blurred(scene(seed=1), kernel_of(15, 1))
    deblur_ = Deblurrer(load_pretrained().network, consistent=True, device="cpu")
    plain = Deblurrer(load_pretrained().network, device="cpu")
    assert torch.equal(deblur_(blurry[..., :255]), plain(blurry[..., :255]))
    for count in (2, 1):  # a video, a photo
        paths = [work / f"{count}" / f"{index}.png" for index in range(count)]
        for path in paths:
            write_image(blurry[0], path)
        ((_, image), *_) = deblur_.each_frame(FrameFiles("frames", paths), range(count))
        assert torch.equal(image, plain(read_image(paths[0])[None])[0]) == (count == 2)
    assert deblur_.corrected == 1
    assert torch.equal(deblur_.plain, plain(read_image(paths[0])[None]))  # what was corrected
    deblur_(blurry[..., :255])
    assert deblur_.plain is None
    assert Deblurrer(network, consistent=True, device="cpu")(blurry[:0]).shape == (0, *blurry.shape[1:])


def test_photos_that_were_not_corrected_are_counted(work, capsys):
    write_image(blurred(scene(seed=1), kernel_of(15, 1))[0, :, :200], "photos/small.png")
    assert deblur("--consistent", "--compare", inputs=["photos/small.png"]) == 0
    lines = capsys.readouterr().err
    assert "corrected to agree with it: 0 of 0; not judged, of less than 256 pixels a side or of a video: 1" in lines


def test_photos_that_have_not_one_blur_are_counted(work, capsys):
    write_image(scene(seed=1)[0], "photos/sharp.png")
    assert deblur("--consistent", inputs=["photos/sharp.png"]) == 0
    lines = capsys.readouterr().err
    assert "corrected to agree with it: 0 of 1; the others stay as the network made them" in lines
    assert "not judged" not in lines


def test_before_and_after_are_drawn_on_request(work, capsys):
    assert deblur("--compare") == 0
    assert written(work / "out") == ["a.png", "a_compare.jpg", "deep/b.png", "deep/b_compare.jpg"]
    with Image.open(work / "out" / "a_compare.jpg") as picture:
        assert picture.width > 2 * 700
    (work / "out" / "a.png").unlink()
    assert "a_compare.jpg exists already" in fails(capsys, "--compare", inputs=["photos/a.png"])


def test_an_image_whose_adaptation_becomes_nan_is_counted_and_keeps_the_plain_output(work, capsys):
    _, path = reblur_run(work)
    words = ["--adapt", "3", "--adapt-lr", "1e30"]
    assert deblur(*words, inputs=["photos/a.png"], by=("--checkpoint", path)) == 0
    assert "images not adapted, because the loss became NaN: 1" in capsys.readouterr().err
    with torch.no_grad():
        expected = FullSize(network())(read_image(work / "photos" / "a.png")[None])[0]
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(expected), rtol=0, atol=1e-6)


def test_a_translator_comes_first(work):
    torch.manual_seed(4)
    translator = Blur2BlurTranslator(ReblurNet(width=4), create_model("patchgan", width=4, layers=1))
    options = {
        "generator": {"class_path": "ReblurNet", "init_args": {"width": 4}},
        "discriminator": {"class_path": "PatchGAN", "init_args": {"width": 4, "layers": 1}},
    }
    path = checkpoint(work / "b2b", translator, class_path="Blur2BlurTranslator", init_args=options)
    assert deblur("--translator", path) == 0
    blurry = read_image(work / "photos" / "a.png")[None]
    with torch.no_grad():
        expected = FullSize(network())(translator(blurry).clamp(0, 1))[0]
        alone = FullSize(network())(blurry)[0]
    assert (expected - alone).abs().max() > 0.05
    torch.testing.assert_close(read_image(work / "out" / "a.png"), levels(expected), rtol=0, atol=1e-6)


def test_a_network_of_several_frames_takes_a_folder_as_a_video(work):
    torch.manual_seed(0)
    dbn = create_model("dbn", width=4).eval()
    torch.save(dbn.state_dict(), "dbn.pt")
    for index in range(10):
        photo(work / "clips" / "one" / f"f{index}.png", (24, 24 + 0 * index))
        Image.fromarray(chelsea()[index : index + 24, :24]).save(work / "clips" / "one" / f"f{index}.png")
    by = ("--model", "dbn", "--network-args", '{"width": 4}', "--weights", "dbn.pt")
    assert deblur(inputs=["clips"], by=by) == 0
    assert written(work / "out") == [f"one/f{index}.png" for index in range(10)]
    frames = torch.stack([read_image(work / "clips" / "one" / f"f{index}.png") for index in range(10)])
    for index in (0, 7, 8, 9):
        around = [min(max(index + step, 0), 9) for step in range(-2, 3)]
        with torch.no_grad():
            expected = FullSize(dbn)(frames[around][None])[0]
        result = read_image(work / "out" / "one" / f"f{index}.png")
        torch.testing.assert_close(result, levels(expected), rtol=0, atol=1e-6)


def test_a_broken_clip_does_not_take_the_others_along(work, capsys):
    torch.save(create_model("dbn", width=4).state_dict(), "dbn.pt")
    for clip in ("one", "two"):
        for index in range(3):
            photo(work / "clips" / clip / f"{index}.png", (24, 24))
    (work / "clips" / "one" / "1.png").write_bytes(b"broken")
    by = ("--model", "dbn", "--network-args", '{"width": 4}', "--weights", "dbn.pt")
    assert deblur(inputs=["clips"], by=by, output="clips/sharp") == 1
    assert "failed: clips/one: cannot read image clips/one/1.png" in capsys.readouterr().err
    assert written(work / "clips" / "sharp") == [f"two/{index}.png" for index in range(3)]
    assert deblur("--existing", "skip", inputs=["clips"], by=by, output="clips/sharp") == 1
    assert "deblurred: 0; there already: 3" in capsys.readouterr().err


def test_a_video_file_goes_to_a_folder_of_its_name(work):
    encoded(work / "clip.mp4", "mpeg4", [chelsea()[index : index + 32, :48] for index in range(11)], pixels="yuv420p")
    assert deblur(inputs=["clip.mp4"]) == 0
    assert written(work / "out") == [f"clip/{index:06}.png" for index in range(11)]


def test_a_video_beside_its_frames(work, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (30, 32, 48, 3), dtype=np.uint8)
    encoded(work / "clip.mkv", "libx264", noise, pixels="yuv420p")
    assert deblur("--video", inputs=["clip.mkv", "photos"]) == 0
    assert (work / "out" / "clip.mp4").exists()
    assert len(written(work / "out")) == 30 + 1 + 2
    before = (work / "out" / "clip.mp4").read_bytes()
    assert "out/clip/000000.png exists already" in fails(capsys, "--video", inputs=["clip.mkv"])
    assert deblur("--video", "--existing", "skip", inputs=["clip.mkv"]) == 0
    assert (work / "out" / "clip.mp4").read_bytes() == before
    (work / "out" / "clip.mp4").unlink()
    assert deblur("--video", "--existing", "skip", inputs=["clip.mkv"]) == 0
    assert (work / "out" / "clip.mp4").exists()

    (work / "clip.mkv").write_bytes((work / "clip.mkv").read_bytes()[:-20000])
    capsys.readouterr()
    assert deblur(inputs=["clip.mkv"], output="cut") == 1
    assert "failed: video clip.mkv has" in capsys.readouterr().err
    assert 0 < len(written(work / "cut")) < 30


def test_files_that_fail_are_listed_and_the_others_go_on(work, capsys):
    (work / "photos" / "broken.png").write_bytes(b"no image")
    (work / "photos" / "cut.jpg").write_bytes((work / "photos" / "deep" / "b.jpg").read_bytes()[:400])
    assert deblur("--adapt", "0", inputs=["photos", "nowhere", "owned.py"]) == 1
    failed = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert written(work / "out") == ["a.png", "deep/b.png"]
    assert len(failed) == 4
    assert deblur(inputs=["photos/broken.png", "photos/cut.jpg"], output="out2") == 2
    assert "cannot read image photos/broken.png" in (said := capsys.readouterr().err)
    assert said.splitlines()[-1].endswith("(and 1 more failed)")
    assert said.count("\n") == 1
    text = "\n".join(failed)
    assert "failed: cannot read image photos/broken.png" in text
    assert "failed: cannot read image photos/cut.jpg" in text
    assert "failed: no file or folder nowhere" in text
    assert deblur(inputs=["photos/a.png"], by=("--network", "owned.Lost"), output="out4") == 2
    line = capsys.readouterr().err
    assert "error: photos/a.png: cannot process 41 x 33 pixels: KeyError" in line
    assert "owned.py must be an image or a video, by a name that ends in one of .3gp" in text


def test_what_a_network_cannot_do_is_said_of_the_file(work, capsys):
    assert deblur(by=("--network", "owned.NotANumber")) == 1
    assert "failed: photos/deep/b.jpg: the networks made NaN or infinite values" in capsys.readouterr().err
    line = fails(capsys, by=("--network", "owned.Even"), inputs=["photos/a.png"], output="out2")
    assert "Even failed on 33 x 41 pixels" in line
    assert "set `multiple = 8` in the class of the network" in line
    assert "KeyError: 'image'" in fails(capsys, by=("--network", "owned.Lost"), output="out2")
    line = fails(capsys, by=("--network", "owned.Levels"), output="out2")
    assert "the network must make floating point values in [0, 1], but made torch.uint8" in line
    line = fails(capsys, by=("--network", "owned.Twice"), inputs=["photos/a.png"], output="out2")
    assert "must make images of shape (1, 3, 33, 41), but made (2, 3, 33, 41)" in line
    line = fails(capsys, by=("--network", "owned.Unbuilt"), output="out2")
    assert "owned.Unbuilt cannot be built with {}: ValueError: no width" in line
    (work / "wrong.py").write_text("def")
    assert "wrong.Net: SyntaxError" in fails(capsys, by=("--network", "wrong.Net"), output="out2")
    for name in ("Hungry", "Starving"):
        line = fails(capsys, by=("--network", f"owned.{name}"), output="out2")
        assert "cannot process 41 x 33 pixels: there is not enough memory; --tile 512 needs less" in line
        line = fails(capsys, "--tile", "64", by=("--network", f"owned.{name}"), output="out2")
        assert "there is not enough memory; tiles of 64 are too large, smaller ones need less" in line


def test_existing_files_are_kept_unless_told_otherwise(work, capsys):
    assert deblur(inputs=["photos/a.png"]) == 0
    before = (work / "out" / "a.png").read_bytes()
    identity = ("--network", "torch.nn.Identity")
    assert "out/a.png exists already; choose another --output, or --existing skip or overwrite" in fails(capsys)
    assert not (work / "out" / "deep").exists()
    assert deblur("--existing", "skip", by=identity) == 0
    assert "images deblurred: 1; there already: 1; folder: out" in capsys.readouterr().err
    assert (work / "out" / "a.png").read_bytes() == before
    assert (work / "out" / "deep" / "b.png").exists()
    assert deblur("--existing", "overwrite", by=identity) == 0
    assert (work / "out" / "a.png").read_bytes() != before


def test_an_interrupted_run_goes_on(work, capsys, monkeypatch):
    real, calls = reblurkit.inference.Deblurrer.__call__, []

    def interrupted(self, blurry):
        calls.append(blurry)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, blurry)

    monkeypatch.setattr(reblurkit.inference.Deblurrer, "__call__", interrupted)
    assert deblur() == 130
    assert "reblurkit: interrupted" in capsys.readouterr().err
    assert written(work / "out") == ["a.png"]
    assert deblur("--existing", "skip") == 0
    assert written(work / "out") == ["a.png", "deep/b.png"]
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), UnicodeError("title"), KeyError("x")]
)
@pytest.mark.parametrize("where", ["opened", "read", "written"])
def test_whatever_is_wrong_with_one_input_the_others_go_on(work, capsys, monkeypatch, error, where):
    module, name = {
        "opened": (reblurkit.cli.deblur, "_source"),
        "read": (reblurkit.inference, "frame_stacks"),
        "written": (reblurkit.cli.deblur, "write_image"),
    }[where]
    real, calls = getattr(module, name), []

    def broken(*words, **options):
        calls.append(words)
        if len(calls) == 1:
            raise error
        return real(*words, **options)

    monkeypatch.setattr(module, name, broken)
    assert deblur() == 1
    said = capsys.readouterr().err
    assert "reblurkit: failed: photos/a.png: " in said
    assert "Traceback" not in said
    assert "images deblurred: 1;" in said
    assert written(work / "out") == ["deep/b.png"]


def test_several_runs_into_one_folder_write_each_image_once(work, capsys):
    for number in range(6):
        photo(work / "photos" / f"{number}.png", (20, 20))
    with claimed(work / "out" / "a.png"), claimed(work / "out" / "3.png"):  # another run is at them
        assert deblur("--existing", "skip") == 0
        assert "images deblurred: 6; left to other runs into this folder: 2;" in capsys.readouterr().err
        assert deblur("--existing", "overwrite") == 1
        assert "failed: photos/a.png: another run is writing out/a.png" in capsys.readouterr().err
    assert "out/0.png exists already" in fails(capsys)
    assert deblur("--existing", "skip") == 0
    assert "images deblurred: 2; there already: 6;" in capsys.readouterr().err
    assert len(written(work / "out")) == 8


def test_a_run_that_began_at_the_same_time_is_not_overwritten(work, capsys, monkeypatch):
    real = reblurkit.cli.deblur._check_targets

    def late(*words):
        real(*words)
        write_image(torch.zeros(3, 4, 4), "out/a.png")  # after everything was found to be free

    monkeypatch.setattr(reblurkit.cli.deblur, "_check_targets", late)
    assert deblur() == 1
    assert "failed: photos/a.png: out/a.png exists already" in capsys.readouterr().err
    assert read_image(work / "out" / "a.png").shape == (3, 4, 4)
    assert written(work / "out") == ["a.png", "deep/b.png"]


def test_a_folder_in_which_nothing_could_be_written_is_not_made(work, capsys):
    (work / "photos" / "a.png").write_bytes(b"no image")
    fails(capsys, inputs=["photos/a.png"])
    assert not (work / "out").exists()


def test_inputs_are_never_overwritten_nor_results_read_again(work, capsys):
    line = fails(capsys, "--existing", "overwrite", inputs=["photos/a.png"], output="photos")
    assert "the input photos/a.png would be overwritten" in line
    assert "the folder photos is both input and --output" in fails(capsys, output="photos")
    assert deblur(output="photos/sharp") == 0
    assert deblur("--existing", "overwrite", output="photos/sharp") == 0
    assert written(work / "photos") == ["a.png", "deep/b.jpg", "sharp/a.png", "sharp/deep/b.png"]


def test_an_input_that_cannot_be_read_is_not_overwritten_either(work, capsys):
    (work / "both" / "x").mkdir(parents=True)
    (work / "both" / "a.png").write_bytes(b"precious")
    photo(work / "both" / "x" / "a.jpg")
    line = fails(capsys, "--existing", "overwrite", inputs=["both/a.png", "both/x/a.jpg"], output="both")
    assert "the input both/a.png would be overwritten" in line
    assert (work / "both" / "a.png").read_bytes() == b"precious"


def test_links_names_with_brackets_and_folders_that_contain_themselves(work):
    photo(work / "odd" / "mk[" / "b]" / "a.png")
    (work / "odd" / "linked.png").symlink_to(work / "photos" / "a.png")
    (work / "odd" / "loop").symlink_to(work / "odd")
    assert deblur(inputs=["odd", "photos/a.png"]) == 0
    assert written(work / "out") == ["a.png", "linked.png", "mk[/b]/a.png"]


def test_two_images_that_would_become_one_file(work, capsys):
    photo(work / "other" / "a.png")
    line = fails(capsys, inputs=["photos/a.png", "other/a.png"])
    assert "photos/a.png and other/a.png would both be written to out/a.png; rename one" in line
    assert not (work / "out").exists()


def test_names_that_differ_in_the_suffix_alone_keep_it(work):
    photo(work / "photos" / "a.jpg")
    photo(work / "photos" / "a.JPG")
    photo(work / "photos" / "a.b.jpg")
    assert deblur() == 0
    assert written(work / "out") == ["a.JPG.png", "a.b.png", "a.jpg.png", "a.png", "deep/b.png"]
    assert deblur("--existing", "skip") == 0
    assert deblur(inputs=["photos/a.png", "photos/a.jpg"], output="out2") == 0
    assert written(work / "out2") == ["a.jpg.png", "a.png"]


def test_pictures_that_are_not_read_are_named_in_one_line(work, capsys):
    for name in ("c.gif", "deep/d.CR2", ".hidden.gif", "notes.txt"):
        (work / "photos" / name).write_bytes(b"")
    assert deblur() == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "photos/c.gif, photos/deep/d.CR2; convert them" in line
    (work / "photos" / "only").mkdir()
    (work / "photos" / "only" / "x.jxl").touch()
    assert "left out, because files of these kinds are not read: photos/only/x.jxl" in fails(
        capsys, inputs=["photos/only"], output="out2"
    )


def test_alpha_and_the_scene_are_kept_unless_stripped(work):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "Camera"
    exif.get_ifd(0x8825)[1] = "N"
    (work / "in").mkdir()
    layers = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    Image.fromarray(layers).save(work / "in" / "a.webp", lossless=True, exact=True, exif=exif, icc_profile=profile)
    photo(work / "in" / "b.jpg", exif=exif, dpi=(300, 300), icc_profile=profile)
    identity = ("--network", "torch.nn.Identity")
    assert deblur(inputs=["in"], by=identity) == 0
    assert deblur("--strip", inputs=["in"], by=identity, output="plain") == 0
    for name in ("a", "b"):
        with Image.open(work / "out" / f"{name}.png") as kept, Image.open(work / "plain" / f"{name}.png") as plain:
            assert (kept.mode, plain.mode) == ("RGBA" if name == "a" else "RGB", "RGB")
            assert (kept.getexif()[271], kept.getexif().get_ifd(0x8825)[1]) == ("Camera", "N")
            assert kept.info["icc_profile"] == profile
            assert kept.size == plain.size
            assert not {"icc_profile", "exif", "dpi"} & plain.info.keys()
            if name == "a":
                assert np.array_equal(np.asarray(kept), np.rot90(layers, -1))  # turned once
            else:
                assert kept.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--adapt 2", "--adapt needs a --checkpoint that holds a reblurring network too"),
        ("--adapt -1", "--adapt: must be a whole number, at least 0, but is -1"),
        ("--adapt x", "--adapt: must be a whole number, at least 0, but is x"),
        ("--adapt-lr 0", "--adapt-lr: must be a number above 0, such as 3e-6, but is 0"),
        ("--tile 30", "--tile must divide by 4"),
        ("--tile all", "argument --tile: must be a number of pixels or auto, but is 'all'"),
        ("--tile 0", "--tile must be a number of pixels, at least 1"),
        ("--existing append", "argument --existing: must be refuse, skip or overwrite, but is append"),
        ("--device meta", "the device must be one that torch has here"),
        ("--device warp", "the device must be one that torch has here, such as cpu, but is warp"),
        ("--translator unet.pt", "unet.pt is no Lightning checkpoint"),
        ("--checkpoint unet.pt", "give the network in one of three ways"),
    ],
)
def test_bad_options_end_in_one_line(work, capsys, words, expected):
    assert expected in fails(capsys, *words.split())
    assert not (work / "out").exists()


def test_weights_alone_are_no_checkpoint(work, capsys):
    line = fails(capsys, by=("--checkpoint", "unet.pt"))
    assert line.endswith(
        "unet.pt is no Lightning checkpoint: it has no 'state_dict'; weights alone are given by --weights, with "
        "--model or --network to say what they are of"
    )


def test_bad_inputs_end_in_one_line(work, capsys, monkeypatch):
    task, path = reblur_run(work)
    line = fails(capsys, "--translator", path)
    assert f"--translator must be a checkpoint of Blur2BlurTranslator, but {path} is of DeblurTask" in line
    assert "dotted path of a class, such as my_net.MyNet, but is owned" in fails(capsys, by=("--network", "owned"))
    (work / "empty").mkdir()
    assert "no image or video in empty" in fails(capsys, inputs=["empty"])
    (work / "out").write_text("a file")
    assert "--output must be a folder, but out is a file" in fails(capsys)
    assert "in which each image keeps its name, but sharp.png is named like a file" in fails(capsys, output="sharp.png")
    (work / "mixed").mkdir()
    (work / "mixed" / "deep").write_text("a file")
    assert deblur(output="mixed") == 1
    assert "reblurkit: failed: photos/deep/b.jpg: cannot write mixed/deep/b.png" in capsys.readouterr().err
    assert written(work / "mixed") == ["a.png", "deep"]
    (work / "folder" / "a.png").mkdir(parents=True)
    assert "folder/a.png is a folder, where a file is to be written" in fails(capsys, output="folder")
    assert "INPUT is an empty word; write . for the folder you are in" in fails(capsys, inputs=[""], output="out3")
    assert "required: INPUT" in fails(capsys, inputs=[])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reblurkit.inference.Deblurrer(task.network).device == torch.device("cpu")


def test_adaptation_and_networks_of_several_frames_do_not_go_together(work):
    with pytest.raises(ValueError, match="for networks of single images, but DBN takes 5 frames"):
        reblurkit.inference.Deblurrer(create_model("dbn", width=4), reblur_net=ReblurNet(width=4), steps=1)
    with pytest.raises(ValueError, match="adaptation needs the reblurring network that was trained with the network"):
        reblurkit.inference.Deblurrer(network(), steps=1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--adapt", "-2"], "--adapt: must be a whole number, at least 0, but is -2"),
        (["--adapt", "5.5"], "--adapt: must be a whole number, at least 0, but is 5.5"),
        (["--adapt-lr", "0,1"], "--adapt-lr: must be a number above 0, such as 3e-6, but is 0,1"),
        (["--output", "a.png"], "--output must be a folder, but a.png is a file"),
        (["--adapt-for", "sharpness", "--adapt", "3"], "--adapt-for sets steps and learning rate; leave out --adapt"),
        (["--weights", "a.png"], "give the network in one of three ways"),
        (["--checkpoint", "a.png", "--weights", "a.png"], "--checkpoint brings its own weights"),
        (
            ["--network", "own.Net", "--network-args", "width=3"],
            "--network-args must be JSON such as '{\"width\": 32}'",
        ),
    ],
)
def test_what_can_be_refused_at_once_is(tmp_path, words, expected):
    (tmp_path / "a.png").touch()
    seen = (
        "import sys; from reblurkit.cli import main; status = main(sys.argv[1:]); "
        "sys.exit(99 if 'torch' in sys.modules else status)"
    )
    call = [sys.executable, "-c", seen, "deblur", "a.png", "--output", "out", *words]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert expected in ended.stderr


def test_adaptation_that_leads_away_is_told_what_to_change():
    change = AdaptationChange(before=0.01, after=math.nan, change=0.0, deblurred=0.02)
    assert "the image is not adapted: steps of a smaller --adapt-lr" in adaptation_line(change)
    assert "the loss rose instead of falling: take a smaller --adapt-lr" in adaptation_line(change._replace(after=0.3))
