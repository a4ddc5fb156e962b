"""Colour shift, and scores of sequences whose order of time is unknown."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.metrics import PSNR, SSIM, ColourShift, MaxOverOrder


def test_colour_shift_is_that_of_the_worst_channel():
    image = torch.rand(2, 3, 8, 9) * 0.5
    moved = image + torch.tensor([[0.0, -0.02, 0.01], [0.03, 0.0, 0.0]])[..., None, None]
    shift = ColourShift()
    shift.update(moved, image)
    assert shift.compute().item() == pytest.approx(255 * (0.02 + 0.03) / 2, rel=1e-5)


def test_the_better_order_of_each_clip():
    target = torch.rand(2, 4, 3, 12, 12)
    preds = (target + 0.05 * torch.randn(target.shape)).clamp(0, 1)
    preds[1] = preds[1].flip(0)  # the second clip came out backwards
    metric = MaxOverOrder(PSNR())
    metric.update(preds, target)

    def psnr(image, truth):
        return peak_signal_noise_ratio(truth.numpy(), image.numpy(), data_range=1)

    clips = [
        max(
            sum(peak_signal_noise_ratio(t.numpy(), p.numpy(), data_range=1) for p, t in zip(order, clip, strict=True))
            / 4
            for order in (pred, pred.flip(0))
        )
        for pred, clip in zip(preds, target, strict=True)
    ]
    assert metric.compute().item() == pytest.approx(sum(clips) / 2, rel=1e-5)
    plain = PSNR()
    plain.update(preds.flatten(0, 1), target.flatten(0, 1))
    assert metric.compute() > plain.compute() + 3


def test_of_single_images_it_is_the_plain_score():
    preds, target = torch.rand(2, 3, 3, 16, 16)
    metric, plain = MaxOverOrder(SSIM()), SSIM()
    metric.update(preds[:, None], target[:, None])
    plain.update(preds, target)
    torch.testing.assert_close(metric.compute(), plain.compute())


def test_bad_input():
    with pytest.raises(ShapeError, match="clips"):
        MaxOverOrder(PSNR()).update(*torch.rand(2, 1, 3, 8, 8))
    with pytest.raises(ArgumentError, match="larger is better"):
        MaxOverOrder(ColourShift())
