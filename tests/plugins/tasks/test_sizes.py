"""Every entry point of the Trainer takes the sizes that ``Deblurrer`` takes, and gives the same images."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from reblurkit.inference import Deblurrer
from reblurkit.metrics import PSNR
from reblurkit.models import FullSize, ReblurNet, UNet, create_model
from reblurkit.plugins import Blur2BlurTranslator, DeblurTask, ReblurTask, TestTimeAdaptCallback
from tests.conftest import PlainNet

SIZES = [(40, 24), (24, 40), (31, 27), (27, 13), (16, 16)]  # the third fits no multiple: it must not end a run


class Fussy(PlainNet):
    """As networks that halve their input: other sizes are refused, in training too."""

    def __init__(self, multiple=8, scales=1):
        super().__init__()
        self.multiple, self.scales = multiple, scales

    def forward(self, image):
        assert image.shape[-2] % self.multiple == image.shape[-1] % self.multiple == 0
        full = super().forward(image)
        return full if self.scales == 1 else [nn.functional.avg_pool2d(full, 2), full]


class FussyReblurNet(Fussy):
    pass


def batches(sizes):
    items = [{"blurry": torch.rand(3, *size), "sharp": torch.rand(3, *size), "name": str(size)} for size in sizes]
    return DataLoader(items, batch_size=1)


def trainer(tmp_path, *callbacks, **flags):
    return L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False, max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks), **flags,
    )  # fmt: skip


def tasks():
    yield lambda: DeblurTask(Fussy())
    yield lambda: DeblurTask(Fussy(scales=2), FussyReblurNet(multiple=16))
    yield lambda: DeblurTask(FullSize(Fussy()), ReblurNet(width=4))
    yield lambda: ReblurTask(Fussy(), FussyReblurNet(multiple=3))
    yield lambda: Blur2BlurTranslator(
        Fussy(), nn.Conv2d(3, 1, 3), perceptual=nn.AvgPool2d(4), known_blur=nn.AvgPool2d(3, 1, 1),
        deblur_network=Fussy(16),
    )  # fmt: skip


@pytest.mark.parametrize("make", list(tasks()))
def test_fit_validate_test_and_predict_take_every_size(tmp_path, make):
    task, odd = make(), batches(SIZES)
    trainer(tmp_path, num_sanity_val_steps=1).fit(task, batches([(48, 48)]), odd)
    trainer(tmp_path).validate(task, odd, verbose=False)
    trainer(tmp_path).test(task, odd, verbose=False)
    predicted = trainer(tmp_path).predict(task, odd)
    assert [tuple(each["deblurred"].shape[-2:]) for each in predicted] == SIZES


@pytest.mark.parametrize("name", ["mimo-unet", "unet", "nafnet-width32"])
def test_they_give_the_images_that_deblur_gives(tmp_path, name):
    network = UNet(1, (4, 4, 4)) if name == "unet" else create_model(name)
    task, odd = DeblurTask(network), batches(SIZES[2:4])
    deblurrer, psnr = Deblurrer(network, device="cpu"), PSNR()
    expected = [deblurrer(batch["blurry"]) for batch in odd]
    for image, batch in zip(expected, odd, strict=True):
        psnr.update(image, batch["sharp"])
    for image, found in zip(expected, trainer(tmp_path).predict(task, odd), strict=True):
        assert torch.equal(found["deblurred"], image)
    (results,) = trainer(tmp_path).test(task, odd, verbose=False)
    assert results["test/psnr"] == pytest.approx(psnr.compute().item(), rel=1e-6)


def test_adaptation_takes_and_measures_every_size(tmp_path):
    task = DeblurTask(Fussy(), FussyReblurNet(multiple=16))
    adapt = TestTimeAdaptCallback(steps=1, lr=1e-3, metrics=PSNR())
    (results,) = trainer(tmp_path, adapt).test(task, batches(SIZES), verbose=False)
    assert len(adapt.history) == len(SIZES)
    assert results["test/psnr_plain"] != results["test/psnr_adapted"] == pytest.approx(results["test/psnr"], rel=1e-6)
