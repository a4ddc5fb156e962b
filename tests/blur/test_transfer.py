"""Blur from a known pair: what is computed, what is kept away from training, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reblurkit.blur import BlurTransfer, ShakeBlur
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models.kernel_wizard import KernelWizard


@pytest.fixture
def wizard():
    return KernelWizard(4, 8, front_blocks=1, back_blocks=1)


def test_the_code_of_the_pair_on_the_sharp_image(wizard):
    sharp, known_blurry, known_sharp = torch.rand(3, 2, 3, 256, 256)
    with torch.no_grad():
        expected = wizard.blur(sharp, wizard.kernel(known_sharp, known_blurry))
    assert ((expected < 0) | (expected > 1)).any()
    blurry = BlurTransfer(wizard)(sharp.requires_grad_(), known_blurry, known_sharp)
    torch.testing.assert_close(blurry, expected.clamp(0, 1), rtol=0, atol=0)
    assert not blurry.requires_grad
    one = BlurTransfer(wizard)(sharp[1:], known_blurry[1:], known_sharp[1:])
    torch.testing.assert_close(one, blurry[1:])


def test_the_network_is_no_part_of_who_uses_it(wizard, tmp_path):
    transfer = BlurTransfer(wizard.train())
    assert not list(transfer.parameters())
    assert not transfer.state_dict()
    assert wizard.training, "the user's network stays as it is"
    torch.save(wizard.state_dict(), tmp_path / "wizard.pth")
    again = BlurTransfer(KernelWizard(4, 8, front_blocks=1, back_blocks=1), weights=tmp_path / "wizard.pth")
    images = torch.rand(3, 1, 3, 256, 256)
    torch.testing.assert_close(again(*images), transfer(*images), rtol=0, atol=0)
    assert again(*images.double()).dtype == torch.float64


def test_bad_images(wizard):
    transfer = BlurTransfer(wizard)
    image = torch.rand(1, 3, 256, 256)
    with pytest.raises(ShapeError, match=r"divide by 128.*256 x 256.*or use ShakeBlur"):
        transfer(*torch.rand(3, 1, 3, 256, 300))
    with pytest.raises(ShapeError, match="at least 256"):
        transfer(*torch.rand(3, 1, 3, 128, 128))
    with pytest.raises(ShapeError, match="`sharp` and `known_sharp` must have the same shape"):
        transfer(image, image, image[..., :128, :])
    with pytest.raises(ArgumentError, match=r"kernel\(sharp, blurry\).*but is Conv2d"):
        BlurTransfer(nn.Conv2d(3, 3, 1))


def test_the_border_of_camera_shake():
    """Beyond it a change of what lies outside the image cannot be seen."""
    blur = ShakeBlur(9, 0.5, seed=3, linear=False)
    large = torch.rand(1, 1, 40, 40)
    kernel_seed = torch.Generator().manual_seed(0)
    whole = blur(large, kernel_seed)[..., 10:30, 10:30]
    part = blur(large[..., 10:30, 10:30], kernel_seed.manual_seed(0))
    inner = slice(blur.border, -blur.border)
    torch.testing.assert_close(part[..., inner, inner], whole[..., inner, inner])
    assert not torch.allclose(part, whole)
