from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from reblurkit import Blur2BlurTranslator
from reblurkit.blur import MotionBlur, RealisticBlur, ShakeBlur
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.plugins.datamodules.synthetic import SyntheticBlurDataModule

CLEAN = {"shot": 0.0, "read": 0.0}


def decoded(image):
    return torch.where(image > 0.04045, ((image + 0.055) / 1.055) ** 2.4, image / 12.92)


def encoded(light):
    return torch.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


@pytest.fixture
def photo():
    """Without saturated pixels."""
    return 0.9 * torch.from_numpy(data.astronaut()[:96, :120].copy()).permute(2, 0, 1)[None].double() / 255


@pytest.mark.parametrize("motion", [MotionBlur(largest=5), ShakeBlur(9)])
def test_without_noise_and_lights_it_is_the_motion(photo, motion):
    realistic = RealisticBlur(motion, **CLEAN)
    drawn = realistic.draw(1, torch.Generator().manual_seed(1))
    plain = motion.blur(photo, motion.draw(1, torch.Generator().manual_seed(1)))
    inner = (..., slice(10, -10), slice(10, -10))
    assert (realistic.blur(photo, drawn) - plain)[inner].abs().mean() < 0.006  # demosaicing, and half a level


def test_lights_leave_streaks_as_bright_as_they_are():
    """One saturated row of a dark image, blurred by three pixels downwards: 1/3 of light, and alpha/3 of the mask."""
    image = torch.full((1, 3, 40, 40), 0.1, dtype=torch.float64)
    image[:, :, 20] = 1
    motion = ShakeBlur(3)
    kernel = torch.zeros(1, 3, 3, dtype=torch.float64)
    kernel[0, :, 1] = 1 / 3
    seed = torch.tensor([[7.0]], dtype=torch.float64)
    drawn = torch.cat([kernel.flatten(1), seed], 1)
    for alpha in (0.0, 0.5, 1.75, 3.0):
        blurry = RealisticBlur(motion, (alpha, alpha), **CLEAN).blur(image, drawn)
        dark = decoded(torch.tensor(0.1, dtype=torch.float64))
        expected = encoded((dark * 2 / 3 + 1 / 3 + alpha / 3).clamp(max=1))
        for row in (19, 20, 21):  # demosaicing rings at so hard an edge
            assert blurry[0, :, row, 10:-10].mean().item() == pytest.approx(expected.item(), abs=0.09)
    assert (blurry[0, :, 20, 10:-10] == 1).all(), "what is saturated has no noise"


def test_saturated_pixels_have_no_noise():
    image = torch.ones(1, 3, 30, 30)
    assert (RealisticBlur(shot=0.5, read=0.5)(image) == 1).all()


def test_noise_grows_with_its_options(photo):
    drawn = RealisticBlur().draw(1, torch.Generator().manual_seed(0))
    clean, weak, strong = (RealisticBlur(shot=shot, read=0).blur(photo, drawn) for shot in (0.0, 0.01, 0.05))
    assert 0 < 4 * (weak - clean).abs().mean() < (strong - clean).abs().mean() * 1.2


def test_frames_are_averaged_in_linear_light():
    levels = torch.linspace(0.05, 0.9, 5, dtype=torch.float64)
    frames = levels.view(1, 5, 1, 1, 1).expand(2, 5, 3, 16, 16)
    blurry = RealisticBlur(**CLEAN)(frames)
    expected = encoded(decoded(levels).mean())
    assert blurry.shape == (2, 3, 16, 16)
    np.testing.assert_allclose(blurry, expected, atol=0.51 / 255)


def test_output_is_of_8_bits(photo):
    levels = 255 * RealisticBlur(seed=0)(photo)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)


def test_loaders_and_translators_take_it(photo, tmp_path):
    from reblurkit.data import write_image

    for index in range(2):
        write_image(photo[0].float(), tmp_path / f"{index}.png")
    data_module = SyntheticBlurDataModule(
        tmp_path, val_root=tmp_path, blur=[RealisticBlur(ShakeBlur(5))], noise=False, crop=32, num_workers=0
    )
    data_module.setup("fit")
    batch = data_module.on_after_batch_transfer(next(iter(data_module.train_dataloader())), 0)
    assert batch["blurry"].shape == (16, 3, 32, 32)
    assert not torch.equal(batch["blurry"], batch["sharp"])
    translator = Blur2BlurTranslator(torch.nn.Conv2d(3, 3, 1), known_blur=RealisticBlur(ShakeBlur(5)))
    real = translator._real({"sharp": photo.float()})
    assert real.shape == photo.shape


def test_wrong_input():
    with pytest.raises(ArgumentError, match=r"`motion` must be a random blur, such as MotionBlur\(\), but is 3"):
        RealisticBlur(3)
    with pytest.raises(ArgumentError, match="`saturation` must be two numbers from 0, the smaller"):
        RealisticBlur(saturation=(2.0, 1.0))
    with pytest.raises(ArgumentError, match=r"`shot` must be a number in \[0, 1\]"):
        RealisticBlur(shot=-1)
    for shape in ((1, 1, 8, 8), (1, 5, 1, 8, 8)):
        with pytest.raises(ShapeError, match=r"expected RGB images \(B, 3, H, W\) or clips"):
            RealisticBlur()(torch.rand(shape))
    with pytest.raises(ShapeError):
        RealisticBlur()(torch.rand(3, 8, 8))
    with pytest.raises(ArgumentError):
        RealisticBlur()("photo.png")
