from __future__ import annotations

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.losses import CharbonnierLoss, FrequencyLoss, LogMSELoss, MultiScaleLoss


def test_charbonnier_is_the_mean_of_its_formula():
    a, b = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64)
    expected = ((a - b) ** 2 + 0.01**2).sqrt().mean()
    torch.testing.assert_close(CharbonnierLoss(0.01)(a, b), expected, rtol=1e-14, atol=0)


def test_log_mse_is_minus_the_psnr_of_each_image():
    """Of scikit-image; a mean over images, not the PSNR of the batch; the floor bounds what near images count."""
    deblurred, sharp = torch.rand(3, 3, 9, 7, dtype=torch.float64), torch.rand(3, 3, 9, 7, dtype=torch.float64)
    deblurred[1] = sharp[1] + 0.01 * deblurred[1]
    psnr = [peak_signal_noise_ratio(s.numpy(), d.numpy(), data_range=1) for s, d in zip(sharp, deblurred, strict=True)]
    assert LogMSELoss(floor=1e-12)(deblurred, sharp).item() == pytest.approx(-sum(psnr) / 3, rel=1e-6)
    assert LogMSELoss(floor=1e-4)(sharp, sharp).item() == pytest.approx(-40)
    with pytest.raises(ArgumentError, match="`floor` must be a finite number greater than 0"):
        LogMSELoss(floor=0)


def test_frequency_loss_is_the_l1_distance_of_stacked_coefficients():
    a, b = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64)
    stacked = [torch.stack([f.real, f.imag], -1) for f in (torch.fft.fft2(a), torch.fft.fft2(b))]
    expected = torch.nn.functional.l1_loss(*stacked)
    torch.testing.assert_close(FrequencyLoss()(a, b), expected, rtol=1e-12, atol=0)


def test_frequency_loss_takes_half_precision():
    image = torch.rand(1, 3, 8, 8)
    assert FrequencyLoss()(image.half(), image.half() / 2).isfinite()


@pytest.mark.parametrize("loss", [CharbonnierLoss(0.1), FrequencyLoss(), LogMSELoss()])
def test_gradients(loss):
    a, b = torch.rand(2, 1, 2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, b), a.requires_grad_())


def test_epsilon_must_be_positive():
    with pytest.raises(ArgumentError, match="greater than 0, but is 0"):
        CharbonnierLoss(0)


def test_multi_scale_loss_sums_over_bilinear_pyramids():
    sharp = torch.rand(2, 3, 8, 12)
    scales = [torch.rand(2, 3, 2, 3), torch.rand(2, 3, 4, 6), torch.rand(2, 3, 8, 12)]
    # Bilinear with half-pixel centres: at half size the mean of 2 x 2 pixels, at a quarter of the inner 2 x 2 of 4 x 4.
    half = (sharp[..., ::2, ::2] + sharp[..., 1::2, ::2] + sharp[..., ::2, 1::2] + sharp[..., 1::2, 1::2]) / 4
    inner = [sharp[..., y::4, x::4] for y in (1, 2) for x in (1, 2)]
    expected = (scales[0] - sum(inner) / 4).abs().mean() + (scales[1] - half).abs().mean()
    expected = expected + (scales[2] - sharp).abs().mean()
    torch.testing.assert_close(MultiScaleLoss()(scales, sharp), expected)
    torch.testing.assert_close(MultiScaleLoss(nn.MSELoss())(scales[2], sharp), nn.MSELoss()(scales[2], sharp))


@pytest.mark.parametrize("loss", [CharbonnierLoss(), FrequencyLoss(), MultiScaleLoss()])
def test_images_that_do_not_fit(loss):
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ShapeError, match="shape"):
        loss(image, image[:, :1])  # would be broadcast
    with pytest.raises(ArgumentError, match="floating point"):
        loss((255 * image).byte(), (255 * image).byte())  # would wrap around
    with pytest.raises(ArgumentError, match="list"):
        loss([], image)


@pytest.mark.parametrize("loss", [CharbonnierLoss(), FrequencyLoss()])
def test_scales_go_to_the_loss_that_takes_them(loss):
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ArgumentError, match="MultiScaleLoss"):
        loss([image, image], image)
    assert MultiScaleLoss(loss)([image, image], image) >= 0
