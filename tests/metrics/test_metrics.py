"""Metrics against scikit-image and hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from reblurkit.data import DemoPhotos, read_image
from reblurkit.errors import ShapeError
from reblurkit.metrics import PSNR, SSIM, GradientStatistics, ReblurPSNR


def reference_psnr(preds, target):
    return peak_signal_noise_ratio(array(target), array(preds), data_range=1)


def reference_ssim(preds, target):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(array(preds), array(target), data_range=1, channel_axis=-1, **options)


def array(image):
    return image.double().permute(1, 2, 0).numpy()


REFERENCES = [(PSNR, reference_psnr), (SSIM, reference_ssim)]


@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_equals_scikit_image_on_random_pairs(metric, reference):
    sizes = np.random.default_rng(0).integers(11, 60, (20, 2))
    pairs = [(torch.rand(3, *size), torch.rand(3, *size)) for size in sizes.tolist()]
    pairs = [(target + 0.2 * (preds - target), target) for preds, target in pairs]
    ours = metric()
    for preds, target in pairs:
        ours.update(preds[None], target[None])
    assert ours.compute().item() == pytest.approx(np.mean([reference(*pair) for pair in pairs]), abs=1e-6)


@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_equals_scikit_image_on_photos(metric, reference):
    for photo in (DemoPhotos("test")[index] for index in range(2)):
        ours = metric()
        ours.update(photo["blurry"][None], photo["sharp"][None])
        assert ours.compute().item() == pytest.approx(reference(photo["blurry"], photo["sharp"]), abs=1e-6)


@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_equals_scikit_image_on_gopro(shared_data, metric, reference):
    pairs = [f"gopro_{name}" for name in ("cu", "flower")] + [
        f"patches_gopro/{n}" for n in ("001", "010", "100", "125")
    ]
    for pair in pairs:
        folder, _, name = pair.rpartition("/")
        blurry, sharp = (
            read_image(shared_data / "pairs" / folder / f"{kind}_{name}.png") for kind in ("blur", "sharp")
        )
        ours = metric()
        ours.update(blurry[None], sharp[None])
        assert ours.compute().item() == pytest.approx(reference(blurry, sharp), abs=1e-6)


@pytest.mark.parametrize("metric", [PSNR, SSIM, GradientStatistics])
def test_the_batch_size_does_not_matter(metric):
    preds, target = torch.rand(2, 5, 3, 16, 20)
    whole, parts = metric(), metric()
    whole.update(preds, target)
    for index in range(5):
        parts.update(preds[index : index + 1], target[index : index + 1])
    torch.testing.assert_close(parts.compute(), whole.compute(), rtol=1e-12, atol=0)


def test_psnr_is_the_mean_over_images_not_of_the_pooled_error():
    target = torch.zeros(2, 3, 4, 4)
    preds = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    psnr = PSNR()
    psnr.update(preds, target)
    assert psnr.compute().item() == pytest.approx((20 + 40) / 2, abs=1e-5)


def test_identical_images_count_as_100_db():
    image, psnr = torch.rand(1, 3, 4, 4), PSNR()
    psnr.update(image, image)
    assert psnr.compute() == 100


def test_quantized_psnr_is_that_of_8_bit_files():
    preds, target = torch.rand(2, 1, 3, 16, 16) * 1.2 - 0.1
    psnr = PSNR(quantize=True)
    psnr.update(preds, target)
    saved = [(image[0].clamp(0, 1) * 255).round().byte().numpy() for image in (preds, target)]
    assert psnr.compute().item() == pytest.approx(peak_signal_noise_ratio(saved[1], saved[0]), abs=1e-9)


def test_reblur_psnr_is_lower_for_better_images():
    assert PSNR.higher_is_better
    assert not ReblurPSNR.higher_is_better


def test_gradient_distance_is_the_wasserstein_distance():
    preds, target = torch.rand(2, 1, 1, 9, 8, dtype=torch.float64)

    def magnitudes(image):
        image = image[0, 0].numpy()
        return np.hypot(np.diff(image, axis=0)[:, :-1], np.diff(image, axis=1)[:-1]).ravel()

    statistics = GradientStatistics()
    statistics.update(preds, target)
    values = statistics.compute()
    expected = wasserstein_distance(magnitudes(preds), magnitudes(target))
    assert values["gradient_distance"].item() == pytest.approx(expected, rel=1e-12)
    expected = magnitudes(preds).mean() / magnitudes(target).mean()
    assert values["gradient_ratio"].item() == pytest.approx(expected, rel=1e-12)


def test_gradient_statistics_see_blur_and_noise():
    photo = DemoPhotos("test")[0]["sharp"][None]
    values = {}
    blurred = torch.nn.functional.avg_pool2d(photo, 5, 1, 2)
    noisy = photo + 0.1 * torch.randn_like(photo)
    for name, image in {"same": photo, "blurred": blurred, "noisy": noisy}.items():
        statistics = GradientStatistics()
        statistics.update(image, photo)
        values[name] = statistics.compute()
    assert values["same"] == {"gradient_ratio": 1, "gradient_distance": 0}
    assert values["blurred"]["gradient_ratio"] < 0.6
    assert values["noisy"]["gradient_ratio"] > 1.5
    assert min(values[name]["gradient_distance"] for name in ("blurred", "noisy")) > 0.01


def test_flat_images_have_equal_gradients():
    flat, statistics = torch.full((1, 3, 4, 4), 0.5), GradientStatistics()
    statistics.update(flat, flat)
    assert statistics.compute()["gradient_ratio"] == 1


def test_wrong_input():
    with pytest.raises(ShapeError, match="at least 11 x 11 pixels, but came"):
        SSIM().update(torch.rand(1, 3, 10, 20), torch.rand(1, 3, 10, 20))
    with pytest.raises(ShapeError, match="same shape"):
        PSNR().update(torch.rand(1, 3, 10, 20), torch.rand(1, 3, 10, 21))
    with pytest.raises(ShapeError, match="at least 2 x 2"):
        GradientStatistics().update(torch.rand(1, 3, 1, 20), torch.rand(1, 3, 1, 20))
