"""The world that the pages speak of: files by their names, and networks small enough for a test.

Everything that a page names is there; the lines run as they stand. Only sizes differ: networks are narrow, a Trainer
makes one step, and files that would be downloaded are made of random numbers.
"""

from __future__ import annotations

import functools
import sys
import types

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import vgg16, vgg19

from reblurkit.core.downloads import RemoteFile
from reblurkit.errors import DownloadError
from reblurkit.models import kernel_wizard
from reblurkit.models.deblur import dmphn, mimo_unet, unet
from reblurkit.models.flow import pretrained, raft
from reblurkit.models.vgg import VGG_WEIGHTS
from reblurkit.plugins import PairedDataModule, UnpairedDataModule
from reblurkit.plugins.tasks import blur2blur

R = "RealBlur/RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/scene001"
PHOTOS = """
my_photos/train/blur/1.png my_photos/train/sharp/1.png my_photos/val/blur/1.png my_photos/val/sharp/1.png
my_photos/test/blur/1.png my_photos/test/sharp/1.png
my_camera/trainA/1.png my_camera/trainB/1.png my_camera/testA/1.png
my_video/clip/1.png my_video/clip/2.png my_video/clip/3.png
photos/trainA/1.png photos/trainB/1.png photos/testA/1.png photos/input/1.png photos/target/1.png
photos/train/blur/1.png photos/train/sharp/1.png photos/val/blur/1.png photos/val/sharp/1.png
"""
SMALL_PHOTOS = f"""
photo.jpg more_photos/1.png
GOPRO_Large/train/v/blur/1.png GOPRO_Large/train/v/blur_gamma/1.png GOPRO_Large/train/v/sharp/1.png
NAFNet/datasets/GoPro/test/input/1.png NAFNet/datasets/GoPro/test/target/1.png
Restormer/test/HIDE/input/1.png Restormer/test/HIDE/target/1.png
REDS/train/train_blur_jpeg/001/00000000.png REDS/train/train_sharp/001/00000000.png
{R}/blur/blur_1.png {R}/gt/gt_1.png
data/RSBlur/0001/000001/avg65_img/avg_blur.png data/RSBlur/0001/000001/gt/gt_sharp.png
lai/nonuniform/church_gyro_1.png lai/ground_truth/church.png
kohler/Blurry1_1.png kohler/GroundTruth1_1_1.png
patches/blur_001.png patches/sharp_001.png
shots/cat_long.png shots/cat_short.png shots/still/cat.png
"""
LISTS = {
    "RealBlur/RealBlur_R_test_list.txt": f"{R.removeprefix('RealBlur/')}/gt/gt_1.png "
    f"{R.removeprefix('RealBlur/')}/blur/blur_1.png\n",
    "data/RSBlur_syn_train.txt": "RSBlur/0001/000001/gt/gt_sharp.png RSBlur/0001/000001/avg65_img/avg_blur.png\n",
}
NARROW = {"widths": (4, 6, 8)}


@pytest.fixture(scope="session")
def downloads(tmp_path_factory):
    """Files of random weights in the layouts that are downloaded, by the part of the address that names them."""
    folder = tmp_path_factory.mktemp("downloads")
    files = {}
    for name, build in {"vgg16": vgg16, "vgg19": vgg19}.items():
        with torch.device("meta"):
            features = build(init_weights=False).features.to_empty(device="cpu")
        state = {f"features.{key}": torch.randn_like(value) / 50 for key, value in features.state_dict().items()}
        files[VGG_WEIGHTS[name].url] = folder / f"{name}.pth"
        torch.save(state, files[VGG_WEIGHTS[name].url])
    files[pretrained.WEIGHTS["raft-small"].url] = folder / "raft.pth"
    torch.save(raft.RAFT("small").state_dict(), folder / "raft.pth")
    return files


@pytest.fixture
def small(monkeypatch, downloads, hub_cache):
    """Networks narrow, trainings one step, no network."""

    def fetch(self, otherwise):
        if self.url in downloads:
            return downloads[self.url]
        raise DownloadError(f"{self.url} cannot be downloaded (this is a test); {otherwise}")

    monkeypatch.setattr(RemoteFile, "fetch", fetch)
    monkeypatch.setattr(unet, "UNet", functools.partial(unet.UNet, blocks=1, **NARROW))
    monkeypatch.setattr(blur2blur, "MIMOUNet", functools.partial(mimo_unet.MIMOUNet, blocks=1, width=4))
    monkeypatch.setattr(dmphn, "DMPHN", functools.partial(dmphn.DMPHN, **NARROW))
    monkeypatch.setattr(
        kernel_wizard, "KernelWizard", functools.partial(kernel_wizard.KernelWizard, width=4, code_width=32)
    )
    for module, crop in {PairedDataModule: 64, UnpairedDataModule: 128}.items():
        options = {"crop": crop, "batch_size": 1, "num_workers": 0}
        monkeypatch.setattr(module.__init__, "__kwdefaults__", {**module.__init__.__kwdefaults__, **options})
    quick = {"accelerator": "cpu", "fast_dev_run": True, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer
    monkeypatch.setattr(lightning, "Trainer", lambda **options: trainer(**{**options, **quick}))


def photo(path, side):
    """A photo that compresses well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.tile(np.linspace(0, 255, side, dtype=np.uint8), (side, 1))
    Image.fromarray(np.stack([ramp, ramp.T, ramp[::-1]], axis=-1)).save(path)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The folder that the pages' user works in."""
    folder = tmp_path / "user"
    for names, side in ((PHOTOS, 264), (SMALL_PHOTOS, 24)):
        for name in names.split():
            photo(folder / name, side)
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    return folder


@pytest.fixture
def tensorflow(monkeypatch):
    """What little of TensorFlow a page calls."""
    reader = types.SimpleNamespace(
        get_variable_to_shape_map=lambda: {"g_net/enc1_1/weights": [5, 5, 3, 32]},
        get_tensor=lambda name: np.zeros((5, 5, 3, 32), np.float32),
    )
    module = types.ModuleType("tensorflow")
    module.train = types.SimpleNamespace(load_checkpoint=lambda path: reader)
    module.Tensor = module.Variable = type(reader)  # einops asks whether a tensor is one of these
    monkeypatch.setitem(sys.modules, "tensorflow", module)
