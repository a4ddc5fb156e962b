"""Every entry point of the Trainer takes the sizes that ``Deblurrer`` takes, and gives the same images."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from reblurkit.errors import ShapeError
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
        if image.shape[-2] % self.multiple or image.shape[-1] % self.multiple:
            raise RuntimeError("sizes of tensors must match")
        full = super().forward(image)
        return full if self.scales == 1 else [nn.functional.avg_pool2d(full, 2), full]


class Silent(PlainNet):
    """Halves its input, and does not say so."""

    def forward(self, image):
        half = nn.functional.avg_pool2d(super().forward(image), 2)
        return image + nn.functional.interpolate(half, scale_factor=2)


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


class Own(L.LightningModule):
    """A user's module, which calls its network itself."""

    def __init__(self, full_size):
        super().__init__()
        self.network, self.reblur, self.full_size = Fussy(), FussyReblurNet(multiple=16), full_size

    def test_step(self, batch, batch_idx):
        network = FullSize(self.network) if self.full_size else self.network
        assert network(batch["blurry"]).shape == batch["blurry"].shape


def test_adaptation_in_a_module_of_the_users_takes_the_sizes_that_its_step_takes(tmp_path):
    adapt = TestTimeAdaptCallback(steps=1)
    trainer(tmp_path, adapt).test(Own(full_size=True), batches(SIZES), verbose=False)
    assert len(adapt.history) == len(SIZES)
    with pytest.raises(
        ShapeError, match=r"input of \(1, 3, 31, 27\).*; call it as reblurkit.models.FullSize\(network\), which"
    ):
        trainer(tmp_path, TestTimeAdaptCallback(steps=1)).test(Own(full_size=False), batches(SIZES[2:3]), verbose=False)


def crops(side):
    image = torch.rand(3, side, side)
    return DataLoader([{"blurry": image, "sharp": image, "known_blurry": image, "name": "a"}], batch_size=1)


class TestCropsThatDoNotFit:
    @pytest.mark.parametrize("make", [
        lambda: DeblurTask(Fussy()),
        lambda: DeblurTask(Fussy(), ReblurNet(width=4)),
        lambda: DeblurTask(PlainNet(), FussyReblurNet()),
        lambda: ReblurTask(Fussy(), ReblurNet(width=4)),
        lambda: ReblurTask(PlainNet(), FussyReblurNet()),
        lambda: Blur2BlurTranslator(Fussy(), nn.Conv2d(3, 1, 3), perceptual=nn.AvgPool2d(4)),
    ])  # fmt: skip
    def test_the_nearest_that_fit_are_named(self, tmp_path, make):
        expected = "must divide by 8, but are 60 x 60; choose a `crop` of 56 or 64, or wrap the network as "
        expected += r"reblurkit\.models\.FullSize\(network\), which pads and crops$"
        with pytest.raises(ShapeError, match=expected):
            trainer(tmp_path).fit(make(), crops(60))

    @pytest.mark.parametrize("make", [
        lambda: DeblurTask(Silent()),
        lambda: DeblurTask(Silent(), ReblurNet(width=4)),
        lambda: DeblurTask(PlainNet(), Silent()),
        lambda: ReblurTask(PlainNet(), Silent()),
        lambda: Blur2BlurTranslator(Silent(), nn.Conv2d(3, 1, 3), perceptual=nn.AvgPool2d(4)),
    ])  # fmt: skip
    def test_a_network_that_says_nothing_of_sizes_gets_what_to_try(self, tmp_path, make):
        expected = (
            r"^in training on 61 x 61 pixels: The size of tensor a .*; if (PlainNet or )?Silent needs sizes that "
            r"divide by a number, such as 8, choose such a `crop`, or set `multiple = 8` in its class and wrap the "
            r"network as reblurkit\.models\.FullSize\(network\), which pads and crops$"
        )
        with pytest.raises(ShapeError, match=expected):
            trainer(tmp_path).fit(make(), crops(61))

    @pytest.mark.parametrize(("mistake", "error"), [
        (lambda image: image.sizes, AttributeError),
        (lambda image: torch.load(f"shape of {image.ndim}"), FileNotFoundError),
        (lambda image: image[:, :2], ShapeError),
        (lambda image: image + torch.rand(6, 1, 1), RuntimeError),
    ])  # fmt: skip
    def test_mistakes_that_have_nothing_to_do_with_sizes_are_not_blamed_on_them(self, tmp_path, mistake, error):
        class Mistaken(PlainNet):
            def forward(self, image):
                return mistake(super().forward(image))

        with pytest.raises(error, match=r"^(?!in training on)"):
            trainer(tmp_path).fit(DeblurTask(Mistaken()), crops(64))

    def test_a_network_that_returns_a_smaller_image_is_told_of_them_too(self, tmp_path):
        network = nn.AvgPool2d(8)
        network = nn.Sequential(nn.Conv2d(3, 3, 1), network, nn.Upsample(scale_factor=8))
        network.multiple = 8
        with pytest.raises(ShapeError, match="choose a `crop` of 56 or 64"):
            trainer(tmp_path).fit(DeblurTask(network), crops(60))

    def test_below_the_smallest_the_smallest_that_fits_is_named(self, tmp_path):
        task = DeblurTask(create_model("deblurgan-v2-mobilenet"))
        with pytest.raises(ShapeError, match=r"divide by 32 and be at least 64, but are 40 x 40; .* `crop` of 64,"):
            trainer(tmp_path).fit(task, crops(40))

    def test_networks_that_pad_train_on_any(self, tmp_path):
        for network in (UNet(1, (4, 4, 4)), FullSize(Fussy())):
            assert getattr(network, "multiple", 1) > 1
            trainer(tmp_path).fit(DeblurTask(network), crops(30))

    def test_failures_that_have_nothing_to_do_with_sizes_stay_as_they_are(self, tmp_path):
        class Broken(Fussy):
            def forward(self, image):
                raise RuntimeError("of another kind")

        class Grey(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Conv2d(1, 1, 1)

            def forward(self, image):
                return self.layer(image)

        with pytest.raises(RuntimeError, match=r"^of another kind$"):
            trainer(tmp_path).fit(DeblurTask(Broken()), crops(64))
        with pytest.raises(RuntimeError, match=r"^Given groups=1.* channels"):
            trainer(tmp_path).fit(DeblurTask(Grey()), crops(64))
